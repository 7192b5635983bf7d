"""Words of vision-language models of transformers: small configurations with random weights, in float64.

Each score is checked against the model's own loss, each gradient against finite differences of the layer's output.
"""

import math
from collections.abc import Callable

import pytest
import torch
import transformers as hf
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional as F

import seewhy
from seewhy.data.image import read
from seewhy.metrics.localization import pixel_auroc
from seewhy.types import ModelError, TargetError

TOLD = "pad <s> </s> a dog sits on the green grass with red ball"
WORDS = [*TOLD.split(), *(f"w{n}" for n in range(46)), "<image>"]
IMAGE = WORDS.index("<image>")
SAID = [5, 6, 7, 9]  # sits on the grass
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
EYE = {**SMALL, "image_size": 32, "patch_size": 8}
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TEXT = {**SMALL, **ENDS, "vocab_size": len(WORDS), "max_position_embeddings": 64}


def picture():
    return torch.randn(1, 3, 32, 32, dtype=torch.float64)


def blip() -> tuple[nn.Module, dict]:
    text = {**TEXT, "encoder_hidden_size": 32, "sep_token_id": 2}
    return hf.BlipForConditionalGeneration(hf.BlipConfig(text_config=text, vision_config=EYE)), {}


def blip_2() -> tuple[nn.Module, dict]:
    opt = {**ENDS, "model_type": "opt", "vocab_size": len(WORDS), "hidden_size": 32, "num_hidden_layers": 2}
    opt |= {"num_attention_heads": 2, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64}
    queries = {**SMALL, "vocab_size": len(WORDS), "encoder_hidden_size": 32}
    config = hf.Blip2Config(vision_config=EYE, qformer_config=queries, text_config=opt, num_query_tokens=4)
    config.image_token_id = config.image_token_index = IMAGE
    model = hf.Blip2ForConditionalGeneration(config)
    nn.init.normal_(model.query_tokens)  # as trained: at zero, the norm behind them has no gradient to speak of
    return model, {"ahead": 4}


def git() -> tuple[nn.Module, dict]:
    return hf.GitForCausalLM(hf.GitConfig(vision_config=EYE, **TEXT)), {}


def vit_gpt2() -> tuple[nn.Module, dict]:
    gpt = hf.GPT2Config(vocab_size=len(WORDS), n_positions=64, n_embd=32, n_layer=2, n_head=2, **ENDS)
    gpt.add_cross_attention = gpt.is_decoder = True
    config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(hf.ViTConfig(**EYE), gpt)
    return hf.VisionEncoderDecoderModel(config), {"name": "decoder_input_ids"}


def llava() -> tuple[nn.Module, dict]:
    eye, text = hf.CLIPVisionConfig(**EYE), hf.LlamaConfig(**TEXT, num_key_value_heads=2)
    config = hf.LlavaConfig(vision_config=eye, text_config=text, image_token_index=IMAGE, image_seq_length=16)
    return hf.LlavaForConditionalGeneration(config), {"ahead": 16}


def paligemma() -> tuple[nn.Module, dict]:
    eye = hf.SiglipVisionConfig(**EYE)
    text = hf.GemmaConfig(**TEXT, num_key_value_heads=1, head_dim=16)
    config = hf.PaliGemmaConfig(vision_config=eye, text_config=text, image_token_index=IMAGE, projection_dim=32)
    config.image_token_id = IMAGE
    return hf.PaliGemmaForConditionalGeneration(config), {"ahead": 16, "types": True}


FAMILIES: dict[str, tuple[Callable[[], tuple[nn.Module, dict]], str]] = {
    "BLIP": (blip, "vision_model.post_layernorm@1"),
    "BLIP-2": (blip_2, "vision_model.post_layernorm@1"),
    "GIT": (git, "git.visual_projection"),
    "ViT and GPT-2": (vit_gpt2, "encoder.layernorm"),
    "LLaVA": (llava, "model.multi_modal_projector"),
    "PaliGemma": (paligemma, "model.multi_modal_projector"),
}


