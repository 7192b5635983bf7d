"""One logit for two classes, and several labels at once, by small networks that are trained here, in a second.

Is there a bright square, is there a dark one? `python examples/binary.py [folder]`
"""

import sys
from pathlib import Path

import torch
from torch import nn

import seewhy

out = Path(sys.argv[1] if len(sys.argv) > 1 else "explained")
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)


def scenes(present):
    """Noise with a bright square on the left, a dark one on the right, both or none: as `present` says."""
    images = 0.1 * torch.randn(len(present), 1, 32, 32)
    images[:, :, 8:16, 4:12] += present[:, 0, None, None, None]
    images[:, :, 16:24, 20:28] -= present[:, 1, None, None, None]
    return images


def trained(outputs, wanted):
    """A small network that tells what is `wanted` of the scenes."""
    cells = nn.Sequential(nn.Conv2d(1, 8, 5, 2, 2), nn.ReLU())
    net = nn.Sequential(cells, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs))
    optimizer = torch.optim.Adam(net.parameters(), 0.03)
    for _ in range(150):
        present = torch.randint(0, 2, (64, 2)).float()
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(net(scenes(present)), wanted(present)).backward()
        optimizer.step()
    return net.eval()


image = scenes(torch.ones(1, 2))
one = trained(1, lambda present: present[:, :1])
bright = seewhy.explain(one, image, "bright", labels=["none", "bright"], rectify=False)
none = seewhy.explain(one, image, -seewhy.Logit("bright"), labels=["none", "bright"], rectify=False)
print(f"one logit: {bright.scores[0]:.1f} for {bright.target[0]!r} at {bright[0].peak()}, {none.scores[0]:.1f} against")

both = trained(2, torch.clone)
answers = seewhy.compare(nn.Sequential(both, nn.Sigmoid()), image, ["bright", "dark"], labels=["bright", "dark"])
for e in answers:
    print(f"two labels: {e.target[0]} = {e.scores[0]:.2f}, peak at {e[0].peak()}")
answers.figure().save(out / "labels.png")
