"""Models that take rows of patches: Qwen2-VL and its kin, of small configurations with random weights."""

import math
from importlib import import_module

import pytest
import torch
import transformers as hf
from torch import nn

import seewhy
from seewhy.model.forms import Patches
from seewhy.types import ModelError

IMAGE, SAID = 60, [5, 6, 7]
GRID = (8, 12)
IDS = {"image_token_id": IMAGE, "video_token_id": 61, "vision_start_token_id": 62, "vision_end_token_id": 63}
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TEXT = {
    **ENDS,
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"num_key_value_heads": 2, "vocab_size": 70, "max_position_embeddings": 128, "head_dim": 16},
    "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4},
}
EYE = {"depth": 3, "hidden_size": 32, "num_heads": 2, "patch_size": 8, "spatial_merge_size": 2, "in_channels": 3}


def qwen2() -> nn.Module:
    eye = {**EYE, "embed_dim": 32, "mlp_ratio": 2}
    return hf.Qwen2VLForConditionalGeneration(hf.Qwen2VLConfig(vision_config=eye, text_config=TEXT, **IDS))


def qwen2_5() -> nn.Module:
    eye = {**EYE, "out_hidden_size": 32, "intermediate_size": 48, "window_size": 32, "fullatt_block_indexes": [1]}
    return hf.Qwen2_5_VLForConditionalGeneration(hf.Qwen2_5_VLConfig(vision_config=eye, text_config=TEXT, **IDS))


def qwen3() -> nn.Module:
    eye = {**EYE, "out_hidden_size": 32, "intermediate_size": 48, "deepstack_visual_indexes": [1]}
    eye |= {"num_position_embeddings": 64}
    return hf.Qwen3VLForConditionalGeneration(hf.Qwen3VLConfig(vision_config=eye, text_config=TEXT, **IDS))


def glm4() -> nn.Module:
    eye = {**EYE, "out_hidden_size": 32, "intermediate_size": 48, "image_size": 64}
    text = {**TEXT, "rope_parameters": {**TEXT["rope_parameters"], "partial_rotary_factor": 1.0}}
    ends = {"image_start_token_id": 62, "image_end_token_id": 63, "video_start_token_id": 64, "video_end_token_id": 65}
    ids = {"image_token_id": IMAGE, "video_token_id": 61, **ends}
    return hf.Glm4vForConditionalGeneration(hf.Glm4vConfig(vision_config=eye, text_config=text, **ids))


FAMILIES = {
    "qwen2_vl": (qwen2, "model.visual.merger", (4, 6)),
    "qwen2_5_vl": (qwen2_5, "model.visual", (4, 6)),
    "qwen3_vl": (qwen3, "model.visual.blocks.1", (8, 12)),
    "glm4v": (glm4, "model.visual.merger", (4, 6)),
}
PROCESSORS = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2VL", "qwen3_vl": "Qwen2VL", "glm4v": "Glm4v"}


def cut(family: str, images: torch.Tensor) -> torch.Tensor:
    """Rows of patches by the family's own processor."""
    module = "glm4v" if family == "glm4v" else "qwen2_vl"
    owner = import_module(f"transformers.models.{module}.image_processing_{module}")
    processor = getattr(owner, f"{PROCESSORS[family]}ImageProcessor")()
    made = processor(
        images.float(), do_resize=False, do_rescale=False, do_normalize=False, patch_size=8, return_tensors="pt"
    )
    assert made["image_grid_thw"].tolist() == [[1, *GRID]] * len(images)
    return made["pixel_values"].to(images.dtype)


