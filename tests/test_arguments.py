"""What is written in questions: numpy's whole numbers are whole numbers, labels mean one thing wherever they stand."""

import numpy as np
import pytest
import torch
from torch import nn

import seewhy
from seewhy import Contrast, Logit, Rank, Sentence, Similarity, TargetError, Value
from seewhy.targets.arguments import for_each, whole, wholes
from seewhy.targets.question import Question, resolve

SCORES = torch.tensor([[1.0, 3.0, 2.0, -1.0], [0.0, -2.0, 4.0, 1.0]], dtype=torch.float64)
PAIR = ("no", "yes")


def pair():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 1)).double()


@pytest.mark.parametrize("given", [3, np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)])
def test_whole_numbers_of_every_library(given):
    assert whole(given) == 3
    assert type(whole(given)) is int


@pytest.mark.parametrize("given", [True, 3.0, np.float64(3), np.bool_(True), torch.tensor(True), "3", None, [3], int])
def test_what_is_no_whole_number(given):
    assert whole(given) is None


def test_lists_of_whole_numbers():
    assert wholes((1, np.int64(2))) == wholes(torch.tensor([1, 2])) == [1, 2]
    assert wholes([1, 2.0]) is wholes([True]) is wholes(3) is wholes("12") is None


def test_one_for_all_or_one_for_each():
    assert for_each(5, 3, "targets") == (5, 5, 5)
    assert for_each((5,), 2, "targets") == (5, 5)
    assert for_each((5, 6), 2, "targets") == (5, 6)
    with pytest.raises(TargetError, match=r"^got 2 targets for 1 image; give one for all, or exactly one for each$"):
        for_each((5, 6), 1, "targets")


def test_numpy_integers_ask_what_python_s_do():
    about, rows = Question((), (2, 4), None, 2, output=SCORES), torch.arange(2)
    for plain, numpy in (
        (Rank(2), Rank(np.int64(2))),
        (Contrast(1, references=2), Contrast(np.int64(1), references=np.int64(2))),
        (Logit(2), Logit(np.int64(2))),
        (Value(2), Value(np.int16(2))),
        (Similarity([1, 0]), Similarity([np.int64(1), np.int64(0)])),
        (Similarity([1, 0]), Similarity(torch.tensor([1, 0]))),
    ):
        expected, found = (resolve(each, about, SCORES)(SCORES, rows) for each in (plain, numpy))
        torch.testing.assert_close(found, expected)


def test_numpy_integers_in_sentences():
    words = ["<s>", "a", "red", "dog", "cat"]
    plain, ids = Sentence([0, 1, 2, 3], words, prompt=2), np.array([0, 1, 2, 3])
    numpy = Sentence(list(ids), words, prompt=np.int64(2))
    assert numpy == plain
    assert Sentence([torch.tensor([0, 1]), torch.tensor([0, 2])], words).ids == ((0, 1), (0, 2))
    assert numpy.at(np.int64(-1)) == plain.at(-1)
    assert numpy.instead(np.int64(3), np.int64(4)) == plain.instead("dog", "cat")
    with pytest.raises(TargetError, match=r"got True in the place of a word; give a word, or an id, a whole number"):
        plain.instead("dog", True)


@pytest.mark.parametrize("place", [0, -1, True, np.int64(0)])
def test_a_rank_is_a_whole_number_from_1_on(place):
    with pytest.raises(TargetError, match=r"as a place; give a whole number, where 1 is the predicted class"):
        Rank(place)


@pytest.mark.parametrize("ask", [Logit, Value])
def test_of_two_labels_the_only_score_speaks_for_the_second(ask):
    model, x = pair(), torch.rand(1, 3, 12, 12).double()
    own, index = (seewhy.explain(model, x, ask(each), "hires_cam", labels=PAIR) for each in ("yes", 0))
    assert own.target == ("yes",)
    torch.testing.assert_close(own.map, index.map)
    name = ask.__name__
    with pytest.raises(TargetError) as told:
        seewhy.explain(model, x, ask("no"), labels=PAIR)
    assert str(told.value) == (
        f"the model's only score speaks for 'yes'; what speaks for 'no' is what speaks against it: -{name}(0)"
    )


@pytest.mark.parametrize(("asked", "told"), [(0, True), (Logit(0), True), ("yes", False), (None, False)])
def test_index_0_of_a_score_with_two_labels_is_told_as_the_second(asked, told):
    e = seewhy.explain(pair(), torch.rand(1, 3, 12, 12).double(), asked, "hires_cam", labels=PAIR, rectify=False)
    said = "the model's only score, index 0, speaks for 'yes'; what speaks for 'no' is -Logit(0)"
    assert (said in e.notes) == told


def test_what_a_single_score_cannot_be_asked_or_called():
    x = torch.rand(1, 3, 12, 12).double()
    with pytest.raises(TargetError, match="got place 2 among the scores; the model has a single score, so give 1"):
        seewhy.explain(pair(), x, Rank(2))
    says = "got 3 labels for a model of a single score; give its name, or two names, of which it speaks for the second"
    with pytest.raises(TargetError, match=says):
        seewhy.explain(pair(), x, labels=["a", "b", "c"])


def test_an_index_of_a_label_that_has_no_score_of_its_own():
    with pytest.raises(TargetError) as told:
        seewhy.explain(pair(), torch.rand(1, 3, 12, 12).double(), 1, labels=PAIR)
    assert str(told.value) == (
        "class 1 is out of range; the model has a single score, index 0, which speaks for 'yes'; what speaks for 'no' "
        "is -Logit(0)"
    )
