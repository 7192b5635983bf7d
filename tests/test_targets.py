"""Questions: what each target reads, how they compose, and what is said of one that cannot be answered."""

import numpy as np
import pytest
import torch

from seewhy.ranked import Contrast, Rank
from seewhy.targets import Each, Logit, LogProbability, Probability, Question, ReST, class_of, describe, parse, resolve
from seewhy.types import TargetError

LABELS = ("tabby, tabby cat", "Egyptian cat", "boxer", "crane", "crane machine, crane")
SCORES = torch.tensor([[1.0, 3.0, 2.0, -1.0, 0.5], [0.0, -2.0, 4.0, 1.0, 2.5]], dtype=torch.float64)
ROWS = torch.arange(2)


def question(shape=(2, 5), labels=LABELS, path=()):
    return Question(path, shape, labels, 2)


def read(target, output=SCORES, rows=ROWS, path=()):
    return resolve(parse(target, 2), question(path=path))(output, rows)


@pytest.mark.parametrize("written", [2, "boxer", "BOXER", Logit(2), Logit("Boxer"), [2, "boxer"], torch.tensor([2, 2])])
def test_a_class_in_any_spelling_is_its_logit(written):
    torch.testing.assert_close(read(written), SCORES[:, 2])


def test_one_class_for_each_image_follows_the_rows():
    rows = torch.tensor([1, 0, 1])
    torch.testing.assert_close(read([1, 2], SCORES[[1, 0, 1]], rows), torch.tensor([4.0, 3.0, 4.0]).double())


def test_probability_and_its_logarithm():
    p = SCORES.softmax(1)[:, 1]
    torch.testing.assert_close(read(Probability(1)), p)
    torch.testing.assert_close(read(LogProbability("Egyptian cat")), p.log())


def test_a_single_logit_is_read_by_its_sigmoid():
    scores = SCORES[:, :1]
    found = resolve(Probability(0), Question((), (2, 1), None, 2))(scores, ROWS)
    torch.testing.assert_close(found, scores[:, 0].sigmoid())
    vector = resolve(Logit(0), Question((), (2,), None, 2))(scores[:, 0], ROWS)
    torch.testing.assert_close(vector, scores[:, 0])


def test_the_algebra():
    a, b = SCORES[:, 0], SCORES[:, 1]
    torch.testing.assert_close(read(Logit(0) - Logit(1)), a - b)
    torch.testing.assert_close(read(-Logit(0)), -a)
    torch.testing.assert_close(read(0.5 * Logit(0) + Logit(1) * 2), 0.5 * a + 2 * b)
    torch.testing.assert_close(read(-(Logit(0) - 0.25 * Logit(1))), -a + 0.25 * b)
    norm = lambda output, rows: output.norm(dim=1)  # noqa: E731
    torch.testing.assert_close(read(Logit(0) - norm), a - SCORES.norm(dim=1))
    torch.testing.assert_close(read(norm - Logit(0)), SCORES.norm(dim=1) - a)


def test_the_algebra_takes_functions_of_the_output_alone_and_sums():
    third = lambda output: output[:, 2]  # noqa: E731
    torch.testing.assert_close(read(Logit(1) - third), SCORES[:, 1] - SCORES[:, 2])
    torch.testing.assert_close(read(Logit(1) + third), SCORES[:, 1] + SCORES[:, 2])


@pytest.mark.parametrize("wrong", [lambda: Logit(1) + 3, lambda: Logit(1) - "cat", lambda: Logit(1) * Logit(2)])
def test_what_the_algebra_cannot_take(wrong):
    with pytest.raises(TargetError, match="cannot"):
        wrong()


def test_arrays_are_classes():
    torch.testing.assert_close(read(np.array([1, 2])), torch.stack([SCORES[0, 1], SCORES[1, 2]]))
    torch.testing.assert_close(read(np.int64(2)), SCORES[:, 2])


def test_functions_of_the_output_alone_are_targets():
    torch.testing.assert_close(read(lambda output: output.sum(1)), SCORES.sum(1))
    torch.testing.assert_close(read(lambda output, rows: output[:, 0] * rows), SCORES[:, 0] * ROWS)


def test_a_target_for_each_image():
    mixed = [Probability(1), Logit(2) - Logit(0)]
    torch.testing.assert_close(read(mixed), torch.stack([SCORES[0].softmax(0)[1], SCORES[1, 2] - SCORES[1, 0]]))
    assert isinstance(parse(mixed, 2), Each)


def test_the_scores_are_found_in_a_structured_output():
    torch.testing.assert_close(read(2, {"logits": SCORES}, path=("logits",)), SCORES[:, 2])


