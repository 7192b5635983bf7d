"""Maps of maps: several layers made one."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.tensor import unit
from seewhy.types import MethodError, ShapeError


def fuse(maps: Sequence[Float[Tensor, "b *s"]], how: str = "mean", *, gamma: float = 2.0) -> Float[Tensor, "b *s"]:
    """One map out of the maps of several layers, each brought to 0..1 by `unit` first.

    mean: (1/n) sum_l u_l,  max: max_l u_l,  max_tanh: max(tanh(gamma u_1), ..., tanh(gamma u_n-1), u_n)

    Raw maps of different layers have no common unit, so the result is relative: it says where, not how much.

    Identity: a single map gives `unit(map)`, whatever `how`.

    Args:
        maps: In the order of execution, shallow to deep, all at one size.
        how: "mean", "max" or "max_tanh". The last is LayerCAM's: shallow maps are faint where they matter, so they are
            scaled up before the element-wise maximum.
        gamma: Strength of that scaling; 2 is the paper's.

    Returns:
        The fused map, 0..1; zero where every map is zero or less.

    Raises:
        ShapeError: No maps, or maps of different sizes.
        MethodError: An unknown `how`.

    Reference:
        Jiang et al., LayerCAM, IEEE Transactions on Image Processing 30, 2021: early layers are scaled by
        tanh(gamma L / max L) with gamma = 2, and layers are fused by the maximum. Which layers are early is our rule:
        all but the deepest one given. torch-cam scales the deepest one too.
    """
    sizes = sorted({tuple(map.shape) for map in maps})
    if len(sizes) != 1:
        got = f"maps of sizes {', '.join(map(str, sizes))}" if sizes else "no maps"
        raise ShapeError(f"got {got}; fusing takes at least one map and all of one size; resize them to one first")
    units = [unit(map) for map in maps]
    if how == "max_tanh":
        units = [*(torch.tanh(gamma * shallow) for shallow in units[:-1]), units[-1]]
    elif how not in ("mean", "max"):
        raise MethodError(f"no fusion {how!r}; choose 'mean', 'max' or 'max_tanh'")
    stacked = torch.stack(units)
    return stacked.mean(0) if how == "mean" else stacked.amax(0)