def made(family: str, count: int = 1):
    torch.manual_seed(0)
    model = FAMILIES[family][0]().double().eval()
    for parameter in model.parameters():
        parameter.data *= 3 if parameter.ndim > 1 else 1
    images = torch.randn(count, 3, GRID[0] * 8, GRID[1] * 8).double()
    ids = torch.tensor([[1, 62, *[IMAGE] * (math.prod(GRID) // 4), 63, *SAID]] * count)
    given = {
        "pixel_values": cut(family, images),
        "image_grid_thw": torch.tensor([[1, *GRID]] * count),
        "input_ids": ids,
        "mm_token_type_ids": (ids == IMAGE).int(),
    }
    return model, images, given, seewhy.Sentence(ids, prompt=ids.shape[1] - len(SAID))


@torch.no_grad()
def log_p(model: nn.Module, given: dict) -> torch.Tensor:
    logits = model(**given).logits[:, -len(SAID) - 1 : -1].log_softmax(-1)
    return logits.gather(-1, torch.tensor([SAID] * len(logits))[..., None]).sum((1, 2))


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_cut_as_the_processors_of_the_family_cut_them(family):
    images = torch.randn(2, 3, GRID[0] * 8, GRID[1] * 8)
    form = Patches(8, 2, 2)
    rows = cut(family, images)
    assert torch.equal(form.of(images), rows)
    assert torch.equal(form.images(rows, GRID), images)


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_and_grid_are_found_and_pixels_have_the_gradient_of_finite_differences(family):
    model, images, given, sentence = made(family)
    _, layer, grid = FAMILIES[family]
    found = seewhy.explain(model, given, sentence, rectify=False)
    assert list(found.raw) == [layer]
    assert found.raw[layer].shape == (1, *grid)
    assert found.map.shape == (1, 64, 96)
    torch.testing.assert_close(found.scores.double(), log_p(model, given), rtol=1e-5, atol=1e-5)

    def along(input_gradients):
        return input_gradients.sum(1)

    gradient = seewhy.explain(model, given, sentence, along).map
    way, step = torch.zeros_like(images), 1e-3  # norms of language models compute in float32
    way[:, :, 20:40, 8:30] = 1
    sides = [log_p(model, {**given, "pixel_values": cut(family, images + sign * step * way)}) for sign in (1, -1)]
    assert math.isclose(float(gradient[0, 20:40, 8:30].sum()), float(sides[0] - sides[1]) / (2 * step), rel_tol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_cell_is_where_its_patch_is(family):
    """A layer whose output is changed at one cell changes what the same cell would change by its own pixels."""
    model, images, given, sentence = made(family)
    _, layer, grid = FAMILIES[family]
    step = 64 // grid[0]

    def energy(activations):
        return activations.pow(2).sum(1)

    clean = seewhy.explain(model, given, sentence, energy, layer=layer).raw[layer]
    for row, column in ((0, 0), (1, 4), (3, 2)):
        changed = images.clone()
        changed[:, :, row * step : (row + 1) * step, column * step : (column + 1) * step] += 3
        other = {**given, "pixel_values": cut(family, changed)}
        moved = (seewhy.explain(model, other, sentence, energy, layer=layer).raw[layer] - clean).abs()[0]
        assert divmod(int(moved.argmax()), grid[1]) == (row, column)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_maps_of_two_images_are_those_of_each_alone(family):
    model, _, given, sentence = made(family, 2)
    methods = ["hires_cam", "score_cam", "occlusion"]
    both = seewhy.compare(model, given, [sentence], methods=methods)
    each = math.prod(GRID)
    for n in range(2):
        alone = {name: value[n : n + 1] for name, value in given.items()}
        alone["pixel_values"] = given["pixel_values"][n * each : (n + 1) * each]
        own_ids = alone["input_ids"]
        own = seewhy.Sentence(own_ids, prompt=own_ids.shape[1] - len(SAID))
        for one, two in zip(seewhy.compare(model, alone, [own], methods=methods), both, strict=True):
            assert two.map[n].abs().max() > 0
            torch.testing.assert_close(one.map[0], two.map[n], rtol=1e-3, atol=1e-4 * float(two.map.abs().max()))


def test_what_is_no_picture_of_a_known_family_is_refused():
    model, _, given, sentence = made("qwen2_vl", 2)
    video = {**given, "image_grid_thw": torch.tensor([[2, 4, 12]] * 2)}
    with pytest.raises(ModelError, match="no pictures standing still; of a video give single frames"):
        seewhy.explain(model, video, sentence)
    several = {**given, "image_grid_thw": torch.tensor([[1, 8, 12], [1, 12, 8]])}
    with pytest.raises(ModelError, match=r"images of several sizes .8x12 and 12x8 patches.; explain them one by one"):
        seewhy.explain(model, several, sentence)
    moving = {**given, "pixel_values": given["pixel_values"] + torch.randn_like(given["pixel_values"])}
    with pytest.raises(ModelError, match="no pictures standing still"):
        seewhy.explain(model, moving, sentence)
    with pytest.raises(ModelError, match=r"^got 184 rows of patches, and 192 by image_grid_thw: 2 x 1x8x12; give both"):
        seewhy.explain(model, {**given, "pixel_values": given["pixel_values"][:-8]}, sentence)
    with pytest.raises(ModelError, match=r"rows of patches \(192, 384\) for a Linear, and in which order"):
        seewhy.explain(nn.Linear(384, 2), given)
