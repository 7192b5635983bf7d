"""Volumes: a network trained here to find a ball in noise; then larger ones in tiles. `python examples/volume.py`"""

import sys
from pathlib import Path

import torch
from torch import nn

import seewhy

out = Path(sys.argv[1] if len(sys.argv) > 1 else "explained")
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)


def volumes(count, side=16):
    """Noise (b c d h w), with a ball of radius 3 in every other one; and where it is."""
    at = torch.stack(torch.meshgrid(*[torch.arange(side)] * 3, indexing="ij"))
    center = torch.randint(3, side - 3, (count, 3, 1, 1, 1))
    ball = ((at - center) ** 2).sum(1) < 9
    ball[1::2] = False
    return torch.randn(count, 1, side, side, side) + 1.5 * ball[:, None], ball, ball.flatten(1).any(1).long()


layers = [nn.Conv3d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv3d(8, 16, 3, 1, 1), nn.ReLU()]
model = nn.Sequential(*layers, nn.AdaptiveMaxPool3d(1), nn.Flatten(), nn.Linear(16, 2))
optimizer = torch.optim.Adam(model.parameters(), 5e-3)
for _ in range(200):
    volume, _, has = volumes(16)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(volume), has).backward()
    optimizer.step()

volume, ball, has = volumes(20)
print(f"right on {int((model(volume).argmax(1) == has).sum())} of 20 new volumes of 16x16x16")
e = seewhy.explain(model, volume[::2], 1, "layer_cam")
inside = (e.unit() * ball[::2]).flatten(1).sum(1) / e.unit().flatten(1).sum(1)
print(f"{inside.mean():.0%} of the heat is in the ball, which is {ball[::2].float().mean():.1%} of the volume")

large, where, _ = volumes(1, side=40)
tiled = seewhy.tiles(model, large, 1, "layer_cam", size=16, margin=4)
peak = tiled.whole[0].peak()
print(f"a volume of 40x40x40 in {len(tiled)} tiles: peak at {peak}, in the ball: {bool(where[0][peak])}")
tiled.whole.figure().save(out / "volume.png")
