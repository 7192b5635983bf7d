"""One dimension: a small network is trained, in seconds, to tell a slow beat from a fast one somewhere in noise.

`python examples/signals.py [folder]`
"""

import sys
from pathlib import Path

import torch
from torch import nn

import seewhy

out = Path(sys.argv[1] if len(sys.argv) > 1 else "explained")
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)


def signals(count, length=256):
    """Noise (b c l) with 40 samples of a wave in it, a fast one in every other signal; and where it is."""
    time = torch.arange(length)
    start = torch.randint(0, length - 40, (count, 1))
    beat, fast = (time >= start) & (time < start + 40), torch.arange(count) % 2
    wave = torch.sin(time * torch.where(fast == 1, 1.2, 0.4)[:, None])
    return (0.5 * torch.randn(count, length) + 1.5 * beat * wave)[:, None], beat, fast


layers = [nn.Conv1d(1, 12, 9, 2, 4), nn.ReLU(), nn.Conv1d(12, 16, 5, 2, 2), nn.ReLU()]
model = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 2))
optimizer = torch.optim.Adam(model.parameters(), 5e-3)
for _ in range(200):
    signal, _, fast = signals(32)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(signal), fast).backward()
    optimizer.step()

signal, beat, fast = signals(40)
print(f"right on {int((model(signal).argmax(1) == fast).sum())} of 40 new signals")
answers = seewhy.compare(model, signal, [fast.tolist()], ["grad_cam", "layer_cam", "occlusion"])
for e in answers:
    inside = (e.unit() * beat).sum(1) / e.unit().sum(1).clamp_min(1e-9)
    print(
        f"{e.method:<9} {inside.mean():.0%} of the heat is in the beat, which is {beat.float().mean():.0%} of a signal"
    )
print(f"the first: the beat is at {int(beat[0].nonzero()[0])}, the peak at {answers[1][0].peak()[0]}")
answers.figure().save(out / "signal.png")
