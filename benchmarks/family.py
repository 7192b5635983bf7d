"""What the whole family costs: every method beside a plain forward pass, Ablation-CAM beside the peer's, and growth.

The method of benchmarks/cost.py: one thread, CPU time, each case right after a plain `inference_mode` forward of the
same batch, random order, medians of ratios. Results are appended to a file as they come.

    python benchmarks/family.py methods --models efficientnet_b0,vit_b_16 --pairs 5 --out family.jsonl
    python benchmarks/family.py ablation --out family.jsonl       # ours in full, pytorch-grad-cam's from 64 channels
    python benchmarks/family.py inside --out family.jsonl         # Score-CAM: share of time inside the model, memory
    python benchmarks/family.py growth --out family.jsonl         # batch, side, classes, layers
    python benchmarks/family.py table --out family.jsonl          # Markdown
    python benchmarks/family.py plot --out family.jsonl --png ../docs/growth.png
"""

import argparse
import json
import os
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

import seewhy
from cost import EXACT_HEAP, _tokens, forward, images, in_child, record, seconds
from seewhy.model.replay import Replay
from vision import build

warnings.simplefilter("ignore", seewhy.MapWarning)
SHORT: Mapping[str, Mapping[str, Any]] = {  # of what costs thousands of passes, a part; the table says how much
    "score_cam": {"channels": 64},
    "ss_cam": {"samples": 1},
    "is_cam": {"samples": 1},
    "rise": {"masks": 64},
    "opti_cam": {"steps": 10},
}
SCALE = {"rise": 4000 / 64, "opti_cam": 10.0}
DEAR = 20  # forwards: what takes as many is timed once
LEFT_OUT = {"ss_cam", "is_cam"}  # Score-CAM times their samples
CHANNELS = 64
GROWTH = {
    "batch": [1, 2, 4, 8],
    "side": [128, 224, 320, 448],
    "classes": [1, 10, 100, 1000],
    "layers": [1, 2, 4, 8],
}


def ready(name: str) -> nn.Module:
    model = build(name)
    if name == "vit_b_16":
        nn.init.normal_(model.get_submodule("heads.head").weight)  # it is zero as it comes
    return model


def ratios(model: nn.Module, x: Tensor, cases: Mapping[str, Callable[[], Any]], pairs: int) -> dict[str, list[float]]:
    plain = partial(forward, model, x)
    plain()
    for case in cases.values():
        case()  # finds the layers
    found: dict[str, list[float]] = {case: [] for case in cases}
    order = random.Random(0)
    for _ in range(pairs):
        for case in order.sample(list(cases), len(cases)):
            base = seconds(plain)
            found[case].append(seconds(cases[case]) / base)
    return found


def methods(name: str, pairs: int, out: Path, only: list[str]) -> None:
    model, x = ready(name), images(1)
    for method, row in seewhy.METHODS.items():
        if (only and method not in only) or method in LEFT_OUT or (row.layers == "tokens" and name != "vit_b_16"):
            continue
        chosen = dict(SHORT.get(method, {}))
        case = partial(seewhy.explain, model, x, 5, method, options=chosen)
        try:
            (values,) = ratios(model, x, {method: case}, 1).values()
            if values[0] < DEAR:
                (values,) = ratios(model, x, {method: case}, pairs).values()
        except seewhy.MethodError as error:
            print(name, method, error)
            continue
        scale = SCALE.get(method, 1.0)
        if method == "score_cam":
            (layer,) = seewhy.explain(model, x, 5).raw
            scale = _channels(model, layer, x) / 64
        record(out, kind="method", model=name, case=method, ratios=[value * scale for value in values], scale=scale)
        print(f"{name} {method}: {statistics.median(values) * scale:.2f}", flush=True)


def _channels(model: nn.Module, layer: str, x: Tensor) -> int:
    return next(c.shape[1 if c.layout.kind == "bc*" else -1] for c in seewhy.layers(model, x) if c.name == layer)


