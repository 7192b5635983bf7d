"""Attention of real library models without weights: seen by the mode, against what the libraries themselves show."""

import math
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.methods.attention import attention_rollout, chefer, grad_eclip, gradient_rollout, legrad
from seewhy.model.attention import attentions
from seewhy.model.batch import Batch
from seewhy.model.blocks import blocks, gradients_by_depth, mean_token_gradients, of_tokens, token_map, tokens_read
from seewhy.model.capture import Capture, capture
from seewhy.model.observe import untouched
from seewhy.model.spot import rerouted
from seewhy.model.tokens import Layout
from seewhy.types import MethodError, ModelError

B, SIDE, PATCH, DEPTH, HEADS, WIDTH, CLASSES = 2, 32, 8, 3, 2, 16, 5
CELLS = (SIDE // PATCH) ** 2


def timm_vit(fused: bool, **options) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        SIDE, PATCH, num_classes=CLASSES, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, **options
    )
    for block in model.blocks:
        block.attn.fused_attn = fused
    return model


def timm_deit(fused: bool) -> nn.Module:
    from timm.models.deit import VisionTransformerDistilled

    model = VisionTransformerDistilled(
        img_size=SIDE, patch_size=PATCH, num_classes=CLASSES, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS
    )
    for block in model.blocks:
        block.attn.fused_attn = fused
    return model


def torchvision_vit() -> nn.Module:
    from torchvision.models.vision_transformer import VisionTransformer

    return VisionTransformer(SIDE, PATCH, DEPTH, HEADS, WIDTH, 2 * WIDTH, num_classes=CLASSES)


HF = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "intermediate_size": 2 * WIDTH,
    "image_size": SIDE,
    "patch_size": PATCH,
}


def hf_vit(how: str) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(**HF, num_labels=CLASSES, attn_implementation=how))


def hf_clip(how: str) -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(**HF, projection_dim=CLASSES, attn_implementation=how)
    return CLIPVisionModelWithProjection(config)


class OpenBlock(nn.Module):
    """A block as OpenAI's and OpenCLIP's towers have it: tokens first, images second."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, HEADS)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class OpenTower(nn.Module):
    """An image tower of CLIP as its authors wrote it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.positions = nn.Parameter(torch.randn(CELLS + 1, WIDTH))
        self.resblocks = nn.Sequential(*(OpenBlock() for _ in range(DEPTH)))
        self.ln_post, self.proj = nn.LayerNorm(WIDTH), nn.Parameter(torch.randn(WIDTH, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).flatten(2).mT
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positions
        x = self.resblocks(x.transpose(0, 1)).transpose(0, 1)
        return self.ln_post(x[:, 0]) @ self.proj


MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "timm vit, fused": (lambda: timm_vit(True), 1),
    "timm vit, eager": (lambda: timm_vit(False), 1),
    "timm vit, mean": (lambda: timm_vit(True, global_pool="avg", class_token=False), 0),
    "timm vit, mean after norm": (lambda: timm_vit(True, global_pool="avg", fc_norm=False), 1),
    "timm vit, pooler": (lambda: timm_vit(True, global_pool="map", class_token=False), 0),
    "timm vit, registers": (lambda: timm_vit(True, reg_tokens=3), 4),
    "timm deit, fused": (lambda: timm_deit(True), 2),
    "timm deit, eager": (lambda: timm_deit(False), 2),
    "torchvision vit": (torchvision_vit, 1),
    "transformers vit, sdpa": (lambda: hf_vit("sdpa"), 1),
    "transformers vit, eager": (lambda: hf_vit("eager"), 1),
    "transformers clip, sdpa": (lambda: hf_clip("sdpa"), 1),
    "transformers clip, eager": (lambda: hf_clip("eager"), 1),
    "open clip": (OpenTower, 1),
}
EVERY = pytest.mark.parametrize("name", MODELS)


def build(name: str) -> nn.Module:
    """In float64 and eval mode, every parameter drawn anew: torchvision's head is zero, and norms are the identity."""
    torch.manual_seed(0)
    model = MODELS[name][0]().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1 if parameter.ndim == 1 else 0, 0.5)
    return model.requires_grad_(False)


