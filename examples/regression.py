"""What makes a number higher, lower, or brings it nearer to a value? A small network that counts disks.

It is trained here in a few seconds on drawn pictures, so that the truth is known: of its two numbers, one counts the
bright disks and the other the dark ones, and the heat of each should lie on its own.
`python examples/regression.py [folder]`
"""

import sys

import torch
from torch import nn

import seewhy


def drawn(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Grey pictures, how many bright and dark disks are in each, and where these are."""
    generator = torch.Generator().manual_seed(seed)
    many = torch.randint(0, 4, (count, 2), generator=generator)
    centers = torch.randint(5, 43, (count, 2, 3, 2), generator=generator)
    line = torch.arange(48)
    near = (line[:, None] - centers[..., :1, None]) ** 2 + (line - centers[..., 1:, None]) ** 2 <= 12
    disks = (near & (torch.arange(3) < many[..., None])[..., None, None]).any(2)
    noise = 0.1 * torch.randn(count, 1, 48, 48, generator=generator)
    return disks[:, :1].float() - disks[:, 1:].float() + noise, many.float(), disks


torch.manual_seed(0)
body = nn.Sequential(nn.Conv2d(1, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 1, 1), nn.ReLU())
model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2))
optimizer = torch.optim.Adam(model.parameters(), 3e-3)
for step in range(300):
    pictures, numbers, _ = drawn(32, step)
    optimizer.zero_grad()
    (model(pictures) - numbers).square().mean().backward()
    optimizer.step()

pictures, numbers, disks = drawn(20, 1000)
with torch.no_grad():
    print(f"off by {float((model(pictures) - numbers).abs().mean()):.2f} disks on new pictures")
asked = [seewhy.Value("bright"), seewhy.Value("dark"), -seewhy.Value("bright"), seewhy.Value("bright", towards=9)]
found = seewhy.compare(model, pictures, asked, ["hires_cam"], labels=("bright", "dark"))
for each in found:
    shares = [float((each.map.relu() * disks[:, own]).sum() / each.map.relu().sum()) for own in (0, 1)]
    print(f"{each.target[0]}: {shares[0]:.0%} of the heat on bright disks, {shares[1]:.0%} on dark ones")
bright, dark = disks.float().mean((0, 2, 3)).tolist()
print(f"the disks cover {bright:.0%} and {dark:.0%}")
if sys.argv[1:]:
    found.save(sys.argv[1])