def test_ranks_are_fixed_on_the_scores_they_are_given():
    assert [Rank(place).of(SCORES, question()).classes for place in (1, 2)] == [(1, 2), (2, 4)]
    with pytest.raises(TargetError, match="class at place 6; the model has 5 classes"):
        Rank(6).of(SCORES, question())


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (1, "Egyptian cat"),
        (Probability(0), "p(tabby)"),
        (Logit(1) - Logit(2), "Egyptian cat - boxer"),
        (-Logit(1), "- Egyptian cat"),
        (0.5 * LogProbability(2), "0.5 log p(boxer)"),
        (Logit(1) - 0.5 * Logit(2), "Egyptian cat - 0.5 boxer"),
    ],
)
def test_targets_in_words(target, words):
    assert describe(resolve(parse(target, 2), question()), question(), 0) == words


def test_the_class_of_a_target():
    assert class_of(resolve(parse([1, 2], 2), question()), 1) == 2
    assert class_of(resolve(Logit(0) - Logit(1), question()), 0) is None


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (5, "class 5 is out of range; the model has 5 classes: 0 to 4"),
        (-1, "class -1 is out of range"),
        ("boxxer", "boxxer.*boxer"),
        ("crane", "crane.*3.*4"),
        ([1, 2, 3], "got 3 targets for 2 images; give one for all, or exactly one for each"),
        ([1], "got 1 targets for 2 images"),
        (True, "got True as a target"),
        (3.5, "got float as a target"),
        (np.float64(1.7), "got float as a target"),
        ([True, False], "got True as a target"),
    ],
)
def test_targets_that_cannot_be_answered(target, message):
    with pytest.raises(TargetError, match=message):
        read(target)


def test_several_targets_for_one_image_point_to_compare():
    with pytest.raises(TargetError, match="did you mean compare"):
        parse([1, 2], 1)


def test_a_label_without_labels_and_a_class_of_a_dense_output():
    with pytest.raises(TargetError, match="comes without labels; pass labels="):
        resolve(Logit("boxer"), question(labels=None))
    with pytest.raises(TargetError, match=r"the scores have the shape \(2, 5, 8, 8\)"):
        resolve(Logit(1), question(shape=(2, 5, 8, 8)))


# Contrasts


def contrast(**chosen):
    return resolve(Contrast(**chosen).of(SCORES, question()), question())


def test_a_contrast_is_the_mean_over_the_nearest_classes():
    found = contrast(references=2, gamma=0.6, weighting="mean")  # boxer 2 and tabby 1; machine 2.5 and crane 1
    expected = torch.tensor([3 - 0.6 * (2 + 1) / 2, 4 - 0.6 * (2.5 + 1) / 2], dtype=torch.float64)
    torch.testing.assert_close(found(SCORES, ROWS), expected)
    torch.testing.assert_close(found(SCORES.flip(0), ROWS.flip(0)), expected.flip(0))
    assert describe(contrast(references=1, gamma=1, weighting="mean"), question(), 0) == "Egyptian cat - boxer"


def test_a_contrast_weighed_by_the_softmax_is_that_of_all_classes():
    found = contrast(references=2, gamma=0.7)
    p = SCORES.softmax(1)
    for row, (own, others) in enumerate([(1, (2, 0)), (2, (4, 3))]):
        expected = sum(p[row, d] * (SCORES[row, own] - 0.7 * SCORES[row, d]) for d in others) / sum(
            p[row, d] for d in others
        )
        torch.testing.assert_close(found(SCORES, ROWS)[row], expected)
    assert describe(found, question(), 1) == "boxer against crane machine, crane"


def test_without_gamma_a_contrast_is_the_class_and_with_one_reference_it_is_odd():
    for weighting in ("mean", "softmax"):
        alone = contrast(classes=0, gamma=0.0, weighting=weighting)
        torch.testing.assert_close(alone(SCORES, ROWS), SCORES[:, 0])
        one = contrast(classes=0, references=[2], gamma=1.0, weighting=weighting)
        other = contrast(classes="boxer", references=["tabby"], gamma=1.0, weighting=weighting)
        torch.testing.assert_close(one(SCORES, ROWS), -other(SCORES, ROWS))


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        ({"references": 5}, "asked for 5 classes to contrast with; the model has 4 others"),
        ({"references": []}, "got no references to contrast with"),
        ({"weighting": "max"}, "weighting is 'max'; it is 'mean' or 'softmax'"),
    ],
)
def test_a_contrast_that_cannot_be_is_told(chosen, text):
    with pytest.raises(TargetError, match=text):
        contrast(**chosen)


def test_rest_adds_the_log_probability():
    torch.testing.assert_close(read(ReST(1)), SCORES[:, 1] + SCORES.log_softmax(1)[:, 1])
