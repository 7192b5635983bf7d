"""More vision-language models of transformers, whose images come in crops, or whose grids are merged on the way.

Small configurations with random weights, in float64; each map beside Grad-CAM by hand from the layer's own tensor.
"""

import math

import pytest
import torch
import transformers as hf

import seewhy

IMAGE, SAID = 60, [5, 6, 7]
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**SMALL, **ENDS, "vocab_size": 70, "max_position_embeddings": 128, "num_key_value_heads": 2}
EYE = {**SMALL, "image_size": 32, "patch_size": 8}
PIXTRAL = {**SMALL, "image_size": 32, "patch_size": 8, "head_dim": 16}


def ids(count):
    return torch.tensor([[1, 3, *[IMAGE] * count, *SAID]])


def picture(*crops):
    return torch.randn(1, *crops, 3, 32, 32, dtype=torch.float64)


def llava_next():
    eye, text = hf.CLIPVisionConfig(**EYE), hf.LlamaConfig(**TEXT)
    sizes = {"image_seq_length": 16, "image_grid_pinpoints": [[32, 64], [64, 32], [64, 64]]}
    config = hf.LlavaNextConfig(vision_config=eye, text_config=text, image_token_index=IMAGE, **sizes)
    given = {"pixel_values": picture(3), "image_sizes": torch.tensor([[32, 64]])}  # the whole, and two crops
    return hf.LlavaNextForConditionalGeneration(config), {**given, "input_ids": ids(16 + 32 + 4)}


def internvl():
    eye = hf.InternVLVisionConfig(**SMALL, image_size=[32, 32], patch_size=[8, 8])
    more = {"image_token_id": IMAGE, "downsample_ratio": 0.5, "image_seq_length": 4}
    config = hf.InternVLConfig(vision_config=eye, text_config=hf.Qwen2Config(**TEXT), **more)
    return hf.InternVLForConditionalGeneration(config), {"pixel_values": picture(), "input_ids": ids(4)}


def gemma3():
    eye, text = hf.SiglipVisionConfig(**EYE), hf.Gemma3TextConfig(**TEXT, head_dim=16, sliding_window=64)
    config = hf.Gemma3Config(vision_config=eye, text_config=text, mm_tokens_per_image=4, image_token_index=IMAGE)
    config.image_token_id = IMAGE
    model, words = hf.Gemma3ForConditionalGeneration(config), ids(4)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)  # zeros until it is trained
    return model, {"pixel_values": picture(), "input_ids": words, "token_type_ids": (words == IMAGE).long()}


def smolvlm():
    text = {"model_type": "llama", **TEXT}
    config = hf.SmolVLMConfig(vision_config=dict(EYE), text_config=text, image_token_id=IMAGE, scale_factor=2)
    return hf.SmolVLMForConditionalGeneration(config), {"pixel_values": picture(2), "input_ids": ids(8)}


def pixtral():
    layer = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
    eye, text = hf.PixtralVisionConfig(**PIXTRAL), hf.MistralConfig(**TEXT)
    config = hf.LlavaConfig(vision_config=eye, text_config=text, image_token_index=IMAGE, **layer)
    given = {"pixel_values": picture(), "image_sizes": torch.tensor([[32, 32]]), "input_ids": ids(16)}
    return hf.LlavaForConditionalGeneration(config), given


def mistral3():
    eye, text = hf.PixtralVisionConfig(**PIXTRAL), hf.MistralConfig(**TEXT)
    config = hf.Mistral3Config(vision_config=eye, text_config=text, image_token_index=IMAGE, spatial_merge_size=2)
    given = {"pixel_values": picture(), "image_sizes": torch.tensor([[32, 32]]), "input_ids": ids(4)}
    return hf.Mistral3ForConditionalGeneration(config), given


def instructblip():
    queries = {**SMALL, "vocab_size": 70, "encoder_hidden_size": 32}
    opt = {**ENDS, "model_type": "opt", "vocab_size": 70, "hidden_size": 32, "num_hidden_layers": 2}
    opt |= {"num_attention_heads": 2, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64}
    config = hf.InstructBlipConfig(vision_config=EYE, qformer_config=queries, text_config=opt, num_query_tokens=4)
    config.image_token_id = config.image_token_index = IMAGE
    model = hf.InstructBlipForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens)
    question = {"input_ids": ids(4), "qformer_input_ids": torch.tensor([[1, 5, 6]])}
    return model, {"pixel_values": picture(), **question}


KINDS = {
    "LLaVA-NeXT": (llava_next, "model.multi_modal_projector", (3, 4, 4)),
    "InternVL": (internvl, "model.multi_modal_projector", (2, 2)),
    "Gemma 3": (gemma3, "model.multi_modal_projector", (2, 2)),
    "SmolVLM": (smolvlm, "model.vision_model.post_layernorm", (2, 4, 4)),
    "Pixtral": (pixtral, "model.multi_modal_projector", (4, 4)),
    "Mistral 3": (mistral3, "model.vision_tower.transformer.layers.1", (4, 4)),
    "InstructBLIP": (instructblip, "vision_model.post_layernorm@1", (4, 4)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_map_of_a_sentence_is_grad_cam_by_hand(kind):
    torch.manual_seed(0)
    build, layer, grid = KINDS[kind]
    model, inputs = build()
    model = model.double().eval()
    for parameter in model.parameters():
        parameter.data *= 3 if parameter.ndim > 1 else 1
    kept = []
    handle = model.get_submodule(layer.partition("@")[0]).register_forward_hook(lambda *given: kept.append(given[2]))
    rows = model(**inputs).logits[:, -4:-1].log_softmax(-1)
    handle.remove()
    (gradient,) = torch.autograd.grad(rows.gather(-1, torch.tensor(SAID)[None, :, None]).sum(), kept[0])
    count = math.prod(grid[-2:])
    tokens = [each.detach().reshape(-1, each.shape[-2], each.shape[-1])[:, -count:] for each in (kept[0], gradient)]
    cells = [each.flatten(0, 1).T.reshape(1, -1, *grid) for each in tokens]  # crops one after the other, row by row
    sentence = seewhy.Sentence(inputs["input_ids"], prompt=inputs["input_ids"].shape[1] - len(SAID))
    found = seewhy.explain(model, inputs, sentence, rectify=False)
    assert list(found.raw) == [layer]
    assert cells[1].abs().max() > 0
    torch.testing.assert_close(found.raw[layer], seewhy.grad_cam(*cells, rectify=False))
    assert found.map.shape == (1, *grid[:-2], 32, 32)
