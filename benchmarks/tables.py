"""Tables of what quality.py measured: means with intervals over photos, and differences of the same pairs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import seewhy
from photos import interval, share
from seewhy.metrics.localization import THRESHOLDS

BESIDE = ("center Gaussian", "edge map", "random")
MEASURES = ("hit", "hit off center", "AUROC", "energy", "box IoU, oracle", "box IoU at 15 %")
RANKED = ("hit", "hit off center", "AUROC", "box IoU, oracle", "box IoU at 15 %")
NETWORKS = (
    *("MobileNetV2", "EfficientNet-Lite0", "EfficientNet-Lite1", "EfficientNet-Lite2"),
    *("SqueezeNet 1.0", "Tiny Darknet"),
)

Key = tuple[str, str]
"""A photo and a class of it."""


@dataclass(frozen=True)
class Maps:
    """The figures of one method's maps on one network, by pair."""

    rows: dict[Key, dict[str, Any]]

    @property
    def threshold(self) -> int:
        """Which threshold suits all these maps best."""
        means = [mean([row["overlaps"][n] for row in self.rows.values()]) for n in range(len(THRESHOLDS))]
        return max(range(len(means)), key=lambda n: (not math.isnan(means[n]), means[n]))

    def values(self, measure: str, keys: Sequence[Key]) -> list[float]:
        if measure == "box IoU, oracle":
            best = self.threshold
            return [self.rows[key]["overlaps"][best] for key in keys]
        if measure == "box IoU at 15 %":
            return [self.rows[key]["overlaps"][THRESHOLDS.index(0.15)] for key in keys]
        if measure == "hit off center":
            return [self.rows[key]["hit"] if self.rows[key]["outside"] else math.nan for key in keys]
        return [self.rows[key][measure] for key in keys]


def grouped(measured: list[dict], network: str, sources: Sequence[str] = ("voc",)) -> dict[str, Maps]:
    """Everything that was measured on a network, by method; "|tile" after the name where its cells were laid so."""
    found: dict[str, dict[Key, dict[str, Any]]] = {}
    for line in measured:
        if line["network"] == network and line["file"].partition("/")[0] in sources:
            for row in line["rows"]:
                found.setdefault(row["method"], {})[line["file"], row["class"]] = row
    return {method: Maps(rows) for method, rows in found.items()}


def mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def drawn(values: Sequence[float], keys: Sequence[Key], *, hits: bool = False) -> tuple[float, float, float]:
    """Mean and interval over the photos that have a defined value; NaN where there is none."""
    known = [(value, key[0]) for value, key in zip(values, keys, strict=True) if not math.isnan(value)]
    return (share if hits else interval)(*zip(*known, strict=True)) if known else (math.nan,) * 3  # pyright: ignore


def short(number: float, sign: str = "") -> str:
    """Three decimals and no leading zero, or two decimals from 1 on."""
    return f"{number:{sign}.3f}".replace("0.", ".", 1) if abs(number) < 0.9995 else f"{number:{sign}.2f}"


def absolute(maps: Maps, measure: str) -> str:
    keys = list(maps.rows)
    middle, low, high = drawn(maps.values(measure, keys), keys, hits=measure.startswith("hit"))
    text = "-" if math.isnan(middle) else f"{short(middle)} [{short(low)}, {short(high)}]"
    return text + f" @ {THRESHOLDS[maps.threshold]:.2f}" * (measure == "box IoU, oracle")


def difference(ours: Maps, theirs: Maps, measure: str) -> str:
    """On the pairs that both have; bold where the interval leaves zero out, as far as it is printed."""
    keys = [key for key in ours.rows if key in theirs.rows]
    pairs = zip(ours.values(measure, keys), theirs.values(measure, keys), strict=True)
    middle, low, high = drawn([one - other for one, other in pairs], keys)
    if math.isnan(middle):
        return "-"
    text = f"{short(middle, '+')} [{short(low, '+')}, {short(high, '+')}]"
    return f"**{text}**" if max(low, -high) >= 0.0005 else text


