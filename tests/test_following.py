"""Which further arguments follow the images into changed batches: found by what gives the clean answers again."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import seewhy
from seewhy.model.batch import Batch
from seewhy.model.following import settled
from seewhy.model.replay import Replay
from seewhy.model.scorer import Scorer
from seewhy.targets.classes import Logit
from seewhy.targets.question import Question

IMAGES = 3


class TwoTowers(nn.Module):
    """Scores of images against texts, `(images texts)`, as CLIP has them, with a mask of the words."""

    def __init__(self):
        super().__init__()
        self.image, self.words = nn.Conv2d(3, 6, 3), nn.Embedding(9, 6)
        self.passes = []

    def forward(self, pixels, ids, mask=None, gain=None, prior=None):
        self.passes.append((len(pixels), len(ids)))
        mask = torch.ones_like(ids) if mask is None else mask
        texts = (self.words(ids) * mask[..., None]).sum(1)
        images = self.image(pixels).relu().mean((2, 3))
        images = images if gain is None else images * gain
        scores = F.normalize(images, dim=1) @ F.normalize(texts, dim=1).mT
        return {"logits_per_image": scores if prior is None else scores + prior, "logits_per_text": scores.mT}


def towers():
    torch.manual_seed(0)
    return TwoTowers().double().eval()


def given(texts=IMAGES):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 9, (texts, 4), generator=generator)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])[:texts]
    return torch.randn(IMAGES, 3, 9, 8, generator=generator).double(), {"ids": ids, "mask": mask}


def question(classes=IMAGES):
    return Question(("logits_per_image",), (IMAGES, classes), None, IMAGES)


def asked(classes, texts=IMAGES):
    return Logit(classes).of(torch.zeros(IMAGES, texts), question(texts))


@pytest.mark.parametrize("classes", [0, 2, [0, 1, 2], [2, 0, 0]])
def test_texts_as_many_as_images_stay_where_they_are(classes):
    model, (x, more) = towers(), given()
    found = settled(model, Batch(x, kwargs=more), (asked(classes),))
    assert found.shared == {"ids", "mask"}
    rows = torch.tensor([2, 0, 0, 1, 2])
    changed = x[rows] + torch.randn(5, 3, 9, 8).double()
    columns = torch.tensor(classes)[rows] if isinstance(classes, list) else torch.full((5,), classes)
    expected = model(changed, **more)["logits_per_image"].detach().gather(1, columns[:, None])[:, 0]
    again = Replay(model, Batch(x, kwargs=more), {}, questions=(asked(classes),))
    torch.testing.assert_close(again.scores_at((asked(classes),), changed, rows)[0], expected, rtol=1e-14, atol=1e-14)
    as_before = Replay(model, Batch(x, kwargs=more), {})  # nobody says what will be asked
    assert (as_before.scores_at((asked(classes),), changed, rows)[0] - expected).abs().max() > 1e-3


def test_what_is_given_for_each_image_follows_beside_texts_that_do_not():
    model, (x, more) = towers(), given()
    gain = torch.rand(IMAGES, 6).double() + 0.5
    prior = torch.tensor([0.3, -0.2, 0.1]).double()  # of the texts, by chance as many as images
    batch = Batch(x, (more["ids"], more["mask"], gain, prior))
    again = Replay(model, batch, {}, questions=(asked(1), asked(2)))
    rows = torch.tensor([1, 1, 0, 2])
    changed = x[rows] + torch.randn(4, 3, 9, 8).double()
    found = again.scores_at((asked(1), asked(2)), changed, rows)
    expected = model(changed, *batch.args[:2], gain[rows], prior)["logits_per_image"][:, 1:].mT.detach()
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
    assert settled(model, batch, (asked(1), asked(2))).shared == {0, 1, 3}


def test_the_question_may_decide():
    """Pairs of image and text: the diagonal needs both to follow, a column only the images."""
    model, (x, more) = towers(), given()
    diagonal = lambda output, rows: output["logits_per_image"].diagonal()  # noqa: E731
    assert settled(model, Batch(x, kwargs=more), (diagonal,)).shared == frozenset()
    assert settled(model, Batch(x, kwargs=more), (asked(0),)).shared == {"ids", "mask"}


def test_a_single_image_with_a_single_text_costs_no_square():
    model, (x, more) = towers(), given(1)
    one = Question(("logits_per_image",), (1, 1), None, 1)
    target = Logit(0).of(torch.zeros(1, 1), one)
    again = Replay(model, Batch(x[:1], kwargs=more), {}, questions=(target,))
    again.scores_at((target,), x, torch.zeros(3, dtype=torch.long))
    assert model.passes[-1] == (3, 1)


class Gained(nn.Module):
    """One number from each image and its gain; `noisy`: a model that draws random numbers."""

    def __init__(self, noisy=False):
        super().__init__()
        self.conv, self.noisy = nn.Conv2d(3, 4, 3), noisy
        self.passes = 0

    def forward(self, x, gain, *shared):
        self.passes += 1
        scores = self.conv(x).mean((2, 3)) * gain
        return scores + 1e-3 * torch.randn_like(scores) if self.noisy else scores


@pytest.mark.parametrize("images", [1, 2, 3])
@pytest.mark.parametrize("noisy", [False, True])
def test_gains_follow_whatever_the_number_of_images(images, noisy):
    torch.manual_seed(0)
    model, x, gain = Gained(noisy), torch.randn(images, 3, 6, 6), torch.rand(images, 4) + 0.5
    target = Logit(1).of(torch.zeros(images, 4), Question((), (images, 4), None, images))
    again = Replay(model, Batch(x, (gain,)), {}, questions=(target,))
    rows = torch.arange(2 * images).remainder(images).flip(0)
    found = again.scores_at((target,), x[rows], rows)[0]
    expected = (model.conv(x).mean((2, 3)) * gain)[rows, 1].detach()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 + 1e-2 * noisy)


def test_nothing_is_tried_where_there_is_no_doubt_and_only_once_where_there_is():
    torch.manual_seed(0)
    model, x = Gained(), torch.randn(2, 3, 6, 6)
    target = Logit(1).of(torch.zeros(2, 4), Question((), (2, 4), None, 2))
    sure = Replay(model, Batch(x, (torch.rand(4),)), {}, questions=(target,))
    sure.scores_at((target,), x, torch.arange(2))
    assert model.passes == 1
    doubtful = Replay(model, Batch(x, (torch.rand(2, 4),)), {}, questions=(target,))
    for _ in range(3):
        doubtful.scores_at((target,), x, torch.arange(2))
    assert model.passes - 1 == 3 + 3  # clean, shared, following; then the three


def test_a_copy_of_the_model_keeps_what_was_found():
    model, (x, more) = towers(), given()
    scorer = Scorer(Replay(model, Batch(x, kwargs=more), {}, questions=(asked(0),)), asked(0)).apart()
    before = len(scorer.model.passes)
    found = scorer(x[[2, 0]], torch.tensor([2, 0]))
    assert scorer.model.passes[before:] == [(2, IMAGES)]
    expected = model(x[[2, 0]], **more)["logits_per_image"][:, 0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", ["score_cam", "occlusion", "rise", "ablation_cam", "recipro_cam", "smooth_grad"])
def test_maps_do_not_depend_on_how_many_texts_there_are(method):
    model, (x, more) = towers(), given()
    few = {name: value[:2] for name, value in more.items()}
    options = {"rise": {"masks": 20}, "smooth_grad": {"samples": 3}}.get(method)
    same = [
        seewhy.explain(model, {"pixels": x, **texts}, 1, method, layer="image", options=options)
        for texts in (more, few)
    ]
    torch.testing.assert_close(same[0].map, same[1].map, rtol=1e-12, atol=1e-12)
    assert same[0].map.abs().amax((1, 2)).min() > 0
