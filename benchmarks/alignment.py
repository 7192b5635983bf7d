"""Where do a layer's cells look, how well is it measured, and what is it worth on photos with boxes?

Prints the tables of docs/alignment.md. One thread, about ten minutes; needs ../shared/data.

    python benchmarks/alignment.py probes     # the measured shift on photos and on kinds of noise, and its spread
    python benchmarks/alignment.py sweep      # the shift (and the distance of cells) that localizes best
    python benchmarks/alignment.py photos     # maps laid as tiles, by arithmetic, as measured, by the rule
    python benchmarks/alignment.py cost       # what arithmetic and measurement take, in forward passes
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from photos import DATA, SIDE, Asked, asked, image_of, interval, last_output, network
from seewhy.methods.gradient import grad_cam, layer_cam
from seewhy.metrics.localization import best_box_iou, pixel_auroc, pointing_game
from seewhy.model.alignment import NOTABLE, Placement, analytic, measured, place, probe, tile
from seewhy.tensor import resize

torch.set_num_threads(1)
SIZE = (SIDE, SIDE)
DRAWS = 16
# network, layer, the method that its maps are good for
LAYERS = [
    ("MobileNetV2", "features.18", "grad_cam"),
    ("MobileNetV2", "features.14.conv.0", "layer_cam"),
    ("EfficientNet-Lite0", "_swish", "grad_cam"),
    ("SqueezeNet 1.0", "features.12", "grad_cam"),
    ("Tiny Darknet", "conv15", "grad_cam"),
]
METHODS = {"grad_cam": grad_cam, "layer_cam": layer_cam}


@dataclass(frozen=True)
class Case:
    """The map of one pair at the layer's resolution."""

    asked: Asked
    map: Float[Tensor, "1 h w"]


@cache
def cases(name: str, layer: str, method: str) -> list[Case]:
    loaded = network(name)
    found = []
    for question in asked(loaded):
        image = question.image.clone().requires_grad_()
        activations, output = last_output(loaded.module, image, layer)
        (gradients,) = torch.autograd.grad(output[0, question.target], activations)
        found.append(Case(question, METHODS[method](activations.detach(), gradients)))
    return found


def recorded(name: str, layer: str, image: Tensor) -> tuple[Tensor, Tensor]:
    leaf = image.clone().requires_grad_()
    return leaf, last_output(network_once(name).module, leaf, layer)[0]


network_once = cache(network)


# ---- probes


