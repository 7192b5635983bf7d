"""What an explanation costs beside a plain forward pass: CPU time and peak memory, ours and the peers'.

One thread, CPU time. Every case is timed right after a plain `inference_mode` forward of the same batch, in random
order, and counts by the ratio of the two; the table has the median of the ratios and its 95 % interval. Memory is the
high-water mark of a forked child above what it started with, after the same call on one image in it. Results are
appended to a file as they come, so that a long run can be stopped and resumed.

    python benchmarks/cost.py time --models resnet50 --batches 1,8 --pairs 30 --out cost.jsonl
    python benchmarks/cost.py memory --out cost.jsonl
    python benchmarks/cost.py table --out cost.jsonl
"""

import argparse
import ctypes
import gc
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import seewhy
from vision import build

torch.set_num_threads(1)
MODELS = ("resnet50", "efficientnet_b0", "vgg16", "vit_b_16")
METHODS = ("grad_cam", "grad_cam_pp", "hires_cam", "xgrad_cam", "layer_cam", "eigen_cam")
LIMITS = {"vit_b_16": 1.15}
Case = Callable[[], Any]
# every block of 64 KiB or more is asked of the system and given back at once, so that a peak is what was in use
EXACT_HEAP = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def images(batch: int, side: int = 224) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def forward(model: nn.Module, x: Tensor) -> Any:
    with torch.inference_mode():
        return model(x)


def ours(model: nn.Module, x: Tensor) -> dict[str, Case]:
    return {method: partial(seewhy.explain, model, x, 5, method) for method in METHODS}


def many(model: nn.Module, x: Tensor) -> dict[str, Case]:
    """Ten, a hundred and all thousand classes of one image, each with its own map at the input's size."""
    generic = nn.Sequential(model, nn.LogSoftmax(1))  # the same trunk, where the head is not linear
    return {
        f"{count} classes{kind}": partial(seewhy.compare, which, x, list(range(count)))
        for count in (10, 100, 1000)
        for kind, which in (("", model), (", head not linear", generic))
    }


def peers(model: nn.Module, x: Tensor) -> dict[str, Case]:
    """The peers at the layer that we choose, resized to the input, as their documentation shows."""
    name = next(c.name for c in seewhy.layers(model, x[:1]) if c.chosen)
    layer = model.get_submodule(name)
    return {
        "pytorch-grad-cam": partial(_pytorch_grad_cam, model, layer, x),
        "torch-cam": partial(_torch_cam, model, name, x),
        "captum": partial(_captum, model, layer, x),
    }


def _tokens(tensor: Tensor) -> Tensor:
    """The reshape that pytorch-grad-cam's user has to write for a vision transformer."""
    return tensor[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2) if tensor.ndim == 3 else tensor


def _pytorch_grad_cam(model: nn.Module, layer: nn.Module, x: Tensor) -> Any:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with GradCAM(model=model, target_layers=[layer], reshape_transform=_tokens) as cam:
        return cam(input_tensor=x, targets=[ClassifierOutputTarget(5)] * len(x))


def _torch_cam(model: nn.Module, layer: str, x: Tensor) -> Any:
    from torchcam.methods import GradCAM

    with GradCAM(model, target_layer=layer) as cam:
        scores = model(x)
        maps = cam([5] * len(x), scores)[0]
    if maps.ndim == 3:
        return nn.functional.interpolate(maps[:, None], x.shape[2:], mode="bilinear")
    return maps


def _captum(model: nn.Module, layer: nn.Module, x: Tensor) -> Any:
    from captum.attr import LayerAttribution, LayerGradCam

    found = LayerGradCam(model, layer).attribute(x, target=5, relu_attributions=True)
    return LayerAttribution.interpolate(found, x.shape[2:], "bilinear") if found.ndim == 4 else found


GROUPS = {"ours": ours, "many": many, "peers": peers}


def seconds(case: Case) -> float:
    start = time.process_time()
    case()
    return time.process_time() - start


