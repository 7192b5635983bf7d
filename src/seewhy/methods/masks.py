"""What the methods that change an image or a layer share: masks, built a few at a time, and the scores behind them."""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from seewhy.tensor import at_once, chunked, resize
from seewhy.types import Activations, MethodError, Rows, Scores, Weights

Inputs = Float[Tensor, "b colors *s"]
"""Images, whose number of colors is not the layer's number of channels."""

PixelMap = Float[Tensor, "b *s"]
Masks = Float[Tensor, "m *s"]
Upsample = Callable[[Float[Tensor, "m *grid"]], Float[Tensor, "m *s"]]
ScoresAt = Callable[[Float[Tensor, "m c *s"], Rows], Scores]
Change = Callable[[Float[Tensor, "m c *s"], Masks], Float[Tensor, "m c *s"]]
"""How masks change copies of images: the copies belong to it and may be written to."""


def multiply(images: Float[Tensor, "m c *s"], masks: Masks) -> Float[Tensor, "m c *s"]:
    """The images times their masks, in place: one batch of memory, one pass."""
    return images.mul_(masks.unsqueeze(1))


def noisy(noise: Float[Tensor, "*s"] | Float[Tensor, "c *s"], on_mask: bool) -> Change:
    """The images times their masks, with noise on the masks or else on what comes out."""
    return lambda images, masks: multiply(images, masks + noise) if on_mask else multiply(images, masks).add_(noise)


def faded(share: float) -> Change:
    """The images times a share of their masks."""
    return lambda images, masks: multiply(images, share * masks)


def min_max(maps: Masks) -> Masks:
    """Each map stretched to 0..1; a constant one becomes zero."""
    low, span = reach(maps)
    return (maps - low) / span


def reach(maps: Masks) -> tuple[Float[Tensor, "m *ones"], Float[Tensor, "m *ones"]]:
    """The minimum of each map, and how far its maximum lies above it; 1 where it is constant."""
    low, high = torch.aminmax(maps.flatten(1), dim=1)
    span = high - low
    span = span.where(span != 0, torch.ones_like(span))
    ones = (1,) * (maps.ndim - 1)
    return low.reshape(-1, *ones), span.reshape(-1, *ones)


def constant(maps: Activations) -> Bool[Tensor, "b c"]:
    """Which channels have one value everywhere: those that no min-max can stretch, dead ones above all."""
    low, high = torch.aminmax(maps.flatten(2), dim=2)
    return low == high


def masked_scores(
    inputs: Inputs,
    maps: Activations,
    picked: Bool[Tensor, "b c"],
    upsample: Upsample,
    scores_at: ScoresAt,
    chunk: int | None,
    change: Change = multiply,
) -> Iterator[tuple[Rows, Float[Tensor, "m *grid"], Scores]]:
    """For `chunk` of the picked maps at a time: their images, what is laid on these as masks, and the scores then.

    The masks are the maps upsampled, then stretched to 0..1; as upsampling is linear and keeps constants, they are also
    the upsampled form of what is returned, the maps moved and scaled at the layer. A constant map is the mask zero: its
    upsampled form may be uneven by rounding, which would be blown up to 0..1, so it is told by the layer's own values.
    """
    rows, channels = picked.nonzero(as_tuple=True)
    flat = constant(maps)
    for part in chunked(len(rows), at_once(chunk, inputs)):
        at, which = rows[part], channels[part]
        some = maps[at, which].masked_fill(flat[at, which].reshape(-1, *[1] * (maps.ndim - 2)), 0)
        laid = upsample(some)
        (low, span), ones = reach(laid), (1,) * (some.ndim - 1)
        scores = scores_at(change(inputs[at], (laid - low) / span), at).to(maps)
        yield at, (some - low.reshape(-1, *ones)) / span.reshape(-1, *ones), scores


