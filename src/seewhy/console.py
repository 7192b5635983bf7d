"""What the command line prints: sentences, tables, complaints."""

import sys
import textwrap
from collections.abc import Sequence
from shutil import get_terminal_size

from tqdm import tqdm

from seewhy.types import OutputError


def complain(what: object) -> None:
    """Tell on stderr what went wrong."""
    tqdm.write(f"seewhy: {what}", file=sys.stderr)


def say(text: str) -> None:
    """Print, past a progress bar that may be running.

    Raises:
        OutputError: there is no room, as on a full disk.
    """
    try:
        tqdm.write(text.rstrip("\n"), file=sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has enough: typer ends quietly
        raise
    except OSError as error:
        raise OutputError(f"cannot print ({error.strerror}); send the output where there is room") from error


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], remarks: Sequence[str] = ()) -> None:
    """Columns as wide as they need, the last one wrapped to the terminal (120 letters if piped)."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads) - 1)]
    width = min(get_terminal_size((120, 24)).columns, 120)
    left = sum(widths) + 2 * len(widths)
    for number, row in enumerate((heads, *rows)):
        cells = "".join(f"{cell:{space}}  " for cell, space in zip(row[:-1], widths, strict=True))
        last = textwrap.fill(row[-1], max(width - left, 24)).replace("\n", "\n" + " " * left)
        say(f"{cells}{last}".rstrip())
        if number and remarks:
            say(textwrap.indent(textwrap.fill(remarks[number - 1], width - 4, break_on_hyphens=False), "    "))
