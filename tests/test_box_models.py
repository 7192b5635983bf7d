"""Boxes of real libraries' detectors, with random weights from small configurations; and of FastestDet on photos."""

from collections.abc import Callable, Mapping
from math import floor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import conftest
import seewhy
from detectors import slow_iou
from seewhy.metrics.localization import energy, pointing_game
from seewhy.model.norms import recording
from seewhy.model.observe import untouched
from seewhy.targets.question import Question, resolve

SIZE = (64, 96)


def suppressed(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """What the operation that torchvision compiles is defined to do."""
    kept: list[int] = []
    for place in scores.argsort(descending=True).tolist():
        if all(slow_iou(boxes[place], boxes[other]) <= iou_threshold for other in kept[-30:]):
            kept.append(place)
    return torch.tensor(kept, dtype=torch.long)


@pytest.fixture
def suppression(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's operation, which this build has no kernel of."""
    from torchvision.ops import boxes

    if not torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", "CPU"):
        conftest._VISION.impl("nms", suppressed, "CPU")
    monkeypatch.setattr(boxes, "_assert_has_ops", lambda: None)


def detector(name: str) -> nn.Module:
    """A detector of torchvision that lets everything pass, of few boxes and small pictures."""
    from torchvision.models import detection

    torch.manual_seed(0)
    small = {} if name.startswith("ssd") else {"num_classes": 4, "min_size": SIZE[0], "max_size": SIZE[1]}
    model = getattr(detection, name)(weights=None, weights_backbone=None, **small).eval()
    if name.startswith("faster"):
        model.roi_heads.score_thresh, model.rpn._post_nms_top_n = 0.0, {"training": 9, "testing": 9}
    else:
        model.score_thresh, model.topk_candidates = 0.0, 20
    return model


@pytest.mark.usefixtures("suppression")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore::seewhy.MapWarning")  # of a cut edge
@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("retinanet_resnet50_fpn", "backbone.fpn"),
        ("fcos_resnet50_fpn", "backbone.fpn"),
        ("ssdlite320_mobilenet_v3_large", "backbone"),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "backbone.fpn"),
    ],
)
def test_a_detector_of_torchvision_is_explained_on_a_level_of_its_pyramid(name: str, levels: str) -> None:
    model, image = detector(name), torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(2))
    with torch.compiler.set_stance("force_eager"):  # torchvision compiles its own stand-in for a kernel
        found = model(image)[0]
    last = len(found["scores"]) - 1
    asked = [seewhy.Box(), seewhy.Box(index=last), seewhy.Box(index=last, read="x1")]
    answers = list(seewhy.compare(model, image, asked, ["hires_cam"], rectify=False))
    order = found["scores"].argsort(descending=True, stable=True)
    for answer, place in zip(answers, (order[0], order[last]), strict=False):
        (layer,) = answer.raw
        assert layer.startswith(levels)
        torch.testing.assert_close(answer.scores[0], found["scores"][place].detach())
    torch.testing.assert_close(answers[2].scores[0], found["boxes"][order[last], 2].detach())
    assert all(float(answer.map.abs().max()) > 0 for answer in answers[:2])


PARTS = {"encoder_attention_heads": 2, "decoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
PARTS |= {"decoder_layers": 2, "num_queries": 6, "num_labels": 4}
NO_TIMM = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
STAGES = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1], "layer_type": "basic"}


def built(family: str, body: str = "ResNet", **options: Any) -> nn.Module:
    """A detector of transformers from a small configuration, with random weights in float64."""
    import transformers

    torch.manual_seed(0)
    stages = options.pop("stages", STAGES)
    config: Any = getattr(transformers, f"{family}Config")
    inner = getattr(transformers, f"{body}Config")(**stages)
    model = getattr(transformers, f"{family}ForObjectDetection")(config(backbone_config=inner, **{**PARTS, **options}))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 4:  # or random weights this small would leave next to nothing
            nn.init.kaiming_normal_(parameter)
        elif "bbox" in name and parameter.ndim == 2 and not parameter.any():  # or edges would depend on nothing
            nn.init.normal_(parameter, std=0.005)
    return model.double().eval()


def detr() -> nn.Module:
    return built("Detr", d_model=32, encoder_layers=2, **NO_TIMM, stages={**STAGES, "out_features": ["stage4"]})


def conditional() -> nn.Module:
    stages = {**STAGES, "out_features": ["stage4"]}
    return built("ConditionalDetr", d_model=32, encoder_layers=2, **NO_TIMM, stages=stages)


