"""The command line as a newcomer meets it: results that are named, JSON that parses, one sentence on bad input."""

import json
import os
import pty
import struct
import subprocess
import sys
import termios
import warnings
import zlib
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy.cli import main
from seewhy.data.frame import Frame
from seewhy.delegates.listed import DELEGATES

EVERY = [*seewhy.METHODS.values(), *DELEGATES.values()]
LABELS = ("tabby, tabby cat", "dog", "fox", "dog bone")
SMALL = f"--model={__name__}:small"


def small() -> seewhy.Loaded:
    """A network that is loaded and run in milliseconds."""
    torch.manual_seed(0)
    convolutions = nn.Sequential(nn.Conv2d(3, 6, 3, 2, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
    module = nn.Sequential(convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    plain = seewhy.Preprocess((32, 32), "squash", mean=(0.0,) * 3, std=(1.0,) * 3)
    return seewhy.Loaded(module.eval(), plain, LABELS, "small", ("made here",))


def several() -> seewhy.Loaded:
    """A network of two outputs, neither of them called what scores are called."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small().module

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"kind": self.net(x), "size": self.net(x)[:, :1]}

    return seewhy.Loaded(Two().eval(), small().preprocess, None, "several", ())


def needy(path: str) -> seewhy.Loaded:
    """A factory that wants an argument."""
    return small()


def failing() -> seewhy.Loaded:
    """A factory that cannot do it."""
    raise RuntimeError("no weights on disk")


def broken() -> seewhy.Loaded:
    """A network whose scores are no numbers."""
    loaded = small()
    nn.init.constant_(loaded.module.get_submodule("3").bias, float("nan"))
    return loaded


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(path: str, seed: int = 0) -> str:
    Path(path).parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def refused(capsys: pytest.CaptureFixture[str], says: str, *arguments: str) -> None:
    """Exit 2, one sentence on stderr that holds `says`, nothing on stdout, no new file."""
    before = sorted(Path().rglob("*"))
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("seewhy: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert says in err
    assert sorted(Path().rglob("*")) == before


# explain


def test_explain_names_the_files_that_it_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", picture("a.png"), SMALL]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    answer = seewhy.explain(small(), "a.png")
    label = answer.target[0]
    assert lines[0] == f"a: {label}  {100 * answer.probabilities[0]:.1f} %"
    assert lines[1:-1] == [f"  {note}" for note in answer.notes]
    overlay = Path(lines[-1].removeprefix("  overlay: "))
    assert overlay.parent == Path("explained")
    with Image.open(overlay) as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(answer[0].overlay()))
    assert {file.suffix for file in Path("explained").iterdir()} == {".png", ".npz", ".json"}


def test_json_says_what_the_files_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", picture("a.png"), picture("b.png", 1), SMALL, "--topk", "2", "--json", "--out", "x/y"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    entries = json.loads(out)
    assert [entry["photo"] for entry in entries] == ["a.png", "a.png", "b.png", "b.png"]
    for entry in entries:
        assert entry["seewhy"] == version("seewhy")
        assert entry["model"] == f"{__name__}:small"
        assert "made here" in entry["notes"]
        assert all(Path(file).is_file() for file in entry["files"])
        saved = json.loads(Path(entry["files"][-1]).read_text())
        names = [saved["images"][0][key] for key in ("overlay", "values")]
        assert saved == {key: entry[key] for key in saved}
        assert [Path(file).name for file in entry["files"][:2]] == names
        image = entry["images"][0]
        assert image["boxes"]
        answer = seewhy.explain(small(), entry["photo"], target=image["class"])
        assert image["probability"] == pytest.approx(answer.probabilities[0])
        assert image["map_maximum"] == pytest.approx(float(answer.map.max()))
    first, second = (entry["images"][0]["probability"] for entry in entries[:2])
    assert first > second


@pytest.mark.parametrize(("target", "index"), [("1", 1), ("DOG", 1), ("tabby cat", 0), ("tabby, tabby cat", 0)])
def test_targets_are_labels_or_indices(capsys: pytest.CaptureFixture[str], target: str, index: int) -> None:
    assert main(["explain", picture("a.png"), SMALL, "--target", target, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["images"][0]["class"] == index


def test_method_layers_and_alignment_are_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--method", "layer_cam", "--layer", "0.1,0.3", "--align", "tile", "--json"]
    assert main(["explain", picture("a.png"), SMALL, *chosen]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["method"] == "layer_cam"
    assert entry["layers"] == {
        "0.1": {"grid": [16, 16], "placement": "tile"},
        "0.3": {"grid": [16, 16], "placement": "tile"},
    }


def test_photos_of_one_name_do_not_overwrite_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    photos = [picture("a/cat.png"), picture("b/cat.png", 1), picture("b/CAT.png", 2), picture("b/cat-2.png", 3)]
    assert main(["explain", *photos, SMALL, "--json", "--target", "1"]) == 0
    entries = json.loads(capsys.readouterr().out)
    files = [file for entry in entries for file in entry["files"]]
    assert len({file.casefold() for file in files}) == len(list(Path("explained").iterdir())) == 12
    assert [entry["images"][0]["name"] for entry in entries] == ["cat", "cat-2", "CAT-3", "cat-2-2"]
    assert "cat-2: this name is for b/cat.png" in entries[1]["notes"]
    for entry in entries:
        expected = seewhy.explain(small(), entry["photo"], 1).map[0]
        np.testing.assert_array_equal(np.load(entry["files"][1])["map"], expected)


def test_photos_of_one_long_name_do_not_overwrite_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    photos = [picture(f"{folder}/{'x' * 150}.png") for folder in "abc"]
    assert main(["explain", *photos, SMALL, "--target", "1"]) == 0
    assert len(list(Path("explained").iterdir())) == 9
    assert [line.partition(":")[0][-3:] for line in capsys.readouterr().out.splitlines() if line[0] == "x"] == [
        "xxx",
        "x-2",
        "x-3",
    ]


def test_a_note_is_told_once_under_the_first_photo_that_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("black", "dark"):
        Image.new("RGB", (40, 30)).save(f"{name}.png")
    photos = ["black.png", "dark.png", picture("c.png", 2)]
    assert main(["explain", *photos, SMALL, "--layer", "0.0", "--target", "1"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    about = "image 0: the map of layer '0.0' is the same everywhere; it says nothing about places"  # this photo alone
    notes = seewhy.explain(small(), "c.png", 1, layer="0.0").notes
    assert "made here" in notes
    assert [line for line in lines if line in notes or line == about] == [*notes, about, about]
    assert lines.index(about) < next(n for n, line in enumerate(lines) if line.startswith("dark: "))


def test_the_signed_map_is_drawn_in_two_colors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", picture("a.png"), SMALL, "--signed", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    item = seewhy.explain(small(), "a.png", rectify=False)[0]
    np.testing.assert_array_equal(np.load(entry["files"][1])["map"], item.map)
    assert entry["images"][0]["map_minimum"] < 0
    assert entry["options"] == {"rectify": False}
    assert main(["compare", "a.png", SMALL, "--methods", "grad_cam,xgrad_cam", "--signed", "--json"]) == 0
    for each in json.loads(capsys.readouterr().out)["explanations"]:
        assert each["options"] == {"rectify": False}
        assert each["images"][0]["map_minimum"] < 0
    refused(capsys, "sharp has no signed form", "explain", "a.png", SMALL, "--signed", "--method", "sharp")
    assert main(["compare", "a.png", SMALL, "--methods", "sharp,grad_cam,saliency", "--signed", "--json"]) == 0
    found = {each["method"]: each["signed"] for each in json.loads(capsys.readouterr().out)["explanations"]}
    assert found == {"sharp": False, "grad_cam": True, "saliency": True}


@pytest.mark.parametrize(("command", "times"), [(["explain", "--topk", "2"], 2), (["explain", "--boxes"], 1)])
def test_json_carries_each_map_to_its_photo_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str], times: int
) -> None:
    seen: list[Frame] = []
    carry = Frame.to_photo
    monkeypatch.setattr(Frame, "to_photo", lambda frame, map: (seen.append(frame), carry(frame, map))[1])
    assert main([*command, picture("a.png"), SMALL, "--json"]) == 0
    assert len(seen) == times


def test_boxes_are_drawn_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", picture("a.png"), SMALL, "--boxes"]) == 0
    item = seewhy.explain(small(), "a.png")[0]
    with Image.open(capsys.readouterr().out.splitlines()[-1].removeprefix("  overlay: ")) as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(item.overlay(boxes=item.boxes())))


def test_a_map_that_says_nothing_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (40, 30)).save("black.png")
    with warnings.catch_warnings(record=True) as warned:
        assert main(["explain", "black.png", SMALL, "--layer", "0.0"]) == 0
    assert warned == []  # it stands in the notes
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("everywhere; it says nothing about places") == 1


# many photos, some bad


@pytest.mark.parametrize("as_json", [False, True])
def test_a_bad_photo_does_not_stop_the_others(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    Path("bad.png").write_bytes(b"no picture")
    photos = [picture("a.png"), "bad.png", picture("c.png", 1), "none.png"]
    assert main(["explain", *photos, SMALL, *["--json"] * as_json]) == 1
    out, err = capsys.readouterr()
    assert [line.partition("'")[0] for line in err.splitlines()] == [
        "seewhy: ",
        "seewhy: no file ",
        "seewhy: 2 of 4 photos could not be explained",
    ]
    names = [entry["photo"] for entry in json.loads(out)] if as_json else out.count("overlay: ")
    assert names == (["a.png", "c.png"] if as_json else 2)
    assert len(list(Path("explained").iterdir())) == 6


def test_all_bad_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "none.png", "nil.png", SMALL]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "seewhy: 2 of 2 photos could not be explained"
    assert not Path("explained").exists()


def test_a_bad_setting_is_told_once_for_all_photos(capsys: pytest.CaptureFixture[str]) -> None:
    photos = [picture("a.png"), picture("b.png", 1)]
    refused(capsys, "no label 'wolf'", "explain", *photos, SMALL, "--target", "wolf")
    refused(capsys, "cannot write", "explain", *photos, SMALL, "--out", "a.png/below")


# bad input


def bomb(path: str) -> None:
    """A PNG of a few bytes that says it has 900 million pixels."""
    header = struct.pack(">II5B", 30000, 30000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize(
    ("photo", "says"),
    [
        ("missing.png", "no file 'missing.png'"),
        ("empty.png", "'empty.png' has zero bytes"),
        ("text.png", "'text.png' is no picture that Pillow knows"),
        ("cut.png", "'cut.png' cannot be decoded"),
        ("cut.jpg", "'cut.jpg' cannot be decoded"),
        ("bomb.png", "'bomb.png' has 900000000 pixels"),
        ("folder", "'folder' is a folder"),
        ("/dev/null", "'/dev/null' is no regular file"),
        ("https://example.org/a.png", "photos are read from files only"),
        ("skimage:chelsee", "scikit-image brings no photo 'chelsee'"),
        ("a.png/below.png", "no file 'a.png/below.png'"),
        ("", "'.' is a folder"),
    ],
)
@pytest.mark.parametrize("command", ["explain", "compare", "layers"])
def test_bad_photos(capsys: pytest.CaptureFixture[str], photo: str, says: str, command: str) -> None:
    picture("a.png")
    picture("a.jpg")
    Path("empty.png").touch()
    Path("text.png").write_text("no picture")
    for kind in ("png", "jpg"):
        whole = Path(f"a.{kind}").read_bytes()
        Path(f"cut.{kind}").write_bytes(whole[: len(whole) // 2])
    bomb("bomb.png")
    Path("folder").mkdir()
    refused(capsys, says, command, photo, SMALL)


@pytest.mark.parametrize(
    ("says", "arguments"),
    [
        ("no label 'dgo'; closest 'dog' (1)", ["--target", "dgo"]),
        ("no label ''", ["--target", ""]),
        ("class 4 is out of range; the model has 4 classes: 0 to 3", ["--target", "4"]),
        ("class -1 is out of range; the model has 4 classes: 0 to 3", ["--target", "-1"]),
        ("got --target 2 times; give it once, or use seewhy compare", ["--target", "dog", "--target", "cat"]),
        ("got --method 2 times; give it once", ["--method", "cam", "--method", "fem"]),
        ("the model returns one tensor, which has no ['logits']; leave --output out", ["--output", "logits"]),
        ("list them with seewhy layers", ["--layer", "8"]),
        ("sharp has no signed form, which --signed asks for", ["--method", "sharp", "--signed"]),
        ("got --topk 5 for a model of 4 classes; ask for at most as many", ["--topk", "5"]),
        ("'--topk'", ["--topk", "0"]),
        ("'--topk'", ["--topk", "many"]),
        ("give one of the two", ["--topk", "2", "--target", "dog"]),
        ("no layer '0.4'; the model has", ["--layer", "0.4"]),
        ("got ',' for --layer", ["--layer", ","]),
        ("'gradkam'", ["--method", "gradkam"]),
        ("measured", ["--align", "nearly"]),
        ("no weights file", ["--weights", "none.pt"]),
        ("no such option: --colour", ["--colour", "x"]),
        ("'--out'", ["--out"]),
        ("cannot write to the folder 'a.png' (File exists)", ["--out", "a.png"]),
        ("cannot write to the folder 'a.png/b' (Not a directory)", ["--out", "a.png/b"]),
        ("cannot write to the folder '/dev/full' (File exists)", ["--out", "/dev/full"]),
        ("cannot write to the folder '/proc/none'", ["--out", "/proc/none"]),
        ("the model's scores hold NaN", [f"--model={__name__}:broken"]),
    ],
)
def test_bad_options_of_explain(capsys: pytest.CaptureFixture[str], says: str, arguments: list[str]) -> None:
    refused(capsys, says, "explain", picture("a.png"), SMALL, *arguments)


@pytest.mark.parametrize(
    ("says", "arguments"),
    [
        ("no such command 'explian'", ["explian"]),
        ("missing argument 'PHOTO...'", ["explain"]),
        ("no such option: --verson", ["--verson"]),
        ("no model 'efficientnet'", ["layers", "--model", "efficientnet"]),
        ("'nosuch' cannot be imported", ["layers", "--model", "nosuch:net"]),
        (f"closest '{'small'}'", ["layers", "--model", f"{__name__}:smal"]),
        ("'gradkam'", ["compare", "a.png", SMALL, "--methods", "gradkam"]),
        ("got ',' for --methods", ["compare", "a.png", SMALL, "--methods", ","]),
        ("got '' for --targets", ["compare", "a.png", SMALL, "--targets", ""]),
        ("no label 'wolf'", ["compare", "a.png", SMALL, "--targets", "dog,wolf"]),
        ("no layer 'none'", ["compare", "a.png", SMALL, "--layers", "none"]),
        ("cannot write", ["compare", "a.png", SMALL, "--out", "a.png"]),
        ("cannot compute on the device 'meta' (", ["explain", "a.png", SMALL, "--device", "meta"]),
        ("cannot compute on the device 'gpu' (", ["compare", "a.png", SMALL, "--device", "gpu"]),
        ("); the model runs where torch can; try --device cpu", ["layers", "a.png", SMALL, "--device", "cuda:99"]),
    ],
)
def test_bad_input_elsewhere(capsys: pytest.CaptureFixture[str], says: str, arguments: list[str]) -> None:
    picture("a.png")
    refused(capsys, says, *arguments)


# a model of one's own

FACTORY = """
import seewhy
from torch import nn

def make():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return seewhy.Loaded(net, seewhy.Preprocess((16, 16)), ("cat", "dog"), "mine")
"""


def test_a_module_in_the_current_folder_is_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(sys, "path", before := [*sys.path])
    Path("made_in_this_folder.py").write_text(FACTORY)
    Path("timm.py").write_text("raise RuntimeError('a file beside the photos ran')")
    assert main(["explain", picture("a.png"), "--model", "made_in_this_folder:make", "--target", "dog"]) == 0
    assert capsys.readouterr().out.startswith("a: dog  ")
    assert before[-1] == str(folder)  # last: installed packages come before it


def test_the_model_is_moved_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[object] = []
    move = nn.Module.to
    monkeypatch.setattr(nn.Module, "to", lambda self, *to: (moved.append(to), move(self, *to))[1])
    assert main(["layers", picture("a.png"), SMALL, "--device", "cpu:0"]) == 0
    assert moved == [("cpu:0",)]


# the other commands


def test_compare_draws_one_figure(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--methods", "grad_cam,hires_cam", "--targets", "dog, 0,tabby cat"]
    assert main(["compare", picture("a.png"), SMALL, *asked]) == 0
    out = capsys.readouterr().out
    assert [line.split("  ")[0] for line in out.splitlines()[1:7]] == ["dog", "dog", *["tabby"] * 4]
    assert out.splitlines()[-1] == "  figure: explained/a_compare.png"
    expected = seewhy.compare(small(), "a.png", ["dog", 0, 0], ["grad_cam", "hires_cam"]).figure()
    with Image.open("explained/a_compare.png") as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(expected))
    assert main(["compare", "a.png", SMALL, *asked, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["files"] == ["explained/a_compare.png", "explained/a_compare.json"]
    assert printed["explanations"] == json.loads(Path("explained/a_compare.json").read_text())
    assert [each["images"][0]["class"] for each in printed["explanations"]] == [1, 1, 0, 0, 0, 0]


def test_layers_marks_the_chosen_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", picture("a.png"), SMALL]) == 0
    table = capsys.readouterr().out.splitlines()
    (chosen,) = seewhy.explain(small(), "a.png").layers
    assert [line.split()[1] for line in table[1:-1] if line.startswith("*")] == [chosen]
    assert main(["layers", "a.png", SMALL, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in entries if entry["chosen"]] == [chosen]
    assert len(entries) == len(table) - 2


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_methods_fit_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["methods", "--long"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= max(columns, 105) <= 200
    assert columns > 120 or max(map(len, out.splitlines())) <= 120
    words = " ".join(out.split())
    for method in EVERY:
        assert f"\n{method.name} " in out
        assert method.weakness in words
    assert main(["methods"]) == 0
    assert "weakness" not in capsys.readouterr().out


def test_methods_as_json_are_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in entries] == [method.name for method in EVERY]
    for entry, method in zip(entries, EVERY, strict=True):
        assert entry["needs"] == list(seewhy.needs(method.function))
        assert (entry["class_specific"], entry["paper"]) == (method.class_specific, method.paper)


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"seewhy {version('seewhy')}\n"
    assert main([]) == 0
    told = capsys.readouterr().out
    assert all(f"\n  {command} " in told for command in ("explain", "compare", "layers", "methods"))
    assert main(["explain", "--help"]) == 0
    told = capsys.readouterr().out
    first, second = (
        ("model", "weights", "device", "target", "method", "layer"),
        ("out", "topk", "align", "boxes", "json"),
    )
    assert all(f"--{name} " in told for name in (*first, *second, "signed"))


# a process of its own

SEEWHY = [sys.executable, "-c", "import sys; from seewhy.cli import main; sys.exit(main())"]


@pytest.mark.slow
def test_the_readmes_photo_in_a_process_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra demo")
    done = subprocess.run(
        [*SEEWHY, "explain", "skimage:chelsea", "missing.jpg"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stdout.startswith("chelsea: Egyptian cat  77.1 %\n")  # the bar is only for a terminal, see below
    assert done.stdout.endswith("  overlay: explained/chelsea_grad_cam_Egyptian-cat-285.png\n")
    assert [line[:16] for line in done.stderr.splitlines()] == ["seewhy: no file ", "seewhy: 1 of 2 p"]
    with Image.open(tmp_path / "explained" / "chelsea_grad_cam_Egyptian-cat-285.png") as overlay:
        assert overlay.size == (451, 300)


@pytest.mark.slow
def test_a_progress_bar_on_a_terminal_only(tmp_path: Path) -> None:
    photos = [picture("a.png"), picture("b.png", 1)]
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [*SEEWHY, "explain", *photos, SMALL, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, cwd=tmp_path, env=environment) as running:
        os.close(terminal)
        shown = b""
        while chunk := _read(screen):
            shown += chunk
        out = running.communicate()[0]
    os.close(screen)
    assert running.returncode == 0
    assert b"2/2" in shown, shown
    assert len(json.loads(out)) == 2


def _read(screen: int) -> bytes:
    try:
        return os.read(screen, 4096)
    except OSError:  # the other side has closed
        return b""


@pytest.mark.slow
def test_output_that_cannot_be_printed_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*SEEWHY, "methods"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "seewhy: cannot print (No space left on device); send the output where there is room\n"


def test_an_option_of_the_method(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = ["explain", "skimage:chelsea", "--method", "occlusion", "--out", str(tmp_path), "--json"]
    assert main([*given, "--option", "patch=112", "--option", "stride=56"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["options"]["patch"] == 112
    assert entry["options"]["stride"] == 56
    for option, text in (
        ("patch", "write NAME=VALUE"),
        ("patch=big", "is 'big'; it takes int"),
        ("x=1", "no option 'x'"),
    ):
        assert main([*given, "--option", option]) == 2
        assert text in capsys.readouterr().err


def test_compare_takes_options_by_method_and_lists_given_twice(capsys: pytest.CaptureFixture[str]) -> None:
    call = [
        "compare",
        picture("a.png"),
        SMALL,
        "--methods",
        "grad_cam,score_cam",
        "--methods",
        "dff,grad_cam",
        "--json",
    ]
    assert main([*call, "--option", "score_cam.channels=2", "--option", "dff.concepts=3", "--targets", "dog"]) == 0
    found = json.loads(capsys.readouterr().out)["explanations"]
    assert [each["method"] for each in found] == ["grad_cam", "score_cam", "dff"]
    assert (found[1]["options"]["channels"], found[2]["options"]["concepts"]) == (2, 3)
    wrong = "got --option 'channels=2' for grad_cam and score_cam; write METHOD.NAME=VALUE, such as grad_cam.channels=2"
    refused(capsys, wrong, "compare", "a.png", SMALL, "--methods", "grad_cam,score_cam", "--option", "channels=2")


def test_an_output_and_labels_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    several_of = f"--model={__name__}:several"
    says = "several tensors (['kind'] (1, 4), ['size'] (1, 1)); say which are the scores: --output"
    refused(capsys, says, "explain", picture("a.png"), several_of)
    Path("names.txt").write_text("ant\nbee\ncow\ndog\n")
    asked = ["--output", "kind", "--labels", "names.txt", "--target", "cow", "--json"]
    assert main(["explain", "a.png", several_of, *asked]) == 0
    assert json.loads(capsys.readouterr().out)[0]["images"][0]["class"] == 2
    assert main(["layers", "a.png", several_of, "--output", "size"]) == 0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("needy", "failed (TypeError: needy() missing 1 required positional argument: 'path'); it is called without"),
        ("failing", "failed (RuntimeError: no weights on disk); it is called without arguments and must return the"),
        ("SMALL", "'SMALL' is no function in"),
    ],
)
def test_a_factory_that_fails_is_one_sentence(capsys: pytest.CaptureFixture[str], name: str, says: str) -> None:
    refused(capsys, says, "explain", picture("a.png"), f"--model={__name__}:{name}")


def test_what_was_chosen_beyond_the_usual_is_in_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    picture("a.png")
    for more in ([], ["--layer", "0.1"], ["--layer", "0.1,0.3", "--signed"], ["--align", "tile"]):
        assert main(["explain", "a.png", SMALL, "--target", "dog", *more]) == 0
    stems = {"", "_0.1", "_0.1+0.3_signed", "_tile"}
    assert {path.stem for path in Path("explained").glob("*.npz")} == {f"a_grad_cam_dog-1{stem}" for stem in stems}


def segmenter() -> seewhy.Loaded:
    """A network with a score of each class at every pixel."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    return seewhy.Loaded(net.eval(), seewhy.Preprocess((24, 24), "squash"), ("sky", "sea", "sand"), "pixels")


def test_a_segmentation_is_asked_by_its_class_on_the_command_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["explain", picture("a.png"), "--model", f"{__name__}:segmenter"]
    assert main(asked) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("a: ")
    assert first == first.rstrip()
    assert main([*asked, "--topk", "2"]) == 2
    assert capsys.readouterr().err.rstrip().endswith("have no predicted class of the image; name a class by --target")


def bare() -> nn.Module:
    """A factory that tells nothing of photos."""
    return small().module


@pytest.mark.parametrize("command", ["explain", "compare", "layers"])
def test_a_network_without_a_preprocessing_is_told_what_the_command_line_wants(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    name = f"{__name__}:bare"
    assert main([command, "skimage:chelsea", "--model", name]) == 2
    said = capsys.readouterr().err
    assert f"photos become inputs of {name} (a bare network does not tell); name a function of your own" in said
    assert "which returns seewhy.Loaded(net, seewhy.Preprocess(size=...), labels, 'name')" in said


def test_the_help_names_every_way_to_name_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    main(["explain", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "timm:NAME, torchvision:NAME, hf:NAME_OR_FOLDER, onnx:FILE or package.module:factory" in told
