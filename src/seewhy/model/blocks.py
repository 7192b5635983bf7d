"""The blocks of a transformer: which attentions follow one another, where their tokens are, which the score reads."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seewhy.model.attention import Attention, attentions
from seewhy.model.batch import Batch
from seewhy.model.capture import Capture
from seewhy.model.forward import forward
from seewhy.model.observe import untouched, watched
from seewhy.model.spot import Spot
from seewhy.model.tokens import Layout
from seewhy.nested import tensors
from seewhy.types import MethodError, Path
from seewhy.wording import by

TokenMap = Callable[[Float[Tensor, "b n"]], Float[Tensor, "b *grid"]]
Tail = Callable[[Float[Tensor, "m n c"], Int[Tensor, " m"]], Float[Tensor, "q m"]]
"""Differentiable scores of q questions if the last block had put out these tokens, the j-th for image `rows[j]`."""

HEADS = "heads"
"""What the last attention put out, head by head, is called among the activations of a capture."""

_INSTEAD = "use grad_cam or another method that needs no attention"


@dataclass(frozen=True)
class Block:
    """A module around one attention alone, which puts out the tokens after it.

    `attention` counts the attentions of the pass from 0; `axis` is the tokens' in its output: 1, or 0 where the images'
    comes second.
    """

    attention: int
    spot: Spot
    axis: int

    def of_images(self, raw: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The module's tensor as `(b n c)`, or back; axes ahead of these pass through."""
        return raw if self.axis == 1 else raw.transpose(-3, -2)


def blocks(model: nn.Module, batch: Batch) -> dict[int, Block]:
    """For each attention of one forward pass the outermost module that holds it alone and puts out tokens.

    Raises:
        MethodError: there is no such module, as in a network without attention.
    """
    found: dict[int, Block] = {}
    begun: list[int] = []
    modules = {name: module for name, module in model.named_modules() if name}
    with ExitStack() as stack:
        stack.enter_context(untouched(model))
        stack.enter_context(torch.no_grad())
        seen = stack.enter_context(attentions(len(batch), graph=False))

        def begin(_name: str, _call: int, _inputs: Any) -> None:
            begun.append(len(seen))

        def end(name: str, call: int, output: Any) -> None:
            first = begun.pop()
            if len(seen) == first + 1:
                place = _tokens_in(output, len(batch), seen[first].probabilities.shape[-2])
                if place is not None:
                    found[first] = Block(first, Spot(name, call, place[0]), place[1])

        stack.enter_context(watched(modules, begin, before=True))
        stack.enter_context(watched(modules, end))
        forward(model, batch)
    if not found:
        ran = f"of {len(seen)} attentions none has a block that puts out tokens" if seen else "no softmax attention ran"
        raise MethodError(f"{ran} in this model, so there is none to follow; {_INSTEAD}")
    return found


@dataclass(frozen=True)
class Attended:
    """The attentions among all tokens of one pass, with the blocks that they are in.

    Args:
        attentions: block by block.
        names: of their probabilities among the activations of the capture, and of what each block put out.
        blocks: for each.
    """

    attentions: Sequence[Attention]
    names: Sequence[tuple[str, str]]
    blocks: Sequence[Block]

    @property
    def last(self) -> Block:
        """The block that what follows reads."""
        return self.blocks[-1]


def spots_of(found: Mapping[int, Block]) -> dict[str, Spot]:
    """Where a capture finds what each block puts out."""
    return {_tokens_of(block): block.spot for block in found.values()}


def attended(
    shown: Capture, seen: Sequence[Attention], found: Mapping[int, Block], images: int
) -> tuple[Capture, Attended]:
    """The capture with the probabilities and heads among its activations, and which attentions may be followed.

    Raises:
        MethodError: as `of_tokens`, or an attention without a block of its own.
    """
    last = found[max(found)]
    tokens = shown.activations[_tokens_of(last)].shape[last.axis]
    used = of_tokens(seen[: max(found) + 1], images, tokens)
    places = [place for place, each in enumerate(seen) if any(each is kept for kept in used)]
    without = [place for place in places if place not in found]
    if without:
        raise MethodError(f"attention {without[0]} of the model has no module around it alone, so {_INSTEAD}")
    extra: dict[str, Tensor] = {f"attention {place}": seen[place].probabilities for place in places}
    heads = used[-1].output
    if heads is not None:
        extra[HEADS] = heads
    blocks = [found[place] for place in places]
    names = [(f"attention {place}", _tokens_of(found[place])) for place in places]
    return replace(shown, activations={**shown.activations, **extra}), Attended(used, names, blocks)


def _tokens_of(block: Block) -> str:
    return f"tokens {block.attention}"


def _tokens_in(output: Any, images: int, tokens: int) -> tuple[Path, int] | None:
    for path, tensor in tensors(output):
        if tensor.ndim == 3 and tuple(tensor.shape[:2]) in ((images, tokens), (tokens, images)):
            return path, 1 if tensor.shape[0] == images else 0
    return None


