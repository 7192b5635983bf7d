"""What the README says is what happens: its code runs, its links lead somewhere, its numbers are the library's."""

import re
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from torch import nn

import seewhy
from seewhy.attending import Attending
from seewhy.cli import app, main
from seewhy.evidence import Evidence
from seewhy.facts import FACTS
from seewhy.zoo.loaded import SCHEMES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PAGES = sorted((ROOT / "docs").rglob("*.md"))
OF_OTHERS = ("tensorflow as tf", "import jax")  # recipes that tests/test_arrays.py runs
ON_PAGES = {
    f"{page.stem} {number}": code
    for page in PAGES
    for number, code in enumerate(
        re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    )
    if not any(each in code for each in OF_OTHERS)
}
EXTRAS = {
    "seewhy.load()": "efficientnet_lite_pytorch",
    "skimage": "skimage",
    **{f"{word} {name}": name for word in ("from", "import") for name in ("transformers", "timm", "torchvision")},
}


def test_every_block_of_code_is_found() -> None:
    assert len(BLOCKS) == README.count("```python") == 8


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_code_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(code, tmp_path, monkeypatch)


@pytest.mark.parametrize("block", ON_PAGES)
def test_code_of_the_pages_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(ON_PAGES[block], tmp_path, monkeypatch)


def run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a block of code in an empty folder; it leaves there exactly what it says."""
    for what, library in EXTRAS.items():
        if what in code:
            pytest.importorskip(library, reason="needs an extra of seewhy's")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)  # a random network may have a map of zeros, which is a warning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, of torch.jit
        exec(compile(code, "a page", "exec"), {"__name__": "page"})
    assert {path.name for path in tmp_path.iterdir()} == set(re.findall(r'save\("(.*?)"\)', code))


def test_the_factory_is_one_that_the_command_line_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = [block for block in BLOCKS if "def make():" in block]
    (name,) = re.findall(r"`seewhy explain cat.jpg --model (\w+):make`", README)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    torch.manual_seed(0)
    Path(f"{name}.py").write_text(code)
    Path("cat.jpg").write_bytes((ROOT / "docs" / "chelsea.jpg").read_bytes())
    assert main(["explain", "cat.jpg", "--model", f"{name}:make", "--target", "dog"]) == 0
    assert capsys.readouterr().out.startswith("cat: dog")


class Peer(nn.Module):
    """What the table of other libraries is about: a network with a `layer4`, whose grid is coarser than its image."""

    def __init__(self) -> None:
        super().__init__()
        self.layer4 = nn.Sequential(nn.Conv2d(3, 6, 3, stride=4, padding=1), nn.ReLU())
        self.fc = nn.Linear(6, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layer4(x).amax((2, 3)))


def test_the_code_for_those_who_come_from_other_libraries() -> None:
    torch.manual_seed(0)
    model, x = Peer(), torch.rand(2, 3, 32, 32)
    cells = model.layer4(x)
    scores = model.fc(cells.amax((2, 3)))

    def cam(target: torch.Tensor) -> torch.Tensor:
        (gradients,) = torch.autograd.grad(target, cells, torch.ones_like(target), retain_graph=True)
        return (gradients.mean((2, 3), keepdim=True) * cells).sum(1).detach()

    def unit(map: torch.Tensor) -> torch.Tensor:
        large = nn.functional.interpolate(map.relu()[:, None], (32, 32), mode="bilinear")[:, 0]
        return large / large.amax((1, 2), keepdim=True)

    theirs = [unit(cam(scores.amax(1))), unit(cam(scores[:, 5])), cam(scores[:, 5]).relu(), cam(scores[:, 5])]
    codes = re.findall(r"\| `(seewhy\.[^|]*)` \|$", README, re.MULTILINE)
    ours = [eval(code, {"seewhy": seewhy, "model": model, "x": x}) for code in codes]
    assert (theirs[3] < 0).any()
    for found, expected in zip([each for each in ours if isinstance(each, torch.Tensor)], theirs, strict=True):
        torch.testing.assert_close(found, expected)
    (picture,) = [each for each in ours if not isinstance(each, torch.Tensor)]
    assert picture.tobytes() == seewhy.explain(model, x)[0].overlay(colormap="jet").tobytes()


LISTS = {"bias_gradients", "linear_gradients", "attentions", "attention_gradients", "attention_gradients_by_depth"}


def test_the_facts_are_all_told() -> None:
    page = (ROOT / "docs" / "explain.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| `?(.*?)`? \|", page[page.index("## Facts") :], re.MULTILINE))
    assert told.keys() == FACTS.keys()
    for name, shape in told.items():
        fact = (vars(Evidence) | vars(Attending))[name]  # of all questions; a method sees one at a time
        returned = (getattr(fact, "func", None) or fact.fget).__annotations__["return"]
        dims = getattr(returned, "dim_str", None)
        assert shape == (f"({dims.removeprefix('q ').strip()})" if dims else shape), name
        assert dims or shape == ("list" if name.endswith("_by_layer") or name in LISTS else "function"), name


@pytest.mark.parametrize("page", ["README.md", *(str(page.relative_to(ROOT)) for page in PAGES)])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for link in re.findall(r"\]\((?!http)([^)]+)\)", path.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        there = path.parent / name if name else path
        assert there.exists(), link
        heads = re.findall("^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE) if anchor else [""]
        assert anchor in [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads], link


def test_all_ways_to_name_a_model_are_told() -> None:
    for page in (README, (ROOT / "docs" / "explain.md").read_text(encoding="utf-8")):
        assert all(f"{scheme}:" in page for scheme in SCHEMES)


def test_the_synopsis_has_the_flags_of_the_command_line() -> None:
    page = (ROOT / "docs" / "explain.md").read_text(encoding="utf-8")
    (synopsis,) = re.findall(r"^```text\n(seewhy .*?)^```$", page, re.MULTILINE | re.DOTALL)
    _, *parts = re.split(r"^seewhy (\w+)", synopsis, flags=re.MULTILINE)
    told = {name: sorted(re.findall(r"--[\w-]+", text)) for name, text in zip(parts[::2], parts[1::2], strict=True)}
    commands: Any = typer.main.get_command(app)
    flags = {
        name: sorted(flag for option in command.params for flag in option.opts if flag.startswith("--"))
        for name, command in commands.commands.items()
    }
    assert told == flags


def test_methods_are_those_of_the_registry() -> None:
    (number,) = re.findall(r"\*\*(\d+) methods\*\*", README)
    assert int(number) == len(seewhy.METHODS)
    page = runpy.run_path(str(ROOT / "scripts" / "methods"))["page"]()
    assert (ROOT / "docs" / "methods.md").read_text(encoding="utf-8") == page


def test_commands_stand_right_below_their_marks() -> None:
    for name in ("demo", "tests"):
        assert re.search(rf"^<!-- command: {name} -->\n```bash\n[^\n]+\n```$", README, re.MULTILINE)


def test_no_picture_is_heavy() -> None:
    for path in (ROOT / "docs").glob("*.jpg"):
        assert path.stat().st_size < 150_000
