"""What else could `sharp` be? Other tensors, other ways of joining them, other borders. Called by quality.py.

Collects the raw maps of both layers and of others once (a file for each network), and joins them in many ways. The
judge is honest: a variant is selected on half of the photos and reported on the other half, and the other way round.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import seewhy
from photos import Asked, asked, figures, network
from seewhy.methods.gradient import grad_cam, layer_cam
from seewhy.tensor import interpolation, resize, unit
from tables import RANKED, Maps, absolute, difference, mean, short, table

# by network: the last layer, the deepest rectified tensor of twice its grid (the rule), and others
LAYERS: dict[str, dict[str, str]] = {
    "MobileNetV2": {
        "last": "features", "rule": "features.14.conv.0", "block output": "features.13",
        "depthwise before": "features.13.conv.1", "expansion before": "features.13.conv.0",
        "four times the grid": "features.7.conv.0",
    },
    "EfficientNet-Lite0": {
        "last": "_swish@2", "rule": "_blocks.11._swish@1", "block output": "_blocks.10",
        "depthwise before": "_blocks.10._swish@2", "expansion before": "_blocks.10._swish@1",
        "four times the grid": "_blocks.5._swish@1",
    },
    "EfficientNet-Lite1": {
        "last": "_swish@2", "rule": "_blocks.15._swish@1", "block output": "_blocks.14",
        "depthwise before": "_blocks.14._swish@2", "expansion before": "_blocks.14._swish@1",
        "four times the grid": "_blocks.7._swish@1",
    },
    "EfficientNet-Lite2": {
        "last": "_swish@2", "rule": "_blocks.15._swish@1", "block output": "_blocks.14",
        "depthwise before": "_blocks.14._swish@2", "expansion before": "_blocks.14._swish@1",
        "four times the grid": "_blocks.7._swish@1",
    },
    "SqueezeNet 1.0": {"last": "classifier.2", "rule": "features.10", "before the classifier": "features"},
    "Tiny Darknet": {"last": "conv16", "rule": "conv10", "before the classifier": "conv15"},
}  # fmt: skip
COARSE = [name for name, layers in LAYERS.items() if "block output" in layers]


@dataclass(frozen=True)
class Layer:
    """Grad-CAM and LayerCAM of one layer for one pair, and at which cell each pixel of an axis reads."""

    grad: Float[Tensor, "1 h w"]
    layer: Float[Tensor, "1 h w"]
    positions: tuple[Float[Tensor, " y"], Float[Tensor, " x"]]

    def laid(self, map: Float[Tensor, "1 h w"], fade: float | None = None) -> Float[Tensor, "1 y x"]:
        """Over the picture. Beyond half a cell from the outermost ones, the map fades to zero within `fade` cells."""
        matrices = []
        for at, cells in zip(self.positions, map.shape[1:], strict=True):
            matrix = interpolation(at, cells)
            if fade is not None:
                beyond = torch.maximum(-at, at - (cells - 1)) - 0.5
                matrix = matrix * (1 - beyond / max(fade, 1e-6)).clamp(0, 1)[:, None]
            matrices.append(matrix)
        return resize(map, matrices)


Layers = Mapping[str, Layer]
Variant = Callable[[Layers], Float[Tensor, "1 y x"]]


def layers_of(loaded: seewhy.Loaded, question: Asked, names: Mapping[str, str]) -> dict[str, Layer]:
    """From one pass; where the pixels read is told by the upsampling of a ramp, continued beyond its ends."""
    found: dict[str, Layer] = {}

    def collect(
        activations_by_layer: Sequence[Tensor],
        gradients_by_layer: Sequence[Tensor],
        upsample_by_layer: Sequence[Callable[[Tensor], Tensor]],
    ) -> Tensor:
        for a, g, lay in zip(activations_by_layer, gradients_by_layer, upsample_by_layer, strict=True):
            rows, columns = (torch.arange(side, dtype=torch.float32) for side in a.shape[2:])
            ramps = (rows[:, None].expand(a.shape[2:]), columns.expand(a.shape[2:]))
            positions = tuple(_line(lay(ramp[None])[0].select(1 - axis, 0)) for axis, ramp in enumerate(ramps))
            found[str(len(found))] = Layer(grad_cam(a, g), layer_cam(a, g), positions)  # pyright: ignore
        return upsample_by_layer[-1](grad_cam(activations_by_layer[-1], gradients_by_layer[-1]))

    seewhy.explain(loaded, question.image, question.target, collect, list(names.values()))
    ran = [candidate.name for candidate in seewhy.layers(loaded, question.image)]
    order = sorted(names, key=lambda key: ran.index(names[key]))
    return dict(zip(order, found.values(), strict=True))


def _line(ramp: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The straight line that a clamped ramp follows in its middle."""
    middle = len(ramp) // 2
    step = (ramp[middle + 8] - ramp[middle - 8]) / 16
    return ramp[middle] + step * (torch.arange(len(ramp)) - middle)