def images(b: int = B) -> Tensor:
    return torch.randn(b, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def scores_of(output) -> Tensor:
    if isinstance(output, Tensor):
        return output
    return output["logits"] if "logits" in output else output["image_embeds"]


@dataclass(frozen=True)
class Shown:
    """A capture with the attentions and the blocks' tokens among its activations."""

    capture: Capture
    seen: list
    found: dict

    @property
    def scores(self) -> Tensor:
        return scores_of(self.capture.output)

    @property
    def pairs(self) -> list:
        return [(f"tokens {place}", block, f"attention {place}") for place, block in sorted(self.found.items())]

    def gradients(self, classes: list[int], names: list[str]) -> dict[str, Tensor]:
        seeds = torch.zeros(len(classes), *self.scores.shape, dtype=torch.float64)
        seeds[range(len(classes)), :, classes] = 1
        return self.capture.gradients([(self.scores, seeds)], names)


def show(model: nn.Module, x: Tensor) -> Shown:
    found = blocks(model, Batch(x))
    found = {place: block for place, block in found.items() if place < DEPTH}
    spots = {f"tokens {place}": block.spot for place, block in found.items()}
    with attentions(len(x)) as seen:
        shown = capture(model, Batch(x), spots)
    every = {f"attention {place}": attention.probabilities for place, attention in enumerate(seen)}
    every |= {f"output {place}": attention.output for place, attention in enumerate(seen)}
    return Shown(replace(shown, activations={**shown.activations, **every}), seen, found)


@contextmanager
def hooked(modules: list[nn.Module], *, before: bool = False):
    """What these modules put out, or with `before` got, in a pass with a graph from its input on."""
    kept: list[Tensor] = []

    def hook(module, given, *output):
        tensor = given[0] if before else output[0]
        kept.append(tensor)

    handles = [m.register_forward_pre_hook(hook) if before else m.register_forward_hook(hook) for m in modules]
    yield kept
    for handle in handles:
        handle.remove()


# The mode


@EVERY
@pytest.mark.parametrize("grad", [False, True])
def test_the_output_stays_the_same_and_every_attention_is_seen(name: str, grad: bool) -> None:
    model, x = build(name), images()
    tokens = CELLS + MODELS[name][1]
    with torch.set_grad_enabled(grad):
        wanted = scores_of(model(x))
        with attentions(B) as seen:
            scores = scores_of(model(x))
        assert torch.is_grad_enabled() == grad
    torch.testing.assert_close(scores.detach(), wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max()))
    assert wanted.std() > 0.1
    assert [tuple(each.probabilities.shape) for each in seen[:DEPTH]] == [(B, HEADS, tokens, tokens)] * DEPTH
    assert len(seen) == DEPTH + ("pooler" in name)
    for each in seen:
        torch.testing.assert_close(
            each.probabilities.sum(-1), torch.ones_like(each.probabilities[..., 0]), atol=1e-6, rtol=0
        )
        assert each.probabilities.requires_grad
        torch.testing.assert_close(
            each.output, each.probabilities.to(each.values) @ each.values, rtol=1e-10, atol=1e-10
        )
        logits = each.queries @ each.keys.mT / math.sqrt(each.queries.shape[-1])
        powers = logits.softmax(-1)
        if "timm" not in name or "eager" not in name:  # there the queries are scaled before they are multiplied
            torch.testing.assert_close(powers, each.probabilities.to(powers), rtol=1e-5, atol=1e-6)


@EVERY
def test_without_a_graph_nothing_needs_a_gradient(name: str) -> None:
    model = build(name)
    with torch.no_grad(), attentions(B, graph=False) as seen:
        assert not scores_of(model(images())).requires_grad
    assert len(seen) >= DEPTH
    assert not any(each.probabilities.requires_grad for each in seen)


