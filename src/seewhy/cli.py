"""The command line: explain, compare, layers, methods."""

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from tqdm import tqdm

import seewhy
from seewhy.console import answer_of, complain, say, table, tell, tell_notes
from seewhy.delegates.listed import DELEGATES
from seewhy.flags import (
    Align,
    AsJson,
    Device,
    Labels,
    Layer,
    Layout,
    Model,
    Out,
    Output,
    Photo,
    Photos,
    Signed,
    Weights,
    class_of,
    distinct,
    loaded_on,
    names_in,
    options_of,
    output_of,
    places,
    rectified,
    single,
)
from seewhy.registry import METHODS
from seewhy.saving import json_text, release
from seewhy.targets.ranked import Rank
from seewhy.types import SeewhyError
from seewhy.wording import by

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)


def _print_version(wanted: bool) -> bool:
    if wanted:
        say(f"seewhy {release()}")
        raise typer.Exit
    return wanted


@app.callback()
def seewhy_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Why did the model say that? Heat maps for vision models."""


@app.command()
def explain(
    photos: Photos,
    model: Model = "efficientnet_lite0",
    weights: Weights = None,
    labels: Labels = None,
    device: Device = "cpu",
    target: Annotated[list[str] | None, typer.Option(help="A class by label, or by index; the predicted one.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="See: seewhy methods. Without it, grad_cam.")] = None,
    layer: Layer = None,
    layout: Layout = None,
    output: Output = None,
    out: Out = Path("explained"),
    topk: Annotated[int, typer.Option(min=1, help="Explain this many of the likeliest classes.")] = 1,
    align: Align = "measured",
    signed: Signed = False,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of the method, such as channels=64.")
    ] = None,
    boxes: Annotated[bool, typer.Option("--boxes", help="Draw the box of the heat above 15 % of its maximum.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write, for each photo, a picture of why the model said what it said."""
    asked, way = single(target, "--target"), single(method, "--method", "grad_cam") or "grad_cam"
    if asked is not None and topk > 1:
        raise seewhy.TargetError("--target names one class and --topk asks for several; give one of the two")
    loaded = loaded_on(model, weights, device, labels)
    questions = [class_of(asked)] if asked is not None else [Rank(place) for place in places(topk, loaded)]
    explained = partial(
        *(seewhy.compare, loaded),
        targets=questions,
        methods=[way],
        layers=[None if layer is None else names_in(layer, "--layer")],
        options=options_of(option or [], [way]),
        rectify=rectified(signed),
        align=align,
        layout=layout,
        output=output_of(output),
    )
    manifests: list[dict[str, Any]] = []
    failed, names, told = 0, set[str](), set[str]()
    for source in _with_progress(photos):
        try:
            photo = distinct(seewhy.read(source), source, names)
            answers = explained(photo)
        except (seewhy.ImageError, seewhy.ShapeError) as error:  # of this photo alone: the others go on
            failed += 1
            complain(error)
            continue
        for answer in answers:
            files = answer.save(out, boxes=boxes)
            if as_json:
                manifests.append({"photo": source, **_saved(files[-1]), "files": [str(file) for file in files]})
            else:
                tell(answer, files, told)
    if as_json:
        say(json_text(manifests).rstrip())
    _conclude(failed, len(photos))


