"""Sentences: which ids are words, and whether the model has read what stands ahead of them."""

import pytest
import torch
from torch import nn

import seewhy
from seewhy import Sentence
from seewhy.targets.context import reaches, unread
from seewhy.types import TargetError

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


# Where the sentence stands in the text that the model was given


class Decoder(nn.Module):
    """Rows of the image ahead of those of the text, as in decoder-only models."""

    def __init__(self, ahead):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.known, self.line = nn.Conv2d(3, 6, 3, 2, 1), nn.Embedding(12, 6), nn.Linear(6, 12)
        self.ahead = ahead

    def forward(self, pixel_values, input_ids):
        seen = self.conv(pixel_values).relu().mean((2, 3))[:, None]
        rows = torch.cat([seen.expand(-1, self.ahead, -1), seen + self.known(input_ids)], 1)
        return self.line(torch.tanh(rows.cumsum(1)))


TEXT = torch.tensor([[0, 1, 2, 3, 2, 4, 5]])


def scored(sentence, text=TEXT, ahead=4):
    model = Decoder(ahead).double()
    x = torch.rand(len(text), 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()
    given = {"pixel_values": x, "input_ids": text}
    return model, x, seewhy.explain(model, given, sentence, "hires_cam", "conv", rectify=False)


@pytest.mark.parametrize("ahead", [0, 1, 4])
@pytest.mark.parametrize(
    ("ids", "places", "begins"),
    [
        (TEXT, (1, 3, 6), 0),
        (torch.tensor([[0, 1, 2, 3, 2, 4, 5, 1]]), (1, 3, 7), 0),  # whose last id was not given
        (TEXT[:, :-1], (1, 3, 5), 0),  # the text goes on
        (TEXT[:, 2:], (1, 2, 4), 2),
        (TEXT[:, 1:5], (1, 3), 1),
        (torch.tensor([[3, 2, 4, 5, 9]]), (1, 4), 3),
        (torch.tensor([[0, 1, 2, 8]]), (3,), 0),  # another word after the same ones
        (torch.tensor([[0, 1, 2, 3, 2, 4, 5, 1, 1]]), (1, 7), 0),
    ],
)
def test_a_word_is_read_where_the_text_ends_ahead_of_it(ids, places, begins, ahead):
    model, x, e = scored(Sentence(ids).at(*places), ahead=ahead)
    activations = model.conv(x).detach().requires_grad_()
    model.conv.forward = lambda _: activations
    logs = model(x, TEXT).log_softmax(-1)
    score = sum(logs[0, ahead + begins + place - 1, ids[0, place]] for place in places)
    torch.testing.assert_close(e.scores, score.detach()[None])
    (gradient,) = torch.autograd.grad(score, activations)
    torch.testing.assert_close(e.raw["conv"], (gradient * activations).sum(1).detach())


def test_all_parts_of_a_sentence_whose_end_was_not_given_are_read_in_its_place():
    ids = torch.cat([TEXT, torch.tensor([[1]])], 1)
    words = Sentence(ids, WORDS)
    logs = Decoder(4)(X, TEXT).log_softmax(-1)
    model = Decoder(4)
    given = {"pixel_values": X, "input_ids": TEXT}
    found = seewhy.compare(
        model, given, [words, *words.words, words.instead("ball", "dog")], "hires_cam", rectify=False
    )
    by_hand = [logs[0, 4 + place - 1, ids[0, place]] for place in (1, 2, 3, 4, 5, 7)]
    for e, score in zip(list(found)[1:], [*by_hand, logs[0, 4 + 2, 4]], strict=True):
        torch.testing.assert_close(e.scores, score.detach()[None])
    torch.testing.assert_close(found[0].scores, sum(by_hand).detach()[None])


def test_each_sentence_ends_where_that_of_its_image_does():
    text = torch.tensor([[0, 1, 2, 3, 5], [0, 1, 4, 5, 6]])
    ids = torch.tensor([[0, 1, 2, 3, 5], [1, 4, 5, 6, 6]])
    model, x, e = scored(Sentence(ids).at(2), text)
    logs = model(x, text).log_softmax(-1)
    torch.testing.assert_close(e.scores, torch.stack([logs[0, 5, 2], logs[1, 6, 5]]).detach())


def test_words_that_the_model_did_not_read_up_to_are_refused():
    with pytest.raises(TargetError) as told:
        scored(Sentence([0, 1, 2, 3, 4]), torch.tensor([[0, 1, 2]]))
    assert str(told.value) == (
        "place 4 of the sentence is asked about, and the model was given the first 3 of its 5 ids only, so that no row "
        "of the logits predicts it; give the model the sentence too"
    )


def test_a_sentence_that_stands_at_several_places_is_refused():
    with pytest.raises(TargetError) as told:
        scored(Sentence([1, 2]), torch.tensor([[0, 1, 2, 1, 2, 5]]))
    assert str(told.value) == (
        "the 2 ids of the sentence stand 3 and 5 ids ahead of the end of the text that the model was given, so that it "
        "is not known which rows predict them; give all ids that went into the model, for each image"
    )


def test_the_end_of_the_text_comes_first_and_what_is_unknown_is_the_end():
    def of(ids, row, *asked, name="input_ids"):
        return reaches(ids, asked, {name: torch.tensor([row])}, 0)

    assert of((2, 3), [2, 3, 9, 2, 3], 1) == {2}
    assert of((7, 8), [2, 3, 9, 2, 3], 0, 1) == {2}
    assert of((2, 3), [2, 3, 9, 4], 1, name="attention_mask") == {2}
    assert of((7, 2, 3), [2, 3], 1) == {3}  # the model puts a first id ahead itself
    assert of((7, 8), [-100, -100, 2, 3], 0, 1) == {2}
    assert of((2, 7, 9), [2, 3, 9], 1) == {3}
    assert of((2, 7, 9), [2, 3, 9, 4], 1) == {4}
    assert of((2, 7, 9), [2, 3, 9, 4], 0, 1) == {3}
    both = {"input_ids": torch.tensor([[4, 2, 3, 5]]), "decoder_input_ids": torch.tensor([[2, 3]])}
    assert reaches((2, 3), (0, 1), both, 0) == {2}


def test_labels_are_read_from_the_end_whatever_text_there_is():
    model, x, e = scored(Sentence(TEXT[:, :-1], shift=0).at(2))
    torch.testing.assert_close(e.scores, model(x, TEXT).log_softmax(-1)[:, 4 + 3, 2].detach())
