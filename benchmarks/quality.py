"""How well do the maps point? Every method on photos with boxes, beside maps that never ask the network.

Prints the tables of docs/quality.md. One thread; needs ../shared/data. All methods of a photo come from one `compare`.

    python benchmarks/quality.py tables voc [NETWORK ...]       # three tables for each network
    python benchmarks/quality.py tables coco [NETWORK ...]
    python benchmarks/quality.py pictures FOLDER [NETWORK ...]  # figures of six photos, to look at
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

import seewhy
from photos import DATA, SIDE, Asked, asked, image_of, interval, network
from seewhy.metrics.localization import (
    best_box_iou,
    box_iou,
    center_gaussian,
    edge_map,
    energy,
    enrichment,
    pixel_auroc,
    pointing_game,
    random_map,
    uniform,
)

torch.set_num_threads(1)
SIZE = (SIDE, SIDE)
NETWORKS = ("MobileNetV2", "EfficientNet-Lite0", "SqueezeNet 1.0", "Tiny Darknet")
MEASURES = ("hit", "hit off center", "AUROC", "energy", "enrichment", "box IoU, oracle", "box IoU at 15 %")
RANKED = ("hit", "hit off center", "AUROC", "box IoU, oracle", "box IoU at 15 %")


@dataclass(frozen=True)
class Answers:
    """The maps of every method, by title, for all pairs; and where the layer is and how its cells are laid."""

    maps: dict[str, Float[Tensor, "n h w"]]
    layer: str
    placement: str


@dataclass(frozen=True)
class Figures:
    """Each measure of each pair, the oracle's threshold, and how many maps point nowhere."""

    values: dict[str, Float[Tensor, " n"]]
    threshold: float
    undefined: int


def applicable(loaded: seewhy.Loaded, image: Tensor) -> list[str]:
    """Every method, without CAM where the layer is not pooled straight into the scores."""
    try:
        seewhy.explain(loaded, image, method="cam")
    except seewhy.MethodError:
        return [name for name in seewhy.METHODS if name != "cam"]
    return list(seewhy.METHODS)


def answers(loaded: seewhy.Loaded, found: list[Asked], align: str) -> Answers:
    """One `compare` for each photo, with all its classes and all methods."""
    methods = applicable(loaded, found[0].image)
    maps: dict[str, list[Tensor]] = {seewhy.METHODS[name].title: [] for name in methods}
    for _, same in groupby(found, key=lambda question: question.pair.file):
        questions = list(same)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", seewhy.MapWarning)  # blank maps are counted below
            targets = [question.target for question in questions]
            compared = seewhy.compare(loaded, questions[0].image, targets, methods, align=align)
        for each in compared:
            maps[each.title].append(each.map)
    (layer,) = compared[0].layers
    cells = "x".join(str(side) for side in compared[0].raw[layer].shape[1:])
    return Answers(
        {title: torch.cat(rows) for title, rows in maps.items()},
        f"{layer}, {cells} cells",
        compared[0].placements[layer],
    )


def baselines(found: list[Asked]) -> dict[str, Float[Tensor, "n h w"]]:
    """Maps that know nothing of the network or the question."""
    generator, count = torch.Generator().manual_seed(0), len(found)
    return {
        "center Gaussian": center_gaussian(SIZE).expand(count, -1, -1),
        "edge map": edge_map(torch.cat([question.image for question in found])),
        "uniform": uniform(SIZE).expand(count, -1, -1),
        "random": torch.stack([random_map(SIZE, generator) for _ in found]),
    }


