"""Running a model again: on changed images, or from changed activations on; whatever the chunk size."""

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

QUESTIONS = tuple(Logit(k).of(torch.zeros(3, 5), Question((), (3, 5), None, 3)) for k in (1, 4))
SPOT = {"second": Spot("second"), "second + relu": Spot("second", rectifier="relu")}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3), nn.Linear(6, 5)

    def forward(self, x, gain):
        x = F.relu(self.second(self.first(x).relu_()), inplace=True)
        return self.head(x.mean((2, 3)) * gain)


def replay(chunk=32):
    torch.manual_seed(0)
    inputs = torch.randn(3, 3, 9, 8, dtype=torch.float64)
    gain = torch.rand(3, 6, dtype=torch.float64) + 0.5
    return Replay(Net().double().eval(), Batch(inputs, (gain,)), SPOT, chunk)


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_changed_images_follow_their_rows(chunk):
    again = replay(chunk)
    rows = torch.tensor([2, 0, 0, 1, 2])
    changed = again.inputs[rows] + torch.randn(5, 3, 9, 8, dtype=torch.float64)
    expected = again.model(changed, again.batch.args[0][rows])[:, [1, 4]].mT
    torch.testing.assert_close(again.scores_at(QUESTIONS, changed, rows), expected.detach(), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("chunk", [1, 2, 100])
@pytest.mark.parametrize("layer", list(SPOT))
def test_the_tail_after_changed_activations(chunk, layer):
    again = replay(chunk)
    rows = torch.tensor([2, 0, 0, 1])
    clean = capture(again.model, again.batch, SPOT, graph=False).activations[layer]
    layout = Layout("bc*", tuple(clean.shape[2:]))
    same = again.score_tail(QUESTIONS, layer, layout, clean[rows], rows)
    expected = again.model(again.inputs, *again.batch.args)[rows][:, [1, 4]].mT.detach()
    torch.testing.assert_close(same, expected, rtol=1e-14, atol=1e-14)
    ablated = clean[rows].clone()
    ablated[:, 2] = 0
    found = again.score_tail(QUESTIONS, layer, layout, ablated, rows)
    by_hand = again.model.head(F.relu(ablated).mean((2, 3)) * again.batch.args[0][rows])[:, [1, 4]].mT.detach()
    torch.testing.assert_close(found, by_hand, rtol=1e-13, atol=1e-14)
    assert not torch.allclose(found, same)
