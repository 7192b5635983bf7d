"""Does the evidence for a segment lie on the object? DeepLabV3's maps scored by VOC's boxes and COCO's outlines.

Every photo with every class of VOC in it (but people, which photos.py leaves out) that the network predicts on 1 % of
the pixels at least. The question is Region(class): the class's logits summed where it is predicted. Beside the maps:
the predicted mask itself, a blob in the center, the photo's edges, noise. Prints the table of
docs/questions/segmentation.md, intervals by bootstrap over photos, of hits by Wilson (photos.share); needs
../shared/data.

    python benchmarks/segmentation.py [PHOTOS AT MOST]
"""

import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

import seewhy
from photos import SAME, Asked, Pair, figures, image_of, noise, pairs, spelled
from seewhy.metrics.localization import center_gaussian, edge_map
from shared_dense import VOC, deeplabv3

torch.set_num_threads(1)
warnings.simplefilter("ignore", seewhy.MapWarning)
SIDE, LEAST = 513, 0.01
MEASURES = ("energy", "hit", "AUROC")
METHODS = (
    "grad_cam", "hires_cam", "layer_cam", "xgrad_cam", "grad_cam_pp", "eigen_cam", "sharp",
)  # fmt: skip
FINER = "classifier"
"""A layer of the decoder: its maps are the logits themselves, for comparison."""


def segmenter() -> seewhy.Loaded:
    """DeepLabV3 on whole pictures stretched to its own size, like the boxes of photos.py."""
    loaded = deeplabv3()
    loaded.module.requires_grad_(False)
    return replace(loaded, preprocess=replace(loaded.preprocess, fit="squash", resize=None))


def found(loaded: seewhy.Loaded) -> Iterator[tuple[Asked, Bool[Tensor, "h w"]]]:
    """The pairs whose class the network predicts, each with the predicted pixels."""
    names = VOC.split()
    for pair in pairs(side=SIDE):
        name = SAME.get(pair.name, pair.name)
        if name not in names:
            continue
        image = image_of(loaded, pair.file)
        with torch.no_grad():
            predicted = loaded.module(image)[0].argmax(0) == names.index(name)
        if float(predicted.double().mean()) >= LEAST:
            yield Asked(pair, image, names.index(name)), predicted


def maps(loaded: seewhy.Loaded, asked: Asked, predicted: Bool[Tensor, "h w"]) -> dict[str, Float[Tensor, "h w"]]:
    """Every method's map, and what to compare them with."""
    target = seewhy.Region(asked.target)
    grid = seewhy.compare(loaded.module, asked.image, [target], METHODS)
    drawn = {each.method: each.map[0] for each in grid}
    drawn |= {"grad_cam, `classifier`": seewhy.explain(loaded.module, asked.image, target, layer=FINER).map[0]}
    return drawn | {
        "the predicted mask": predicted.float(),
        "center Gaussian": center_gaussian((SIDE, SIDE)),
        "edge map": edge_map(asked.image)[0],
        "random": noise(SIDE, asked.pair.file, asked.pair.name),
    }


def row(name: str, measured: list[tuple[Pair, dict]]) -> str:
    """One line of the table: mean and interval of each measure."""
    files = [pair.file for pair, _ in measured]
    told = (spelled([got[each] for _, got in measured], files, hits=each == "hit") for each in MEASURES)
    return f"| {name} | {' | '.join(told)} |"


def main() -> None:
    most, started, loaded = int((sys.argv[1:] or ["999"])[0]), time.process_time(), segmenter()
    measured: dict[str, dict[str, list[tuple[Pair, dict]]]] = {"voc": {}, "coco": {}}
    files: set[str] = set()
    for asked, predicted in found(loaded):
        files.add(asked.pair.file)
        if len(files) > most:
            break
        for name, map in maps(loaded, asked, predicted).items():
            rows = measured[asked.pair.source].setdefault(name, [])
            rows.append((asked.pair, figures(map, asked)))
    for source, by_name in measured.items():
        pairs_of = next(iter(by_name.values()), [])
        area = sum(float(pair.object.double().mean()) for pair, _ in pairs_of) / max(len(pairs_of), 1)
        truth = {"voc": "boxes", "coco": "outlines"}[source]
        print(f"\n{source.upper()}, by {truth}: {len(pairs_of)} pairs, whose objects cover {area:.0%} of the picture\n")
        print("| map | energy | pointing | AUROC |\n|---|---|---|---|")
        print("\n".join(row(name, rows) for name, rows in by_name.items()))
        print(f"| chance: the object's area | {area:.2f} | {area:.2f} | 0.50 |")
    print(f"\n{time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    main()
