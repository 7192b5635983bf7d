"""Methods that take something away, from the layer or from the image, and look at what the score does.

In the formulas A_kij is the activation of channel k at place ij of the layer, y the score, <x> the sum over the places.
"""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.methods.masks import Inputs, Masks, PixelMap, ScoresAt, at_least_one, mask_average, min_max, one_of, outer
from seewhy.tensor import at_once, chunked, interpolation, resize, spatial_sum, weighted_sum
from seewhy.types import Activations, Gradients, Map, MethodError, Rows, Scores

ScoreTail = Callable[[Float[Tensor, "m c *grid"], Rows], Scores]


def ablation_cam(
    activations: Activations,
    scores: Scores,
    linear_gradients: Gradients | None,
    score_tail: ScoreTail,
    *,
    relative: bool = False,
    rectify: bool = True,
    chunk: int = 32,
) -> Map:
    """Ablation-CAM: the feature maps, each weighted by what the score loses without it.

    L_ij = ReLU(sum_k w_k A_kij),  w_k = y - y(A with A_k = 0)

    Identity: where y is linear in A, w_k = <gradient_k A_k>, known without running anything; with global average
    pooling and one linear layer, w_k is the class weight times the mean of A_k.

    Args:
        activations: A.
        scores: y.
        linear_gradients: The gradients of y with respect to A where y is proven to be linear in A, else None.
        score_tail: y of changed activations; not called where y is linear, nor for a channel that is zero already.
        relative: Divide the weights by |y|: the paper's share of the score. One factor for the whole map, whose sign,
            divided by y itself, would turn the map round where y < 0. Left out where y = 0.
        rectify: Keep the positive part, as the paper does.
        chunk: Ablated copies of the layer made at once: memory, never the result.

    Returns:
        The map at the layer's resolution, in units of score times activation.

    Reference:
        Desai and Ramaswamy, Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free
        Localization, WACV 2020. pytorch-grad-cam divides by y, and fills with the smallest activation - 10^7 in place
        of 0 where activations may be negative.

    Weakness:
        Zero is nothing special to channels that may be negative (GELU, SiLU); a channel that another one can stand in
        for counts as nothing.
    """
    if linear_gradients is not None:
        drops = spatial_sum(linear_gradients * activations)
    else:
        drops = _drops(activations, scores, score_tail, chunk)
    if relative:
        size = scores.abs().to(drops).unsqueeze(1)
        drops = drops / size.where(size != 0, torch.ones_like(size))
    map = weighted_sum(drops, activations)
    return map.relu() if rectify else map


def recipro_cam(
    activations: Activations,
    scores: Scores,
    linear_gradients: Gradients | None,
    score_tail: ScoreTail,
    *,
    variant: str = "paper",
    stretch: bool = True,
    chunk: int = 32,
) -> Map:
    """Recipro-CAM: at each place, the score of the layer's output with that place alone left of it.

    L_p = N(y(A * m_p)),  m_p a small Gaussian bell around p, N the min-max over the places

    Identity: where y is linear in A, L is N of HiResCAM, blurred by the bell: known without running anything.

    Args:
        activations: A.
        scores: y.
        linear_gradients: The gradients of y with respect to A where y is proven to be linear in A, else None.
        score_tail: y of changed activations, once for each place; not called where y is linear. The authors take
            probabilities.
        variant: "paper": a bell of 1/4, 1/2, 1/4 along each axis; "authors": what their code does by default, the place
            itself and nothing else; "authors_gaussian": the code's other way, which lays the features of the one place
            around it, weighted by the bell.
        stretch: Stretch the map to 0..1, as the paper does. Off, it holds the scores themselves.
        chunk: Changed copies of the layer made at once: memory, never the result.

    Returns:
        The map at the layer's resolution, 0..1, where 0 is the least of the places, not an absence of evidence;
        a constant one is zero. Without `stretch`, scores.

    Raises:
        MethodError: An unknown variant.

    Reference:
        Byun and Lee, ReciproCAM: Lightweight Gradient-free Class Activation Map for Post-hoc Explanations, CVPRW 2024,
        arXiv:2209.14074.

    Weakness:
        A place alone is nothing the network has ever seen; the map is stretched even where the scores hardly differ.
    """
    one_of("variant", variant, ("paper", "authors", "authors_gaussian"))
    bells = [_bells(side, variant != "authors").to(activations) for side in activations.shape[2:]]
    if linear_gradients is not None:
        if variant == "authors_gaussian":
            near = resize(linear_gradients.flatten(0, 1), bells).reshape(activations.shape)
            alone = (near * activations).sum(1)
        else:
            alone = resize((linear_gradients * activations).sum(1), bells)
        offset = scores.to(alone) - spatial_sum(linear_gradients * activations).sum(1)
        map = alone + offset.reshape(-1, *[1] * (alone.ndim - 1))
    else:
        map = _alone(activations, bells, variant == "authors_gaussian", score_tail, chunk)
    return min_max(map) if stretch else map


