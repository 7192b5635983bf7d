"""Sentences: which ids are words, and whether the model has read what stands ahead of them."""

import pytest
import torch
from torch import nn

import seewhy
from seewhy import Sentence
from seewhy.targets.context import unread

WORDS = ["<s>", "a", "red", "ball", "dog", "</s>", "<pad>", "[SEP]", "<", "[]", "<|im_end|>", "< 3"]


class Captioner(nn.Module):
    """Logits of the next word from the image and the words so far."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.known, self.line = nn.Conv2d(3, 6, 3, 2, 1), nn.Embedding(12, 6), nn.Linear(6, 12)

    def forward(self, pixel_values, input_ids=None, labels=None, attention_mask=None):
        ids = input_ids if labels is None else labels.clamp_min(0)
        seen = self.conv(pixel_values).relu().mean((2, 3))[:, None]
        return self.line(seen + self.known(ids).cumsum(1))


IDS = torch.tensor([[0, 1, 2, 3, 5]])
X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def noted(sentence, **given):
    notes = seewhy.explain(Captioner(), {"pixel_values": X, **given}, sentence, "hires_cam").notes
    return [note for note in notes if "do not stand in" in note]


def test_of_a_list_of_words_those_in_brackets_are_none():
    sentence = Sentence([[0, 1, 4, 5, 6, 6], [0, 1, 2, 3, 5, 6]], WORDS)
    assert sentence.texts == ("a dog", "a red ball")
    assert Sentence([0, 1, 7, 8, 9, 10, 11], WORDS).texts == ("a < [] < 3",)
    assert Sentence([0, 1, 4, 5], dict(enumerate(WORDS))).texts == ("a dog",)


def test_a_tokenizer_that_says_what_is_special_is_believed():
    class Own:
        all_special_ids = (5,)

        def decode(self, ids):
            return "".join(f" {WORDS[each]}" for each in ids)

    assert Sentence([0, 1, 6, 5], Own()).texts == ("a <pad>",)


@pytest.mark.parametrize(
    "sentence",
    [
        Sentence(IDS, WORDS),
        Sentence(IDS, WORDS).phrase("ball"),
        Sentence(IDS, WORDS).instead("ball", "dog"),
        Sentence(IDS, WORDS, prompt=3),
        Sentence([0, 1, 2, 4, 5], WORDS).at(3),  # another last word after the same ones
        Sentence(IDS[:, 1:], WORDS),
    ],
)
def test_nothing_is_said_of_words_after_those_that_the_model_read(sentence):
    assert not noted(sentence, input_ids=IDS, attention_mask=torch.ones_like(IDS))


@pytest.mark.parametrize(
    "sentence", [Sentence([0, 4, 2, 3, 5], WORDS), -Sentence([0, 4, 2, 3, 5], WORDS).phrase("red")]
)
def test_words_after_others_than_the_model_read_are_noted(sentence):
    assert noted(sentence, input_ids=IDS) == [
        "the words ahead of those that are asked about do not stand in input_ids, so the model has not read them; give "
        "the ids that went into the model of this pass"
    ]


def test_labels_that_do_not_count_stand_for_any():
    labels = torch.tensor([[-100, -100, 2, 3, 5]])
    assert not noted(Sentence(IDS, WORDS, prompt=2, shift=0), labels=labels)
    assert noted(Sentence([0, 1, 4, 3, 5], WORDS, prompt=2, shift=0), labels=labels)


def test_each_image_has_its_own_text():
    given = {"input_ids": torch.tensor([[1, 2, 3], [1, 4, 3]])}
    assert not unread((1, 2), given, 0)
    assert unread((1, 2), given, 1) == "input_ids"
    assert not unread((1, 4), {0: given["input_ids"]}, 1)
    assert unread((9,), {0: given["input_ids"], "labels": given["input_ids"]}, 0) == "argument 0 and labels"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attention_mask", torch.tensor([[2, 2, 2]])),
        ("token_type_ids", torch.tensor([[2, 2, 2]])),
        ("image_grid", torch.tensor([[1, 4, 4]])),
        ("input_ids", torch.tensor([[1.0, 4.0]])),
        ("input_ids", torch.tensor([5])),
        (0, torch.tensor([[1, 0, 1]])),
        ("input_ids", "a dog"),
    ],
)
def test_what_is_no_text_says_nothing(name, value):
    assert not unread((9,), {name: value}, 0)
