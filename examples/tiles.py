"""A photo that is larger than the model's input, in tiles at the photo's own pixels, beside the photo squeezed into it.

Needs the extra demo. `python examples/tiles.py [folder]`
"""

import sys
from pathlib import Path

import seewhy

out = Path(sys.argv[1] if len(sys.argv) > 1 else "explained")
out.mkdir(parents=True, exist_ok=True)
model, photo = seewhy.load(), "skimage:coffee"

squeezed = seewhy.explain(model, photo, "espresso", "layer_cam")
squeezed[0].overlay().save(out / "squeezed.png")
print(
    f"the whole photo in 224x224: logit {squeezed.scores[0]:.1f}, map of {squeezed.raw[squeezed.layers[0]].shape[1:]}"
)

tiled = seewhy.tiles(model, photo, "espresso", "layer_cam", margin=16)
tiled.whole[0].overlay().save(out / "tiles.png")
print(f"{len(tiled)} tiles of 224x224, all asked for espresso; mean logit {tiled.whole.scores[0]:.1f}")
for (top, left), score, share in zip(tiled.starts.tolist(), tiled.scores, tiled.shares, strict=True):
    print(f"  from row {top:>3}, column {left:>3}: logit {score:5.1f}, stands for {share:.0%} of the photo")
for note in tiled.whole.notes:
    print(f"note: {note}")