def pink(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise with the spectrum of photos, 1/f, most of it common to the channels."""
    rows, columns = torch.fft.fftfreq(shape[-2])[:, None], torch.fft.rfftfreq(shape[-1])
    frequency = (rows**2 + columns**2).sqrt()
    frequency[0, 0] = frequency[0, 1]
    noise = torch.fft.irfft2(torch.fft.rfft2(torch.randn(shape, generator=generator)) / frequency, s=shape[-2:])
    noise = 0.6 * noise + 0.8 * 3**0.5 * noise.mean(1, keepdim=True)
    return (noise - noise.mean()) / noise.std()


def drawn(name: str) -> Iterator[tuple[str, Callable[[torch.Generator, int], Tensor]]]:
    loaded = network_once(name)
    files = sorted(path.name for path in (DATA / "imagenet").glob("*.jpg"))[:: 62 // DRAWS]
    photos = [image_of(loaded, f"imagenet/{file}") for file in files[:DRAWS]]
    shape, mean, std = (1, 3, *SIZE), torch.cat(photos).mean(), torch.cat(photos).std()
    unit = float(photos[0].min()) >= 0
    yield "photos", lambda _generator, draw: photos[draw]
    yield "constant", lambda _generator, _draw: torch.full(shape, float(mean))
    yield "1/f noise", lambda generator, _draw: mean + std * pink(shape, generator)
    yield "white noise", lambda generator, _draw: (torch.rand if unit else torch.randn)(shape, generator=generator)
    for scale in (0.1, 10.0):
        yield (
            f"white noise x {scale:g}",
            lambda generator, _draw, scale=scale: mean + scale * std * torch.randn(shape, generator=generator),
        )


def probes() -> None:
    print("| network, layer | probe | shift y, x (px) | sd of one draw | axes pooled | in cells | beyond 1/4 cell |")
    print("|" + "---|" * 7)
    for name, layer, _ in LAYERS:
        for kind, make in drawn(name):
            shifts = []
            for draw in range(1 if kind == "constant" else DRAWS):
                leaf, raw = recorded(name, layer, make(torch.Generator().manual_seed(draw), draw))
                shifts.append(measured(get_gradient_edge(raw), raw.shape, leaf).shift(SIZE, raw.shape[2:]))
            found, cell = torch.tensor(shifts), SIDE / raw.shape[2]
            pooled = found.mean(1)
            spread = (found.std(0).mean(), pooled.std()) if len(found) > 1 else (torch.nan, torch.nan)
            mean = ", ".join(f"{shift:+.1f}" for shift in found.mean(0))
            beyond = float((pooled.abs() > NOTABLE * cell).double().mean())
            row = f"| {name} {layer} | {kind} | {mean} | {spread[0]:.1f} | {spread[1]:.1f} "
            print(row + f"| {spread[1] / cell:.2f} | {beyond:.0%} |")


# ---- what the shift is worth


def laid(found: list[Case], placement: Placement) -> Float[Tensor, "b h w"]:
    maps = torch.cat([case.map for case in found]).double()
    return resize(maps, placement.matrices(SIZE, maps.shape[1:], dtype=torch.float64))


def figures(found: list[Case], placement: Placement) -> dict[str, Float[Tensor, " b"]]:
    maps, masks = laid(found, placement), torch.stack([case.asked.pair.mask for case in found])
    overlap, _ = best_box_iou(maps, [case.asked.pair.boxes for case in found])
    return {"hit": pointing_game(maps, masks), "AUROC": pixel_auroc(maps, masks), "box IoU": overlap}


def sweep() -> None:
    print("| network, layer | cells' distance / tiles' | best shift (px) | AUROC | at the tiles |\n|" + "---|" * 5)
    for name, layer, method in LAYERS:
        found = cases(name, layer, method)
        masks, cells = torch.stack([case.asked.pair.mask for case in found]), found[0].map.shape[1]
        for factor in (0.85, 1.0, 1.08):
            step = SIDE / cells * factor
            scores = {}
            for shift in range(-30, 19, 2):
                offset = (SIDE - 1) / 2 - step * (cells - 1) / 2 + shift
                maps = laid(found, Placement((offset,) * 2, (step,) * 2, "tile"))
                scores[shift] = float(pixel_auroc(maps, masks).nanmean())
            best = max(scores, key=lambda shift: scores[shift])
            print(f"| {name} {layer} | {factor} | {best:+d} | {scores[best]:.3f} | {scores[0]:.3f} |")


def placements(name: str, layer: str) -> dict[str, Placement]:
    """Each way to lay the cells of a layer, from one pass on the probe."""
    leaf, raw = recorded(name, layer, probe(image_of(network_once(name), "voc/004218.jpg")))
    edge, grid = get_gradient_edge(raw), raw.shape[2:]
    return {
        "tile": tile(grid, SIZE),
        "analytic": analytic(edge, leaf, grid) or tile(grid, SIZE),
        "measured": measured(edge, raw.shape, leaf),
        "the rule": place(edge, raw.shape, leaf, grid),
    }


def photos() -> None:
    print("| network, layer, method | pairs | placement | shift (px) | hit | AUROC | box IoU, oracle threshold |")
    print("|" + "---|" * 7)
    for name, layer, method in LAYERS:
        ways = placements(name, layer)
        for sources in (("voc",), ("coco",), ("voc", "coco")):
            found = [case for case in cases(name, layer, method) if case.asked.pair.source in sources]
            files = [case.asked.pair.file for case in found]
            usual = figures(found, ways["tile"])
            for kind, placement in ways.items():
                shift = f"{placement.shift(SIZE, found[0].map.shape[1:])[0]:+.1f}"
                row = [f"{name} {layer} {method}", f"{'+'.join(sources)} {len(found)}", kind, shift]
                row += [compared(values, usual[key], files) for key, values in figures(found, placement).items()]
                print("| " + " | ".join(row) + " |")


def compared(values: Float[Tensor, " b"], usual: Float[Tensor, " b"], files: list[str]) -> str:
    """The mean, and where it is not that of the tiles the paired difference with its interval."""
    text = f"{float(values.nanmean()):.3f}"
    if torch.equal(values.nan_to_num(), usual.nan_to_num()):
        return text
    difference, low, high = interval((values - usual).tolist(), files)
    return f"{text} ({difference:+.3f} [{low:+.3f}, {high:+.3f}])"


def cost() -> None:
    print("| network, layer | arithmetic | measurement (forward passes, median of 9) |\n|" + "---|" * 3)
    for name, layer, _ in LAYERS:
        image = image_of(network_once(name), "voc/004218.jpg")
        leaf, raw = recorded(name, layer, probe(image))
        edge, rows = get_gradient_edge(raw), []
        for _draw in range(10):  # the first one warms up
            plain = seconds(lambda image=image, name=name: network_once(name).module(image))
            reckoned = seconds(lambda edge=edge, leaf=leaf, raw=raw: analytic(edge, leaf, raw.shape[2:]))
            found = seconds(lambda edge=edge, leaf=leaf, raw=raw: measured(edge, raw.shape, leaf))
            rows.append((reckoned / plain, found / plain))
        reckoned, found = (statistics.median(ratios) for ratios in zip(*rows[1:], strict=True))
        print(f"| {name} {layer} | {reckoned:.2f} | {found:.2f} |")


def seconds(action: Callable[[], object]) -> float:
    """CPU time, of a pass without a graph where the action does not make its own."""
    start = time.process_time()
    with torch.no_grad():
        action()
    return time.process_time() - start


if __name__ == "__main__":
    {"probes": probes, "sweep": sweep, "photos": photos, "cost": cost}[sys.argv[1]]()
