"""A map for each frame: a small network is trained, in seconds, to tell whether a disc flashes up in noise.

`python examples/video.py [folder]`
"""

import sys
from pathlib import Path

import torch
from torch import nn

import seewhy

out = Path(sys.argv[1] if len(sys.argv) > 1 else "explained")
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")


def clips(count):
    """Noise (b c t h w); in every other clip a disc, for two of the eight frames; and where it is."""
    clip, disc = torch.randn(count, 1, 8, 32, 32), torch.zeros(count, 8, 32, 32, dtype=torch.bool)
    for n in range(0, count, 2):
        (y, x), t = torch.randint(6, 26, (2,)), torch.randint(0, 7, ())
        disc[n, t : t + 2] = (rows - y) ** 2 + (columns - x) ** 2 < 16
    return clip + 1.5 * disc[:, None], disc, disc.flatten(1).any(1).long()


layers = [nn.Conv3d(1, 8, 3, (1, 2, 2), 1), nn.ReLU(), nn.Conv3d(8, 16, 3, 1, 1), nn.ReLU()]
model = nn.Sequential(*layers, nn.AdaptiveMaxPool3d(1), nn.Flatten(), nn.Linear(16, 2))
optimizer = torch.optim.Adam(model.parameters(), 5e-3)
for _ in range(150):
    clip, _, flashes = clips(16)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(clip), flashes).backward()
    optimizer.step()

clip, disc, flashes = clips(20)
print(f"right on {int((model(clip).argmax(1) == flashes).sum())} of 20 new clips")
e = seewhy.explain(model, clip[::2], 1, "layer_cam")
inside = (e.unit() * disc[::2]).flatten(1).sum(1) / e.unit().flatten(1).sum(1)
print(f"maps of {tuple(e.map.shape[1:])}, one for each frame; {inside.mean():.0%} of the heat is in the disc, which is")
print(f"{disc[::2].float().mean():.1%} of the clip; its peak is in one of the disc's frames in ", end="")
print(f"{sum(bool(disc[2 * n, e[n].peak()[0]].any()) for n in range(10))} of 10 clips")
e[0].overlay(frames=True).save(out / "video.png")