LEVELS = {"out_features": ["stage2", "stage3", "stage4"]}


def deformable(**options: Any) -> nn.Module:
    sizes = {"d_model": 32, "encoder_layers": 2, "disable_custom_kernels": True, "stages": {**STAGES, **LEVELS}}
    return built("DeformableDetr", **{**sizes, **NO_TIMM, **options})


def two_stages() -> nn.Module:
    return deformable(two_stage=True, with_box_refine=True, two_stage_num_proposals=6)


PYRAMID = {"d_model": 32, "encoder_hidden_dim": 32, "num_feature_levels": 3, "decoder_in_channels": [32] * 3}


def rt_detr(family: str = "RTDetr", **options: Any) -> nn.Module:
    sizes = {**PYRAMID, "encoder_in_channels": [12, 16, 24], "stages": {**STAGES, **LEVELS}}
    return built(family, "RTDetrResNet", **{**sizes, **options})


def rt_detr_v2() -> nn.Module:
    return rt_detr("RTDetrV2")


def d_fine() -> nn.Module:
    stages: Mapping[str, Any] = {f"stage_{name}_channels": [8, 8, 8, 8] for name in ("in", "mid", "out")}
    stages = {**stages, "stem_channels": [3, 8, 8], "hidden_sizes": [8] * 4, "stage_num_blocks": [1] * 4, **LEVELS}
    sizes = {**PYRAMID, "encoder_in_channels": [8, 8, 8], "head_dim": 8, "lqe_hidden_dim": 8, "max_num_bins": 8}
    return built("DFine", "HGNetV2", **sizes, stages={**stages, "stage_numb_of_layers": [1] * 4})


def yolos() -> nn.Module:
    from transformers import YolosConfig, YolosForObjectDetection

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = YolosConfig(**sizes, image_size=list(SIZE), patch_size=16, num_detection_tokens=5, num_labels=4)
    return YolosForObjectDetection(config).double().eval()


INPUTS = [f"model.input_proj.{level}" for level in range(4)]
DECODED = [f"model.decoder_input_proj.{level}" for level in range(3)]
FAMILIES: Mapping[Callable[[], nn.Module], list[str]] = {
    detr: ["model.encoder.layers.1"],
    yolos: ["vit.encoder.layer.1"],
    conditional: ["model.encoder.layers.1"],
    deformable: INPUTS,
    two_stages: INPUTS,
    rt_detr: DECODED,
    rt_detr_v2: DECODED,
    d_fine: ["model.encoder.fpn_blocks.1", "model.encoder.pan_blocks.0", "model.encoder.pan_blocks.1"],
}
NO_OBJECT = (detr, yolos)
"""Their last class of a softmax is "no object"; the others' classes have a sigmoid each."""


def photo() -> Tensor:
    return torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("build", FAMILIES)
def test_queries_are_explained_where_all_they_read_is_still_a_grid(build: Any) -> None:
    model, image = build(), photo()
    output = model(image)
    ranking = output.logits[0].softmax(-1)[:, :-1] if build in NO_OBJECT else output.logits[0].sigmoid()
    assert ranking.shape[1] == 4
    query, label = divmod(int(ranking.argmax()), 4)
    asked = [seewhy.Box(index=0, threshold=0), seewhy.Box(index=0, threshold=0, read="x0")]
    answers = list(seewhy.compare(model, image, [*asked, seewhy.Box(threshold=0, read="score")], ["hires_cam"]))
    center, width = output.pred_boxes[0, query, 0] * SIZE[1], output.pred_boxes[0, query, 2] * SIZE[1]
    torch.testing.assert_close(answers[0].scores[0], output.logits[0, query, label].detach())
    torch.testing.assert_close(answers[1].scores[0], (center - width / 2).detach())
    torch.testing.assert_close(answers[2].scores[0], ranking[query, label].detach())
    assert [list(answer.raw) for answer in answers] == [FAMILIES[build]] * 3
    assert float(answers[0].map.abs().max()) > 0


