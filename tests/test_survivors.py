"""Rules that broken code once passed all tests without: each test here was seen to fail on that code."""

from dataclasses import replace

import torch
from torch import nn

import seewhy
from seewhy.targets.arithmetic import Sum
from seewhy.targets.classes import ClassScore


def images(size=16):
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


class Cells(nn.Module):
    """A box at every cell of an 8x8 grid, behind a rectified grid of twice that, and two classes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fine, self.coarse = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, padding=1)
        self.boxes = nn.Conv2d(8, 5, 5, padding=2)

    def forward(self, x):
        return self.boxes(self.coarse(self.fine(x).relu()).relu())


def decode(output):
    raw = output.flatten(2).transpose(1, 2)
    centers = torch.tensor([[2.0 * (cell % 8) + 1, 2.0 * (cell // 8) + 1] for cell in range(64)])
    boxes = torch.cat([centers - 3 + raw[..., :2] * 0.1, centers + 3 + raw[..., 2:4] * 0.1], -1)
    return seewhy.Candidates(boxes, raw[..., 4:].sigmoid())


def test_of_a_box_too_a_finer_layer_is_looked_at_where_one_is_asked_for():
    alone = seewhy.explain(Cells(), images(), seewhy.Box(decode=decode, threshold=0.0), "hires_cam")
    both = seewhy.explain(Cells(), images(), seewhy.Box(decode=decode, threshold=0.0), "sharp")
    assert [tuple(raw.shape[-2:]) for raw in alone.raw.values()] == [(8, 8)]
    assert len(both.layers) == 2
    assert set(alone.layers) < set(both.layers)


def test_a_sum_of_parts_of_two_tensors_tells_no_gradient():
    output = {"a": torch.randn(1, 4), "b": torch.randn(1, 4)}
    rows = torch.zeros(1, dtype=torch.long)
    one = replace(ClassScore("score", (1,)), path=("a",))
    other = replace(ClassScore("score", (2,)), path=("b",))
    assert Sum(((1.0, one), (1.0, other))).gradient(output, rows) is None
    told = Sum(((1.0, one), (2.0, replace(other, path=("a",))))).gradient(output, rows)
    assert told is not None
    assert told[0] == ("a",)
    assert told[1].tolist() == [[0.0, 1.0, 2.0, 0.0]]


def test_a_map_that_is_kept_holds_no_others():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    for each in seewhy.compare(model, images(), [0, 1, 2], ["saliency"]):
        assert each.map.untyped_storage().nbytes() == each.map.numel() * each.map.element_size()


def test_of_embeddings_of_one_name_the_outermost_is_taken():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.one, self.other = nn.Conv2d(3, 8, 3), nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x):
            found = self.conv(x).relu().mean((2, 3))
            return {
                "text": {"vision": {"image_embeds": self.one(found)}},
                "vision": {"image_embeds": self.other(found)},
            }

    pair = torch.cat([images(), images().flip(-1) * 2])
    found, said = (
        seewhy.explain(Nested(), pair, seewhy.Similarity([1, 0], read=read))
        for read in (None, ("vision", "image_embeds"))
    )
    torch.testing.assert_close(found.map, said.map)
    assert found.map.any()
