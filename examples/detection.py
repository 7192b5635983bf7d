"""Why is this box there? A small detector of squares and disks, which is trained here, in a few seconds.

`python examples/detection.py [folder]`
"""

import sys
from pathlib import Path

import torch
from torch import nn

import seewhy

out = Path(sys.argv[1] if len(sys.argv) > 1 else "explained")
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
SIDE, CELL, NAMES = 64, 8, ("square", "disk")
y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")


def scenes(count):
    """Pictures with a square and a disk somewhere, and the cells (image, shape, row, column) of their centers."""
    at = torch.rand(count, 2, 2) * (SIDE - 24) + 12
    away = torch.stack((y - at[..., :1, None], x - at[..., 1:, None])).abs()
    shapes = (away[:, :, 0].amax(0) < 9) | (away[:, :, 1].norm(dim=0) < 10)
    truth = torch.zeros(count, 2, SIDE // CELL, SIDE // CELL)
    truth[torch.arange(count)[:, None], torch.arange(2), *(at / CELL).long().unbind(-1)] = 1
    return 0.2 * torch.rand(count, 3, SIDE, SIDE) + 0.7 * shapes[:, None], truth


def decode(scores):
    """Every cell stands for a box of 20 pixels around its middle."""
    middle = torch.stack((x, y), -1)[::CELL, ::CELL].flatten(0, 1) + CELL / 2
    boxes = torch.cat((middle - 10, middle + 10), -1)
    return seewhy.Candidates(boxes.expand(len(scores), -1, -1), scores.flatten(2).mT)


sizes = ((3, 8), (8, 16), (16, 32))
layers = [each for i, o in sizes for each in (nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU())]
model = nn.Sequential(*layers, nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 2, 1), nn.Sigmoid())
optimizer = torch.optim.Adam(model.parameters(), 3e-3)
for _ in range(300):
    pictures, truth = scenes(16)
    nn.functional.binary_cross_entropy(model(pictures), truth, truth * 20 + 1).backward()
    optimizer.step(), optimizer.zero_grad()
boxes, methods = [seewhy.Box(label=name, decode=decode) for name in NAMES], ["hires_cam", "grad_cam"]
answers = seewhy.compare(model.eval(), scenes(1)[0], boxes, methods, labels=NAMES)
for e in answers:
    print(f"{e.method}: {e.target[0]}, peak at (row, column) {e[0].peak()}, layer {', '.join(e.raw)}")
answers.figure().save(out / "boxes.png")
