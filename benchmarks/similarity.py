"""Is the heat where the likeness is? Trained classifiers without their last layer, on pairs of pictures.

The cosine of a pair, and by how much it falls when a fifth of the first picture takes its mean color: the hottest, the
coldest by the signed map. Every picture of ../shared/data with the next one of its class, and with one of the next
class. Prints the table of docs/questions/similarity.md: mean and 95 % bootstrap interval over pictures.

    python benchmarks/similarity.py
"""

import json
import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

import seewhy
from hiding import beside, hidden
from photos import DATA, interval
from shared_models import cifar10_resnet, vit_tiny_mnist

torch.set_num_threads(1)
warnings.simplefilter("ignore", seewhy.MapWarning)
METHODS = ("grad_cam", "hires_cam", "occlusion")
FALL = "{:+.2f} ({:+.2f} to {:+.2f})"
EACH = 10
"""Pictures of a class."""


def vit() -> tuple[nn.Module, Float[Tensor, "b c h w"]]:
    loaded = vit_tiny_mnist()
    loaded.module.head = nn.Identity()
    rows = sorted(json.loads((DATA / "mnist" / "labels.json").read_text()), key=lambda row: row["label"])
    return loaded.module, images(loaded, [row["file"] for row in rows])


def resnet() -> tuple[nn.Module, Float[Tensor, "b c h w"]]:
    loaded = cifar10_resnet(20)
    loaded.module.linear = nn.Identity()
    names = [f"cifar10/{name}_{n:04}.jpg" for name in loaded.labels for n in range(EACH)]
    return loaded.module, images(loaded, names)


def images(loaded: seewhy.Loaded, files: list[str]) -> Float[Tensor, "b c h w"]:
    return torch.stack([loaded.preprocess(seewhy.read(DATA / file))[0] for file in files])


def lines(name: str, made: Callable[[], tuple[nn.Module, Tensor]]) -> None:
    model, x = made()
    model.eval().requires_grad_(False)
    embedding, numbers = model(x), torch.arange(len(x))
    same = numbers // EACH * EACH + (numbers + 1) % EACH
    pictures = [str(n) for n in range(len(x))]
    for kind, partner in (("the same", same), ("another", (numbers + EACH) % len(x))):
        reference = embedding[partner]
        clean = cosine_similarity(embedding, reference)
        asked = seewhy.compare(model, x, [seewhy.Similarity(reference)], METHODS, rectify=False)
        for method, maps in ({each.method: each.map for each in asked} | beside(x)).items():
            falls = [clean - cosine_similarity(model(hidden(x, maps, hottest)), reference) for hottest in (True, False)]
            told = " | ".join(FALL.format(*interval(fall.tolist(), pictures)) for fall in falls)
            print(f"| {name} | {kind} | {float(clean.mean()):.2f} | {method} | {told} |", flush=True)


def main() -> None:
    print("| network | class | cosine | map | hottest fifth | coldest fifth |\n|---|---|---|---|---|---|")
    lines("ViT, MNIST", vit)
    lines("ResNet-20, CIFAR-10", resnet)


if __name__ == "__main__":
    main()