def channel_scores(
    inputs: Inputs,
    maps: Activations,
    upsample: Upsample,
    scores_at: ScoresAt,
    chunk: int | None,
    change: Change = multiply,
) -> Weights:
    """The score of the image behind the mask of each channel. An image's constant channels share one evaluation."""
    flat = constant(maps)
    first = flat & (flat.cumsum(1) == 1)
    picked = ~flat | first
    scores = maps.new_zeros(flat.shape)
    parts = [part for _, _, part in masked_scores(inputs, maps, picked, upsample, scores_at, chunk, change)]
    scores[picked] = torch.cat(parts)
    shared = scores.gather(1, first.to(torch.uint8).argmax(1, keepdim=True))
    return torch.where(flat, shared, scores)


def outer(lines: Sequence[Shaped[Tensor, "m _"]]) -> Shaped[Tensor, "m *s"]:
    """Masks that are products of one line of values for each axis: m_ij = u_i v_j."""
    return reduce(lambda mask, line: mask.unsqueeze(-1) * line.reshape(len(line), *[1] * (mask.ndim - 1), -1), lines)


def mask_average(inputs: Inputs, masks: Iterator[Masks], scores_at: ScoresAt) -> PixelMap:
    """The mean over masks of mask times score of the masked image: all masks for each image, a few at a time."""
    total = inputs.new_zeros((len(inputs), *inputs.shape[2:]), dtype=torch.promote_types(inputs.dtype, torch.float32))
    count = 0
    for some in masks:
        count += len(some)
        for i in range(len(inputs)):
            rows = torch.full((len(some),), i, device=inputs.device)
            changed = (inputs[i] * some.unsqueeze(1)).to(inputs.dtype)
            total[i] += torch.einsum("m,m...->...", scores_at(changed, rows).to(total), some.to(total))
    return total / count


def blurred(inputs: Inputs, sigma: float, radius: int) -> Inputs:
    """Gaussian blur of every axis, cut off at `radius`, the image mirrored at its border without repeating it."""
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-(offsets.double() ** 2) / (2 * sigma**2))
    matrices: list[Tensor] = []
    for side in inputs.shape[2:]:
        period = max(2 * (side - 1), 1)
        at = (torch.arange(side)[:, None] + offsets) % period
        mirrored = torch.minimum(at, period - at) if side > 1 else torch.zeros_like(at)
        weights = torch.zeros(side, side, dtype=torch.float64).scatter_add(
            1, mirrored, (kernel / kernel.sum()).expand(side, -1)
        )
        matrices.append(weights.to(inputs))
    return resize(inputs.flatten(0, 1), matrices).reshape(inputs.shape)


def widest(activations: Activations, channels: int) -> Float[Tensor, "b kept *grid"]:
    """The channels whose activations spread most over the places, of each image, in their order."""
    at_least_one("channels", channels)
    spread = activations.flatten(2).std(-1, correction=0)
    picked = spread.topk(min(channels, spread.shape[1])).indices.sort(1).values
    return activations[torch.arange(len(activations), device=activations.device)[:, None], picked]


def quantile(maps: Activations, share: float) -> Float[Tensor, "b c *ones"]:
    """The value that this share of each channel's places lies below, interpolated; torch's own limits the size."""
    values = maps.flatten(2).sort(-1).values
    at = share * (values.shape[-1] - 1)
    below, above = values[..., int(at)], values[..., min(int(at) + 1, values.shape[-1] - 1)]
    return (below + (at - int(at)) * (above - below)).reshape(maps.shape[:2] + (1,) * (maps.ndim - 2))


def at_least_one(option: str, value: int) -> None:
    """Refuse a count that would leave nothing to look at, before anything is run."""
    if value < 1:
        raise MethodError(f"got {option}={value}; it counts what is evaluated and is at least 1")


def one_of(option: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a choice that there is not."""
    if value not in choices:
        raise MethodError(f"got {option}={value!r}; choose one of {', '.join(map(repr, choices))}")
