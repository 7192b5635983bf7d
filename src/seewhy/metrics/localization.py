"""Does a map point at the object? Metrics on maps and the object's pixels or boxes, and what to compare them with.

Undefined is NaN, never a number: an object without pixels, a map with NaN or infinity, and, where a metric ranks
pixels, a constant map. Report the baselines beside every figure: a blob in the center beats many methods on photos
whose object is in the center, and mere sharpening raises `energy`.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from seewhy.localize import Box
from seewhy.localize import boxes as segments
from seewhy.types import ShapeError

THRESHOLDS = tuple(step / 20 for step in range(1, 20))


def pointing_game(
    map: Float[Tensor, "b h w"], mask: Bool[Tensor, "b h w"], *, tolerance: float = 0.0
) -> Float[Tensor, " b"]:
    """Whether the map's largest value lies on the object; over tied pixels, the share of them that do.

        hit = mean over p in argmax(map) of [some object pixel within `tolerance` of p]

    The share is the expected hit if a tie is broken by chance, so a random map scores the object's share of the
    picture. Any strictly increasing transform of the map leaves it unchanged.

    Args:
        map: any unit and sign.
        mask: the object's pixels.
        tolerance: distance in pixels, between pixel centers, up to which a miss is forgiven.

    Returns:
        0..1 for each map; NaN for a constant map, one that is not finite, or an empty mask.

    Reference:
        Zhang et al., Top-down Neural Attention by Excitation Backprop (arXiv:1608.00507).
    """
    _check(map, mask)
    near = _within(mask, tolerance) if tolerance > 0 else mask
    tied = map == map.amax((1, 2), keepdim=True)
    hit = (tied & near).sum((1, 2)).double() / tied.sum((1, 2))
    return _or_nan(hit, _finite(map) & ~_constant(map) & mask.any(-1).any(-1))


def energy(map: Float[Tensor, "b h w"], mask: Bool[Tensor, "b h w"]) -> Float[Tensor, " b"]:
    """The share of the map's positive mass that lies on the object: sum_mask L+ / sum L+.

    A uniform map scores the object's area; squaring any map raises it, so compare only maps of one sharpness.

    Returns:
        0..1 for each map; NaN for a map without positive values, one that is not finite, or an empty mask.

    Reference:
        Wang et al., Score-CAM (arXiv:1910.01279), section 4.3, with a mask in place of a box.
    """
    _check(map, mask)
    positive = map.double().relu()
    total = positive.sum((1, 2))
    share = (positive * mask).sum((1, 2)) / total
    return _or_nan(share, _finite(map) & (total > 0) & mask.any(-1).any(-1))


def enrichment(map: Float[Tensor, "b h w"], mask: Bool[Tensor, "b h w"]) -> Float[Tensor, " b"]:
    """How many times denser the positive mass is on the object than over the whole picture: energy / area.

    Returns:
        From 0 to 1 / area, 1 for a uniform map; NaN where `energy` is.
    """
    return energy(map, mask) / mask.double().mean((1, 2))


def pixel_auroc(map: Float[Tensor, "b h w"], mask: Bool[Tensor, "b h w"]) -> Float[Tensor, " b"]:
    """The chance that a pixel of the object has a larger value than one beside it; ties count half.

        AUROC = P(L_in > L_out) + P(L_in = L_out) / 2

    Exact, from mean ranks. A random map scores 1/2, and any strictly increasing transform leaves it unchanged.

    Returns:
        0..1 for each map; NaN for a constant map, one that is not finite, or a mask that is empty or full.
    """
    _check(map, mask)
    inside, pixels = mask.sum((1, 2)).double(), mask[0].numel()
    ranks = torch.stack([_mean_ranks(values) for values in map.flatten(1)]) if len(map) else map.flatten(1).double()
    wins = (ranks * mask.flatten(1)).sum(1) - inside * (inside + 1) / 2
    share = wins / (inside * (pixels - inside))  # 0 / 0, and so NaN, where the mask is empty or full
    return _or_nan(share, _finite(map) & ~_constant(map))


def box_iou(
    map: Float[Tensor, "b h w"], boxes: Sequence[Float[Tensor, "_ 4"]], threshold: float = 0.15
) -> Float[Tensor, " b"]:
    """Overlap of the box round the map's largest segment with the best matching box of the object.

        IoU = |box & object| / |box | object|,   box of the largest segment where L >= threshold * max

    Args:
        map: any unit; only positive values count.
        boxes: for each map the object's boxes, xyxy in pixel edges (a box over the whole map: 0, 0, w, h).
        threshold: share of the maximum; the Grad-CAM paper's 0.15.

    Returns:
        0..1 for each map; NaN for a map without positive values, one that is not finite, or no boxes.

    Reference:
        Selvaraju et al., Grad-CAM (arXiv:1610.02391).
    """
    if len(map) != len(boxes):
        raise ShapeError(
            f"got {len(map)} maps and boxes for {len(boxes)}; each map needs its own; pass one entry a map"
        )
    rows = [_overlap(one, truth, threshold) for one, truth in zip(map, boxes, strict=True)]
    return torch.tensor(rows, dtype=torch.float64, device=map.device)


def best_box_iou(
    map: Float[Tensor, "b h w"], boxes: Sequence[Float[Tensor, "_ 4"]], thresholds: Sequence[float] = THRESHOLDS
) -> tuple[Float[Tensor, " b"], float]:
    """`box_iou` at the one threshold that suits all these maps best, and that threshold.

    Call it what it is, an oracle threshold: it was chosen on the very pictures that it is scored on. It makes methods
    comparable whose values are spread differently; for a figure to rely on, choose it on other pictures.

    Args:
        map: all maps of a data set, since the threshold is common to them.
        boxes: as for `box_iou`.
        thresholds: shares of the maximum to try.

    Returns:
        The overlaps, and the threshold with their largest mean (the first of equals).
    """
    tried = torch.stack([box_iou(map, boxes, threshold) for threshold in thresholds])
    best = int(tried.nanmean(1).nan_to_num(-1).argmax())
    return tried[best], thresholds[best]


def center_gaussian(size: tuple[int, int], *, width: float = 0.25) -> Float[Tensor, "h w"]:
    """A blob in the middle: exp(-r^2 / 2), r in units of `width` times the side. Photographers center their object."""
    rows, columns = (((torch.arange(side) + 0.5) / side - 0.5) / width for side in size)
    return torch.exp(-(rows[:, None] ** 2 + columns**2) / 2)


def edge_map(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
    """Strength of the picture's edges (Sobel, on the mean over channels): what is seen without asking the model."""
    gray = functional.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")[:, 0]
    return torch.hypot(_slope(gray), _slope(gray.mT).mT)


