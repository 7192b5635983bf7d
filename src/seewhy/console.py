"""What the command line prints: sentences, tables, answers, complaints."""

import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from shutil import get_terminal_size

from tqdm import tqdm

from seewhy.explanation import Explanation
from seewhy.types import OutputError

_IN_PYTHON = {
    r"seewhy\.layers\(model, images\)": "seewhy layers",
    r"rectify=False": "--signed",
    r"ask Region\(class\).*": "name a class by --target",
    r"\b(output|labels|weights|layout|layer)=(?:\.\.\.)?(?=\S)": r"--\1 ",
    r"\b(output|labels|weights|layout|layer)=(?:\.\.\.)?": r"--\1",
}
"""Ways out as Python has them, and what they are called on the command line."""


def complain(what: object) -> None:
    """Tell on stderr what went wrong, with ways out that a command line has."""
    text = str(what)
    for python, command in _IN_PYTHON.items():
        text = re.sub(python, command, text)
    tqdm.write(f"seewhy: {text}".rstrip(), file=sys.stderr)


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


def tell(answer: Explanation, files: Sequence[Path], told: set[str]) -> None:
    """What was answered, with those notes that did not stand below an earlier photo; they are added to `told`."""
    say(f"{answer[0].name}: {'  '.join(filter(None, answer_of(answer)))}")
    tell_notes(note for note in answer.notes if note not in told)
    say(f"  overlay: {files[0]}")
    told |= {note for note in answer.notes if not note.startswith("image 0: ")}  # which is about this photo alone


def answer_of(answer: Explanation) -> tuple[str, str]:
    """The class, and its probability where there is one."""
    (probability,) = answer.probabilities
    return answer.target[0], "" if probability is None else f"{100 * probability:.1f} %"


def tell_notes(notes: Iterable[str]) -> None:
    """Each note once."""
    for note in dict.fromkeys(notes):
        say(f"  {note}")
