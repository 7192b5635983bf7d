"""The end of a model run again without its trunk: the same scores as a full pass, whatever the model is made of."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seewhy.model.batch import Batch
from seewhy.model.capture import capture
from seewhy.model.replay import Replay
from seewhy.model.spot import Spot
from seewhy.model.tokens import Layout
from seewhy.targets.classes import Logit
from seewhy.targets.question import Question


def conv(a, b, stride=1):
    return nn.Conv2d(a, b, 3, stride, 1)


class Plain(nn.Module):
    """A trunk of nested modules, a shared rectifier, a residual around the layer, and functions in between."""

    def __init__(self):
        super().__init__()
        self.stem, self.act = nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(inplace=True)), nn.ReLU()
        self.body, self.last, self.head = conv(4, 6, 2), conv(6, 6), nn.Linear(6, 5)

    def forward(self, x):
        x = self.act(self.body(self.stem(x)) + 0.1)
        return self.head((self.act(self.last(x)) + 0.5 * x).mean((2, 3)))


class Joined(Plain):
    """Joins the layer with what went around it."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.act(self.body(self.stem(x)))
        return self.head(torch.cat([x, self.act(self.last(x))], 1).mean((2, 3)))


class Rectified(Plain):
    """Rectifies the layer by a function, in place."""

    def forward(self, x):
        x = self.last(self.act(self.body(self.stem(x))))
        return self.head(F.relu(x, inplace=True).mean((2, 3)))


class Between(Plain):
    """Writes, between modules, into what a module of the trunk put out."""

    def forward(self, x):
        x = self.body(self.stem(x))
        x.relu_()
        return self.head(self.act(self.last(x)).mean((2, 3)))


CASES = [
    (Plain, Spot("act", 1), True),
    (Plain, Spot("act", 2), True),
    (Plain, Spot("body"), True),
    (Joined, Spot("act", 2), True),
    (Rectified, Spot("last", rectifier="relu"), True),
    (Between, Spot("act"), False),
]


def of(kind, spot, images=2, seed=0):
    torch.manual_seed(seed)
    model, inputs = kind().double().eval(), torch.randn(images, 3, 8, 8, dtype=torch.float64)
    kept = capture(model, Batch(inputs), {"layer": spot}, graph=False).activations["layer"]
    return model, Replay(model, Batch(inputs), {"layer": spot}, 3), kept


def scores(replay, cells, rows, questions=(1, 4)):
    question = Question((), (len(replay.inputs), 5), None, len(replay.inputs))
    asked = tuple(Logit(k).of(torch.zeros(question.shape), question) for k in questions)
    return replay.score_tail(asked, "layer", Layout("bc*", tuple(cells.shape[2:])), cells, rows)


@pytest.mark.parametrize(("kind", "spot", "short"), CASES)
@pytest.mark.parametrize("rows", [[0, 0, 0, 0], [1, 0, 1, 1, 0]])
def test_the_tail_alone_gives_the_scores_of_the_full_pass(kind, spot, short, rows):
    model, replay, clean = of(kind, spot)
    cells = clean[rows] + torch.randn(len(rows), *clean.shape[1:], dtype=torch.float64)
    found = scores(replay, cells, torch.tensor(rows))
    assert (replay._trunk("layer") is not None) == short
    whole = Replay(model, replay.batch, replay.spots, 3)
    whole._trunks["layer"] = None  # no trunk: every pass is a full one
    expected = scores(whole, cells, torch.tensor(rows))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(found, scores(whole, clean[rows], torch.tensor(rows)))


def test_the_trunk_does_not_run():
    model, replay, clean = of(Plain, Spot("act", 2))
    scores(replay, clean, torch.arange(2))
    ran = []
    for name in ("stem", "stem.0", "body", "last", "head"):
        module = model.get_submodule(name)
        before = module.forward
        module.forward = lambda *args, name=name, before=before: (ran.append(name), before(*args))[1]
    scores(replay, clean, torch.arange(2))
    assert ran == ["head"]


def test_nothing_stays_on_the_model_even_when_the_tail_raises():
    model, replay, clean = of(Plain, Spot("act", 2))
    own = model.stem.forward
    model.stem.forward = lambda x: own(x)  # someone else's, as accelerate places them
    placed = model.stem.forward
    scores(replay, clean, torch.arange(2))
    model.head.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scores(replay, clean, torch.arange(2))
    assert model.stem.forward is placed
    assert all("forward" not in vars(module) for module in model.modules() if module is not model.stem)


def test_another_thread_runs_the_whole_model_meanwhile():
    model, replay, clean = of(Plain, Spot("act", 2))
    scores(replay, clean, torch.arange(2))
    other, found = torch.randn(2, 3, 8, 8, dtype=torch.float64), []
    expected = model(other).detach()

    def meanwhile(*_):
        thread = threading.Thread(target=lambda: found.append(model(other).detach()))
        handle.remove()
        thread.start()
        thread.join()

    handle = model.head.register_forward_hook(meanwhile)
    scores(replay, clean, torch.arange(2))
    torch.testing.assert_close(found[0], expected)