class Held(TorchFunctionMode):
    """What a model detaches (boxes from layer to layer), and which queries it picks, is recorded and then held."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []
        self.at: int | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func not in (Tensor.detach, torch.topk):
            return found
        if self.at is None:
            self.kept.append(found)
            return found
        self.at += 1
        return self.kept[self.at - 1]


@pytest.mark.parametrize("build", FAMILIES)
@pytest.mark.parametrize("read", ["class", "score", "y1"])
def test_the_gradient_for_a_query_is_that_of_differences(build: Any, read: Any) -> None:
    model, rows, image, held = build(), torch.tensor([0]), photo(), Held()
    clean = image.clone().requires_grad_()
    with untouched(model), recording(), held:
        output = model(clean)
    question = Question(None, (), None, 1, output=output, size=SIZE, stated=4)
    target: Any = resolve(seewhy.Box(threshold=0, read=read), question, torch.zeros(1, 0))
    (gradient,) = torch.autograd.grad(target(output, rows).sum(), clean)
    assert gradient.any()
    step = 2e-7 * gradient / gradient.abs().max()

    def at(changed: Tensor) -> Any:
        held.at = 0
        with torch.no_grad(), held:
            return model(changed)

    difference = (target(at(image + step), rows) - target(at(image - step), rows)) / 2
    torch.testing.assert_close((gradient * step).sum()[None], difference, rtol=1e-4, atol=1e-12)


def sampled(layer: Any, at: Tensor, grid: tuple[int, ...], level: int, levels: int) -> set[tuple[int, int]]:
    """The cells that deformable attention around a point, or within a box, reads of a level: corners of its samples."""
    size = torch.tensor([grid[1], grid[0]], dtype=torch.float64)
    offsets = layer.sampling_offsets.bias.detach().view(4, levels, 4, 2)[:, level].reshape(-1, 2)
    places = (at + offsets / size if len(at) == 2 else at[:2] + offsets / 4 * at[2:] / 2) * size - 0.5
    found: set[tuple[int, int]] = set()
    for x, y in places.tolist():
        corners = [(i, j) for i in (floor(y), floor(y) + 1) for j in (floor(x), floor(x) + 1)]
        found |= {(i, j) for i, j in corners if (1 - abs(y - i)) * (1 - abs(x - j)) > 1e-6}
    return {(i, j) for i, j in found if 0 <= i < grid[0] and 0 <= j < grid[1]}


@pytest.mark.parametrize(
    ("build", "reference"),
    [
        (lambda: deformable(encoder_layers=0), lambda output, query: output.init_reference_points[0, query]),
        (lambda: rt_detr(decoder_layers=1), lambda output, query: output.enc_topk_bboxes[0, query]),
    ],
)
@pytest.mark.parametrize("index", [0, 2])
def test_heat_is_where_deformable_attention_reads_and_nowhere_else(build: Any, reference: Any, index: int) -> None:
    model, image = build(), photo()
    output = model(image)
    query = int(output.logits[0].sigmoid().amax(-1).argsort(descending=True, stable=True)[index])
    answer = seewhy.explain(model, image, seewhy.Box(index=index), "hires_cam", rectify=False)
    at, layers = reference(output, query).detach(), [each.encoder_attn for each in model.model.decoder.layers]
    for level, raw in enumerate(answer.raw.values()):
        heat = {tuple(cell) for cell in (raw[0].abs() > 1e-6 * raw.abs().max()).nonzero().tolist()}
        read = [sampled(layer, at, tuple(raw.shape[1:]), level, len(answer.raw)) for layer in layers]
        assert heat == set.union(*read)


def test_the_dog_the_car_and_the_bicycle_of_a_photo_each_have_their_heat_in_their_box(shared: Path) -> None:
    from shared_dense import fastestdet, fastestdet_boxes

    boxes = [seewhy.Box(label=label, read="score", decode=fastestdet_boxes) for label in ("dog", "car", "bicycle")]
    answers = list(seewhy.compare(fastestdet(), shared / "demo" / "darknet_dog.jpg", boxes, ["hires_cam"]))
    assert [answer.target[0].split()[2] for answer in answers] == ["dog", "car", "bicycle"]
    places = [(124, 328, 57, 153), (47, 104, 210, 322), (93, 257, 82, 271)]  # y0, y1, x0, x1 of what it finds
    for n, answer in enumerate(answers):
        masks = torch.zeros(3, 1, 352, 352, dtype=torch.bool)
        for mask, (y0, y1, x0, x1) in zip(masks, places, strict=True):
            mask[0, y0:y1, x0:x1] = True
        own = float(energy(answer.map, masks[n]))
        others = masks[[other for other in range(3) if other != n]].any(0) & ~masks[n]
        assert float(pointing_game(answer.map, masks[n])) == 1
        assert own > 0.65
        assert float(energy(answer.map, others)) < 0.25
