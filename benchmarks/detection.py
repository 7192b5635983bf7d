"""Does the evidence for a box lie in it? FastestDet's boxes on photos, scored by the boxes that people drew.

Every box of COCO's and VOC's photos that the detector finds with a score of .4 or more and that overlaps a box of
its class by an IoU over .5, at most four of a photo. The question is Box(index, read="score"). Beside the maps: the
found box itself, a blob in the center of the picture, the photo's edges, noise. Prints the table of
docs/questions/detection.md, intervals by bootstrap over photos, of hits by Wilson (photos.share); needs ../shared/data.

    python benchmarks/detection.py [PHOTOS AT MOST]
"""

import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

import seewhy
import vision  # noqa: F401  torchvision can be imported after it
from photos import DATA, noise, spelled
from seewhy.metrics.localization import center_gaussian, edge_map, energy, pixel_auroc, pointing_game
from seewhy.targets.detections import overlaps, standing
from shared_dense import COCO, fastestdet, fastestdet_boxes

torch.set_num_threads(1)
warnings.simplefilter("ignore", seewhy.MapWarning)
SIDE, LEAST, AT_MOST = 352, 0.4, 4
METHODS = ("hires_cam", "layer_cam", "eigen_grad_cam", "xgrad_cam", "grad_cam", "grad_cam_pp", "eigen_cam")
DEEP = "backbone.stage4"
"""The end of the backbone, for comparison with the layer that is found."""
SAME = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
}
SAME |= {"sofa": "couch", "tvmonitor": "tv"}


def truths(entry: dict) -> list[tuple[str, Float[Tensor, " 4"]]]:
    """What people drew on a photo, at the detector's size."""
    scale = torch.tensor([SIDE / entry["width"], SIDE / entry["height"]] * 2)
    return [(SAME.get(each["cls"], each["cls"]), torch.tensor(each["box"]) * scale) for each in entry["objects"]]


def found(output: Tensor, entry: dict) -> Iterator[tuple[int, Bool[Tensor, "h w"], Bool[Tensor, "h w"]]]:
    """The index of each found box that a drawn one matches, with the pixels of the drawn and of the found one."""
    listed, names = standing(fastestdet_boxes(output), (SIDE, SIDE), 0, LEAST), COCO.split(",")
    left = truths(entry)
    for index in range(len(listed)):
        own = [n for n, (name, _) in enumerate(left) if name == names[int(listed.labels[index])]]
        match = [n for n in own if float(overlaps(listed.boxes[index][None], left[n][1][None])) > 0.5]
        if match:
            yield index, pixels(left.pop(match[0])[1]), pixels(listed.boxes[index])


def pixels(box: Float[Tensor, " 4"]) -> Bool[Tensor, "h w"]:
    """The pixels whose middles lie in a box."""
    at = torch.arange(SIDE) + 0.5
    x0, y0, x1, y1 = box.tolist()
    return ((at > y0) & (at < y1))[:, None] & ((at > x0) & (at < x1))


def maps(loaded: seewhy.Loaded, image: Tensor, indices: list[int], file: str) -> list[dict[str, Float[Tensor, "h w"]]]:
    """For each box every method's map, and what to compare them with."""
    boxes = [seewhy.Box(index, read="score", decode=fastestdet_boxes, threshold=LEAST) for index in indices]
    answers = list(seewhy.compare(loaded, image, boxes, METHODS))
    deep = list(seewhy.compare(loaded, image, boxes, ["hires_cam"], [DEEP]))
    drawn: list[dict[str, Float[Tensor, "h w"]]] = []
    for n, index in enumerate(indices):
        own = answers[n * len(METHODS) : (n + 1) * len(METHODS)]
        drawn.append({each.method: each.map[0] for each in own} | {f"hires_cam, `{DEEP}`": deep[n].map[0]})
        drawn[-1] |= {
            "center Gaussian": center_gaussian((SIDE, SIDE)),
            "edge map": edge_map(image)[0],
            "random": noise(SIDE, file, f"box {index}"),
        }
    return drawn


def row(name: str, rows: list[tuple[str, list[float]]]) -> str:
    """One line of the table: mean and interval of each measure."""
    files = [file for file, _ in rows]
    return f"| {name} | {' | '.join(spelled([got[n] for _, got in rows], files, hits=n == 1) for n in range(3))} |"


def main() -> None:
    most, started, loaded = int((sys.argv[1:] or ["999"])[0]), time.process_time(), fastestdet()
    entries = [
        each
        for source in ("coco/annotations.json", "voc/boxes.json")
        for each in json.loads((DATA / source).read_text())
    ]
    measured: dict[str, list[tuple[str, list[float]]]] = {}
    areas: list[float] = []
    for entry in entries[:most]:
        image = loaded.preprocess(seewhy.read(Path(DATA) / entry["file"]))[0][None]
        with torch.no_grad():
            boxes = list(found(loaded.module(image), entry))[:AT_MOST]
        if not boxes:
            continue
        by_box = maps(loaded, image, [n for n, _, _ in boxes], entry["file"])
        for (_, drawn, box), by_name in zip(boxes, by_box, strict=True):
            areas.append(float(drawn.double().mean()))
            for name, map in {**by_name, "the found box": box.float()}.items():
                got = [float(measure(map[None], drawn[None])) for measure in (energy, pointing_game, pixel_auroc)]
                measured.setdefault(name, []).append((entry["file"], got))
    count = len({file for file, _ in measured["random"]})
    area = sum(areas) / len(areas)
    print(f"{len(areas)} boxes on {count} photos, which cover {area:.0%} of the picture\n")
    print("| map | energy | peak in the box | AUROC |\n|---|---|---|---|")
    print("\n".join(row(name, rows) for name, rows in measured.items()))
    print(f"| chance: the box's area | {area:.2f} | {area:.2f} | 0.50 |")
    print(f"\n{time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    main()