def rise(
    inputs: Inputs,
    scores_at: ScoresAt,
    *,
    masks: int = 4000,
    cells: int = 7,
    keep: float = 0.5,
    seed: int = 0,
    chunk: int | None = None,
) -> PixelMap:
    """RISE: the mean of random masks, each weighted by the score of the image behind it.

    L = mean_n(y(x * M_n) M_n) / keep,  M_n random cells, 1 with probability keep, upsampled and randomly shifted

    Identity: with independent pixels, not upsampled, all 2^n masks and y linear, L_i = y(keep x) + (1 - keep) w_i x_i.

    Args:
        inputs: x, as the model takes it: what is masked becomes 0, after the usual normalization the mean color.
        scores_at: y. The authors take probabilities; a score that is not zero for a blank image adds its own brightness
            everywhere.
        masks: How many; 4000 for the paper's VGG-16, 8000 for its ResNet-50. All images share them.
        cells: Along each axis.
        keep: The probability that a cell is shown, above 0 and at most 1.
        seed: Of the masks, which are drawn by a generator of their own.
        chunk: Masked copies made at once: memory, never the result. None: what is fastest.

    Returns:
        The map at the input's resolution, in units of the score.

    Raises:
        MethodError: No masks, no cells, or a probability outside 0..1.

    Reference:
        Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018,
        arXiv:1806.07421, equation 6. The map is the paper's; pictures of it, peak and boxes count from its mean, since
        the share y(keep x) of the identity is no evidence; those of the authors' code count from its least value.

    Weakness:
        Thousands of forward passes for a map with the noise of its sample: another seed, another texture.
    """
    at_least_one("masks", masks)
    at_least_one("cells", cells)
    if not 0 < keep <= 1:
        raise MethodError(f"got keep={keep}; it is the probability that a cell is shown, above 0 and at most 1")
    drawn = _random_masks(inputs, masks, cells, keep, seed, chunk)
    return mask_average(inputs, drawn, scores_at) / keep


def occlusion(
    inputs: Inputs,
    scores: Scores,
    scores_at: ScoresAt,
    *,
    patch: int | None = None,
    stride: int | None = None,
    fill: float = 0.0,
    chunk: int | None = None,
) -> PixelMap:
    """Occlusion: what the score loses when a patch is covered, at each pixel the mean of all patches over it.

    L_i = mean over patches P with i in P of y - y(x with x_P = fill)

    Identity: where y = sum_i w_i x_i + b, patches of one pixel and fill 0, L = w x, summed over colors.

    Args:
        inputs: x, as the model takes it.
        scores: y.
        scores_at: y of covered images, once for each patch.
        patch: Side of the patch, in pixels. None: a seventh of each axis.
        stride: From patch to patch, at most a patch's side. None: half of it. The last patch is moved in to end
            where the image does.
        fill: What covers, in the model's own units: 0 is the mean color after the usual normalization.
        chunk: Covered copies made at once: memory, never the result. None: what is fastest.

    Returns:
        The map at the input's resolution, signed, in units of the score.

    Raises:
        MethodError: A patch larger than the image, or a stride that leaves pixels uncovered.

    Reference:
        Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014, arXiv:1311.2901: a gray
        square; its size and stride are not given there.

    Weakness:
        Depends on the size and color of the patch, which is itself something to see; blind where either of two parts
        suffices.
    """
    starts, sides = _windows(inputs.shape[2:], patch, stride)
    places = torch.cartesian_prod(*starts).reshape(-1, len(starts)).to(inputs.device)
    total = inputs.new_zeros((len(inputs), *inputs.shape[2:]), dtype=torch.promote_types(inputs.dtype, torch.float32))
    count = torch.zeros_like(total[0])
    for part in chunked(len(places), at_once(chunk, inputs)):
        pixels = [
            torch.arange(side, device=inputs.device) - at
            for side, at in zip(total.shape[1:], places[part].T[..., None], strict=True)
        ]
        inside = outer([(at >= 0) & (at < side) for at, side in zip(pixels, sides, strict=True)])
        count += inside.sum(0)
        for i in range(len(inputs)):
            rows = torch.full((len(inside),), i, device=inputs.device)
            covered = inputs[i].masked_fill(inside.unsqueeze(1), fill)
            drops = (scores[i] - scores_at(covered, rows)).to(total)
            total[i] += torch.einsum("m,m...->...", drops, inside.to(total))
    return total / count


