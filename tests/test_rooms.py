"""The architecture, enforced: who may import whom, and how little importing the package costs."""

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import seewhy

PACKAGE = Path(__file__).parents[1] / "src" / "seewhy"
ALLOWED = {
    "types": "",
    "wording": "",
    "tensor": "",
    "labels": "types wording",
    "nested": "types",
    "marks": "",
    "saving": "types",
    "methods": "types tensor",
    "model": "types nested tensor wording",
    "localize": "types",
    "ensemble": "types tensor",
    "data": "types tensor wording",
    "render": "types",
    "targets": "types nested tensor labels wording marks",
    "metrics": "types localize",
    "facts": "",
    "method": "types ensemble facts",
    "delegates": "types tensor methods model method",
    "catalog": "methods ensemble method",
    "registry": "types method catalog delegates wording",
    "backward": "types nested model",
    "attending": "types tensor model backward",
    "evidence": "types tensor model facts backward attending",
    "zoo": "types data labels wording",
    "item": "types tensor marks wording data render localize saving",
    "explanation": "tensor marks render saving item",
    "comparison": "tensor render saving item explanation",
    "console": "types explanation",
    "inputs": "types data model",
    "subject": "types wording render data model zoo item inputs",
    "asking": "types nested model targets subject",
    "observation": "types facts model targets ensemble evidence backward subject asking",
    "maps": "types ensemble model evidence facts method registry",
    "answer": "types tensor marks targets model ensemble evidence maps observation subject explanation",
    "given": "types labels ensemble model targets observation",
    "arrays": "types data facts given maps explain explanation",
    "explain": "types labels data zoo model ensemble given subject maps answer explanation comparison",
    "stitching": "types tensor wording data model ensemble maps observation subject answer explanation",
    "tile_questions": "types marks data targets ensemble observation subject stitching",
    "tiles": "types wording labels data zoo model ensemble given maps observation subject answer explanation stitching "
    "tile_questions",
}
FREE = {"cli", "flags", "__init__"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("seewhy"):
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {[*alias.name.split("."), ""][1] for alias in node.names if alias.name.startswith("seewhy")}
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_its_room_may(path):
    room = room_of(path)
    if room in FREE:
        return
    assert imports(path) <= {*ALLOWED[room].split(), room}


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_needs_all_that_it_may_import(room):
    paths = [path for path in PACKAGE.rglob("*.py") if room_of(path) == room]
    assert not set(ALLOWED[room].split()) - {name for path in paths for name in imports(path)}


def test_nobody_imports_the_command_line():
    assert not [path for path in PACKAGE.rglob("*.py") if "cli" in imports(path) and path.name != "__init__.py"]


def test_importing_the_package_loads_no_heavy_library():
    code = "import sys, seewhy; print(*(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in loaded
    unwanted = {"matplotlib", "torchvision", "timm", "typer", "transformers", "skimage", "scipy", "cv2", "sklearn"}
    assert not unwanted & set(loaded)


@pytest.mark.slow
def test_importing_the_package_takes_little_time_beside_torch():
    code = "import time, torch; start = time.process_time(); import seewhy; print(time.process_time() - start)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    assert min(float(run.stdout) for run in runs) <= 0.3


def test_the_public_names():
    verbs = {
        "explain",
        "compare",
        "from_arrays",
        "tiles",
        "layers",
        "load",
        "read",
        "needs",
        "factorize",
        "METHODS",
        "__version__",
    }
    nouns = {
        "Explanation",
        "Comparison",
        "Tiled",
        "Loaded",
        "Photo",
        "Preprocess",
        "Logit",
        "Probability",
        "LogProbability",
        "Rank",
        "ReST",
        "Contrast",
        "Sentence",
        "Similarity",
        "Region",
        "Value",
        "Box",
        "Candidates",
        "Flips",
        "Noise",
        "Scales",
    }
    errors = {name for name in dir(seewhy) if name.endswith(("Error", "Warning"))}
    assert "SeewhyError" in errors
    assert dir(seewhy) == sorted(verbs | nouns | errors | seewhy.METHODS.keys())
    assert all(hasattr(seewhy, name) for name in dir(seewhy))


def test_the_version_is_looked_up_when_asked_for():
    assert seewhy.__version__ == version("seewhy")
    assert "__version__" not in vars(seewhy)
    with pytest.raises(AttributeError, match="module 'seewhy' has no attribute 'nothing'"):
        _ = seewhy.nothing