def made(family: str):
    """A model with weights large enough for clear gradients, its inputs, and the sentence: two ids ahead of SAID."""
    torch.manual_seed(0)
    model, how = FAMILIES[family][0]()
    model = model.double().eval()
    for parameter in model.parameters():
        parameter.data *= 3 if parameter.ndim > 1 else 1
    ids = torch.tensor([[*[IMAGE] * how.get("ahead", 0), 1, 3, *SAID]])
    inputs = {"pixel_values": picture(), how.get("name", "input_ids"): ids}
    if how.get("types"):  # the words of the answer see only what is ahead of them, those of the prompt all of it
        inputs["token_type_ids"] = torch.tensor([[0] * (ids.shape[1] - 4) + [1] * 4])
    return model, inputs, seewhy.Sentence(ids, WORDS, prompt=ids.shape[1] - 4)


def module_of(model: nn.Module, layer: str) -> nn.Module:
    return model.get_submodule(layer.partition("@")[0])


def moved(model, inputs, layer, call, by):
    """The model's logits, with something added to what the layer puts out at one of its calls."""
    calls = []

    def hook(_module, _given, output):
        calls.append(1)
        return output + by if len(calls) == call else output

    handle = module_of(model, layer).register_forward_hook(hook)
    with torch.no_grad():
        logits = model(**inputs).logits
    handle.remove()
    return logits


def shape_of(model, inputs, layer):
    shapes = []
    handle = module_of(model, layer).register_forward_hook(lambda *given: shapes.append(given[2].shape))
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    return shapes[0]


def log_p(logits):
    """Of SAID, from the four rows ahead of the last one."""
    return logits[:, -5:-1].log_softmax(-1).gather(-1, torch.tensor(SAID)[None, :, None]).sum()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_sentence_is_what_the_models_own_loss_is_made_of(family):
    model, inputs, sentence = made(family)
    name = "decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"
    labels = torch.where(torch.arange(inputs[name].shape[1]) < inputs[name].shape[1] - 4, -100, inputs[name])
    found = seewhy.explain(model, inputs, sentence)
    with torch.no_grad():
        if family == "ViT and GPT-2":  # its loss takes labels as they are, each predicted by its own row
            loss = model(**inputs, labels=F.pad(labels[:, 1:], (0, 1), value=-100)).loss
        else:
            loss = model(**inputs, labels=labels).loss
    own = -loss * len(SAID)
    torch.testing.assert_close(found.scores[0], own.double(), rtol=1e-6, atol=0)  # transformers' losses are float32
    assert found.target == ("log p(sits on the grass)",)


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_and_grid_are_found_and_the_map_is_that_of_finite_differences(family):
    model, inputs, sentence = made(family)
    found = seewhy.explain(model, inputs, sentence, rectify=False)
    (layer,) = found.layers
    assert layer == FAMILIES[family][1]
    assert found.raw[layer].shape == (1, 4, 4)
    assert found.map.abs().max() > 1e-9
    call, shape = int((layer.partition("@")[2]) or 1), shape_of(model, inputs, layer)
    torch.manual_seed(1)
    ahead, way = shape[1] - 16, torch.randn(shape, dtype=torch.float64)
    way[:, :ahead] = 0  # a class token is no place of the image

    def along(gradients):
        return (gradients * way[:, ahead:].mT.unflatten(2, (4, 4))).sum(1)

    derivative = seewhy.explain(model, inputs, sentence, along).raw[layer].sum()
    # the norms of Llama and Gemma compute in float32 whatever they get: there the step must be larger
    step, close = (3e-3, 1e-3) if family in ("LLaVA", "PaliGemma") else (1e-5, 1e-5)
    sides = [log_p(moved(model, inputs, layer, call, sign * step * way)) for sign in (1, -1)]
    assert math.isclose(float(derivative), float(sides[0] - sides[1]) / (2 * step), rel_tol=close)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_words_come_from_one_forward_and_one_backward(family, monkeypatch):
    model, inputs, sentence = made(family)
    alone = [seewhy.explain(model, inputs, word) for word in sentence.words]
    forwards, backwards, backward = [], [], torch.autograd.grad
    model.register_forward_pre_hook(lambda *_: forwards.append(1))
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: backwards.append(k) or backward(*a, **k))
    together = seewhy.compare(model, inputs, sentence.words)
    monkeypatch.undo()
    assert len(forwards) == 1
    assert [each["is_grads_batched"] for each in backwards] == [True]
    for word, own in zip(together, alone, strict=True):
        assert word.target == own.target
        torch.testing.assert_close(word.map, own.map)
    assert [word.target[0] for word in together] == [f"log p({WORDS[each]})" for each in SAID]
    assert not torch.allclose(together[0].map / together[0].map.max(), together[3].map / together[3].map.max())


