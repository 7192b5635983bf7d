"""What every test shares: torchvision made importable on a CPU build, one thread, the place of the shared data."""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

# torchvision's compiled part wants CUDA libraries; with these schemas declared, its pure Python part imports and works
_VISION = torch.library.Library("torchvision", "DEF")
if not hasattr(torch.ops.torchvision, "nms"):
    _VISION.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _VISION.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real weights and photos that stands beside a developer's checkout."""
    if not SHARED.is_dir():
        pytest.skip("needs the real weights and photos of ../shared/data, which a user's clone does not have")
    return SHARED


@pytest.fixture(autouse=True)
def _seeded() -> None:  # pyright: ignore[reportUnusedFunction]
    """Networks and images that a test draws are the same at every run: some random maps have no heat, which warns."""
    torch.manual_seed(0)
