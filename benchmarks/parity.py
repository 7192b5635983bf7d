"""The table of docs/parity.md: every method that a peer has, beside it; figures measured by this run.

    pip install -c constraints.txt -e ".[bench]"
    python benchmarks/parity.py > docs/parity.md

What is compared is in tests/peer_cases.py, and asserted by tests/test_parity.py. A scene that cannot be set is left out
and said.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import torch

import vision  # noqa: F401  torchvision becomes importable

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from peer_cases import Case, cases
from peers import SCENES, differ, lacking, missing

HEAD = """# Beside other libraries

The same model, images, layer, class and scale; printed by `benchmarks/parity.py`, asserted by `tests/test_parity.py`
(the extra `parity`). {versions}.

Maps are compared at the layer's resolution (of several layers, at the image's, with `align="tile"`), stretched from
minimum to maximum as pytorch-grad-cam and torch-cam leave them; signed ones divided by their largest magnitude.
`difference` is the largest of all cells, images and scenes, `correlation` the least of an image. Equal means a
difference of at most 1e-4. Scenes: `tiny` is a network of two convolutions with random weights, `ResNet-18` and `ViT`
have random weights too, the others are trained and see photos.

Where maps differ, the reason is a *variant* (another reading, or another default) or *theirs* (it departs from the
paper or from what it says it does). `shown` is the difference that is left between their map and one that is made, in a
few lines of `tests/peer_cases.py`, by what the reason says.
"""
EQUAL = """
## Equal

| ours | library | theirs | scenes | difference |
|---|---|---|---|---|"""
OTHER = """
## Different

| ours | library | theirs | scenes | difference | correlation | whose | reason | shown |
|---|---|---|---|---|---|---|---|---|"""
TAIL = """
Not compared: RISE, Group-CAM, Opti-CAM, Recipro-CAM, Winsor-CAM, Expected Grad-CAM, attention rollout, Chefer,
Grad-ECLIP, `sharp` and `best`, which none of the three has; deep feature factorization, whose random start differs;
SmoothGrad, for which Captum draws other noise. What is Captum's own here (`captum:lime` and its like) is Captum's code.
"""


def main() -> None:
    torch.set_num_threads(1)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("grad-cam", "torchcam", "captum", "torch"))
    rows = [(case, _row(case)) for case in cases() if not missing(case.theirs.library)]
    print(HEAD.format(versions=libraries) + EQUAL)
    print("\n".join(row for case, row in rows if case.because is None))
    print(OTHER)
    print("\n".join(row for case, row in rows if case.because is not None))
    print(TAIL, end="")
    left_out = {scene: why for case in cases() for scene in case.scenes if (why := lacking(scene))}
    for scene, why in left_out.items():
        print(f"\nLeft out: {scene}, which {why}.")


def _row(case: Case) -> str:
    print(case.ours.name, case.theirs.name, file=sys.stderr)
    names = [name for name in case.scenes if lacking(name) is None]
    found, shown = [], []
    for scene in (SCENES[name]() for name in names):
        theirs = case.scale(case.theirs(scene))
        found.append(differ(case.scale(case.ours(scene)), theirs))
        if case.because and case.because.proof:
            shown.append(differ(case.scale(case.because.proof(scene)), theirs)[0])
    difference, correlation = max(d for d, _ in found), min(r for _, r in found)
    cells = [f"`{case.ours.name}`", case.theirs.library, f"`{case.theirs.name}`", ", ".join(names)]
    if case.because is None:
        return f"| {' | '.join(cells)} | {difference:.0e} |"
    why = [case.because.verdict, case.because.reason, f"{max(shown):.0e}" if shown else ""]
    return f"| {' | '.join([*cells, f'{difference:.2f}', f'{correlation:.2f}', *why])} |"


if __name__ == "__main__":
    main()