@pytest.mark.parametrize("family", ["BLIP", "GIT", "ViT and GPT-2", "LLaVA"])
@pytest.mark.parametrize("length", [16, 17])
def test_as_many_words_as_the_image_has_patches_are_no_picture(family, length):
    model, inputs, _ = made(family)
    name = "decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"
    ids = torch.cat([inputs[name][:, :-4], torch.arange(3, 3 + length)[None]], 1)[:, -length:]
    if family == "LLaVA":
        ids = torch.cat([inputs[name][:, :16], ids], 1)
    found = seewhy.explain(model, {**inputs, name: ids}, seewhy.Sentence(ids).at(-1))
    assert found.layers == (FAMILIES[family][1],)


def test_as_many_channels_as_the_image_has_patches_are_no_picture_either():
    torch.manual_seed(0)
    config = hf.ViltConfig(**{**EYE, "hidden_size": 16}, vocab_size=9, num_labels=5, max_image_length=-1)
    inputs = {"pixel_values": torch.randn(1, 3, 32, 32), "input_ids": torch.tensor([[1, 3]])}
    found = seewhy.explain(hf.ViltForQuestionAnswering(config).eval(), inputs, 1)
    assert found.layers == ("vilt.embeddings.patch_embeddings",)


class Swapped(nn.Module):
    """Patches by a linear map, for blue, green, red."""

    def __init__(self):
        super().__init__()
        self.patch, self.out = nn.Linear(3 * 64, 12), nn.Linear(12, 3)

    def forward(self, images):
        cut = images[:, [2, 1, 0]].unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5)
        return self.out(self.patch(cut.flatten(3).flatten(1, 2)).relu().mean(1))