def off_center(masks: Bool[Tensor, "n h w"]) -> Bool[Tensor, " n"]:
    """Whether the picture's center lies in no box of the class."""
    middle = slice(SIDE // 2 - 1, SIDE // 2 + 1)
    return ~masks[:, middle, middle].flatten(1).any(1)


def figures(maps: Float[Tensor, "n h w"], found: list[Asked]) -> Figures:
    masks, boxes = torch.stack([each.pair.mask for each in found]), [each.pair.boxes for each in found]
    hit, area = pointing_game(maps, masks), pixel_auroc(maps, masks)
    overlap, threshold = best_box_iou(maps, boxes)
    values = {
        "hit": hit,
        "hit off center": hit.where(off_center(masks), torch.nan),
        "AUROC": area,
        "energy": energy(maps, masks),
        "enrichment": enrichment(maps, masks),
        "box IoU, oracle": overlap,
        "box IoU at 15 %": box_iou(maps, boxes, 0.15),
    }
    return Figures(values, threshold, int((values["energy"].isnan() | area.isnan()).sum()))


def table(columns: tuple[str, ...], rows: dict[str, tuple[str, ...]]) -> None:
    """Methods with the same figures share a row."""
    print("| | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for cells in dict.fromkeys(rows.values()):
        titles = ", ".join(title for title, own in rows.items() if own == cells)
        print("| " + " | ".join([titles, *cells]) + " |")


def absolute(measured: dict[str, Figures], files: list[str]) -> None:
    rows = {}
    for title, each in measured.items():
        cells = [with_interval(each.values[measure], files) for measure in MEASURES]
        cells[MEASURES.index("box IoU, oracle")] += f" @ {each.threshold:.2f}"
        rows[title] = (*cells, str(each.undefined))
    table((*MEASURES, "undefined"), rows)


def with_interval(values: Float[Tensor, " n"], files: list[str]) -> str:
    return "-" if bool(values.isnan().all()) else "{} [{}, {}]".format(*map(short, drawn(values, files)))


def drawn(values: Float[Tensor, " n"], files: list[str]) -> tuple[float, float, float]:
    """Mean and interval over the photos that have a defined value."""
    known = (~values.isnan()).nonzero().flatten().tolist()
    return interval(values[known].tolist(), [files[index] for index in known])


def short(number: float, sign: str = "") -> str:
    """Three decimals and no leading zero, or two decimals from 1 on."""
    return f"{number:{sign}.3f}".replace("0.", ".", 1) if abs(number) < 1 else f"{number:{sign}.2f}"


def differences(ours: dict[str, Figures], theirs: Callable[[str], Figures], files: list[str]) -> None:
    """Paired differences of what mere sharpening does not raise; bold where the interval leaves zero out."""
    rows = {}
    for title, each in ours.items():
        changes = (each.values[measure] - theirs(title).values[measure] for measure in RANKED)
        rows[title] = tuple(difference(change, files) for change in changes)
    table(RANKED, rows)


def difference(change: Float[Tensor, " n"], files: list[str]) -> str:
    mean, low, high = drawn(change, files)
    text = f"{short(mean, '+')} [{short(low, '+')}, {short(high, '+')}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def report(name: str, source: str) -> None:
    loaded = network(name)
    found = [question for question in asked(loaded) if question.pair.source == source]
    files = [question.pair.file for question in found]
    ours, tiled = answers(loaded, found, "measured"), answers(loaded, found, "tile")
    outside = int(off_center(torch.stack([each.pair.mask for each in found])).sum())
    print(f"\n### {name}, {source}: {len(found)} pairs on {len(set(files))} photos, {outside} off center\n")
    print(f"Layer {ours.layer}, cells laid by default: {ours.placement}.")
    if "CAM" not in ours.maps:
        print("CAM does not apply: the layer is not averaged straight into the scores.")
    print()
    aside = {title: figures(maps, found) for title, maps in baselines(found).items()}
    measured = {title: figures(maps, found) for title, maps in ours.maps.items()}
    absolute(measured | aside, files)
    print("\nMinus the center Gaussian, paired:\n")
    differences(measured, lambda _title: aside["center Gaussian"], files)
    if all(torch.equal(maps, tiled.maps[title]) for title, maps in ours.maps.items()):
        print("\nLaid as tiles: the same maps.")
        return
    usual = {title: figures(maps, found) for title, maps in tiled.maps.items()}
    print("\nLaid as tiles (`align='tile'`):\n")
    absolute(usual, files)
    print("\nMeasured minus tiles, paired:\n")
    differences(measured, usual.__getitem__, files)


def pictures(folder: Path, names: list[str]) -> Iterator[Path]:
    """For each network and photo one figure of all methods, for the class that the network predicts."""
    for name in names:
        loaded = network(name)
        methods = applicable(loaded, image_of(loaded, "voc/004218.jpg"))
        for file in sorted({each.pair.file for each in asked(loaded)})[::9][:6]:
            yield from seewhy.compare(loaded, DATA / file, methods=methods).save(folder / name.replace(" ", "-"))[:1]


def main() -> None:
    action, where, *names = sys.argv[1:]
    if action == "pictures":
        for path in pictures(Path(where), names or list(NETWORKS)):
            print(path)
    else:
        for name in names or NETWORKS:
            report(name, where)


if __name__ == "__main__":
    main()
