"""What the command line is given: its flags, and what the words after them mean."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import seewhy
from seewhy.saving import file_name
from seewhy.zoo.loaded import spelled

Photos = Annotated[
    list[str], typer.Argument(metavar="PHOTO...", help="Files, or skimage:chelsea and the like for bundled photos.")
]
Photo = Annotated[str, typer.Argument(metavar="PHOTO", help="A file, or skimage:chelsea for a bundled photo.")]
Model = Annotated[str, typer.Option(help=f"The default, {spelled()}.")]
Weights = Annotated[Path | None, typer.Option(help="A local file of weights (safetensors, or tensors saved by torch).")]
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1, mps.")]
Layer = Annotated[
    list[str] | None,
    typer.Option(help="A layer's name, or several with commas between, which are fused; found by itself."),
]
Labels = Annotated[Path | None, typer.Option(help="A .txt or .json file with the names of the classes, in order.")]
Output = Annotated[
    str | None, typer.Option(help="Where the scores are in the output, such as logits, 1, or out,0 where it is nested.")
]
Layout = Annotated[str | None, typer.Option(help="The axes of a named layer that cannot be inferred, as in 'b n c'.")]
Out = Annotated[Path, typer.Option(help="The folder for the results; made if it is missing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Align = Annotated[str, typer.Option(help="Where a cell looks: measured, analytic or tile.")]
Signed = Annotated[bool, typer.Option("--signed", help="The signed map: red speaks for the class, blue against it.")]


def loaded_on(model: str, weights: Path | None, device: str, labels: Path | None = None) -> seewhy.Loaded:
    """The model on its device, which is tried out first: loading may take long.

    Raises:
        ModelError: the device is not there, or it is not known how photos become inputs; and as `load`.
    """
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # torch raises the latter where it was built without the device
        reason = str(error).partition("\n")[0].rstrip(".")
        raise seewhy.ModelError(
            f"cannot compute on the device {device!r} ({reason}); the model runs where torch can; try --device cpu"
        ) from error
    loaded = seewhy.load(model, weights=weights, labels=labels)
    if loaded.preprocess is None:
        reason = next(iter(loaded.preprocess_notes), "a bare network does not tell").partition(";")[0]
        raise seewhy.ModelError(
            f"it is not known how photos become inputs of {model} ({reason}); name a function of your own as --model "
            "package.module:factory, which returns seewhy.Loaded(net, seewhy.Preprocess(size=...), labels, 'name')"
        )
    return replace(loaded, module=loaded.module.to(device))


def places(topk: int, loaded: seewhy.Loaded) -> range:
    """The places of the likeliest classes, from 1 on.

    Raises:
        TargetError: more than there are classes.
    """
    if loaded.labels is not None and topk > len(loaded.labels):
        raise seewhy.TargetError(
            f"got --topk {topk} for a model of {len(loaded.labels)} classes; ask for at most as many"
        )
    return range(1, topk + 1)


def rectified(signed: bool) -> bool | None:
    """`--signed` as `explain` calls it; without it, as in the method's paper."""
    return False if signed else None


def option_of(text: str) -> tuple[str, Any]:
    """Name and value; a value is a number, true, false or null as JSON has them, or else a word.

    Raises:
        MethodError: there is no "=".
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise seewhy.MethodError(f"got --option {text!r}; write NAME=VALUE, such as channels=64")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def options_of(texts: Sequence[str], methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For each method its options: `NAME=VALUE` of a single one, `METHOD.NAME=VALUE` of several.

    Raises:
        MethodError: an option of none of the methods.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, value = option_of(text)
        method, dot, own = name.rpartition(".")
        if not dot and len(methods) == 1:
            method = methods[0]
        if method not in methods:
            raise seewhy.MethodError(
                f"got --option {text!r} for {' and '.join(methods)}; write METHOD.NAME=VALUE, such as "
                f"{methods[0]}.{own}={value}"
            )
        found.setdefault(method, {})[own] = value
    return found


def output_of(text: str | None) -> tuple[str | int, ...] | None:
    """Keys and indices with commas between."""
    return None if text is None else tuple(int(step) if step.isdecimal() else step for step in text.split(","))


def single(texts: Sequence[str] | None, option: str, default: str | None = None) -> str | None:
    """What was given once.

    Raises:
        MethodError: it was given several times, of which all but one would go unheard.
    """
    if texts and len(texts) > 1:
        raise seewhy.MethodError(
            f"got {option} {len(texts)} times; give it once, or use seewhy compare, which takes several"
        )
    return texts[0] if texts else default


def class_of(text: str) -> int | str:
    """A class by its index, or by its label."""
    return int(text) if text.removeprefix("-").isdecimal() else text


def names_in(texts: Sequence[str], option: str) -> list[str]:
    """Names with commas between, given once or several times; each once.

    Raises:
        MethodError: there is none.
    """
    parts = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    if not parts:
        raise seewhy.MethodError(f"got {texts[0]!r} for {option}; give at least one name, several with commas between")
    return list(dict.fromkeys(parts))


def distinct(photo: seewhy.Photo, source: str, names: set[str]) -> seewhy.Photo:
    """The photo under a name that no earlier one has, in any case of letters, so that no result is overwritten."""
    name, numbers = photo.name, count(2)
    while file_name(name).casefold() in names:
        name = file_name(photo.name, f"-{next(numbers)}")
    names.add(file_name(name).casefold())
    if name == photo.name:
        return photo
    return replace(photo, name=name, notes=(*photo.notes, f"this name is for {source}"))
