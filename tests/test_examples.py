"""Every example runs as a user runs it: a process of its own, an empty folder, no network, on a CPU."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
LIBRARIES = {"hf": "transformers", "demo": "efficientnet_lite_pytorch", "timm": "timm", "torchvision": "torchvision"}
AS_SCRIPT = """
import os, sys
sys.path[0] = os.path.dirname(sys.argv[1])  # as for any script: a neighbor's name must hide no module
import runpy, torch
torch.set_num_threads(1)
vision = torch.library.Library("torchvision", "DEF")  # as in conftest.py
if not hasattr(torch.ops.torchvision, "nms"):
    vision.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    vision.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs_and_says_what_it_found(path: Path, tmp_path: Path) -> None:
    code = path.read_text(encoding="utf-8")
    assert len(code.splitlines()) <= 50
    (needed,) = re.findall(r"^Needs the extras? ([\w, ]+?)\.", code, re.MULTILINE) or [""]
    for extra in re.split(r", | and ", needed) if needed else ():
        if find_spec(LIBRARIES[extra]) is None:
            pytest.skip(f"needs the extra {extra}")
    command = [sys.executable, "-c", AS_SCRIPT, str(path), "pictures"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 2
    assert [each.name for each in tmp_path.iterdir()] == ["pictures"]
    assert any((tmp_path / "pictures").iterdir())
