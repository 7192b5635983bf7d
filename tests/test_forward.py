"""Whatever a model refuses its inputs with is one error about all of them; what is not the model's stays what it is."""

import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import seewhy
from seewhy import ModelError
from seewhy.model.batch import Batch
from seewhy.model.forward import forward

IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Asked(nn.Module):
    """A network that takes an image and words, and may raise."""

    def __init__(self, error=None):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.words, self.head = nn.Conv2d(3, 8, 3), nn.Embedding(5, 8), nn.Linear(8, 4)
        self.error = error

    def forward(self, pixel_values, input_ids, mask=None):
        if self.error is not None:
            raise self.error
        found = self.conv(pixel_values).relu().mean((2, 3)) * self.words(input_ids).mean(1)
        return self.head(found)


def asked(ids=((1, 2, 3), (1, 4, 0))):
    return {"pixel_values": IMAGES, "input_ids": torch.tensor(ids)}


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (IndexError("index out of range in self"), "IndexError: index out of range in self"),
        (KeyError("pixels"), "KeyError: 'pixels'"),
        (
            AttributeError("'str' object has no attribute 'size'"),
            "AttributeError: 'str' object has no attribute 'size'",
        ),
        (RuntimeError("sizes differ\nand more"), "sizes differ"),
        (
            ValueError("Exception encountered when calling Net.call().\n\n\x1b[1mbad axes\x1b[0m\n\nArguments"),
            "bad axes",
        ),
        (ValueError(), "ValueError"),
        (NotImplementedError("not here"), "not here"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    ],
)
def test_whatever_the_model_raises_names_all_its_inputs(error, reason, warm):
    model = Asked()
    if warm:  # the layers are remembered, so that nothing runs ahead of the pass itself
        seewhy.explain(model, asked(), 1)
    model.error = error
    with pytest.raises(ModelError) as told:
        seewhy.explain(model, {**asked(), "mask": None}, 1) if not warm else seewhy.explain(model, asked(), 1)
    further = "input_ids of shape (2, 3)" + ("" if warm else ", mask of type NoneType")
    assert str(told.value) == (
        f"the model does not run on images of shape (2, 3, 12, 12) and type float32 with {further} ({reason}); "
        "give the batch as it takes it, and further inputs by args= and kwargs="
    )
    assert told.value.__cause__ is error


def test_words_outside_of_the_vocabulary_are_the_inputs_fault_also_when_the_model_is_known():
    model = Asked()
    seewhy.explain(model, asked(), 1)
    with pytest.raises(ModelError, match=r"input_ids of shape \(2, 3\) \(IndexError: index out of range in self\)"):
        seewhy.explain(model, asked(((1, 2, 9), (1, 4, 0))), 1)


def test_arguments_by_position_are_counted_as_the_model_does():
    with pytest.raises(ModelError, match=re.escape("with argument 2 of shape (3,), argument 3 of type str")):
        seewhy.explain(Asked(KeyError("x")), IMAGES, 1, args=(torch.zeros(3), "words"))


def test_changed_images_that_the_model_does_not_take_are_told_too():
    class OfTwo(Asked):
        def forward(self, pixel_values, input_ids, mask=None):
            if len(pixel_values) > 2:
                raise LookupError("two at most")
            return super().forward(pixel_values, input_ids, mask)

    with pytest.raises(ModelError, match=r"\(\d+, 3, 12, 12\).* input_ids of shape .*\(LookupError: two at most\)"):
        seewhy.explain(OfTwo(), asked(), 1, "occlusion", options={"patch": 4, "stride": 4})


def test_a_model_and_images_on_two_devices_are_told():  # meta stands for a GPU, which is not at hand
    one = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    text = "the images are on meta and the model is on cpu; give both on one device: images.to('cpu'), further inputs"
    with pytest.raises(ModelError, match=f"^{re.escape(text)} too$"):
        forward(one, Batch(IMAGES.to("meta")))
    with pytest.raises(
        seewhy.ShapeError, match=r"^got images on the device 'meta', which hold no values; give them on"
    ):
        seewhy.explain(one, IMAGES.to("meta"), 1)
    with pytest.raises(
        ModelError, match=r"^the model is on the device 'meta', where it has shapes but no values; load"
    ):
        seewhy.explain(one.to("meta"), IMAGES, 1)


@pytest.mark.parametrize("error", [IndexError("mine"), RuntimeError("mine"), KeyError("mine")])
def test_an_error_of_the_users_question_stays_what_it_is(error):
    def ask(*given):
        raise error

    with pytest.raises(type(error)) as told:
        seewhy.explain(Asked(), asked(), ask)
    assert told.value is error


def test_a_decode_that_does_not_take_the_output_is_not_the_models_fault_either():
    def ask(output):
        raise RuntimeError("mine")

    with pytest.raises(seewhy.TargetError, match=r"decode=ask does not take this output \(mine\)"):
        seewhy.explain(Asked(), asked(), seewhy.Box(decode=ask))


def test_an_error_of_seewhys_own_within_the_model_stays_what_it_is(monkeypatch):
    broken = RuntimeError("a bug of ours")

    def fail(*given):
        raise broken

    monkeypatch.setattr("seewhy.model.spot.tensors", fail)
    with pytest.raises(RuntimeError) as told:
        seewhy.explain(Asked(), asked(), 1)
    assert told.value is broken


def test_what_no_input_can_mend_stays_what_it_is():
    for error in (torch.OutOfMemoryError("full"), MemoryError(), UserWarning("of the model's"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as told:
            seewhy.explain(Asked(error), asked(), 1)
        assert told.value is error


@pytest.mark.parametrize(
    ("model", "images", "hint"),
    [
        (nn.Conv2d(3, 2, 3), IMAGES.double(), "; the model is of float32: images.to(torch.float32)"),
        (nn.Conv2d(3, 2, 3).double(), IMAGES, "; the model is of float64: images.to(torch.float64)"),
        (nn.Conv2d(3, 2, 3), IMAGES.movedim(1, -1), "; its channels seem to be last: images.permute(0, 3, 1, 2)"),
        (nn.Conv3d(3, 2, 3), torch.zeros(1, 5, 3, 8, 8), "third: images.permute(0, 2, 1, 3, 4)"),
    ],
)
def test_what_can_be_told_by_type_and_shape_is_the_way_out(model, images, hint):
    with pytest.raises(ModelError) as error:
        forward(model, Batch(images))
    assert str(error.value).endswith(hint)
    assert str(error.value).count("images.") == 1


class OfWords(nn.Module):
    """As models of transformers that take words beside images, the words optional in name alone."""

    config = SimpleNamespace(text_config=SimpleNamespace(max_position_embeddings=4))

    def forward(self, pixel_values, input_ids=None):
        return pixel_values.mean((2, 3)) + nn.functional.embedding(input_ids, torch.zeros(4, 3)).mean(1)


def test_words_that_were_not_given_or_are_too_many_are_told():
    with pytest.raises(ModelError, match=r"; it takes input_ids too, which were not given$"):
        forward(OfWords(), Batch(IMAGES))
    ids = torch.arange(6).expand(2, 6)
    with pytest.raises(ModelError, match=r"; input_ids are 6 tokens, of which it takes 4$"):
        forward(OfWords(), Batch(IMAGES, kwargs={"input_ids": ids}))
