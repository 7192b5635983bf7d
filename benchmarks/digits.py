"""Does the heat lie on the ink? Two small networks on the MNIST pictures of ../shared/data, beside trivial maps.

For the class that the network predicts, where that is right; the ink is every pixel of at least half white. Prints the
table of docs/questions/classification.md: mean and 95 % bootstrap interval over pictures.

    python benchmarks/digits.py
"""

import json
import warnings

import torch
from torch import Tensor

import seewhy
from photos import DATA, spelled
from seewhy.metrics.localization import center_gaussian, edge_map, energy, pixel_auroc, pointing_game, random_map
from shared_models import lenet5, vit_tiny_mnist

torch.set_num_threads(1)
warnings.simplefilter("ignore", seewhy.MapWarning)
METHODS = ("grad_cam", "hires_cam", "layer_cam", "saliency")
PATCHES = {"patch": 5, "stride": 2}
MEASURES = {"energy": energy, "peak on the ink": pointing_game, "AUROC": pixel_auroc}


def maps(loaded: seewhy.Loaded, image: Tensor, label: int, draw: int) -> dict[str, Tensor]:
    """Every method's map, and those that never ask the network."""
    black = {**PATCHES, "fill": float(image.min())}
    found = seewhy.compare(loaded.module, image, [label], [*METHODS, ("occlusion", PATCHES), ("occlusion", black)])
    names = [*METHODS, "occlusion", "occlusion, black"]
    size, generator = (image.shape[2], image.shape[3]), torch.Generator().manual_seed(draw)
    beside = {"center Gaussian": center_gaussian(size), "edge map": edge_map(image)[0]}
    drawn = {name: each.map[0] for name, each in zip(names, found, strict=True)}
    return drawn | beside | {"random": random_map(size, generator)}


def main() -> None:
    labels = json.loads((DATA / "mnist" / "labels.json").read_text())
    print(f"| network | map | {' | '.join(MEASURES)} |")
    print("|---" * (2 + len(MEASURES)) + "|")
    for name, load in (("LeNet-5", lenet5), ("ViT, 4 blocks", vit_tiny_mnist)):
        loaded = load()
        measured: dict[str, list[list[float]]] = {}
        for draw, row in enumerate(labels):
            image = loaded.preprocess(seewhy.read(DATA / row["file"]))[0][None]
            with torch.no_grad():
                right = int(loaded.module(image).argmax()) == row["label"]
            ink = (image[:, 0] - image.min()) / (image.max() - image.min()) >= 0.5
            for method, map in maps(loaded, image, row["label"], draw).items() if right else ():
                measured.setdefault(method, []).append(
                    [float(measure(map[None], ink)) for measure in MEASURES.values()]
                )
        for method, rows in measured.items():
            pictures = [str(n) for n in range(len(rows))]
            told = " | ".join(spelled(list(column), pictures) for column in zip(*rows, strict=True))
            print(f"| {name}, {len(rows)} | {method} | {told} |", flush=True)


if __name__ == "__main__":
    main()
