"""How well do the maps point? Every method on photos with boxes, beside maps that never ask the network.

Measures into a file, one line for each pair and map, so that a run that was ended goes on where it stopped; and makes
the tables of docs/quality.md and docs/quality-tables.md of it. One thread; needs ../shared/data.

    python benchmarks/quality.py measure FILE [NETWORK ...]   # one pass forward and a few back: a few minutes a network
    python benchmarks/quality.py dear FILE [NETWORK ...]      # methods of many passes, on every third photo of VOC
    python benchmarks/quality.py tables FILE                  # everything, by network
    python benchmarks/quality.py summary FILE                 # the acceptance, the tables of the first page
    python benchmarks/quality.py approximation FILE [MINUTES] # Score-CAM of a few channels beside the exact one
    python benchmarks/quality.py variants FOLDER              # what else `sharp` could be
    python benchmarks/quality.py pictures FOLDER [NETWORK ...]

Large activations make Linux map and clear fresh memory at every pass, half of the time; it does not with
MALLOC_MMAP_THRESHOLD_=33554432 and MALLOC_TRIM_THRESHOLD_=536870912 set.
"""

import json
import sys
import warnings
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import approximation
import seewhy
import tables
import variants
from approximation import lines
from photos import DATA, Asked, asked, figures, network, noise
from seewhy.metrics.localization import center_gaussian, edge_map

torch.set_num_threads(1)
FIRST = ("MobileNetV2", "EfficientNet-Lite0", "SqueezeNet 1.0", "Tiny Darknet")
# many passes for a map; options where the default would take thousands
DEAR: dict[str, dict[str, Any]] = {
    "score_cam": {"channels": 128},
    "group_cam": {},
    "opti_cam": {"steps": 30},
    "smooth_grad": {},
    "integrated_gradients": {},
    "smooth_grad_cam_pp": {},
    "expected_grad_cam": {},
    "occlusion": {},
    "rise": {"masks": 500},
}
UNMEASURED = ("ss_cam", "is_cam")  # ten times Score-CAM


def cheap() -> list[str]:
    """The methods of a few passes, without those of attention, which these networks have none of."""
    return [
        name
        for name, row in seewhy.METHODS.items()
        if row.layers != "tokens" and name not in (*DEAR, *UNMEASURED, "best")
    ]


def maps_of(loaded: seewhy.Loaded, questions: list[Asked], way: str) -> Iterator[tuple[str, int, Tensor]]:
    """Maps of some classes of one photo: of all cheap methods at one alignment, of one dear one, or of none."""
    image, targets = questions[0].image, [question.target for question in questions]
    kind, _, name = way.partition(":")
    if kind == "beside":
        size = (questions[0].pair.side,) * 2
        for n, question in enumerate(questions):
            yield "center Gaussian", n, center_gaussian(size)
            yield "edge map", n, edge_map(question.image)[0]
            yield "random", n, noise(size[0], question.pair.file, question.pair.name)
    elif kind == "dear":
        for n, target in enumerate(targets):
            options = DEAR.get(name)
            yield name, n, seewhy.explain(loaded, image, target, name, options=options).map[0]
    else:
        compared = seewhy.compare(loaded, image, targets, cheap(), align=kind)
        for n, each in enumerate(compared):
            yield each.method + "|tile" * (kind == "tile"), n // compared.shape[1], each.map[0]


def measure(path: Path, names: list[str], ways: list[str], step: int, sources: tuple[str, ...]) -> None:
    """What the file does not have yet."""
    done = {(row["network"], row["way"], row["file"]) for row in lines(path)}
    for name in names:
        loaded = network(name)
        found = [question for question in asked(loaded) if question.pair.source in sources]
        photos = [list(same) for _, same in groupby(found, key=lambda question: question.pair.file)]
        for way in ways:
            for questions in photos[::step]:
                file = questions[0].pair.file
                if (name, way, file) not in done:
                    rows = [
                        {"method": method, "class": questions[n].pair.name, **figures(map, questions[n])}
                        for method, n, map in maps_of(loaded, questions, way)
                    ]
                    with path.open("a") as out:
                        out.write(json.dumps({"network": name, "way": way, "file": file, "rows": rows}) + "\n")
            print(name, way, flush=True)


def pictures(folder: Path, names: list[str]) -> Iterator[Path]:
    """For each network six photos and their likeliest class: Grad-CAM as tiles, and what is to be compared with it."""
    methods = ["grad_cam", "layer_cam", "sharp", "best"]
    for name in names:
        loaded = network(name)
        for file in sorted({each.pair.file for each in asked(loaded)})[::9][:6]:
            usual = seewhy.compare(loaded, DATA / file, align="tile")
            ours = seewhy.compare(loaded, DATA / file, methods=methods)
            dear = seewhy.explain(loaded, DATA / file, method="score_cam", options=DEAR["score_cam"])
            together = seewhy.Comparison((*usual, *ours, dear), (1, len(methods) + 2, 1))
            yield from together.save(folder / name.replace(" ", "-"))[:1]


def main() -> None:
    action, where, *names = sys.argv[1:]
    warnings.simplefilter("ignore", seewhy.MapWarning)  # blank maps are counted
    path = Path(where)
    if action == "measure":
        measure(path, names or list(tables.NETWORKS), ["beside", "measured", "tile", "dear:best"], 1, ("voc", "coco"))
    elif action == "dear":
        for method in DEAR:
            measure(path, names or list(FIRST), [f"dear:{method}"], 3, ("voc",))
    elif action == "approximation":
        approximation.measure(path, float(names[0]) if names else 25)
        print("\n".join(approximation.table(path)))
    elif action == "variants":
        variants.report(path, tables.NETWORKS)
    elif action == "pictures":
        for picture in pictures(path, names or list(FIRST)):
            print(picture)
    else:
        {"tables": tables.everything, "summary": tables.summary}[action](lines(path))


if __name__ == "__main__":
    main()
