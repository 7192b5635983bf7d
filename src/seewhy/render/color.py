"""Colors for numbers: small tables of our own, so that nobody needs a plotting library to look at a map."""

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from seewhy.types import MethodError, ShapeError

Table = UInt8[np.ndarray, "256 3"]

_ROUNDING = 1e-4  # how far a resized half precision map may wander beyond its range
_STEPS = np.linspace(0, 1, 256)


def _table(columns: Float[np.ndarray, "256 3"]) -> Table:
    table = np.rint(columns.clip(0, 1) * 255).astype(np.uint8)
    table.setflags(write=False)
    return table


def _between(colors: str) -> Table:
    points = np.array([list(bytes.fromhex(color)) for color in colors.split()]) / 255
    places = np.linspace(0, 1, len(points))
    return _table(np.stack([np.interp(_STEPS, places, channel) for channel in points.T], axis=-1))


def _jet() -> Table:
    return _table(1.5 - np.abs(4 * _STEPS[:, None] - [3, 2, 1]))


# fifteen colors of Mikhailov's Turbo (Google, 2019), ten of van der Walt and Smith's inferno (2015); linear in between
COLORMAPS = MappingProxyType(
    {
        "turbo": _between(
            "30123b 4145ab 4675ed 39a2fc 1bcfd4 24eca6 61fc6c a4fc3b d1e834 f3c63a fe9b2d f36315 d93806 b11901 7a0402"
        ),
        "inferno": _between("000004 1b0c41 4a0c6b 781c6d a52c60 cf4446 ed6925 fb9b06 f7d13d fcffa4"),
        "jet": _jet(),
        "coolwarm": _between("2a3fb5 6f92f3 dddddd f08a6c b1081f"),
    }
)
DIVERGING = frozenset({"coolwarm"})


def table(colormap: str) -> Table:
    """The 256 colors of a colormap: `turbo` (the default everywhere), `inferno`, `jet`, or `coolwarm` for signs."""
    if colormap not in COLORMAPS:
        raise MethodError(f"no colormap '{colormap}'; there are {', '.join(COLORMAPS)}; name one of these")
    return COLORMAPS[colormap]


def colorize(values: Float[Tensor, "h w"], colormap: str = "turbo") -> UInt8[np.ndarray, "h w 3"]:
    """The color of each value: table[round(255 * value)].

    Args:
        values: 0..1; for a colormap of signs zero stands at 0.5.
        colormap: a name in COLORMAPS.

    Raises:
        ShapeError: for values outside 0..1, or not a number. Nothing is clipped: it would hide a missing `unit`.
        MethodError: for an unknown colormap.
    """
    checked(values, 0)
    steps = (values.detach().float().cpu().clamp(0, 1) * 255).round().byte()
    return table(colormap)[steps.numpy()]


def checked(heat: Float[Tensor, "h w"], low: float) -> tuple[float, float]:
    """Least and largest value of heat that lies in low..1."""
    if not heat.numel():
        raise ShapeError(f"got heat of {tuple(heat.shape)}; a picture has pixels; check how it was cropped")
    ends: Sequence[float] = [float(end) for end in heat.detach().aminmax()]
    if not low - _ROUNDING <= ends[0] <= ends[1] <= 1 + _ROUNDING:  # false for NaN too
        raise ShapeError(
            f"got heat in {ends[0]:.4g}..{ends[1]:.4g}; a picture shows {low}..1; divide the map by its largest "
            "absolute value, or use seewhy.tensor.unit"
        )
    return ends[0], ends[1]
