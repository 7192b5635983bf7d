"""What the README says is what happens: its code runs, its links lead somewhere, its numbers are the library's."""

import re
from pathlib import Path

import pytest

import seewhy

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_every_block_of_code_is_found() -> None:
    assert len(BLOCKS) == README.count("```python") == 5


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_code_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "seewhy.load()" in code:
        pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra demo")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert {path.name for path in tmp_path.iterdir()} == set(re.findall(r'save\("(.*?)"\)', code))


@pytest.mark.parametrize("page", ["README.md", "docs/explain.md", "docs/alignment.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_methods_are_those_of_the_registry() -> None:
    words = ["", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve"]
    (listed,) = re.findall(r"\*\*(\w+) methods\*\*: (.*?), each tested", README.replace("\n", " "))
    assert listed[0] == words[len(seewhy.METHODS)]
    named = re.sub(r"\s+", " ", listed[1]).replace(" and ", ", ").split(", ")
    assert {each.casefold() for each in named} == {each.title.casefold() for each in seewhy.METHODS.values()}


def test_commands_stand_right_below_their_marks() -> None:
    for name in ("demo", "tests"):
        assert re.search(rf"^<!-- command: {name} -->\n```bash\n[^\n]+\n```$", README, re.MULTILINE)


def test_no_picture_is_heavy() -> None:
    for path in (ROOT / "docs").glob("*.jpg"):
        assert path.stat().st_size < 150_000
