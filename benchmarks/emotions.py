"""Is the heat where a face's emotion is? The emotion network of ../shared/data on faces that it is sure of.

The log-probability of the predicted emotion, and by how much it falls when a fifth of the face takes its mean grey: the
hottest, the coldest by the signed map. Faces are scikit-image's own: 100 small ones of LFW, and the astronaut's. Prints
the table of docs/questions/classification.md: mean and 95 % bootstrap interval over faces.

    python benchmarks/emotions.py
"""

import warnings

import torch
from jaxtyping import Float
from PIL import Image
from skimage import data
from torch import Tensor

import seewhy
from hiding import beside, hidden
from photos import spelled
from shared_models import mini_xception

torch.set_num_threads(1)
warnings.simplefilter("ignore", seewhy.MapWarning)
SURE, FACES = 0.5, 100
METHODS = ("grad_cam", "hires_cam", "eigen_cam", "sharp", "input_x_gradient", "occlusion")
FINE, FINER = ("grad_cam", "hires_cam", "layer_cam"), "block4.bn1 + relu"
"""A layer of twice the last one's grid."""


def faces(loaded: seewhy.Loaded) -> Float[Tensor, "b 1 h w"]:
    small = [Image.fromarray((face * 255).astype("uint8")) for face in data.lfw_subset()[:FACES]]
    astronaut = Image.fromarray(data.astronaut()).crop((170, 60, 280, 190))
    return torch.stack([loaded.preprocess(seewhy.read(face))[0] for face in (*small, astronaut)])


def main() -> None:
    loaded = mini_xception()
    model = loaded.module.requires_grad_(False)
    x = faces(loaded)
    p = model(x).softmax(1)
    x, p = x[p.amax(1) > SURE], p[p.amax(1) > SURE]
    predicted = p.argmax(1)
    kinds = {name: int((predicted == n).sum()) for n, name in enumerate(loaded.labels)}
    print(f"{len(x)} of {FACES + 1} faces at p > {SURE}: {kinds}; mean log p {float(p.amax(1).log().mean()):.2f}")
    grid = seewhy.compare(model, x, [predicted.tolist()], METHODS, rectify=False)
    finer = seewhy.compare(model, x, [predicted.tolist()], FINE, [FINER], rectify=False)
    print("| map | hottest fifth | coldest fifth |\n|---|---|---|")
    drawn = {each.method: each.map for each in grid} | {f"{each.method}, 8x8 cells": each.map for each in finer}
    for method, maps in (drawn | beside(x)).items():
        told = []
        for hottest in (True, False):
            after = model(hidden(x, maps, hottest)).log_softmax(1)
            fall = (p.log() - after).gather(1, predicted[:, None])[:, 0]
            told.append(spelled(fall.tolist(), [str(n) for n in range(len(x))]))
        print(f"| {method} | {' | '.join(told)} |", flush=True)


if __name__ == "__main__":
    main()