def _drops(activations: Activations, scores: Scores, score_tail: ScoreTail, chunk: int) -> Float[Tensor, "b c"]:
    """What the score loses without each channel: exactly nothing without one that is zero."""
    alive = (activations != 0).flatten(2).any(2)
    rows, channels = alive.nonzero(as_tuple=True)
    drops = activations.new_zeros(alive.shape)
    for part in chunked(len(rows), chunk):
        at, which = rows[part], channels[part]
        changed = activations[at]
        changed[torch.arange(len(at), device=at.device), which] = 0
        drops[at, which] = (scores[at] - score_tail(changed, at)).to(drops)
    return drops


def _bells(side: int, wide: bool) -> Float[Tensor, "side side"]:
    """For each position along an axis the weights 1/4, 1/2, 1/4 around it, cut off at the ends; or 1 there alone."""
    distance = (torch.arange(side)[:, None] - torch.arange(side)).abs()
    return (0.5 - 0.25 * distance).clamp_min(0) if wide else (distance == 0).float()


def _alone(
    activations: Activations, bells: list[Float[Tensor, "_ _"]], spread: bool, score_tail: ScoreTail, chunk: int
) -> Map:
    """The score with only the surroundings of one place left, for every place of every image."""
    grid = activations.shape[2:]
    rows, places = torch.ones(len(activations), math.prod(grid), device=activations.device).nonzero(as_tuple=True)
    flat = activations.flatten(2)
    parts: list[Tensor] = []
    for part in chunked(len(rows), chunk):
        at = rows[part]
        masks = outer([bell[index] for bell, index in zip(bells, torch.unravel_index(places[part], grid), strict=True)])
        kept = flat[at, :, places[part]].reshape(*flat[at].shape[:2], *[1] * len(grid)) if spread else activations[at]
        parts.append(score_tail(kept * masks.unsqueeze(1), at))
    return torch.cat(parts).to(activations).reshape(len(activations), *grid)


def _random_masks(inputs: Inputs, masks: int, cells: int, keep: float, seed: int, chunk: int | None) -> Iterator[Masks]:
    """RISE's masks: a grid of cells, stretched to one cell more than the image has, and cropped at random."""
    sizes = inputs.shape[2:]
    generator = torch.Generator().manual_seed(seed)
    grids = (torch.rand(masks, *[cells] * len(sizes), generator=generator, dtype=torch.float64) < keep).to(inputs)
    sides = [math.ceil(size / cells) for size in sizes]
    shifts = [torch.randint(side, (masks,), generator=generator) for side in sides]
    lines: list[Tensor] = []
    for side in sides:
        pixels = torch.arange(side * (cells + 1), dtype=torch.float64)
        lines.append(interpolation((pixels + 0.5) * cells / len(pixels) - 0.5, cells))
    for part in chunked(masks, at_once(chunk, inputs)):
        some = grids[part]
        for axis, (size, line, shift) in enumerate(zip(sizes, lines, shifts, strict=True), start=1):
            crops = line[shift[part, None] + torch.arange(size)].to(some)
            some = torch.einsum("mpi,mi...->mp...", crops, some.movedim(axis, 1)).movedim(1, axis)
        yield some


def _windows(sizes: torch.Size, patch: int | None, stride: int | None) -> tuple[list[Tensor], list[int]]:
    """Where the patches start along each axis, and how long they are."""
    sides = [math.ceil(size / 7) if patch is None else patch for size in sizes]
    steps = [max(side // 2, 1) if stride is None else stride for side in sides]
    if any(not 1 <= side <= size for side, size in zip(sides, sizes, strict=True)):
        raise MethodError(f"got patch={patch}; choose one from 1 to {min(sizes)}, as the input is {tuple(sizes)}")
    if any(not 1 <= step <= side for step, side in zip(steps, sides, strict=True)):
        raise MethodError(f"got stride={stride}; choose one from 1 to {min(sides)}, the patch: no pixel is left out")
    starts = [
        torch.tensor(sorted({*range(0, size - side, step), size - side}))
        for size, side, step in zip(sizes, sides, steps, strict=True)
    ]
    return starts, sides