def table(columns: Sequence[str], rows: dict[str, tuple[str, ...]]) -> None:
    """Methods with the same figures share a row."""
    print("\n| | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for cells in dict.fromkeys(rows.values()):
        titles = ", ".join(title for title, own in rows.items() if own == cells)
        print("| " + " | ".join([titles, *cells]) + " |")


def title(method: str) -> str:
    name, _, laid = method.partition("|")
    plain = seewhy.METHODS[name].title.removesuffix(" (our preset)") if name in seewhy.METHODS else name
    return plain + " as tiles" * bool(laid)


def aligned(found: dict[str, Maps]) -> list[str]:
    """Methods as `explain` makes them, in the order of the registry, and what to compare them with."""
    return [name for name in (*seewhy.METHODS, *BESIDE) if name in found]


def everything(measured: list[dict]) -> None:
    """The long page: every method on every network."""
    for network in _networks(measured):
        for source in ("voc", "coco"):
            found = grouped(measured, network, (source,))
            keys = list(found["center Gaussian"].rows)
            outside = sum(row["outside"] for row in found["center Gaussian"].rows.values())
            photos = len({file for file, _ in keys})
            print(f"\n## {network}, {source}: {len(keys)} pairs on {photos} photos, {outside} off center")
            table((*MEASURES, "undefined", "pairs"), {title(name): _row(found[name]) for name in aligned(found)})
            if source == "voc":
                differences(found)


def _networks(measured: list[dict]) -> list[str]:
    return [network for network in NETWORKS if any(line["network"] == network for line in measured)]


def _row(maps: Maps) -> tuple[str, ...]:
    undefined = sum(math.isnan(row["energy"]) or math.isnan(row["AUROC"]) for row in maps.rows.values())
    return (*(absolute(maps, measure) for measure in MEASURES), str(undefined), str(len(maps.rows)))


def differences(found: dict[str, Maps]) -> None:
    names = [name for name in aligned(found) if name not in BESIDE]
    center, usual = found["center Gaussian"], found["grad_cam|tile"]
    print("\nMinus the center Gaussian, on the same pairs:")
    table(RANKED, {title(n): tuple(difference(found[n], center, m) for m in RANKED) for n in names})
    print("\nMinus Grad-CAM laid as tiles, on the same pairs:")
    table(RANKED, {title(n): tuple(difference(found[n], usual, m) for m in RANKED) for n in names})
    moved = [n for n in names if n + "|tile" in found and found[n].rows != found[n + "|tile"].rows]
    if moved:
        print("\nCells laid where they look, minus the same as tiles:")
        table(RANKED, {title(n): tuple(difference(found[n], found[n + "|tile"], m) for m in RANKED) for n in moved})


def summary(measured: list[dict]) -> None:
    """The first page's tables."""
    networks = _networks(measured)
    both = {network: grouped(measured, network, ("voc", "coco")) for network in networks}
    for usual in ("grad_cam", "grad_cam|tile"):
        for sources in (("voc",), ("coco",), ("voc", "coco")):
            print(f"\n### sharp minus {title(usual)}: {' + '.join(sources)}")
            accepted({network: grouped(measured, network, sources) for network in networks}, usual)
    changes = [("best", "sharp"), ("sharp", "full_grad"), ("sharp", "refine_cam")]
    for ours, theirs in [*changes, ("grad_cam", "grad_cam|tile"), ("sharp", "sharp|tile")]:
        print(f"\n### {title(ours)} minus {title(theirs)}: voc + coco")
        rows = {n: tuple(difference(found[ours], found[theirs], m) for m in RANKED) for n, found in both.items()}
        table(RANKED, rows)
    print("\n### hit / AUROC / box IoU at the oracle threshold: every method, voc")
    found = {network: grouped(measured, network) for network in networks}
    names = aligned({name: maps for each in found.values() for name, maps in each.items()})
    table(networks, {title(name): tuple(_means(found[n], name) for n in networks) for name in names})


def accepted(found: dict[str, dict[str, Maps]], usual: str) -> None:
    """The preset beside Grad-CAM, laid like it or as everybody has it."""
    rows = {}
    for network, maps in found.items():
        ours, theirs = maps["sharp"], maps[usual]
        hits = f"{absolute(theirs, 'hit')} to {absolute(ours, 'hit')}"
        cells = (hits, difference(ours, theirs, "hit"), absolute(ours, "AUROC"))
        rest = ("AUROC", "box IoU, oracle", "box IoU at 15 %")
        rows[f"{network}, {len(ours.rows)}"] = (*cells, *(difference(ours, theirs, measure) for measure in rest))
    table(("hit", "difference", "AUROC", "difference", "box IoU, oracle", "box IoU at 15 %"), rows)


def _means(found: dict[str, Maps], name: str) -> str:
    """Three figures; a star where they are of some of the pairs only."""
    if name not in found:
        return ""
    maps = found[name]
    figures = (short(mean(maps.values(measure, list(maps.rows)))) for measure in ("hit", "AUROC", "box IoU, oracle"))
    return " / ".join(figures) + " *" * (len(maps.rows) < len(found["center Gaussian"].rows))
