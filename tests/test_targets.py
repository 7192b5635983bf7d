"""Questions: what each target reads, how they compose, and what is said of one that cannot be answered."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from seewhy.targets.arithmetic import Each
from seewhy.targets.classes import (
    Logit,
    LogProbability,
    Probability,
    ReST,
    class_of,
    describe,
    parse,
)
from seewhy.targets.question import Question
from seewhy.targets.question import resolve as settle
from seewhy.targets.ranked import Contrast, Rank
from seewhy.targets.reading import logits_of
from seewhy.targets.walking import notes
from seewhy.types import TargetError

LABELS = ("tabby, tabby cat", "Egyptian cat", "boxer", "crane", "crane machine, crane")
SCORES = torch.tensor([[1.0, 3.0, 2.0, -1.0, 0.5], [0.0, -2.0, 4.0, 1.0, 2.5]], dtype=torch.float64)
ROWS = torch.arange(2)


def resolve(target, about, scores=SCORES):
    return settle(target, about, scores)


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


# Whatever asks something: a class, one by its rank, a contrast, a sum of these, an own function

KINDS = {
    "a class": (lambda: Logit(0), SCORES[:, 0]),
    "a label": (lambda: Logit("boxer"), SCORES[:, 2]),
    "a probability": (lambda: Probability(1), SCORES.softmax(1)[:, 1]),
    "a rank": (lambda: Rank(2), torch.tensor([2.0, 2.5]).double()),
    "a contrast": (lambda: Contrast(0, references=[3], weighting="mean"), SCORES[:, 0] - SCORES[:, 3]),
    "a weighed contrast": (lambda: Contrast(0, references=[3]), SCORES[:, 0] - SCORES[:, 3]),
    "a residual": (lambda: ReST(1), SCORES[:, 1] + SCORES.log_softmax(1)[:, 1]),
    "a sum": (lambda: Logit(1) - Rank(1), SCORES[:, 1] - SCORES.amax(1)),
    "one for each": (lambda: parse([Rank(1), Probability(2)], 2), torch.stack([SCORES[0, 1], SCORES[1].softmax(0)[2]])),
}
each_kind = pytest.mark.parametrize("kind", list(KINDS))


@each_kind
def test_every_question_adds_and_scales(kind):
    asked, value = KINDS[kind][0](), KINDS[kind][1]
    function = lambda output: output[:, 4]  # noqa: E731
    for found, expected in (
        (-asked, -value),
        (2 * asked, 2 * value),
        (asked * np.float32(0.5), 0.5 * value),
        (asked / np.float32(4), 0.25 * value),
        ((asked + Logit(4)) / 2, (value + SCORES[:, 4]) / 2),
        (sum([asked, asked, Logit(4)]), 2 * value + SCORES[:, 4]),
        (asked + Logit(4), value + SCORES[:, 4]),
        (Logit(4) - asked, SCORES[:, 4] - value),
        (asked - function, value - SCORES[:, 4]),
        (function - asked, SCORES[:, 4] - value),
        (asked - Rank(1), value - SCORES.amax(1)),
        (Contrast(1, references=[2]) - 0.5 * asked, SCORES[:, 1] - SCORES[:, 2] - 0.5 * value),
    ):
        torch.testing.assert_close(read(found), expected)
    for wrong in (
        lambda: asked + 3,
        lambda: 3 - asked,
        lambda: asked * "2",
        lambda: asked * True,
        lambda: asked * float("nan"),
        lambda: asked / 0,
        lambda: asked / Logit(0),
        lambda: False + asked,
        lambda: asked + 0,
        lambda: asked + Rank,
    ):
        with pytest.raises(TargetError, match="cannot"):
            wrong()


@each_kind
def test_every_question_may_be_one_of_a_list(kind):
    asked, value = KINDS[kind][0](), KINDS[kind][1]
    torch.testing.assert_close(read([asked, 3]), torch.stack([value[0], SCORES[1, 3]]))
    torch.testing.assert_close(read([Rank(3), -asked]), torch.stack([SCORES[0, 0], -value[1]]))


@each_kind
def test_a_settled_question_does_not_look_at_what_is_predicted_of_changed_images(kind):
    settled = resolve(parse(-KINDS[kind][0](), 2), question())
    rows = torch.tensor([1, 1, 0])
    torch.testing.assert_close(settled(SCORES[rows], rows), -KINDS[kind][1][rows])
    again = settled(SCORES.flip(1), ROWS)  # other scores, the same classes
    assert torch.isfinite(again).all()
    assert settled == resolve(settled, question(), SCORES.flip(1)) or kind == "one for each"


def test_a_question_is_settled_by_explain_alone():
    with pytest.raises(TargetError) as told:
        (Rank(1) - Logit(2))(SCORES, ROWS)
    assert str(told.value) == (
        "Rank(place=1) depends on the clean scores, which a function of the output does not know; pass it to explain "
        "as the target itself, or as a part of a sum or list of targets"
    )
    with pytest.raises(TargetError, match="the label 'boxer' is looked up where explain gets this target itself"):
        Logit("boxer")(SCORES, ROWS)


@pytest.mark.parametrize("returned", [lambda output: output, lambda output: 3.0, lambda output: output.sum()])
def test_parts_of_a_sum_or_list_return_one_score_for_each_image(returned):
    for asked in (Logit(1) - returned, [1, returned]):
        with pytest.raises(TargetError, match=r"the target returned .*; return (a tensor with )?one score per image"):
            read(asked)


def test_the_gradient_of_a_sum_is_told_where_every_part_tells_it():
    told = resolve(Rank(1) - 0.5 * Logit("boxer"), question()).gradient(SCORES, ROWS)
    expected = torch.tensor([[0, 1, -0.5, 0, 0], [0, 0, 0.5, 0, 0]]).double()
    assert told[0] == ()
    torch.testing.assert_close(told[1], expected)
    assert resolve(Rank(1) - Probability(0), question()).gradient(SCORES, ROWS) is None
    assert resolve(Rank(1) + Contrast(), question()).gradient(SCORES, ROWS) is None


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        (Rank(1) - Probability(1), ("logits",)),
        ([Contrast(), 2 * Logit(0)], ("logits",)),
        (Logit(1) - (lambda output, rows: output["more"][:, 0]), None),
    ],
)
def test_what_is_read_of_the_output_is_told(asked, path):
    assert resolve(parse(asked, 2), question(path=("logits",))).reads == path


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
    with pytest.raises(TargetError, match="got place 6 among the scores; the model has 5 classes, so give 1 to 5"):
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
        (Rank(1) - Rank(2), "Egyptian cat - boxer"),
        (-Contrast(0, references=[2, 3]), "- (tabby against boxer, crane)"),
        (2 * Contrast(0, references=[2], weighting="mean"), "2 tabby - 2 boxer"),
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
        (Rank, "got the class Rank as a target"),
        (max, "max does not tell which arguments it takes; wrap it in a function of the output: lambda output: max"),
        (
            lambda a, b, c: a,
            r"<lambda> takes \(a, b, c\); a target is a function of \(output, rows\), or of the output",
        ),
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


def test_a_contrast_is_with_three_classes_or_with_as_many_as_there_are():
    for classes in (2, 3, 4, 5):
        scores = SCORES[:, :classes]
        about = Question((), (2, classes), None, 2)
        for weighting in ("mean", "softmax"):
            found = resolve(Contrast(0, weighting=weighting), about, scores)
            named = resolve(Contrast(0, references=min(3, classes - 1), weighting=weighting), about, scores)
            torch.testing.assert_close(found(scores, ROWS), named(scores, ROWS))


def test_a_contrast_needs_another_class():
    with pytest.raises(TargetError) as told:
        resolve(Contrast(), Question((), (2, 1), None, 2), SCORES[:, :1])
    assert str(told.value) == (
        "a contrast is with other classes, and the model has a single score; ask for Logit(0), or -Logit(0) for what "
        "speaks against it"
    )


def test_a_single_reference_needs_no_list():
    one, listed = contrast(classes=0, references="boxer"), contrast(classes=0, references=["boxer"])
    torch.testing.assert_close(one(SCORES, ROWS), listed(SCORES, ROWS))


# Models that put out probabilities


SQUASHED = {"softmax": SCORES.softmax(1), "sigmoid": SCORES.sigmoid()}
SQUASHED |= {"log_softmax": SCORES.log_softmax(1), "log_sigmoid": nn.functional.logsigmoid(SCORES)}


@pytest.mark.parametrize("made", list(SQUASHED))
def test_what_is_read_of_probabilities_and_what_it_is_called(made):
    put_out, about = SQUASHED[made], Question((), (2, 5), LABELS, 2, made)
    p = SCORES.softmax(1) if "softmax" in made else SCORES.sigmoid()
    logit = p.log() if "softmax" in made else SCORES
    called = "log p(boxer)" if "softmax" in made else "logit(boxer)"
    log = "log " * ("log" in made)
    for asked, expected, words in (
        (2, put_out[:, 2], f"{log}p(boxer)"),
        ("boxer", put_out[:, 2], f"{log}p(boxer)"),
        (Probability(2), p[:, 2], "p(boxer)"),
        (Logit(2), logit[:, 2], called),
        (LogProbability(2), p[:, 2].log(), "log p(boxer)"),
        (ReST(2), logit[:, 2] + p[:, 2].log(), f"{called} + log p(boxer)"),
        (Rank(1), put_out.amax(1), f"{log}p(Egyptian cat)"),
    ):
        settled = resolve(parse(asked, 2), about, put_out)
        torch.testing.assert_close(settled(put_out, ROWS), expected)
        assert describe(settled, about, 0) == words


@pytest.mark.parametrize("weighting", ["mean", "softmax"])
@pytest.mark.parametrize("made", list(SQUASHED))
@pytest.mark.parametrize("chosen", [{}, {"classes": 3, "references": 1}, {"classes": 0, "references": [4]}])
def test_a_contrast_of_probabilities_is_that_of_the_logits_behind_them(made, weighting, chosen):
    scores = torch.randn(6, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    # by its logit class 1 is nearest to class 3, by its probability class 2 is
    scores[0] = torch.tensor([3.0, 1.0, -2.0, 0.0, -9.0])
    scores[1] = torch.tensor([3.0, -0.8, -5.0, -2.0, -9.0])
    p = scores.softmax(1) if "softmax" in made else scores.sigmoid()
    p = p.log() if "log" in made else p
    asked, rows = Contrast(weighting=weighting, **chosen), torch.arange(6)
    plain = resolve(asked, Question((), (6, 5), LABELS, 6), scores)
    squashed = resolve(asked, Question((), (6, 5), LABELS, 6, made), p)
    torch.testing.assert_close(squashed(p, rows), plain(scores, rows))
    scaled = resolve(replace(asked, gamma=0.6), Question((), (6, 5), LABELS, 6), scores)(scores, rows)
    told = resolve(replace(asked, gamma=0.6), Question((), (6, 5), LABELS, 6, made), p)(p, rows)
    shift = 0.4 * scores.logsumexp(1) if "softmax" in made else 0.0  # which a softmax forgets
    torch.testing.assert_close(told + shift, scaled)


@pytest.mark.parametrize("made", ["softmax", "sigmoid"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_probabilities_that_were_rounded_to_0_and_1_have_logits_without_a_gradient(made, precision):
    p = torch.tensor([0.0, 0.25, 1.0], dtype=precision, requires_grad=True)
    logits = logits_of(p, made)
    assert logits.isfinite().all()
    assert (logits.diff() > 0).all()
    (gradient,) = torch.autograd.grad(logits.sum(), p)
    inside = 4.0 if made == "softmax" else 1 / (0.25 * 0.75)
    torch.testing.assert_close(gradient[:2].float(), torch.tensor([0.0, inside]), rtol=1e-2, atol=0)
    assert gradient[2] == (1.0 if made == "softmax" else 0.0)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_the_logit_behind_a_log_sigmoid_is_exact_far_from_0_on_both_sides(precision):
    y = torch.tensor([-300.0, -40.0, -1.0, 0.0, 3.0, 40.0, 80.0], dtype=precision)
    p = nn.functional.logsigmoid(y).requires_grad_()
    logits = logits_of(p, "log_sigmoid")
    torch.testing.assert_close(logits, y)
    assert torch.equal(logits_of(torch.zeros(1), "log_sigmoid").isfinite(), torch.tensor([True]))
    (gradient,) = torch.autograd.grad(logits[1:5].sum(), p)
    torch.testing.assert_close(gradient[1:5], 1 / (1 - nn.functional.logsigmoid(y[1:5]).exp()))


@pytest.mark.parametrize(
    ("made", "asked", "p", "flat"),
    [
        ("softmax", 0, [0.9999, 0.0001], True),
        ("softmax", 1, [0.9999, 0.0001], True),
        ("softmax", 1, [0.9, 0.1], False),
        ("softmax", Logit(0), [0.9999, 0.0001], True),
        ("softmax", 0, [0.9991, 0.0009], True),
        ("softmax", 0, [0.9989, 0.0011], False),
        ("softmax", Logit(0), [0.9991, 0.0009], True),
        ("softmax", Logit(0), [0.9989, 0.0011], False),
        ("sigmoid", 1, [0.5, 0.0009], True),
        ("sigmoid", 1, [0.5, 0.0011], False),
        ("sigmoid", 1, [0.5, 0.9991], True),
        ("sigmoid", 1, [0.5, 0.9989], False),
        ("softmax", Logit(1), [0.9999, 0.0001], False),
        ("sigmoid", 1, [0.9999, 0.5], False),
        ("sigmoid", 1, [0.5, 0.0001], True),
        ("sigmoid", Logit(1), [0.5, 0.0001], False),
        ("sigmoid", [Rank(1), -Probability(1)], [0.6, 0.0001], True),
        ("log_softmax", 0, [0.9991, 0.0009], True),
        ("log_softmax", 0, [0.9989, 0.0011], False),
        ("log_softmax", Logit(1), [0.9999, 0.0001], False),
        ("log_softmax", Probability(1), [0.9999, 0.0001], True),
        ("log_sigmoid", 1, [0.5, 0.9991], True),
        ("log_sigmoid", 1, [0.5, 0.0001], False),
        ("log_sigmoid", Probability(1), [0.5, 0.0001], True),
        ("log_sigmoid", Logit(1), [0.5, 0.9999], False),
    ],
)
def test_which_probabilities_hardly_have_a_gradient(made, asked, p, flat):
    p, about = torch.tensor([p, p]).double(), Question((), (2, 2), None, 2, made)
    said = notes(resolve(parse(asked, 2), about, p.log() if "log" in made else p), about, p)
    assert any("nearly sure" in note for note in said) == flat


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


def test_the_references_of_a_named_class_are_the_nearest_on_both_sides():
    scores = torch.tensor([[9.0, 2.0, 2.5, -6.0, 1.0]], dtype=torch.float64)
    settled = Contrast(1, references=2, gamma=0.5).of(scores, Question((), (1, 5), LABELS, 1))
    assert settled.others == ((2, 4),)  # neither the highest nor the lowest
