"""Questions about classes on a trained network: several, by rank, why this and not that, what speaks against.

Needs the extra demo. `python examples/classification.py [folder]`
"""

import sys
from pathlib import Path

import seewhy
from seewhy import Contrast, Logit, Rank

out = Path(sys.argv[1] if len(sys.argv) > 1 else "explained")
out.mkdir(parents=True, exist_ok=True)
model, photo = seewhy.load(), "skimage:chelsea"

first = seewhy.compare(model, photo, [Rank(1), Rank(2), Rank(3)])
for e in first:
    print(f"{e.target[0]:<14} logit {e.scores[0]:.1f}, probability {e.probabilities[0]:.2f}, peak at {e[0].peak()}")
first.figure().save(out / "by-rank.png")

cat, tiger = Logit("Egyptian cat"), Logit("tiger cat")
signed = seewhy.compare(model, photo, [cat, -cat, cat - tiger, Contrast("Egyptian cat")], rectify=False)
signed.figure().save(out / "for-against-rather.png")
for e in signed:
    against = float(e.map.clamp_max(0).abs().sum() / e.map.abs().sum())
    print(f"{e.target[0]}: {against:.0%} of the map speaks against it")
