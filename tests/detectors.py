"""Small detectors, written by hand: a head on two levels, a list of what is left after suppression, queries."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

import seewhy


class Levels(nn.Module):
    """Two levels of a pyramid, each with its own branches: (b, 4 + 1 + k, n), the fine level's cells first."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 4, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 1, 1), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU())
        self.fine_boxes, self.fine_scores = nn.Conv2d(6, 4, 3, 1, 1), nn.Conv2d(6, 1 + classes, 3, 1, 1)
        self.coarse_boxes, self.coarse_scores = nn.Conv2d(8, 4, 3, 1, 1), nn.Conv2d(8, 1 + classes, 3, 1, 1)
        for parameter in self.parameters():
            parameter.data = 0.7 * torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5
        self.double().eval()

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b f n"]:
        fine = self.stem(x)
        coarse = self.deep(fine)
        heads = ((fine, 4, self.fine_boxes, self.fine_scores), (coarse, 8, self.coarse_boxes, self.coarse_scores))
        return torch.cat([self._level(*head) for head in heads], 2)

    @staticmethod
    def _level(x: Tensor, stride: int, boxes: nn.Module, scores: nn.Module) -> Float[Tensor, "b f n"]:
        rows, columns = (torch.arange(length) * stride + stride / 2 for length in x.shape[2:])
        raw = boxes(x)
        center = torch.stack((columns.expand(len(rows), -1), rows[:, None].expand(-1, len(columns)))) + raw[:, :2]
        half = stride * raw[:, 2:].sigmoid()
        return torch.cat((center - half, center + half, scores(x).sigmoid()), 1).flatten(2)


def candidates(output: Float[Tensor, "b f n"]) -> seewhy.Candidates:
    """What `Levels` puts out."""
    raw = output.transpose(1, 2)
    return seewhy.Candidates(raw[..., :4], raw[..., 5:], raw[..., 4])


def slow_iou(one: Tensor, other: Tensor) -> float:
    """The intersection over union of two boxes, number by number."""
    (a0, b0, a1, b1), (c0, d0, c1, d1) = one.tolist(), other.tolist()
    common = max(0.0, min(a1, c1) - max(a0, c0)) * max(0.0, min(b1, d1) - max(b0, d0))
    return common / max((a1 - a0) * (b1 - b0) + (c1 - c0) * (d1 - d0) - common, 1e-300)


class Suppressed(nn.Module):
    """`Levels` with suppression: a dictionary for each image, best first, as torchvision's detectors have it."""

    def __init__(self, least: float = 0.4) -> None:
        super().__init__()
        self.levels, self.least = Levels(), least

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[dict[str, Tensor]]:
        return [self._kept(found) for found in self.levels(x)]

    def _kept(self, found: Float[Tensor, "f n"]) -> dict[str, Tensor]:
        boxes, (scores, labels) = found[:4].T, found[5:].max(0)
        kept: list[int] = []
        for place in scores.argsort(descending=True).tolist():
            rivals = [other for other in kept if labels[other] == labels[place]]
            apart = all(slow_iou(boxes[place], boxes[other]) <= 0.5 for other in rivals)
            if scores[place] >= self.least and apart:
                kept.append(place)
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}