def joined(
    layers: Layers,
    finer: Sequence[str] = ("rule",),
    how: str = "geometric",
    share: float = 0.5,
    fade: float | None = None,
    power: float = 1.0,
    blur: Sequence[str] = (),
) -> Float[Tensor, "1 y x"]:
    """Grad-CAM at the last layer with LayerCAM at finer ones, which have this share together."""
    coarse = alone(layers, "last", "grad", fade, "last" in blur)
    fine = [alone(layers, name, "layer", fade, name in blur) for name in finer]
    if how == "geometric":
        map = coarse ** (1 - share)
        for each in fine:
            map = map * each ** (share / len(fine))
    elif how == "arithmetic":
        map = (1 - share) * coarse + share * sum(fine) / len(fine)
    elif how == "minimum":
        map = torch.stack([coarse, *fine]).amin(0)
    else:  # harmonic
        map = (1 + len(fine)) / (1 / coarse.clamp_min(1e-6) + sum(1 / each.clamp_min(1e-6) for each in fine))
    return unit(map) ** power


def alone(
    layers: Layers, name: str, method: str, fade: float | None = None, blur: bool = False
) -> Float[Tensor, "1 y x"]:
    map = getattr(layers[name], method)
    if blur:  # 1/4, 1/2, 1/4 along each axis
        bells = [(0.5 - 0.25 * _distance(side)).clamp_min(0) for side in map.shape[1:]]
        map = resize(map, bells)
    return unit(layers[name].laid(map, fade))


def _distance(side: int) -> Float[Tensor, "side side"]:
    return (torch.arange(side)[:, None] - torch.arange(side)).abs().float()


def of_two_layer_cams(layers: Layers) -> Float[Tensor, "1 y x"]:
    return (alone(layers, "last", "layer") * alone(layers, "rule", "layer")).sqrt()


def variants(names: Sequence[str]) -> dict[str, Variant]:
    """The rule first; of networks with fine last grids there are fewer layers to try."""
    last = partial(alone, name="last", method="grad")
    found: dict[str, Variant] = {
        "the rule": joined,
        "Grad-CAM, last": last,
        "LayerCAM, finer": partial(alone, name="rule", method="layer"),
        "LayerCAM at both": of_two_layer_cams,
    }
    others = [name for name in names if name not in ("last", "rule")]
    found |= {f"with: {name}": partial(joined, finer=(name,)) for name in others}
    if len(others) > 1:
        found |= {f"and: {name}": partial(joined, finer=("rule", name), share=2 / 3) for name in others}
    found |= {f"{how} mean": partial(joined, how=how) for how in ("arithmetic", "harmonic", "minimum")}
    found |= {f"share {share}": partial(joined, share=share) for share in (0.25, 0.35, 0.65, 0.75)}
    found |= {f"power {power}": partial(joined, power=power) for power in (0.5, 1.5, 2.0, 3.0)}
    found |= {f"fade {fade}": partial(joined, fade=fade) for fade in (0.0, 0.5, 1.0)}
    found |= {
        f"blurred: {', '.join(blur)}": partial(joined, blur=blur) for blur in (("last",), ("rule",), ("last", "rule"))
    }
    found |= {f"Grad-CAM, last, fade {fade}": partial(last, fade=fade) for fade in (0.0, 0.5, 1.0)}
    return found | {"Grad-CAM, last, blurred": partial(last, blur=True)}