@app.command()
def compare(
    photo: Photo,
    methods: Annotated[
        list[str] | None,
        typer.Option(help="Methods with commas between. Without it, grad_cam,layer_cam,hires_cam."),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            help="Classes by label or index, with commas between; the predicted one. "
            "A class whose label holds a comma is named by one of its synonyms, or its index."
        ),
    ] = None,
    layers: Annotated[list[str] | None, typer.Option(help="Layers with commas between; found by itself.")] = None,
    model: Model = "efficientnet_lite0",
    weights: Weights = None,
    labels: Labels = None,
    device: Device = "cpu",
    layout: Layout = None,
    output: Output = None,
    out: Out = Path("explained"),
    align: Align = "measured",
    signed: Signed = False,
    option: Annotated[
        list[str] | None, typer.Option(metavar="METHOD.NAME=VALUE", help="Such as score_cam.channels=64.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one figure of several methods, classes or layers side by side."""
    loaded = loaded_on(model, weights, device, labels)
    ways = names_in(methods or ["grad_cam,layer_cam,hires_cam"], "--methods")
    answers = seewhy.compare(
        *(loaded, photo),
        targets=[None] if targets is None else [class_of(each) for each in names_in(targets, "--targets")],
        methods=ways,
        layers=[None] if layers is None else names_in(layers, "--layers"),
        options=options_of(option or [], ways),
        rectify=rectified(signed),
        align=align,
        layout=layout,
        output=output_of(output),
    )
    files = answers.save(out)
    if as_json:
        say(json_text({"photo": photo, "explanations": _saved(files[-1]), "files": [str(file) for file in files]}))
        return
    table(
        ("class", "", "method", "layer"),
        [(*answer_of(each), each.title, ", ".join(each.layers)) for each in answers],
    )
    tell_notes(note for answer in answers for note in answer.notes)
    say(f"  figure: {files[0]}")


@app.command()
def layers(
    photo: Annotated[
        str | None, typer.Argument(metavar="[PHOTO]", help="Its content does not matter; a bundled one.")
    ] = None,
    model: Model = "efficientnet_lite0",
    weights: Weights = None,
    device: Device = "cpu",
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """List the layers that a map can be made of, and which one is chosen by itself."""
    loaded = loaded_on(model, weights, device)
    candidates = seewhy.layers(loaded, "skimage:chelsea" if photo is None else photo, output=output_of(output))
    if as_json:
        say(json_text([{**asdict(each), "layout": str(each.layout)} for each in candidates]))
        return
    table(
        ("", "layer", "grid", "axes", "gradient on the grid"),
        [
            (
                "*" if each.chosen else "",
                each.name,
                by(each.grid),
                str(each.layout),
                f"{each.gradient_share:.0%}",
            )
            for each in candidates
        ],
    )
    say("* chosen where no --layer is given")


@app.command()
def methods(
    long: Annotated[bool, typer.Option("--long", help="Say of each what it cannot do.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the methods: what each needs, whether it looks at the class, what it costs, and its paper."""
    every = [*METHODS.values(), *DELEGATES.values()]
    if as_json:
        facts = ("name", "title", "class_specific", "signed", "cost", "paper", "weakness")
        say(
            json_text([{fact: getattr(m, fact) for fact in facts} | {"needs": seewhy.needs(m.function)} for m in every])
        )
        return
    rows = [(m.name, m.family, "yes" if m.class_specific else "no", m.cost, m.paper) for m in every]
    remarks = [f"needs {', '.join(seewhy.needs(m.function))}; weakness: {m.weakness}" for m in every] if long else []
    table(("method", "family", "by class", "cost", "paper"), rows, remarks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; what a user can mend is told in one sentence, with exit code 2."""
    for stream in (sys.stdout, sys.stderr):  # a file's name may hold bytes that are no text
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    # last, so that no file in a folder of photos is imported in place of an installed package
    sys.path.append(str(Path.cwd()))
    usage = cast(type[Exception], typer.BadParameter.__mro__[1])  # click's, or the copy of it that newer typers have
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", seewhy.MapWarning)  # each stands in the notes, which are printed
            return app(given, prog_name="seewhy", standalone_mode=False) or 0
    except usage as error:
        message = cast(Any, error).format_message().rstrip(".")
        complain(f"{message[:1].lower()}{message[1:]}; see seewhy --help")
    except SeewhyError as error:
        complain(error)
    return 2


def _with_progress(photos: Sequence[str]) -> Iterator[str]:
    yield from tqdm(photos, unit="photo", disable=len(photos) == 1 or not sys.stderr.isatty(), file=sys.stderr)


def _saved(manifest: Path) -> Any:
    """What was just saved: to compute it again would carry every map to its photo again."""
    return json.loads(manifest.read_text())


def _conclude(failed: int, of: int) -> None:
    if not failed:
        return
    if of > 1:
        complain(f"{failed} of {of} photos could not be explained")
    raise typer.Exit(2 if failed == of else 1)
