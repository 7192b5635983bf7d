"""Every container that a module may put out: what is read in it can be let flow on in it, and everywhere alike."""

from collections import OrderedDict, namedtuple
from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

import seewhy
from seewhy.nested import follow, mapped, spell, tensors

Pair = namedtuple("Pair", "features count")


@dataclass
class Record:
    features: Any
    count: Any = None


@dataclass(frozen=True, slots=True)
class Frozen:
    features: Any
    count: Any = None


@dataclass(kw_only=True)
class Checked:
    features: Any
    made: int = field(init=False, default=0)

    def __post_init__(self):
        self.made += 1
        self.features = self.features * 1


CONTAINERS = {
    "tuple": (lambda y: (y, 3), lambda made: made[0]),
    "list": (lambda y: [3, y], lambda made: made[1]),
    "namedtuple": (lambda y: Pair(y, 3), lambda made: made.features),
    "dict": (lambda y: {"features": y, 7: "words"}, lambda made: made["features"]),
    "ordered dict": (lambda y: OrderedDict(count=3, features=y), lambda made: made["features"]),
    "dataclass": (lambda y: Record(y, 3), lambda made: made.features),
    "frozen dataclass": (lambda y: Frozen(y, 3), lambda made: made.features),
    "checked dataclass": (lambda y: Checked(features=y), lambda made: made.features),
    "dataclass in a tuple": (lambda y: (3, Record(y)), lambda made: made[1].features),
    "tuple in a dataclass": (lambda y: Record((y, 3)), lambda made: made.features[0]),
}


class Inner(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.conv, self.wrap = nn.Conv2d(8, 8, 3, padding=1), wrap

    def forward(self, x):
        return self.wrap(self.conv(x).relu() * 2 + 1)


class Net(nn.Module):
    def __init__(self, wrap, unwrap, *, in_place=False):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.inner, self.head = nn.Conv2d(3, 8, 3, padding=1), Inner(wrap), nn.Linear(8, 16)
        self.last, self.unwrap, self.in_place = nn.Linear(16, 4), unwrap, in_place

    def forward(self, x):
        y = self.unwrap(self.inner(self.stem(x)))
        y = y.sub_(0.5).relu_() if self.in_place else (y - 0.5).relu()
        return self.last(self.head(y.mean((2, 3))).tanh())


@pytest.fixture
def images():
    return torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("method", ["grad_cam", "ablation_cam", "recipro_cam", "score_cam"])
@pytest.mark.parametrize("kind", CONTAINERS)
def test_what_holds_the_activations_changes_no_map(images, kind, method, in_place):
    bare = Net(lambda y: y, lambda made: made)
    options = {"chunk": 1} if method in ("ablation_cam", "recipro_cam") else {}
    expected = seewhy.explain(bare, images, 1, method, layer="inner", options=options)
    held = Net(*CONTAINERS[kind], in_place=in_place)
    found = seewhy.explain(held, images, 1, method, layer="inner", options=options)
    assert (expected.map > 0).any()
    torch.testing.assert_close(found.map, expected.map, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_what_is_changed_is_found_where_it_was(kind):
    wrap, unwrap = CONTAINERS[kind]
    made = wrap(torch.arange(3.0))
    ((path, tensor),) = tensors(made)
    assert tensor is unwrap(made) is follow(made, path)
    changed = mapped(made, lambda tensor: tensor + 1)
    assert type(changed) is type(made)
    assert unwrap(changed).tolist() == [1, 2, 3]
    assert unwrap(made).tolist() == [0, 1, 2]


def test_a_dataclass_is_copied_as_it_is():
    made = Checked(features=torch.ones(1))
    assert mapped(made, lambda tensor: tensor).made == 1
    frozen = mapped(Frozen(torch.ones(1)), lambda tensor: tensor * 2)
    assert frozen.features.item() == 2
    with pytest.raises(FrozenInstanceError):
        frozen.features = None


def test_what_torch_returns_by_name_stays_that():
    found = mapped(torch.eye(2).max(1), lambda tensor: tensor * 2)
    assert found.values.tolist() == [2, 2]
    assert found.indices.tolist() == [0, 2]


def test_a_path_in_words():
    assert spell(("logits", 0)) == "['logits'][0]"


def test_an_embedding_in_a_dataclass_is_one_for_every_question(images):
    @dataclass
    class Output:
        image_embeds: Any
        tokens: Any

    class Embedder(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, x):
            y = self.stem(x).relu()
            return Output(y.mean((2, 3)), y.flatten(2))

    with pytest.raises(seewhy.TargetError, match=r"output\['image_embeds'\] is an embedding"):
        seewhy.explain(Embedder(), images)
    found = seewhy.explain(Embedder(), images, seewhy.Similarity([1, 0]))
    assert found.map.any()
