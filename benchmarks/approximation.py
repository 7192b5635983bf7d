"""How near to Score-CAM comes Score-CAM of a few channels? Called by quality.py, on EfficientNet-Lite0.

One exact map of a photo holds the score of every channel, so the maps of fewer channels need no further pass; the
smallest is made by the library too, and compared. A photo's figures are a line of the output file, written when it is
done: a second run goes on where the first one ended.
"""

import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import seewhy
from photos import DATA, image_of, network
from seewhy.methods.masks import Inputs, ScoresAt, Upsample, channel_scores, constant
from seewhy.tensor import weighted_sum
from seewhy.types import Activations, Map

COUNTS = (32, 64, 128, 256)
TOP = 0.15
SOURCES = ("voc", "coco", "imagenet")


def measure(path: Path, minutes: float) -> None:
    """Photos that the file does not have yet, boxed ones first, until the minutes of CPU time are spent."""
    loaded = network("EfficientNet-Lite0")
    done = {row["file"] for row in lines(path)}
    for file in photos():
        if file not in done and time.process_time() < 60 * minutes:
            row = compared(loaded, file)
            with path.open("a") as out:
                out.write(json.dumps(row) + "\n")


def photos() -> list[str]:
    """All photos: VOC's and COCO's, which have boxes, and ImageNet's."""
    folders = (DATA / name for name in SOURCES)
    return [f"{folder.name}/{path.name}" for folder in folders for path in sorted(folder.glob("*.jp*g"))]


def lines(path: Path) -> list[dict]:
    """The whole lines of a file; one that a kill cut off is left out."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def compared(loaded: seewhy.Loaded, file: str) -> dict:
    """Correlation and overlap with the exact map, for the class that the network predicts."""
    image = image_of(loaded, file)
    maps: dict[int, Tensor] = {}
    forwards: dict[int, int] = {}
    flat: list[float] = []

    def score_cams(inputs: Inputs, activations: Activations, upsample: Upsample, scores_at: ScoresAt) -> Map:
        scores = channel_scores(inputs, activations, upsample, scores_at, None)
        spread, dead = activations.flatten(2).std(-1, correction=0), constant(activations)
        flat.append(float(dead.float().mean()))
        for count in (*COUNTS, activations.shape[1]):
            kept = spread.topk(count).indices.sort(1).values[0]
            map = weighted_sum(scores[:, kept].softmax(1), activations[:, kept])
            maps[count] = upsample(map.relu())[0]
            forwards[count] = int((~dead[0, kept]).sum()) + int(dead[0, kept].any())
        return map.relu()

    start = time.process_time()
    exact = seewhy.explain(loaded, image, method=score_cams).map[0]
    seconds = time.process_time() - start
    ours = seewhy.explain(loaded, image, method="score_cam", options={"channels": COUNTS[0]}).map[0]
    torch.testing.assert_close(ours, maps[COUNTS[0]], rtol=1e-4, atol=1e-5 * float(ours.max()))
    return {
        "file": file,
        "constant": flat[0],
        "seconds": seconds,
        "forwards": max(forwards.values()),
        "approximate": {
            str(count): {
                "forwards": forwards[count],
                "correlation": correlation(maps[count], exact),
                "overlap": overlap(maps[count], exact),
            }
            for count in COUNTS
        },
    }


def correlation(one: Float[Tensor, "h w"], other: Float[Tensor, "h w"]) -> float:
    """Pearson's, over the pixels."""
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


def overlap(one: Float[Tensor, "h w"], other: Float[Tensor, "h w"]) -> float:
    """Intersection over union of the largest 15 % of the pixels."""
    count = round(TOP * one.numel())
    first, second = (set(map.flatten().topk(count).indices.tolist()) for map in (one, other))
    return len(first & second) / len(first | second)


def table(path: Path) -> Iterator[str]:
    """Median and worst of each number of channels."""
    rows = lines(path)
    sources = {name: sum(row["file"].startswith(name) for row in rows) for name in SOURCES}
    constants = [row["constant"] for row in rows]
    yield f"{len(rows)} photos ({', '.join(f'{count} {name}' for name, count in sources.items())}); the share of"
    low, middle, high = min(constants), statistics.median(constants), max(constants)
    yield f"constant channels is {low:.2f} to {high:.2f}, median {middle:.2f}."
    yield "\n| channels | forwards, median (most) | correlation, median (worst) | overlap of the top 15 %, the same |"
    yield "|---|---|---|---|"
    spent = [row["forwards"] for row in rows]
    yield f"| all of 1280: exact | {statistics.median(spent):.0f} ({max(spent)}) | 1 | 1 |"
    for count in map(str, COUNTS):
        found = [row["approximate"][count] for row in rows]
        spent = [each["forwards"] for each in found]
        cells = [f"{statistics.median(spent):.0f} ({max(spent)})"]
        for measure in ("correlation", "overlap"):
            values = [each[measure] for each in found]
            cells.append(f"{statistics.median(values):.3f} ({min(values):.3f})")
        yield f"| {count} | " + " | ".join(cells) + " |"
