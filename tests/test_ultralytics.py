"""Ultralytics' own networks from their configuration files, with random weights; skipped where it is not installed."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.targets.detections import decoded
from seewhy.types import ModelError, TargetError

YOLO = seewhy.Candidates.yolo
SIZE = (160, 192)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    os.environ["YOLO_CONFIG_DIR"] = str(tmp_path_factory.mktemp("ultralytics"))
    os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
    return pytest.importorskip("ultralytics.nn.tasks", reason="needs Ultralytics: pip install ultralytics")


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def photo(images: int = 1) -> Tensor:
    return torch.rand(images, 3, *SIZE, generator=torch.Generator().manual_seed(3))


def built(tasks: Any, kind: str, name: str) -> Any:
    torch.manual_seed(0)
    model = getattr(tasks, f"{kind}Model")(f"{name}.yaml", verbose=False)
    with torch.no_grad():  # running statistics, or random weights leave next to nothing
        for _ in range(2):
            model.train()(photo(4))
    return model.eval()


def detector(tasks: Any, name: str, level: int, kind: str = "Detection") -> Any:
    """One that finds boxes of four cells of one level of its pyramid, and none on the others."""
    model = built(tasks, kind, name)
    head = model.model[-1]
    spread = -((torch.arange(head.reg_max) - 2.0) ** 2) if head.reg_max > 1 else torch.tensor([2.0])
    with torch.no_grad():
        for number, (edges, classes) in enumerate(zip(head.cv2, head.cv3, strict=True)):
            edges[-1].weight *= 0.1
            edges[-1].bias.copy_(spread.repeat(4))
            classes[-1].weight *= 200
            classes[-1].bias.fill_(0.0 if number == level else -12.0)
    return model


NETS = [("yolov8n", (15, 18, 21)), ("yolo11n", (16, 19, 22)), ("yolo26n", (16, 19, 22))]


@pytest.mark.parametrize(("name", "levels"), NETS)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_box_is_explained_on_its_own_level_of_the_pyramid(
    tasks: Any, name: str, levels: tuple[int, ...], level: int
) -> None:
    model, stride = detector(tasks, name, level), 8 * 2**level
    answer = seewhy.explain(model, photo(), seewhy.Box(index=0, decode=YOLO), "hires_cam")
    assert {name: tuple(raw.shape[1:]) for name, raw in answer.raw.items()} == {
        f"model.{levels[level]}": (SIZE[0] // stride, SIZE[1] // stride)
    }
    (boxes, label), _ = best(model)
    x0, y0, x1, y1 = boxes.tolist()
    torch.testing.assert_close(answer.scores[0], label)
    row, column = divmod(int(answer.map[0].argmax()), SIZE[1])
    assert y0 - stride <= row <= y1 + stride
    assert x0 - stride <= column <= x1 + stride


def best(model: nn.Module) -> tuple[tuple[Tensor, Tensor], int]:
    """The best box by what the model puts out: its corners and score, and its place."""
    with torch.no_grad():
        raw = model(photo())[0]
    raw = raw if isinstance(raw, Tensor) else raw[0]
    score, place = raw[0, 4:84].amax(0).max(0)
    (x, y, width, height) = raw[0, :4, place]
    return (torch.stack((x - width / 2, y - height / 2, x + width / 2, y + height / 2)), score), int(place)


@pytest.mark.parametrize("name", ["yolov8n-seg", "yolo11n-seg"])
def test_coefficients_of_a_mask_are_no_classes(tasks: Any, name: str) -> None:
    model = detector(tasks, name, 1, "Segmentation")
    found = decoded(YOLO, model(photo()))
    (box, score), place = best(model)
    assert found.scores.shape[2] == 80
    torch.testing.assert_close(found.boxes[0, place], box)
    answer = seewhy.explain(model, photo(), seewhy.Box(index=0, decode=YOLO), "hires_cam")
    torch.testing.assert_close(answer.scores[0], score)
    assert list(answer.raw) == [f"model.{18 if name == 'yolov8n-seg' else 19}"]
    (decoded_boxes, *_), *_ = model(photo())
    told = YOLO(decoded_boxes, classes=80)  # without anything beside it
    torch.testing.assert_close(told.scores, found.scores)


@pytest.mark.parametrize(("kind", "name", "classes"), [("Pose", "yolov8n-pose", 1), ("OBB", "yolov8n-obb", 80)])
def test_keypoints_and_angles_are_no_classes(tasks: Any, kind: str, name: str, classes: int) -> None:
    assert decoded(YOLO, built(tasks, kind, name)(photo())).scores.shape[2] == classes


def test_several_named_levels_are_fused_and_those_that_lead_to_no_box_left_out(tasks: Any) -> None:
    asked, levels = seewhy.Box(index=0, decode=YOLO), ["model.15", "model.18", "model.21"]
    for level in (0, 2):
        answer = seewhy.explain(detector(tasks, "yolov8n", level), photo(), asked, "hires_cam", layer=levels)
        off = any("left out of the layers, as what is asked about does not depend" in note for note in answer.notes)
        assert list(answer.raw) == levels[: level + 1]
        assert off == (level == 0)


@pytest.mark.parametrize(("name", "layer"), [("yolov8n-cls", "model.9.conv"), ("yolo11n-cls", "model.10.conv")])
def test_logits_beside_their_own_probabilities_are_the_scores(tasks: Any, name: str, layer: str) -> None:
    model = built(tasks, "Classification", name)
    probabilities, logits = model(photo())
    answer = seewhy.explain(model, photo(), 7, rectify=False)
    torch.testing.assert_close(logits.softmax(1), probabilities)
    torch.testing.assert_close(answer.scores[0], logits[0, 7].detach())
    assert list(answer.raw) == [layer]


def test_a_list_of_the_best_is_refused(tasks: Any) -> None:
    model = built(tasks, "Detection", "yolo26n")
    model.end2end = True
    with pytest.raises(TargetError, match=r"a list of the best, in another order .* model\.end2end = False\)$"):
        seewhy.explain(model, photo(), seewhy.Box(decode=YOLO))


@pytest.mark.parametrize("method", ["hires_cam", "occlusion"])
def test_what_holds_a_network_is_told_to_pass_it(tasks: Any, method: str, tmp_path: Path) -> None:
    from ultralytics import YOLO as Wrapper

    said = "got YOLO, which has no forward pass of its own; pass the network that it holds, model.model"
    with pytest.raises(ModelError) as error:
        seewhy.explain(Wrapper("yolov8n.yaml"), photo(), seewhy.Box(decode=YOLO), method)
    assert str(error.value) == said


# what these networks do, in networks of our own


class Shared(nn.Module):
    """One activation for all convolutions, as Ultralytics' have it; two levels, of which each has its own scores."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        act = nn.SiLU()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), act)
        self.deep = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), act)
        self.fine, self.coarse = nn.Linear(4, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        deep = self.deep(self.stem(x))
        logits = self.coarse(deep.mean((2, 3)))
        return logits.softmax(1), logits


def test_a_tensor_of_a_shared_activation_goes_by_the_part_around_it() -> None:
    answer = seewhy.explain(Shared(), photo(), 1, rectify=False)
    assert list(answer.raw) == ["deep"]
    assert any("scores read from output[1]" in note for note in answer.notes)


def test_tensors_that_are_not_each_others_probabilities_are_still_asked_about() -> None:
    class Two(Shared):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            _, logits = super().forward(x)
            return logits.softmax(1) * 0.5, logits

    with pytest.raises(ModelError, match="say which are the scores"):
        seewhy.explain(Two(), photo(), 1)


def test_a_module_without_a_forward_pass_is_refused() -> None:
    parts = nn.ModuleDict({"net": nn.Conv2d(3, 4, 3), "other": nn.ReLU()})
    said = (
        "got ModuleDict, which has no forward pass of its own; pass the network that it holds, model.net, model.other"
    )
    with pytest.raises(ModelError) as error:
        seewhy.explain(parts, photo(), 1)
    assert str(error.value) == said