def collected(folder: Path, name: str) -> list[tuple[Asked, dict[str, Layer]]]:
    """From the file, or made and kept there."""
    path = folder / f"{name.replace(' ', '-')}.pt"
    if not path.exists():
        loaded = network(name)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save([(each, layers_of(loaded, each, LAYERS[name])) for each in asked(loaded)], path)
    return torch.load(path, weights_only=False)


def measured(folder: Path, name: str) -> dict[str, Maps]:
    """The figures of every variant, from the file or measured and kept there."""
    path = folder / f"{name.replace(' ', '-')}.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    for title, variant in variants(list(LAYERS[name])).items():
        if title not in kept:
            kept[title] = [
                [each.pair.file, each.pair.name, figures(variant(layers)[0], each)]
                for each, layers in collected(folder, name)
            ]
            path.write_text(json.dumps(kept))
    return {title: Maps({(file, kind): row for file, kind, row in rows}) for title, rows in kept.items()}


def merit(found: Mapping[str, Mapping[str, Maps]], title: str, half: int, measures: Sequence[str]) -> float:
    """The mean of these measures over the networks, on one half of the photos."""
    means = []
    for maps in found.values():
        keys = [key for key in maps[title].rows if _half(key[0]) == half]
        means += [mean(maps[title].values(measure, keys)) for measure in measures]
    return mean(means)


def _half(file: str) -> int:
    return sum(map(ord, file)) % 2


def report(folder: Path, names: Sequence[str]) -> None:
    found = {name: measured(folder, name) for name in names}
    for name, maps in found.items():
        print(f"\n### {name}, {len(maps['the rule'].rows)} pairs: minus the rule")
        rows = {title: tuple(difference(each, maps["the rule"], m) for m in RANKED) for title, each in maps.items()}
        rows["the rule"] = tuple(absolute(maps["the rule"], measure) for measure in RANKED)
        table(RANKED, rows)
        print(f"\n### {name}: fading and blurring Grad-CAM of the last layer, minus Grad-CAM")
        plain, titles = maps["Grad-CAM, last"], [title for title in maps if title.startswith("Grad-CAM, last, ")]
        table(RANKED, {title: tuple(difference(maps[title], plain, m) for m in RANKED) for title in titles})
    split({name: found[name] for name in names if name in COARSE})


def split(found: Mapping[str, Mapping[str, Maps]]) -> None:
    """Selected on one half of the photos, reported on the other; by rank alone, and with box IoU at 15 %."""
    titles = set.intersection(*(set(maps) for maps in found.values()))
    for measures in (("hit", "AUROC", "box IoU, oracle"), ("hit", "AUROC", "box IoU at 15 %")):
        for half in (0, 1):
            ranking = sorted(titles, key=lambda title: -merit(found, title, half, measures))
            print(f"\n### Selected on half {half} by {', '.join(measures)}; reported on the other, minus the rule")
            scored = {title: short(merit(found, title, half, measures)) for title in (*ranking[:8], "the rule")}
            print("\n" + ", ".join(f"{title} {value}" for title, value in scored.items()))
            rule = _pooled(found, "the rule", 1 - half)
            ours = {title: _pooled(found, title, 1 - half) for title in ranking[:3]}
            table(RANKED, {title: tuple(difference(each, rule, m) for m in RANKED) for title, each in ours.items()})


def _pooled(found: Mapping[str, Mapping[str, Maps]], title: str, half: int) -> Maps:
    """The pairs of all networks; a photo stays one group."""
    return Maps(
        {
            (file, f"{network} {name}"): row
            for network, maps in found.items()
            for (file, name), row in maps[title].rows.items()
            if _half(file) == half
        }
    )
