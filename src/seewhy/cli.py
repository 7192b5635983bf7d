"""The command line: explain, compare, layers, methods."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

import seewhy
from seewhy.explanation import Explanation
from seewhy.registry import METHODS
from seewhy.targets import Rank
from seewhy.types import SeewhyError

app = typer.Typer(
    help="Why did the model say that? Heat maps for vision models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Photos = Annotated[list[str], typer.Argument(help="Photos: files, or skimage:chelsea for a bundled one.")]
Photo = Annotated[str, typer.Argument(help="A photo: a file, or skimage:chelsea for a bundled one.")]
Model = Annotated[
    str, typer.Option(help="The default, timm:NAME, torchvision:NAME, hf:NAME or package.module:factory.")
]
Weights = Annotated[Path | None, typer.Option(help="A local file of weights (safetensors, or tensors saved by torch).")]
Layer = Annotated[str | None, typer.Option(help="A layer's name, or several with commas between; found by itself.")]
Out = Annotated[Path, typer.Option(help="The folder for the pictures.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the manifests as JSON, for programs.")]
Align = Annotated[str, typer.Option(help="Where a cell looks: measured, analytic or tile.")]


@app.command()
def explain(
    photos: Photos,
    model: Model = "efficientnet_lite0",
    weights: Weights = None,
    target: Annotated[str | None, typer.Option(help="A class by label or index; the predicted one.")] = None,
    method: Annotated[str, typer.Option(help="See: seewhy methods.")] = "grad_cam",
    layer: Layer = None,
    out: Out = Path("explained"),
    topk: Annotated[int, typer.Option(min=1, help="Explain this many of the likeliest classes.")] = 1,
    align: Align = "measured",
    as_json: AsJson = False,
) -> None:
    """Write, for each photo, a picture of why the model said what it said."""
    if target is not None and topk > 1:
        raise seewhy.TargetError("--target names one class and --topk asks for several; give one of the two")
    loaded = seewhy.load(model, weights=weights)
    questions = [_target(target)] if target is not None else [Rank(rank) for rank in range(1, topk + 1)]
    layers = [_listed(layer) if layer else None]
    manifests: list[dict[str, Any]] = []
    failed = 0
    for photo in _with_progress(photos):
        try:
            answers = seewhy.compare(loaded, photo, questions, [method], layers, align=align)
            for answer in answers:
                files = answer.save(out)
                manifests.append({**answer.to_dict(), "files": [str(file) for file in files]})
                if not as_json:
                    _say(answer, files)
        except seewhy.ImageError as error:
            if len(photos) == 1:
                raise
            failed += 1
            _complain(error)
    if as_json:
        typer.echo(json.dumps(manifests, indent=2))
    if failed:
        _complain(f"{failed} of {len(photos)} photos could not be explained")
        raise typer.Exit(2 if failed == len(photos) else 1)


@app.command()
def compare(
    photo: Photo,
    methods: Annotated[str, typer.Option(help="Methods with commas between.")] = "grad_cam,layer_cam,hires_cam",
    targets: Annotated[str | None, typer.Option(help="Classes with commas between; the predicted one.")] = None,
    layers: Annotated[str | None, typer.Option(help="Layers with commas between; found by itself.")] = None,
    model: Model = "efficientnet_lite0",
    weights: Weights = None,
    out: Out = Path("explained"),
    align: Align = "measured",
    as_json: AsJson = False,
) -> None:
    """Write one figure of several methods, classes or layers side by side."""
    loaded = seewhy.load(model, weights=weights)
    questions = [_target(each) for each in _listed(targets)] if targets else [None]
    answers = seewhy.compare(
        loaded, photo, questions, _listed(methods), _listed(layers) if layers else [None], align=align
    )
    files = answers.save(out)
    if as_json:
        typer.echo(json.dumps([each.to_dict() for each in answers], indent=2))
        return
    for answer in answers:
        typer.echo(f"{_title(answer)}  {answer.title}, {', '.join(answer.layers)}")
    _notes(note for answer in answers for note in answer.notes)
    typer.echo(f"figure: {files[0]}")


@app.command()
def layers(
    photo: Annotated[str, typer.Argument(help="A photo; its content does not matter.")] = "skimage:chelsea",
    model: Model = "efficientnet_lite0",
    weights: Weights = None,
    as_json: AsJson = False,
) -> None:
    """List the layers that a map can be made of, and which one is chosen by itself."""
    candidates = seewhy.layers(seewhy.load(model, weights=weights), photo)
    if as_json:
        typer.echo(json.dumps([{**asdict(each), "layout": str(each.layout)} for each in candidates], indent=2))
        return
    rows = [
        (
            "chosen" if each.chosen else "",
            each.name,
            "x".join(map(str, each.grid)),
            str(each.layout),
            f"{each.gradient_share:.3f}",
        )
        for each in candidates
    ]
    _table(("", "layer", "grid", "axes", "gradient share"), rows)


@app.command()
def methods(as_json: AsJson = False) -> None:
    """List the methods: what each needs, whether it looks at the class, what it costs, and its paper."""
    rows = [
        (m.name, ", ".join(seewhy.needs(m.function)), "yes" if m.class_specific else "no", m.cost, m.paper, m.weakness)
        for m in METHODS.values()
    ]
    heads = ("method", "needs", "class-specific", "cost", "paper", "weakness")
    if as_json:
        typer.echo(json.dumps([dict(zip(heads, row, strict=True)) for row in rows], indent=2))
    else:
        _table(heads, rows)


def main() -> None:
    """Run the command; what a user can mend is told in one sentence, with exit code 2."""
    try:
        app()
    except SeewhyError as error:
        _complain(error)
        sys.exit(2)


def _target(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _with_progress(photos: Sequence[str]) -> Iterator[str]:
    yield from tqdm(photos, unit="photo", disable=len(photos) == 1 or not sys.stderr.isatty(), file=sys.stderr)


def _say(answer: Explanation, files: Sequence[Path]) -> None:
    typer.echo(f"{answer[0].name}: {_title(answer)}")
    _notes(answer.notes)
    typer.echo(f"  overlay: {files[0]}")


def _title(answer: Explanation) -> str:
    return answer[0].caption()[0]


def _notes(notes: Iterable[str]) -> None:
    for note in dict.fromkeys(notes):
        typer.echo(f"  {note}")


def _complain(what: object) -> None:
    typer.echo(f"seewhy: {what}", err=True)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    for row in (heads, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