@pytest.mark.parametrize("kind", ["timm vit", "timm deit", "transformers vit", "transformers clip"])
def test_fused_and_eager_attention_are_seen_alike(kind: str) -> None:
    fused = {"timm": "fused", "transformers": "sdpa"}[kind.split()[0]]
    shown = [show(build(f"{kind}, {how}"), images()) for how in (fused, "eager")]
    tolerance = 1e-10 if "timm" in kind else 1e-5  # transformers' eager softmax is in float32
    one, other = [show.gradients([0, 3], [f"attention {place}" for place in range(DEPTH)]) for show in shown]
    for place in range(DEPTH):
        pair = [each.seen[place].probabilities.double() for each in shown]
        torch.testing.assert_close(*pair, rtol=tolerance, atol=tolerance)
        wanted = one[f"attention {place}"].double()
        torch.testing.assert_close(
            other[f"attention {place}"].double(), wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max())
        )


@pytest.mark.parametrize("name", ["timm vit, fused", "timm deit, fused", "timm vit, mean after norm"])
def test_attention_gradients_are_those_of_the_eager_model(name: str) -> None:
    shown, model, x = show(build(name), images()), build(name), images().requires_grad_()
    for block in model.blocks:
        block.attn.fused_attn = False
    with hooked([block.attn.attn_drop for block in model.blocks]) as kept:
        score = model(x)[:, 3].sum()
    wanted = torch.autograd.grad(score, kept)
    found = shown.gradients([3], [f"attention {place}" for place in range(DEPTH)])
    for place in range(DEPTH):
        torch.testing.assert_close(shown.seen[place].probabilities, kept[place], rtol=1e-10, atol=1e-12)
        close(found[f"attention {place}"][0], wanted[place])


@pytest.mark.parametrize("kind", ["vit", "clip"])
def test_attention_is_what_transformers_gives_out_itself(kind: str) -> None:
    eager, fused = build(f"transformers {kind}, eager"), show(build(f"transformers {kind}, sdpa"), images())
    output = eager(images().requires_grad_(), output_attentions=True)
    wanted = torch.autograd.grad(scores_of(output)[:, 1].sum(), output.attentions)
    found = fused.gradients([1], [f"attention {place}" for place in range(DEPTH)])
    for place in range(DEPTH):
        torch.testing.assert_close(
            fused.seen[place].probabilities, output.attentions[place].double(), rtol=0, atol=1e-6
        )
        close(found[f"attention {place}"][0], wanted[place].double(), 1e-5)


