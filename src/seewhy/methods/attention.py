"""Methods that follow attention through a transformer's blocks, from the tokens that the score reads to the patches.

In the formulas A_l is the attention of block l, `(heads n n)`, each row the shares that one token takes of all; G_l is
the gradient of the score with respect to it; r is `reading`, the weight that the score gives each token of the last
block: all on the class token, or the same on all patches where these are averaged. `token_map` lays one number for each
token out as the image's grid and drops the class and register tokens, so grids may have any number of axes.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.types import Map, MethodError

Attentions = Sequence[Float[Tensor, "b heads n n"]]
Tokens = Float[Tensor, "b n"]
TokenMap = Callable[[Float[Tensor, "b n"]], Float[Tensor, "b *grid"]]
Heads = Float[Tensor, "b heads n d"]


def attention_rollout(attentions: Attentions, token_map: TokenMap, reading: Tokens) -> Map:
    """Attention rollout: how much of each patch the tokens that are read hold, if attention alone moved information.

    L = r R,  R = M_L ... M_1,  M_l = rows of (mean_heads A_l + I), each divided by its sum

    Identity: the rows of every M_l, and so of R, sum to 1; L and the dropped tokens' share sum to 1. Where every token
    attends to itself alone, R = I.

    Args:
        attentions: A, first block first.
        token_map: lays tokens out as a grid.
        reading: r.

    Returns:
        The map at the grid of patches: shares, never negative.

    Reference:
        Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, arXiv:2005.00928. The paper has one
        class token; where patches are averaged instead, r is the mean of their rows.

    Weakness:
        Of attention it sees where a model looks, neither what for nor what the values hold: but for which tokens the
        score reads, the map is the same for every question.
    """
    flow = reading
    for attention in reversed(attentions):
        flow = _passed_back(flow, attention.mean(1))
    return token_map(flow)


def gradient_rollout(
    attentions: Attentions, attention_gradients: Attentions, token_map: TokenMap, reading: Tokens
) -> Map:
    """Gradient rollout: attention rollout, with each attention weighted by the gradient of the score.

    L = r R,  R = M_L ... M_1,  M_l = rows of (ReLU(mean_heads A_l * G_l) + I), each divided by its sum

    Identity: the rows of R sum to 1; a gradient of zero gives R = I, which for a class token is a map of zeros.

    Args:
        attentions: A, first block first.
        attention_gradients: G, of the score.
        token_map: lays tokens out as a grid.
        reading: r.

    Returns:
        The map at the grid of patches: shares, never negative. Where patches are averaged it holds their own share of
        r, the same everywhere.

    Reference:
        No publication: the definition is that of the vit-explain package (Gildenblat, 2020), whose code divides the
        columns by the sums of the rows, and sets the smallest nine tenths of each matrix to zero. Here rows are
        divided, as it means to and as rollout does, and nothing is dropped.

    Weakness:
        Not linear in the score: beside an identity of fixed size, doubling the logits changes the picture.
    """
    flow = reading
    for attention, gradient in zip(reversed(attentions), reversed(attention_gradients), strict=True):
        flow = _passed_back(flow, (attention * gradient).mean(1).relu())
    return token_map(flow)


def chefer(
    attentions: Attentions,
    attention_gradients: Attentions,
    token_map: TokenMap,
    reading: Tokens,
    *,
    last_blocks: int = 0,
) -> Map:
    """Generic attention relevance (Chefer): what each patch hands on to the tokens that are read, for the score.

    L = r (R - I),  R = (I + M_L) ... (I + M_1),  M_l = mean_heads ReLU(A_l * G_l)

    Identity: a gradient of zero gives R = I, and so a map of zeros. With one block L = r M_1.

    Args:
        attentions: A, first block first.
        attention_gradients: G, of the score.
        token_map: lays tokens out as a grid.
        reading: r.
        last_blocks: How many blocks to follow, from the last one; 0 is all of them, as in the paper. The authors' CLIP
            notebook follows 1.

    Returns:
        The map at the grid of patches, never negative. I holds no patch of a class token's row, so that without it
        the map is the paper's; where patches are averaged it would be the same everywhere.

    Raises:
        MethodError: more blocks than there are.

    Reference:
        Chefer, Gur and Wolf, Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
        Transformers, ICCV 2021, arXiv:2103.15679, equations 5 and 6 (self-attention).

    Weakness:
        Follows attention only: what the other layers of a block do to a token is left out, and so is evidence against
        the class. Not linear in the score where there are several blocks.
    """
    last = _last(attentions, last_blocks)
    gained = torch.zeros_like(reading)
    for attention, gradient in zip(reversed(last), reversed(_last(attention_gradients, last_blocks)), strict=True):
        gained = gained + _mixed(reading + gained, (attention * gradient).relu().mean(1))
    return token_map(gained)


def legrad(attention_gradients_by_depth: Attentions, token_map: TokenMap, *, last_blocks: int = 0) -> Map:
    """LeGrad: the positive gradients of each block's own score, as if the model ended there, to its attention.

    L_i = mean_l mean_heads mean_q ReLU(D_l,qi),  D_l = d s_l / d A_l,  s_l = the score if the head read the mean of
    block l's output tokens

    Identity: a block whose score does not change with its attention adds zero.

    Args:
        attention_gradients_by_depth: D, first block first.
        token_map: lays tokens out as a grid.
        last_blocks: How many blocks to use, from the last one; 0 is all of them, as in the paper's formula. The
            authors' code uses 2 unless told otherwise.

    Returns:
        The map at the grid of patches, never negative; the paper's min-max is left to the display.

    Raises:
        MethodError: more blocks than there are.

    Reference:
        Bousselham et al., LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity,
        2024, arXiv:2404.03214. For attention poolers the authors take the pooler's attention; here blocks are all.

    Weakness:
        Sensitivity, not attention: a patch may count that no token attends to; early blocks answer through a head that
        was never trained on them.
    """
    received = [g.relu().mean((1, 2)) for g in _last(attention_gradients_by_depth, last_blocks)]
    return token_map(torch.stack(received).mean(0))


def grad_eclip(
    queries: Heads,
    keys: Heads,
    values: Heads,
    head_gradients: Heads,
    token_map: TokenMap,
    reading: Tokens,
    *,
    similarity: bool = True,
    rectify: bool = True,
) -> Map:
    """Grad-ECLIP: the last block's values, weighted by the gradient of what is read and by their likeness to its query.

    L_i = ReLU(lambda_i sum_c g_c v_ic),  g = sum_j r_j d score / d o_j,  o = A v,
    lambda_i = (s_i - min s) / (max s - min s) over the patches,  s_i = sum_j r_j cos(q_j, k_i), over all heads at once

    Identity: with `similarity` and `rectify` off and A the same everywhere, the mean of L over all tokens is g . o.

    Args:
        queries: q of the last block.
        keys: k of the last block.
        values: v of the last block.
        head_gradients: d score / d o of the last block, before the heads are joined by a linear layer.
        token_map: lays tokens out as a grid.
        reading: r; the paper reads the class token.
        similarity: Weigh by lambda. Off, the authors' variant without it (`withksim=False`).
        rectify: Keep the positive part, as the paper does. Off, negative values speak against the score.

    Returns:
        The map at the grid of patches. Where all patches are alike, lambda is 1.

    Reference:
        Zhao et al., Gradient-based Visual Explanation for Transformer-based CLIP, ICML 2024; extended: Grad-ECLIP,
        arXiv:2502.18816. The authors' code runs
        the last block again as a single head and sends queries and keys through the layer after it before it compares
        them; here the block is the model's own.

    Weakness:
        Sees the last block only: where its tokens are already mixed, the patches that it marks need not be the image's.
    """
    read = torch.einsum("bn,bhnd->bhd", reading, head_gradients)
    map = token_map(torch.einsum("bhd,bhnd->bn", read, values))
    if similarity:
        asked = torch.einsum("bn,bnc->bc", reading, _directions(queries))
        map = map * _stretched(token_map(torch.einsum("bc,bnc->bn", asked, _directions(keys))))
    return map.relu() if rectify else map


def _mixed(flow: Tokens, mixing: Float[Tensor, "b n n"]) -> Tokens:
    """One row of weights times a matrix: n^2 operations where the product of whole matrices takes n^3."""
    return torch.einsum("bq,bqk->bk", flow, mixing)


def _passed_back(flow: Tokens, mixing: Float[Tensor, "b n n"]) -> Tokens:
    """`flow` times (mixing + I) with rows divided by their sums."""
    share = flow / (1 + mixing.sum(-1))
    return share + _mixed(share, mixing)


def _last(blocks: Attentions, count: int) -> Attentions:
    if not 0 <= count <= len(blocks):
        raise MethodError(
            f"got last_blocks={count} for a model of {len(blocks)} attention blocks; give 1 to {len(blocks)}, or 0 "
            "for all"
        )
    return blocks[-count:] if count else blocks


def _directions(x: Heads) -> Float[Tensor, "b n c"]:
    """Each token's vector over all heads, divided by its length; zero stays zero."""
    joined = x.transpose(1, 2).flatten(2)
    length = torch.linalg.vector_norm(joined, dim=-1, keepdim=True)
    return joined / length.where(length != 0, torch.ones_like(length))


def _stretched(map: Map) -> Map:
    """Each image's values moved and scaled to 0..1; 1 where they are all the same."""
    ones = (1,) * (map.ndim - 1)
    low, high = (x.reshape(-1, *ones) for x in torch.aminmax(map.flatten(1), dim=-1))
    spread = high - low
    size = spread.where(spread != 0, torch.ones_like(spread))
    return torch.where(spread != 0, (map - low) / size, torch.ones_like(map))