def ablation(name: str, pairs: int, out: Path) -> None:
    from pytorch_grad_cam import AblationCAM
    from pytorch_grad_cam.ablation_layer import AblationLayer, AblationLayerVit
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, x = ready(name), images(1)
    layer = next(c.name for c in seewhy.layers(model, x) if c.chosen)
    channels = _channels(model, layer, x)
    generic = nn.Sequential(model, nn.LogSoftmax(1))  # the same trunk, where the head is not linear
    kind = AblationLayerVit if name == "vit_b_16" else AblationLayer

    class Some(kind):  # the first channels only; the time of all is extrapolated
        def activations_to_be_ablated(self, _activations: Any, _ratio: float = 1.0) -> Any:
            self.indices = np.arange(CHANNELS, dtype=np.int32)
            return self.indices

    def theirs() -> Any:
        shape = _tokens if name == "vit_b_16" else None
        with AblationCAM(model, [model.get_submodule(layer)], reshape_transform=shape, ablation_layer=Some()) as cam:
            return cam(input_tensor=x, targets=[ClassifierOutputTarget(5)])

    ours = {
        "ablation_cam": partial(seewhy.explain, model, x, 5, "ablation_cam"),
        "ablation_cam, head not linear": partial(seewhy.explain, generic, x, 5, "ablation_cam"),
    }
    for case, values in ratios(model, x, ours, pairs).items():
        record(out, kind="ablation", model=name, case=case, ratios=values, channels=channels)
        print(f"{name} {case}: {statistics.median(values):.2f} for all {channels} channels", flush=True)
    found = ratios(model, x, {"pytorch-grad-cam": theirs}, max(pairs // 3, 1))["pytorch-grad-cam"]
    whole = [value * channels / CHANNELS for value in found]
    record(out, kind="ablation", model=name, case="pytorch-grad-cam", ratios=whole, channels=channels)
    print(f"{name} pytorch-grad-cam: {statistics.median(whole):.0f}, from {CHANNELS} of {channels}", flush=True)


def inside(out: Path) -> None:
    """Score-CAM on the embedded network and a photo: time inside the model, runs saved, memory beside its batch."""
    loaded = seewhy.load()
    spent: list[float] = []
    runs: list[int] = []
    own = Replay._run

    def timed(self: Replay, inputs: Tensor, rows: Tensor) -> Any:
        start = time.process_time()
        result = own(self, inputs, rows)
        spent.append(time.process_time() - start)
        runs.append(len(rows))
        return result

    explain = partial(seewhy.explain, loaded, "skimage:chelsea", 285, "score_cam")
    Replay._run = timed
    whole = seconds(explain)
    Replay._run = own
    channels = _channels(loaded.module, seewhy.explain(loaded, "skimage:chelsea").layers[0], images(1))
    record(out, kind="inside", share=sum(spent) / whole, runs=sum(runs), channels=channels)
    print(f"inside the model {sum(spent) / whole:.3f}, {sum(runs)} runs for {channels} channels")
    plain, warm = partial(forward, loaded.module, images(1)), partial(seewhy.explain, loaded, "skimage:chelsea", 285)
    memory = {
        **{f"forward of {n}": (partial(forward, loaded.module, images(n)), plain) for n in (4, 32)},
        **{f"score_cam, chunks of {n}": (partial(explain, options={"chunk": n}), warm) for n in (4, 32)},
    }
    for case, (run, warm) in memory.items():
        peak, held = in_child(run, warm)
        record(out, kind="inside memory", case=case, peak=peak, held=held)
        print(f"{case}: peak {peak:.0f} MiB, held {held:.1f} MiB", flush=True)


def growth(pairs: int, out: Path) -> None:
    model = ready("resnet50")
    names = [c.name for c in seewhy.layers(model, images(1)) if c.name.count(".") == 1 and c.name.startswith("layer")][
        -8:
    ]
    for axis, steps in GROWTH.items():
        for step in steps:
            x = images(step if axis == "batch" else 1, step if axis == "side" else 224)
            cases = {
                method: partial(_grown, model, x, axis, step, names, method) for method in ("grad_cam", "layer_cam")
            }
            for method, values in ratios(model, x, cases, pairs).items():
                record(out, kind="growth", axis=axis, step=step, case=method, ratios=values)
                print(f"{axis} {step} {method}: {statistics.median(values):.3f}", flush=True)


def _grown(model: nn.Module, x: Tensor, axis: str, step: int, names: list[str], method: str) -> Any:
    if axis == "classes":
        return seewhy.compare(model, x, list(range(step)), [method])
    return seewhy.explain(model, x, 5, method, layer=names[-step:] if axis == "layers" else None)


def table(out: Path) -> str:
    """The tables of docs/cost.md; where a case was measured again, its last line counts."""
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    middle = {
        (row["kind"], row.get("model", row.get("axis")), row["case"], row.get("step")): (
            statistics.median(row["ratios"]),
            row.get("scale", 1) != 1,
        )
        for row in rows
        if "ratios" in row
    }
    return "\n\n".join([_ablations(middle), _all_methods(middle), _growths(middle)])


def _ablations(middle: Mapping[tuple[Any, ...], tuple[float, bool]]) -> str:
    lines = ["| model | seewhy | seewhy, head not linear | pytorch-grad-cam | cheaper by |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(model for kind, model, *_ in middle if kind == "ablation"):
        cases = ("ablation_cam", "ablation_cam, head not linear", "pytorch-grad-cam")
        own, other, peer = (middle["ablation", name, case, None][0] for case in cases)
        lines.append(f"| {name} | {own:.2f} | {other:.1f} | {peer:.0f} | {peer / own:.0f} ({peer / other:.0f}) |")
    return "\n".join(lines)


def _all_methods(middle: Mapping[tuple[Any, ...], tuple[float, bool]]) -> str:
    found = {(case, model): cost for (kind, model, case, _), cost in middle.items() if kind == "method"}
    names = list(dict.fromkeys(model for _, model in found))
    lines = [f"| method | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for case in seewhy.METHODS:
        if any((case, model) in found for model in names):
            cells = [_spelled(*found[case, model]) if (case, model) in found else "" for model in names]
            lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spelled(cost: float, extrapolated: bool) -> str:
    return f"{cost:.2f}" if cost < DEAR else f"{cost:.0f}{' *' * extrapolated}"


def _growths(middle: Mapping[tuple[Any, ...], tuple[float, bool]]) -> str:
    lines = ["| against | method | ratio at each step |", "|---|---|---|"]
    series: dict[tuple[str, str], list[str]] = {}
    for (kind, axis, case, step), (cost, _) in middle.items():
        if kind == "growth":
            series.setdefault((axis, case), []).append(f"{step}: {cost:.2f}")
    lines += [f"| {axis} | {case} | {', '.join(steps)} |" for (axis, case), steps in series.items()]
    return "\n".join(lines)


def plot(out: Path, png: Path) -> None:
    from matplotlib import pyplot

    rows = [row for row in map(json.loads, out.read_text().splitlines()) if row["kind"] == "growth"]
    figure, axes = pyplot.subplots(1, len(GROWTH), figsize=(14, 3.2), layout="constrained")
    for axis, panel in zip(GROWTH, axes, strict=True):
        for method in ("grad_cam", "layer_cam"):
            points = [
                (r["step"], statistics.median(r["ratios"])) for r in rows if (r["axis"], r["case"]) == (axis, method)
            ]
            panel.plot(*zip(*points, strict=True), marker="o", label=method)
        panel.set(xlabel={"side": "side in pixels", "layers": "layers fused"}.get(axis, axis))
        panel.set_xticks(GROWTH[axis] if axis != "classes" else [1, 100, 1000])
        panel.set_ylim(0, 1.15 * panel.get_ylim()[1])
    axes[0].set_ylabel("ratio to one forward of the batch")
    axes[0].legend(frameon=False)
    figure.savefig(png, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["methods", "ablation", "inside", "growth", "table", "plot"])
    parser.add_argument("--models", default="resnet50,vgg16,vit_b_16")
    parser.add_argument("--only", default="", help="these methods alone")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("family.jsonl"))
    parser.add_argument("--png", type=Path, default=Path("growth.png"))
    asked = parser.parse_args()
    if asked.what == "inside" and not EXACT_HEAP.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **EXACT_HEAP})
    if asked.what == "table":
        print(table(asked.out))
    elif asked.what == "plot":
        plot(asked.out, asked.png)
    elif asked.what == "growth":
        growth(asked.pairs, asked.out)
    elif asked.what == "inside":
        inside(asked.out)
    else:
        for name in asked.models.split(","):
            if asked.what == "ablation":
                ablation(name, asked.pairs, asked.out)
            else:
                methods(name, asked.pairs, asked.out, asked.only.split(",") if asked.only else [])


if __name__ == "__main__":
    main()