@pytest.mark.parametrize("name", ["torchvision vit", "open clip"])
def test_attention_is_what_multi_head_attention_gives_out_itself(name: str) -> None:
    model = build(name)
    layers = [module for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    with hooked(layers, before=True) as given:
        shown = show(model, images())
    for place, layer in enumerate(layers):
        x = given[place - DEPTH].detach()
        _, weights = layer(x, x, x, need_weights=True, average_attn_weights=False)
        torch.testing.assert_close(shown.seen[place].probabilities, weights, rtol=1e-10, atol=1e-12)


@EVERY
def test_gradients_of_several_questions_come_from_one_batched_backward_pass(name: str) -> None:
    shown = show(build(name), images())
    probabilities = [each.probabilities for each in shown.seen[:DEPTH]]
    seeds = torch.zeros(3, *shown.scores.shape, dtype=torch.float64)
    seeds[range(3), :, [0, 2, 4]] = 1
    batched = torch.autograd.grad(shown.scores, probabilities, seeds, is_grads_batched=True, retain_graph=True)
    for q, seed in enumerate(seeds):
        alone = torch.autograd.grad(shown.scores, probabilities, seed, retain_graph=True)
        for one, other in zip(alone, batched, strict=True):
            assert one.abs().max() > 0
            close(other[q], one, 1e-6 if "transformers" in name and "eager" in name else 1e-10)


def test_a_gradient_is_the_slope_of_the_score_along_the_probabilities() -> None:
    model, x = build("torchvision vit"), images(1)
    shown = show(model, x)
    gradient = shown.gradients([2], ["attention 1"])["attention 1"][0]
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    softmax, steps = torch.Tensor.softmax, []

    def moved(step: float) -> float:
        calls = []

        def changed(logits: Tensor, axis: int) -> Tensor:
            calls.append(1)
            return softmax(logits, axis) + (step * direction if len(calls) == 2 else 0)

        torch.Tensor.softmax = changed
        try:
            with torch.no_grad(), attentions(1, graph=False):
                return float(model(x)[0, 2])
        finally:
            torch.Tensor.softmax = softmax

    steps = [moved(step) for step in (-1e-5, 1e-5)]
    assert (steps[1] - steps[0]) / 2e-5 == pytest.approx(float((gradient * direction).sum()), rel=1e-7)


def close(actual: Tensor, wanted: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(actual, wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max()))


# Every way to call the kernels


SDPA = {
    "plain": {},
    "causal": {"is_causal": True},
    "scaled": {"scale": 0.3},
    "bool mask": {"attn_mask": torch.rand(2, 1, 6, 7, generator=torch.Generator().manual_seed(0)) > 0.4},
    "float mask": {"attn_mask": (torch.arange(42.0).double() ** 2 % 5).reshape(6, 7)},
    "a row without any": {"attn_mask": torch.arange(6)[:, None] > torch.arange(7)},
}


@pytest.mark.parametrize("how", SDPA)
@pytest.mark.parametrize("axes", [3, 4])
def test_scaled_dot_product_attention_is_written_out_exactly(how: str, axes: int) -> None:
    torch.manual_seed(1)
    query, key, value = (torch.randn(2, 3, n, 4, dtype=torch.float64) for n in (6, 7, 7))
    given = dict(SDPA[how])
    if axes == 3:
        query, key, value = (x.flatten(0, 1) for x in (query, key, value))
        if how == "bool mask":
            given["attn_mask"] = given["attn_mask"].expand(2, 3, 6, 7).flatten(0, 1)
    leaf = query.clone().requires_grad_()
    wanted = F.scaled_dot_product_attention(leaf, key, value, **given)
    slope = torch.autograd.grad(wanted.square().sum(), leaf)[0]
    with attentions(2) as seen:
        found = F.scaled_dot_product_attention(leaf, key, value, **given)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), leaf)[0], slope, rtol=1e-10, atol=1e-12)
    assert seen[0].probabilities.shape == (2, 3, 6, 7)
    assert seen[0].output.shape == seen[0].queries.shape == (2, 3, 6, 4)


def test_grouped_queries_share_keys() -> None:
    torch.manual_seed(1)
    query, key, value = (torch.randn(2, heads, 5, 4, dtype=torch.float64) for heads in (6, 2, 2))
    wanted = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    with attentions(2) as seen:
        found = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert seen[0].probabilities.shape == (2, 6, 5, 5)


MULTI_HEAD = {
    "plain": {},
    "averaged weights": {"need_weights": True},
    "weights": {"need_weights": True, "average_attn_weights": False},
    "float mask": {"attn_mask": (torch.arange(30.0).double() ** 2 % 7).reshape(5, 6)},
    "bool mask": {"attn_mask": torch.arange(5)[:, None] < torch.arange(6) - 1},
    "mask of heads": {"attn_mask": (torch.arange(240.0).double() ** 2 % 7).reshape(8, 5, 6)},
    "padding": {"key_padding_mask": torch.arange(6).expand(2, 6) > torch.tensor([[2], [4]])},
    "both masks": {
        "attn_mask": torch.arange(5)[:, None] < torch.arange(6) - 1,
        "key_padding_mask": torch.arange(6).expand(2, 6) > torch.tensor([[2], [4]]),
    },
}


@pytest.mark.parametrize("how", MULTI_HEAD)
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 3, "vdim": 7}], ids=str)
@pytest.mark.parametrize("batched", [True, False])
def test_multi_head_attention_is_written_out_exactly(how: str, options: dict, batched: bool) -> None:
    torch.manual_seed(2)
    layer = nn.MultiheadAttention(8, 4, batch_first=True, **options).double().eval()
    widths = (8, options.get("kdim", 8), options.get("vdim", 8))
    given = [torch.randn(2, n, c, dtype=torch.float64) for n, c in zip((5, 6, 6), widths, strict=True)]
    named = {"need_weights": False, **MULTI_HEAD[how]}
    if not batched:
        given = [x[0] for x in given]
        named = {
            k: x[0] if k == "key_padding_mask" else x[:4] if how == "mask of heads" and k == "attn_mask" else x
            for k, x in named.items()
        }
    wanted, weights = layer(*given, **named)
    with attentions(2 if batched else 1) as seen:
        found, shown = layer(*given, **named)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert (shown is None) == (weights is None)
    if weights is not None:
        torch.testing.assert_close(shown, weights, rtol=1e-12, atol=1e-12)
    assert seen[0].probabilities.shape == (2 if batched else 1, 4, 5, 6)