def of_tokens(seen: Sequence[Attention], images: int, tokens: int | None = None) -> list[Attention]:
    """The attentions among all tokens of an image, block by block: what rollout and its kin may multiply.

    What runs after the last of them (poolers with one query, decoders, a text tower) is left out.

    Args:
        seen: every attention of a forward pass.
        images: in the batch.
        tokens: of an image, all of them; by default as many as the last square attention has.

    Raises:
        MethodError: there is no such attention, or some blocks attend within windows, or among other numbers of tokens.
    """
    if not seen:
        raise MethodError(f"no softmax attention ran in this model, so there is none to follow; {_INSTEAD}")
    shapes = [tuple(attention.probabilities.shape) for attention in seen]
    fitting = [
        place
        for place, shape in enumerate(shapes)
        if len(shape) == 4 and shape[0] == images and shape[2] == shape[3] and tokens in (None, shape[3])
    ]
    count = shapes[fitting[-1]][3] if fitting else None
    kept = [place for place in fitting if shapes[place][3] == count]
    wrong = [shape for place, shape in enumerate(shapes) if place not in kept and (not kept or place < kept[-1])]
    if wrong:
        raise MethodError(_not_among_all(wrong[0], images, count or tokens))
    return [seen[place] for place in kept]


def _not_among_all(shape: tuple[int, ...], images: int, tokens: int | None) -> str:
    found = f"attention of shape {shape} for {images} image{'s' * (images > 1)}"
    way_out = f"attention cannot be followed through this model; {_INSTEAD}"
    if len(shape) != 4 or shape[0] != images:
        return f"got {found}, which is within windows or parts of an image, not among all its tokens, so {way_out}"
    others = f", where other blocks have {tokens} tokens" if tokens else ""
    return f"got {found}, from {shape[2]} tokens to {shape[3]}{others}, so {way_out}"


def token_map(layout: Layout, tokens: int) -> TokenMap:
    """Lays one number for each token out as the grid of a layout; other tokens than patches are dropped.

    Raises:
        MethodError: the layout is one of a tensor without a sequence, and has another number of cells.
    """
    sequence = layout.kind in ("bnc", "bcn")
    if not sequence and prod(layout.grid) != tokens:
        raise MethodError(
            f"got a layer with a grid of {by(layout.grid)} for attention among {tokens} tokens; choose "
            "a layer that puts out tokens, such as a block of the transformer"
        )
    patches = Layout("bnc", layout.grid, layout.positions if sequence else range(tokens))
    return lambda numbers: patches.to_cells(numbers.unsqueeze(-1))[:, 0]


def tokens_read(gradients: Float[Tensor, "b n c"]) -> Float[Tensor, "b n"]:
    """The tokens that a score reads, equally: those of the last block's output at which its gradient is not zero.

    All on the class token where that alone is read; the same on all patches where these are averaged, also behind a
    norm that makes their gradients differ. Rows sum to 1, or to 0 where no token is read. What is zero up to the
    rounding of the largest counts as zero.
    """
    strength = gradients.detach().abs().amax(-1)
    least = torch.finfo(strength.dtype).eps * strength.amax(-1, keepdim=True)
    read = (strength > least).to(strength)
    return read / read.sum(-1, keepdim=True).clamp_min(1)


def mean_token_gradients(tail: Tail, tokens: Sequence[Float[Tensor, "b n c"]]) -> list[Float[Tensor, "q b c"]]:
    """For each block, d score / d mean of its tokens, if every token that the last block puts out were that mean.

    So a class token, a mean and a pooler all read the mean, and the head that follows is the model's own.
    """
    means = torch.stack([block.detach().mean(1) for block in tokens]).flatten(0, 1).requires_grad_()
    rows = torch.arange(len(tokens[0]), device=means.device).repeat(len(tokens))
    with torch.enable_grad():
        scores = tail(means.unsqueeze(1).expand(-1, tokens[0].shape[1], -1), rows)
        found = [torch.autograd.grad(score.sum(), means, retain_graph=True)[0] for score in scores]
    return list(torch.stack(found).unflatten(1, (len(tokens), -1)).unbind(1))


def gradients_by_depth(
    capture: Capture,
    pairs: Sequence[tuple[str, Block, str]],
    through: Sequence[Float[Tensor, "q b c"]],
) -> list[Float[Tensor, "q b heads n n"]]:
    """For each block, the gradients of its own score with respect to its attention.

    A block's score is that of the mean of its tokens (`mean_token_gradients`). The way back is through this block
    alone, so that all blocks together cost one backward pass.

    Args:
        capture: holds the blocks' tokens and probabilities.
        pairs: for each block the name of its tokens, the block, and the name of its probabilities.
        through: for each block, d score / d mean of its tokens.
    """
    found: list[Tensor] = []
    for (tokens, block, probabilities), gradient in zip(pairs, through, strict=True):
        raw = capture.activations[tokens]
        count = raw.shape[block.axis]
        each = (gradient / count).unsqueeze(2).expand(-1, -1, count, -1)
        found.append(capture.gradients([(raw, block.of_images(each))], [probabilities])[probabilities])
    return found
