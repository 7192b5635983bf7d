"""Do maps depend on what the network has learnt? Each method's map beside its map under random weights.

Spearman correlation of the absolute maps of the boxed VOC photos, mean over photos: with the last layer's weights drawn
anew, with all weights drawn anew, and with the edges of the photo. Prints the table of docs/sanity.md; needs
../shared/data. Following Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, arXiv:1810.03292.

    python benchmarks/sanity.py [NETWORK ...]
"""

import copy
import sys
import warnings

import torch
from torch import Tensor, nn

import seewhy
from photos import asked, network
from seewhy.metrics.localization import edge_map

torch.set_num_threads(1)
warnings.simplefilter("ignore", seewhy.MapWarning)
METHODS = (
    *("guided_backprop", "deconvnet", "guided_grad_cam", "saliency", "input_x_gradient", "smooth_grad"),
    *("grad_cam", "layer_cam", "hires_cam", "eigen_cam", "sharp", "full_grad"),
)
OPTIONS = {"smooth_grad": {"samples": 8}}
NETWORKS = ("MobileNetV2", "EfficientNet-Lite0", "SqueezeNet 1.0", "Tiny Darknet")
PHOTOS = 24


def redrawn(module: nn.Module, *, everything: bool) -> nn.Module:
    """A copy whose weights (the last layer's, or all) are normal draws of the spread they had; biases are kept."""
    copied, generator = copy.deepcopy(module), torch.Generator().manual_seed(0)
    layers = [each for each in copied.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    for layer in layers if everything else layers[-1:]:
        drawn = torch.randn(layer.weight.shape, generator=generator) * layer.weight.detach().std()
        layer.weight.data.copy_(drawn)
    return copied


def alike(one: Tensor, other: Tensor) -> float:
    """Spearman correlation of two maps without their sign; ties by their place, NaN where one is constant."""
    flat = [map.abs().flatten() for map in (one, other)]
    if any(bool(map.max() == map.min()) for map in flat):
        return float("nan")
    ranks = torch.stack([map.argsort().argsort().float() for map in flat])
    return float(torch.corrcoef(ranks)[0, 1])


def main() -> None:
    names = sys.argv[1:] or NETWORKS
    print("| network | method | last layer redrawn | all redrawn | edges of the photo | undefined |")
    print("|---|---|---|---|---|---|")
    for name in names:
        loaded = network(name)
        photos = {each.pair.file: each for each in asked(loaded) if each.pair.source == "voc"}
        kinds = [loaded.module, redrawn(loaded.module, everything=False), redrawn(loaded.module, everything=True)]
        found: dict[str, list[list[float]]] = {method: [] for method in METHODS}
        for each in list(photos.values())[:PHOTOS]:
            x = each.image
            maps = [seewhy.compare(kind, x, [each.target], METHODS, options=OPTIONS) for kind in kinds]
            edges = edge_map(x)[0]
            for n, method in enumerate(METHODS):
                own, last, every = (answers[n].map[0] for answers in maps)
                found[method].append([alike(own, last), alike(own, every), alike(own, edges)])
        for method, rows in found.items():
            values = torch.tensor(rows)
            means = " | ".join(f"{float(value):.2f}" for value in values.nanmean(0))
            print(f"| {name} | {method} | {means} | {int(values.isnan().any(1).sum())} of {len(rows)} |", flush=True)


if __name__ == "__main__":
    main()