class Leads(nn.Module):
    """Some leads of a signal."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv1d(2, 12, 3, 2), nn.Linear(12, 3)

    def forward(self, signals):
        return self.out(self.conv(signals[:, [2, 0]]).relu().mean(2))


@pytest.mark.parametrize(
    ("model", "images", "layer", "grid"),
    [(Swapped, torch.randn(1, 3, 32, 32), "patch", (4, 4)), (Leads, torch.randn(1, 3, 33), "conv", (16,))],
)
def test_channels_picked_by_an_index_leave_the_places_in_order(model, images, layer, grid):
    torch.manual_seed(0)
    found = seewhy.explain(model().eval(), images, 1)
    ((name, cells),) = found.raw.items()
    assert name.startswith(layer)
    assert cells.shape[1:] == grid
    assert cells.abs().max() > 0


def test_a_tokenizer_of_transformers_names_the_words():
    from tokenizers import Tokenizer, models

    pieces = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "two": 3, "snow": 4, "##board": 5, "##ers": 6, "jump": 7}
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordPiece(pieces, unk_token="[UNK]")), cls_token="[CLS]", sep_token="[SEP]"
    )
    sentence = seewhy.Sentence(torch.tensor([[1, 3, 4, 5, 6, 7, 2]]), tokenizer)
    assert [each.asked[0] for each in sentence.words] == [(1,), (2, 3, 4), (5,)]
    assert sentence.instead("jump", "two").ids == ((1, 3, 4, 5, 6, 3, 2),)


ANSWERS = ["yes", "no", "red", "blue", "two"]


def vilt():
    torch.manual_seed(0)
    config = hf.ViltConfig(**EYE, vocab_size=len(WORDS), num_labels=5, max_image_length=-1, max_position_embeddings=24)
    model = hf.ViltForQuestionAnswering(config).double().eval()
    return model, {"pixel_values": picture(), "input_ids": torch.tensor([[1, 3, 4, 2]])}


def test_answers_of_vilt_from_the_patches_ahead_of_their_shuffle():
    model, inputs = vilt()
    answers = seewhy.compare(model, inputs, ANSWERS, labels=ANSWERS)
    assert {each.layers for each in answers} == {("vilt.embeddings.patch_embeddings",)}
    kept = {}
    handle = model.vilt.embeddings.patch_embeddings.register_forward_hook(lambda *given: kept.update(a=given[2]))
    logits = model(**inputs).logits[0]
    handle.remove()
    for index, answer in enumerate(answers):
        (gradient,) = torch.autograd.grad(logits[index], kept["a"], retain_graph=True)
        expected = (gradient.mean((2, 3), keepdim=True) * kept["a"]).sum(1).relu().detach()
        torch.testing.assert_close(answer.raw[answer.layers[0]], expected)
        assert answer.target == (ANSWERS[index],)
    predicted = seewhy.explain(model, inputs, labels=ANSWERS)
    assert predicted.target == (ANSWERS[int(logits.argmax())],)


def test_an_unknown_answer_is_told_with_the_nearest_known_ones():
    model, inputs = vilt()
    with pytest.raises(TargetError) as told:
        seewhy.explain(model, inputs, "blu", labels=ANSWERS)
    assert str(told.value) == "no label 'blu'; closest 'blue' (3); give a label or an index from 0 to 4"


def test_an_answer_of_blip_by_its_loss():
    torch.manual_seed(0)
    text = {**TEXT, "encoder_hidden_size": 32, "sep_token_id": 2}
    model = hf.BlipForQuestionAnswering(hf.BlipConfig(text_config=text, vision_config=EYE)).double().eval()
    for parameter in model.parameters():
        parameter.data *= 3 if parameter.ndim > 1 else 1
    inputs = {"pixel_values": picture(), "input_ids": torch.tensor([[1, 3, 4, 2]]), "labels": torch.tensor([[1, 5, 2]])}
    with pytest.raises(ModelError) as told:  # it puts out no logits
        seewhy.explain(model, inputs, seewhy.Sentence([1, 5, 2]))
    assert "say which are the scores" in str(told.value)
    kept = {}
    norm = model.vision_model.post_layernorm
    handle = norm.register_forward_hook(lambda *given: kept.setdefault("a", given[2]))
    loss = model(**inputs).loss
    handle.remove()
    (gradient,) = torch.autograd.grad(-loss, kept["a"])
    cells = [each[:, 1:].mT.unflatten(2, (4, 4)) for each in (gradient, kept["a"])]
    expected = (cells[0].mean((2, 3), keepdim=True) * cells[1]).sum(1).relu().detach()
    found = seewhy.explain(model, inputs, lambda output: -output.loss[None])
    assert found.layers == ("vision_model.post_layernorm@1",)
    torch.testing.assert_close(found.raw[found.layers[0]], expected)


@pytest.fixture
def red_circle(shared):
    import shared_vqa

    image = Image.new("RGB", (64, 64), (238, 236, 240))
    ImageDraw.Draw(image).ellipse((8, 30, 30, 52), fill=(255, 0, 0))
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, 30:53, 8:31] = True
    vqa = shared_vqa.easy_vqa()
    return vqa, vqa.preprocess(read(image))[0][None], mask


@pytest.mark.parametrize(("words", "answer"), [("what color is the shape?", "red"), ("is there a red shape?", "yes")])
def test_a_real_network_answers_by_the_shape(red_circle, words, answer):
    import shared_vqa

    vqa, image, mask = red_circle
    question = shared_vqa.words(words)
    found = seewhy.explain(vqa, image, args=(question,))
    by_name = seewhy.explain(vqa, {"image": image, "question": question})
    assert found.target == by_name.target == (answer,)
    torch.testing.assert_close(found.map, by_name.map)
    places = seewhy.explain(vqa, image, method="grad_cam_elementwise", args=(question,)).map
    assert pixel_auroc(places, mask) > 0.8
    others = seewhy.compare(vqa, image, ["red", "blue", "circle", "yes"], args=(question,), rectify=False)
    assert others.shape == (4, 1, 1)
    with pytest.raises(TargetError) as told:
        seewhy.explain(vqa, image, "purple", args=(question,))
    assert str(told.value).startswith("no label 'purple'")
