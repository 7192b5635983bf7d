"""Beside pytorch-grad-cam, torch-cam and Captum: the same map, or another for a reason that is written down and shown.

An optional job: it needs the extra parity (`pip install -c constraints.txt -e ".[dev,parity]"`). docs/parity.md is the
table of its figures, printed by benchmarks/parity.py.
"""

import pytest
import torch

from peer_cases import Case, cases
from peers import SCENES, differ, lacking, missing

CLOSE, APART = 1e-4, 1e-3
EACH = [(case, scene) for case in cases() for scene in case.scenes]


def ids(value: object) -> str:
    return f"{value.ours.name}-{value.theirs.library}-{value.theirs.name}" if isinstance(value, Case) else str(value)


@pytest.mark.parametrize(("case", "name"), EACH, ids=ids)
def test_parity(case: Case, name: str) -> None:
    if missing(case.theirs.library):
        pytest.skip(f"needs {case.theirs.library}, the extra parity")
    if why := lacking(name):
        pytest.skip(why)
    scene = SCENES[name]()
    theirs = case.scale(case.theirs(scene))
    assert (theirs.amax((1, 2)) > theirs.amin((1, 2))).all()
    difference, _ = differ(case.scale(case.ours(scene)), theirs)
    if case.because is None:
        assert difference <= CLOSE
        return
    assert difference > APART
    if case.because.proof is not None:
        assert differ(case.scale(case.because.proof(scene)), theirs)[0] <= CLOSE


def test_a_difference_is_seen() -> None:
    map = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(0))
    moved = map.clone()
    moved[1, 2, 3] += 2 * CLOSE
    assert differ(map, map) == (0.0, pytest.approx(1.0))
    assert differ(map, moved)[0] > CLOSE


def test_every_scene_is_used() -> None:
    assert {scene for _, scene in EACH} == SCENES.keys()
