"""Any question: functions of the output, of the output and the rows, sums of them, and something inside the model.

Needs the extra demo. `python examples/anything.py [folder]`
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

import seewhy

out = Path(sys.argv[1] if len(sys.argv) > 1 else "explained")
out.mkdir(parents=True, exist_ok=True)
model = seewhy.load()
photos = ["skimage:chelsea", "skimage:rocket"]
CATS = slice(281, 286)


def a_cat(logits):
    """log p of all cats together."""
    return logits[:, CATS].logsumexp(1) - logits.logsumexp(1)


def loss(logits, rows):
    """Each image has a truth of its own: it is looked up by `rows`."""
    truth = torch.tensor([285, 657], device=rows.device)
    return torch.nn.functional.cross_entropy(logits, truth[rows], reduction="none")


questions = [a_cat, loss, seewhy.Logit("Egyptian cat") - 2 * seewhy.Rank(2)]
answers = seewhy.compare(model, photos, questions, rectify=False)
for e in answers:
    print(f"{e.target[0]}: {[round(score, 3) for score in e.scores.tolist()]}")
answers.figure().save(out / "anything.png")


def channel(cells):
    """How strongly a channel inside the network responds."""
    return cells[:, 7].mean((1, 2))


net = model.module  # a part of a network is a model of its own
part = torch.nn.Sequential(net._conv_stem, net._bn0, net._swish, *net._blocks[:5])
inside = replace(model, module=part, labels=None)
e = seewhy.explain(inside, photos, channel, "layer_cam", layer="4")
print(f"channel 7 of block 4: {e.scores.tolist()}, peaks at {[item.peak() for item in e]}")
e.figure().save(out / "channel.png")
