"""What is found about a model does not depend on what else is asked, on the order of questions, or on memory."""

from collections import Counter
from itertools import permutations
from typing import ClassVar

import pytest
import torch
from torch import nn

import seewhy


class Both(nn.Module):
    """Classes behind a sigmoid, and a box of fixed size at every cell, moved by what was computed."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.features = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.classes, self.boxes = nn.Linear(8, 4), nn.Conv2d(8, 5, 4, 4)

    def forward(self, x):
        y = self.features(self.stem(x).relu()).relu()
        raw = self.boxes(y).flatten(2).transpose(1, 2)
        return {"logits": self.classes(y.mean((2, 3))).sigmoid(), "raw": raw}


def decode(output):
    raw = output["raw"]
    centers = torch.tensor([[4.0 * (cell % 4) + 2, 4.0 * (cell // 4) + 2] for cell in range(16)])
    boxes = torch.cat([centers - 3 + raw[..., :2] * 0.1, centers + 3 + raw[..., 2:4] * 0.1], -1)
    return seewhy.Candidates(boxes, raw[..., 4:].sigmoid())


@pytest.fixture
def image():
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def told(explanation):
    return explanation.target, explanation.scores.tolist(), explanation.probabilities, explanation.map.tolist()


@pytest.mark.parametrize("method", ["grad_cam", "full_grad", "saliency"])
def test_an_answer_depends_neither_on_the_other_questions_nor_on_their_order(image, method):
    asked = [seewhy.Box(decode=decode, threshold=0.0), seewhy.Logit(1), seewhy.Value(0)]
    alone = {question: told(seewhy.explain(Both(), image, question, method)) for question in asked}
    assert alone[asked[1]][0] == ("logit(class 1)",)
    for order in permutations(asked):
        together = seewhy.compare(Both(), image, list(order), [method])
        for question, explanation in zip(order, together, strict=True):
            got, expected = told(explanation), alone[question]
            assert got[:3] == expected[:3]
            torch.testing.assert_close(torch.tensor(got[3]), torch.tensor(expected[3]), rtol=1e-5, atol=1e-6)


def test_memory_changes_no_answer_about_a_box(image):
    model, box = Both(), seewhy.Box(decode=decode, threshold=0.0)
    first, second = (seewhy.explain(model, image, box) for _ in range(2))
    seewhy.explain(model, image, 1)
    third = seewhy.explain(model, image, box)
    assert told(first) == told(second) == told(third)
    assert first.notes == second.notes == third.notes


class Counted(torch.autograd.Function):
    """Counts the passes through it."""

    passes: ClassVar[list[str]] = []

    @staticmethod
    def forward(_ctx, x):
        Counted.passes.append("forward")
        return x.clone()

    @staticmethod
    def backward(_ctx, gradient):
        Counted.passes.append("back")
        return gradient


def test_what_a_box_costs(image):
    class Model(Both):
        def forward(self, x):
            return super().forward(Counted.apply(x))

    model, box = Model(), seewhy.Box(decode=decode, threshold=0.0)
    Counted.passes.clear()
    seewhy.explain(model, image, box)
    first = Counter(Counted.passes)
    Counted.passes.clear()
    seewhy.explain(model, image, box)
    assert Counter(Counted.passes) == {"forward": 2, "back": 1}  # back to the image; others end at the layers
    assert first["forward"] == 3
    assert first["back"] > 1
    Counted.passes.clear()
    several = [box, seewhy.Box(1, decode=decode, threshold=0.0), seewhy.Box(2, decode=decode, threshold=0.0)]
    seewhy.compare(model, image, several)
    assert Counter(Counted.passes) == {"forward": 2, "back": 3}