def measure_time(name: str, batch: int, group: str, pairs: int, out: Path) -> None:
    model, x = build(name), images(batch)
    plain = partial(forward, model, x)
    cases = GROUPS[group](model, x)
    plain()
    if group == "ours":  # the first call of all finds the layer and measures where its cells look
        base, cost = seconds(plain), seconds(next(iter(cases.values())))
        record(out, kind="first", model=name, batch=batch, case="first call", ratios=[cost / base])
    ratios: dict[str, list[float]] = {case: [] for case in cases}
    order = random.Random(0)
    for _ in range(pairs):
        gc.collect()  # what the peers leave behind
        plain()  # the collector has emptied the caches, which would flatter the explanation that comes second
        for case in order.sample(list(cases), len(cases)):
            base = seconds(plain)
            ratios[case].append(seconds(cases[case]) / base)
    for case, values in ratios.items():
        record(out, kind="time", model=name, batch=batch, case=case, ratios=values)
        low, high = interval(values)
        print(f"{name} b{batch} {case}: {statistics.median(values):.3f} [{low:.3f}, {high:.3f}]", flush=True)


def interval(values: list[float]) -> tuple[float, float]:
    """The 95 % interval of the median, by order statistics."""
    ordered, n = sorted(values), len(values)
    reach = int(0.98 * n**0.5 + 0.5)
    return ordered[max(n // 2 - reach, 0)], ordered[min(n // 2 + reach, n - 1)]


def measure_memory(name: str, batch: int, out: Path) -> None:
    model, x, fresh = build(name), images(batch), build(name)
    seewhy.explain(model, x, 5)  # finds the layer
    cases = memory_cases(model, fresh, x)
    small = memory_cases(model, build(name), x[:1])
    for case, run in cases.items():
        peak, held = in_child(run, small[case])
        record(out, kind="memory", model=name, batch=batch, case=case, peak=peak, held=held)
        print(f"{name} b{batch} {case}: peak {peak:.0f} MiB, held {held:.1f} MiB", flush=True)


def memory_cases(model: nn.Module, fresh: nn.Module, x: Tensor) -> dict[str, Case]:
    plain = {"forward": partial(forward, model, x), "first call": partial(seewhy.explain, fresh, x, 5)}
    return {**plain, **ours(model, x), **(peers(model, x) if _installed("pytorch_grad_cam") else {})}


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def in_child(run: Case, warm: Case) -> tuple[float, float]:
    """Peak memory of one call above the start, and what is held after it, in MiB, in a forked child."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        trim = ctypes.CDLL("libc.so.6").malloc_trim
        warm()  # a child maps the libraries' code anew, which is no memory of the call's
        gc.collect()
        trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        start = _status("VmRSS")
        result = run()
        peak = _status("VmHWM")
        del result
        gc.collect()
        trim(0)
        os.write(write, json.dumps([(peak - start) / 1024, (_status("VmRSS") - start) / 1024]).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return tuple(json.loads(text))


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field + ":")))


def record(out: Path, **row: Any) -> None:
    with out.open("a") as file:
        file.write(json.dumps(row) + "\n")


def table(out: Path) -> str:
    """All that was measured, as Markdown."""
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    heads = ("model", "batch", "case", "pairs", "ratio to a forward", "95 % interval", "peak MiB", "held MiB")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    merged: dict[tuple[str, int, str], dict[str, Any]] = {}
    for row in rows:
        merged.setdefault((row["model"], row["batch"], row["case"]), {}).update(row)
    for (model, batch, case), row in merged.items():
        time_cells, memory_cells = ["", "", ""], ["", ""]
        if ratios := row.get("ratios"):
            low, high = interval(ratios)
            time_cells = [f"{len(ratios)}", f"{statistics.median(ratios):.3f}", f"{low:.3f} to {high:.3f}"]
        if "peak" in row:
            memory_cells = [f"{row['peak']:.0f}", f"{row['held']:.1f}"]
        lines.append(f"| {' | '.join([model, str(batch), case, *time_cells, *memory_cells])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["time", "memory", "table"])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--groups", default="ours", help="ours, many, peers")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("cost.jsonl"))
    asked = parser.parse_args()
    if asked.what == "memory" and not EXACT_HEAP.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **EXACT_HEAP})
    if asked.what == "table":
        print(table(asked.out))
        return
    for name in asked.models.split(","):
        for batch in map(int, asked.batches.split(",")):
            if asked.what == "memory":
                measure_memory(name, batch, asked.out)
                continue
            for group in asked.groups.split(","):
                measure_time(name, batch, group, asked.pairs, asked.out)


if __name__ == "__main__":
    main()