def test_keys_that_are_appended_are_refused() -> None:
    layer = nn.MultiheadAttention(8, 2, add_zero_attn=True)
    x = torch.randn(3, 1, 8)
    with attentions(1), pytest.raises(ModelError) as refused:
        layer(x, x, x)
    assert str(refused.value) == (
        "the model calls multi-head attention with keys appended (add_bias_kv, add_zero_attn) or stood in for, which "
        "is not followed; use grad_cam or another method that needs no attention"
    )


def test_the_fast_path_of_an_encoder_is_not_taken() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).double().eval()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        wanted = encoder(x)
        with attentions(2) as seen:
            found = encoder(x)
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-10, atol=1e-10)
    assert [tuple(each.probabilities.shape) for each in seen] == [(2, 2, 5, 5)] * 2


def eager(how: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if how == "einsum":
        return torch.einsum("bhnm,bhmd->bhnd", torch.einsum("bhnd,bhmd->bhnm", q, k).softmax(-1), v)
    if how == "einsum of 3":
        return torch.einsum(
            "bmd,bnm->bnd", v.flatten(0, 1), torch.bmm(q.flatten(0, 1), k.flatten(0, 1).mT).softmax(2)
        ).unflatten(0, (2, 3))
    if how == "bmm":
        return torch.bmm(F.softmax(torch.bmm(q.flatten(0, 1), k.flatten(0, 1).mT), dim=-1), v.flatten(0, 1)).unflatten(
            0, (2, 3)
        )
    if how == "cast":
        return torch.matmul(F.dropout(torch.softmax((q @ k.mT).double(), dim=-1).to(v), 0.5, False), v)
    if how == "viewed":
        return (nn.Softmax(-1)(q @ k.mT).view(6, 5, 5) @ v.flatten(0, 1)).unflatten(0, (2, 3))
    return torch.softmax(input=torch.matmul(q, k.transpose(2, 3)), dim=3).matmul(v)


@pytest.mark.parametrize("how", ["einsum", "einsum of 3", "bmm", "cast", "viewed", "methods"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_eager_attention_is_seen_in_every_spelling(how: str, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    q, k, v = torch.randn(3, 2, 3, 5, 4, dtype=dtype)
    wanted = eager(how, q, k, v)
    with torch.no_grad(), attentions(2) as seen:
        found = eager(how, q, k, v)
        torch.softmax(found, 1) @ v.mT  # not over the last axis
        found.softmax(-1).sum()  # not multiplied
    torch.testing.assert_close(found.detach(), wanted)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0].probabilities.detach(), (q @ k.mT).softmax(-1))
    gradient = torch.autograd.grad(found.sum(), seen[0].probabilities)[0]
    torch.testing.assert_close(gradient, v.sum(-1)[:, :, None].expand(2, 3, 5, 5))
    assert (seen[0].values is None) == ("einsum" in how)
    if seen[0].queries is not None:
        assert torch.equal(seen[0].queries, q)
        assert torch.equal(seen[0].keys, k)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_half_and_close(dtype: torch.dtype) -> None:
    torch.manual_seed(4)
    q, k, v = torch.randn(3, 2, 3, 5, 4, dtype=dtype)
    wanted = F.scaled_dot_product_attention(q, k, v)
    with attentions(2) as seen:
        found = F.scaled_dot_product_attention(q, k, v)
    assert found.dtype == seen[0].probabilities.dtype == dtype
    torch.testing.assert_close(found, wanted, rtol=3e-2, atol=3e-2)


def test_autocast_stays_autocast() -> None:
    model, x = build("torchvision vit").float(), images().float()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        wanted = model(x)
        with attentions(B):
            found = model(x)
    assert found.dtype == wanted.dtype
    torch.testing.assert_close(found.detach().float(), wanted.float(), rtol=0.1, atol=0.1 * float(wanted.abs().max()))


def test_in_inference_mode_there_are_gradients_all_the_same() -> None:
    model, x = build("timm vit, fused"), images()
    wanted = show(model, x).gradients([1], ["attention 0"])["attention 0"]
    with torch.inference_mode():
        close(show(model, x).gradients([1], ["attention 0"])["attention 0"], wanted)


def test_an_operation_in_place_after_attention_does_not_move_its_output() -> None:
    q = torch.randn(1, 2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with attentions(1) as seen:
        result = F.scaled_dot_product_attention(q, q, q)
        result *= 3
        score = result.sum()
    assert (torch.autograd.grad(score, seen[0].output)[0] == 3).all()


# Which attentions may be multiplied


def refusal(model: nn.Module, x: Tensor, tokens: int | None = None) -> str:
    with torch.no_grad(), attentions(len(x), graph=False) as seen:
        model(x)
    with pytest.raises(MethodError) as refused:
        of_tokens(seen, len(x), tokens)
    return str(refused.value)


def test_windows_are_told_apart_and_refused() -> None:
    from torchvision.models.swin_transformer import SwinTransformer

    swin = SwinTransformer([2, 2], 8, [2, 2], [2, 2], [4, 4], num_classes=3).eval()
    wanted = (
        "got attention of shape (8, 2, 16, 16) for 2 images, which is within windows or parts of an image, not among "
        "all its tokens, so attention cannot be followed through this model; use grad_cam or another method that needs "
        "no attention"
    )
    assert refusal(swin, torch.randn(2, 3, 16, 16)) == wanted
    assert refusal(swin, torch.randn(2, 3, 16, 16), 16) == wanted


def test_a_model_without_attention_is_refused() -> None:
    assert refusal(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softmax(1)), torch.randn(1, 3, 8, 8)) == (
        "no softmax attention ran in this model, so there is none to follow; use grad_cam or another method that needs "
        "no attention"
    )


class Changing(nn.Module):
    """Two attentions, the first from `n` tokens to `m`, the second among `k`."""

    def __init__(self, n: int, m: int, k: int) -> None:
        super().__init__()
        self.sizes = (n, m, k)

    def forward(self, x: Tensor) -> Tensor:
        n, m, k = (torch.ones(len(x), 2, size, 4) for size in self.sizes)
        F.scaled_dot_product_attention(n, m, m)
        return F.scaled_dot_product_attention(k, k, k)


def test_another_number_of_tokens_is_refused() -> None:
    x = torch.randn(1, 3, 8, 8)
    way_out = (
        "so attention cannot be followed through this model; use grad_cam or another method that needs no attention"
    )
    first = "got attention of shape (1, 2, 9, {}) for 1 image, from 9 tokens to {}, where other blocks have {} tokens, "
    assert refusal(Changing(9, 4, 9), x) == first.format(4, 4, 9) + way_out
    assert refusal(Changing(9, 9, 4), x) == first.format(9, 9, 4) + way_out
    assert "where other blocks have 7 tokens" in refusal(Changing(9, 9, 9), x, 7)


def test_what_runs_after_the_blocks_is_left_out() -> None:
    model = build("timm vit, pooler")
    with attentions(B) as seen:
        model(images())
    assert len(seen) == DEPTH + 1
    assert of_tokens(seen, B) == of_tokens(seen, B, CELLS) == seen[:DEPTH]
    with attentions(1, graph=False) as seen:
        Changing(9, 9, 7)(torch.zeros(1))  # a text tower with other tokens
    assert of_tokens(seen, 1, 9) == seen[:1]


# Blocks and what is read


@EVERY
def test_blocks_are_found_with_their_tokens(name: str) -> None:
    model = build(name)
    found = blocks(model, Batch(images()))
    names = [found[place].spot.module for place in range(DEPTH)]
    assert len({name.rsplit(".", 1)[0] for name in names}) == 1
    assert [name[-1] for name in names] == ["0", "1", "2"]
    assert {found[place].axis for place in range(DEPTH)} == {0 if name == "open clip" else 1}
    assert not torch.is_grad_enabled() or not any(p.requires_grad for p in model.parameters())


@EVERY
def test_the_tokens_that_the_score_reads_are_told_by_their_gradients(name: str) -> None:
    shown, ahead = show(build(name), images()), MODELS[name][1]
    block = shown.found[DEPTH - 1]
    raw = shown.gradients([1], [f"tokens {DEPTH - 1}"])[f"tokens {DEPTH - 1}"][0]
    wanted = torch.zeros(B, CELLS + ahead, dtype=torch.float64)
    if "mean" in name or "pooler" in name:
        wanted[:, ahead:] = 1 / CELLS
    elif "deit" in name:
        wanted[:, :2] = 1 / 2
    else:
        wanted[:, 0] = 1
    read = tokens_read(block.of_images(raw))
    torch.testing.assert_close(read, wanted, rtol=1e-12, atol=0)


def test_where_no_token_is_read_none_is() -> None:
    gradients = torch.zeros(2, 3, 4)
    gradients[1, 2, 0], gradients[1, 1, 3] = -1e-30, 1e-38
    assert tokens_read(gradients).tolist() == [[0, 0, 0], [0, 0, 1]]


def test_tokens_are_laid_out_as_a_grid() -> None:
    numbers = torch.arange(14.0).reshape(2, 7)
    assert torch.equal(token_map(Layout("bnc", (2, 2), range(1, 5)), 7)(numbers)[1], torch.tensor([[8.0, 9], [10, 11]]))
    assert torch.equal(token_map(Layout("bcn", (2,), (4, 2)), 7)(numbers), torch.tensor([[4.0, 2], [11, 9]]))
    assert torch.equal(token_map(Layout("b*c", (7, 1)), 7)(numbers)[1], torch.arange(7.0, 14)[:, None])
    with pytest.raises(MethodError) as refused:
        token_map(Layout("bc*", (2, 3)), 7)
    assert str(refused.value) == (
        "got a layer with a grid of 2x3 for attention among 7 tokens; choose a layer that puts out tokens, such as a "
        "block of the transformer"
    )


# LeGrad's facts


def tail_of(model: nn.Module, x: Tensor, block, classes: list[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """Scores if the last block had put out these tokens, for as many rows as there are."""

    def tail(tokens: Tensor, rows: Tensor) -> Tensor:
        def swapped(_name: str, raw: Tensor) -> Tensor:
            torch.set_grad_enabled(True)
            return block.of_images(tokens)

        with untouched(model), torch.no_grad(), rerouted(model, {"last": block.spot}, swapped):
            return scores_of(model(x))[:, classes].mT

    return tail


def by_depth(model: nn.Module, x: Tensor, classes: list[int]) -> list[Tensor]:
    shown = show(model, x)
    tokens = [block.of_images(shown.capture.activations[name]) for name, block, _ in shown.pairs]
    through = mean_token_gradients(tail_of(model, x, shown.found[DEPTH - 1], classes), tokens)
    return gradients_by_depth(shown.capture, shown.pairs, through)


@pytest.mark.parametrize("name", ["timm vit, fused", "timm vit, mean", "timm vit, mean after norm", "timm vit, pooler"])
def test_gradients_by_depth_are_those_of_each_blocks_own_score(name: str) -> None:
    classes, x = [1, 4], images()
    found = by_depth(build(name), x, classes)
    model = build(name)
    for block in model.blocks:
        block.attn.fused_attn = False
    with hooked([block.attn.attn_drop for block in model.blocks]) as kept, hooked(list(model.blocks)) as put_out:
        model(x.clone().requires_grad_())
    for place in range(DEPTH):
        same = put_out[place].mean(1, keepdim=True).expand_as(put_out[place])
        scores = model.forward_head(model.norm(same))
        for q, k in enumerate(classes):
            wanted = torch.autograd.grad(scores[:, k].sum(), kept[place], retain_graph=True)[0]
            assert wanted.abs().max() > 0
            close(found[place][q], wanted)


@pytest.mark.parametrize("name", ["open clip", "transformers clip, sdpa", "torchvision vit"])
def test_gradients_by_depth_of_other_libraries_use_the_models_own_head(name: str) -> None:
    x = images()
    found = by_depth(build(name), x, [1, 4])
    model = build(name)
    shown = show(model, x)
    heads = {
        "open clip": lambda mean: model.ln_post(mean) @ model.proj,
        "transformers clip, sdpa": lambda mean: model.visual_projection(model.vision_model.post_layernorm(mean)),
        "torchvision vit": lambda mean: model.heads(model.encoder.ln(mean)),
    }
    for place, (tokens, block, _) in enumerate(shown.pairs):
        mean = block.of_images(shown.capture.activations[tokens]).mean(1)
        for q, k in enumerate([1, 4]):
            score = heads[name](mean)[:, k].sum()
            wanted = torch.autograd.grad(score, shown.seen[place].probabilities, retain_graph=True)[0]
            close(found[place][q], wanted)


# From models to maps


@EVERY
def test_every_method_has_a_map_of_every_model(name: str) -> None:
    model, x, ahead = build(name), images(), MODELS[name][1]
    shown = show(model, x)
    used = of_tokens(shown.seen, B)
    names = [f"attention {place}" for place in range(DEPTH)]
    last = f"tokens {DEPTH - 1}"
    found = {k: g[0] for k, g in shown.gradients([2], [*names, last, f"output {DEPTH - 1}"]).items()}
    reading = tokens_read(shown.found[DEPTH - 1].of_images(found[last]))
    side = SIDE // PATCH
    lay = token_map(Layout("bnc", (side, side), range(ahead, ahead + CELLS)), CELLS + ahead)
    probabilities = [each.probabilities.detach().double() for each in used]
    gradients = [found[each].double() for each in names]
    depth = [g[0].double() for g in by_depth(model, x, [2])]
    heads = (used[-1].queries, used[-1].keys, used[-1].values, found[f"output {DEPTH - 1}"])
    maps = {
        "rollout": attention_rollout(probabilities, lay, reading),
        "gradient_rollout": gradient_rollout(probabilities, gradients, lay, reading),
        "chefer": chefer(probabilities, gradients, lay, reading),
        "legrad": legrad(depth, lay),
        "grad_eclip": grad_eclip(*heads, lay, reading, rectify=False),
    }
    for method, map in maps.items():
        assert map.shape == (B, side, side)
        assert map.isfinite().all()
        assert (map.flatten(1).amax(1) > map.flatten(1).amin(1)).all(), method
    if ahead == 1 and "mean" not in name:
        R = torch.eye(CELLS + 1, dtype=torch.float64)
        for attention in probabilities:
            mixed = attention[0].mean(0) + torch.eye(CELLS + 1)
            R = mixed / mixed.sum(-1, keepdim=True) @ R
        torch.testing.assert_close(maps["rollout"][0].flatten(), R[0, 1:], rtol=1e-6, atol=1e-8)


def test_the_gradient_at_the_heads_is_that_at_the_layer_that_joins_them() -> None:
    shown, model = show(build("timm vit, fused"), images()), build("timm vit, fused")
    with hooked([model.blocks[DEPTH - 1].attn.proj], before=True) as kept:
        score = model(images().requires_grad_())[:, 2].sum()
    wanted = torch.autograd.grad(score, kept[0])[0].unflatten(-1, (HEADS, -1)).transpose(1, 2)
    found = shown.gradients([2], [f"output {DEPTH - 1}"])[f"output {DEPTH - 1}"][0]
    close(found, wanted)
    assert (found[:, :, 1:] == 0).all()  # the class token alone is read


def test_the_model_is_as_it_was() -> None:
    model = build("torchvision vit").train().requires_grad_(True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        show(model, images())
        assert not torch.is_grad_enabled()
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