def random_map(size: tuple[int, int], generator: torch.Generator) -> Float[Tensor, "h w"]:
    """Independent uniform noise in 0..1 for each pixel: every metric's chance level."""
    return torch.rand(size, generator=generator, device=generator.device)


def uniform(size: tuple[int, int]) -> Float[Tensor, "h w"]:
    """One everywhere: energy is the object's area, enrichment 1, and what ranks pixels is undefined."""
    return torch.ones(size)


def _check(map: Tensor, mask: Tensor) -> None:
    if map.shape != mask.shape:
        raise ShapeError(
            f"got maps of {tuple(map.shape)} and masks of {tuple(mask.shape)}; both are (b h w) of one size; "
            "resize the maps to the masks"
        )


def _or_nan(value: Float[Tensor, " b"], defined: Bool[Tensor, " b"]) -> Float[Tensor, " b"]:
    return value.where(defined, torch.full_like(value, torch.nan))


def _finite(map: Float[Tensor, "b h w"]) -> Bool[Tensor, " b"]:
    return map.isfinite().flatten(1).all(1)


def _constant(map: Float[Tensor, "b h w"]) -> Bool[Tensor, " b"]:
    return map.amax((1, 2)) == map.amin((1, 2))


def _within(mask: Bool[Tensor, "b h w"], distance: float) -> Bool[Tensor, "b h w"]:
    """The pixels whose center is no further than `distance` from one of the mask's."""
    reach = int(distance)
    away = torch.arange(-reach, reach + 1, device=mask.device)
    disk = (away[:, None] ** 2 + away**2 <= distance**2).float()
    return functional.conv2d(mask[:, None].float(), disk[None, None], padding=reach)[:, 0] > 0.5


def _slope(padded: Float[Tensor, "b h2 w2"]) -> Float[Tensor, "b h w"]:
    """Change from column to column, smoothed along the rows; exactly zero where nothing changes."""
    change = (padded[..., 2:] - padded[..., :-2]) / 2
    return (change[:, :-2] + 2 * change[:, 1:-1] + change[:, 2:]) / 4


def _mean_ranks(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Ranks from 1 on, where tied values share the mean of theirs."""
    _, place, count = values.unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0).double() - (count - 1) / 2)[place]


def _overlap(map: Float[Tensor, "h w"], truth: Float[Tensor, "n 4"], threshold: float) -> float:
    found = segments(map, threshold) if len(truth) and bool(map.isfinite().all()) else []
    if not found:
        return float("nan")
    box = torch.tensor(cast(Box, found[0]).xyxy, dtype=torch.float64)
    truth = truth.detach().double().cpu()
    common = (torch.minimum(box[2:], truth[:, 2:]) - torch.maximum(box[:2], truth[:, :2])).clamp_min(0).prod(1)
    areas = (box[2:] - box[:2]).prod() + (truth[:, 2:] - truth[:, :2]).prod(1)
    return float((common / (areas - common)).max())
