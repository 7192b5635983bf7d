"""Boxes of real libraries' detectors, with random weights from small configurations; and of FastestDet on photos."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import conftest
import seewhy
from detectors import slow_iou
from seewhy.metrics.localization import energy, pointing_game
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


def detr() -> nn.Module:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    config = DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=ResNetConfig(**sizes, out_features=["stage4"]),
        d_model=24,
        encoder_layers=2,
        decoder_layers=2,
        num_queries=6,
        num_labels=4,
        **heads,
    )
    return DetrForObjectDetection(config).double().eval()


def yolos() -> nn.Module:
    from transformers import YolosConfig, YolosForObjectDetection

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = YolosConfig(**sizes, image_size=list(SIZE), patch_size=16, num_detection_tokens=5, num_labels=4)
    return YolosForObjectDetection(config).double().eval()


@pytest.mark.parametrize(("build", "layer"), [(detr, "model.encoder.layers.1"), (yolos, "vit.encoder.layer.1")])
def test_queries_are_explained_where_all_they_read_is_still_a_grid(build: Any, layer: str) -> None:
    model = build()
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    output = model(image)
    ranking = output.logits[0].softmax(-1)[:, :-1]
    query, label = divmod(int(ranking.argmax()), 4)
    answers = list(seewhy.compare(model, image, [seewhy.Box(threshold=0), seewhy.Box(threshold=0, read="x0")]))
    center, width = output.pred_boxes[0, query, 0] * SIZE[1], output.pred_boxes[0, query, 2] * SIZE[1]
    torch.testing.assert_close(answers[0].scores[0], output.logits[0, query, label].detach())
    torch.testing.assert_close(answers[1].scores[0], (center - width / 2).detach())
    assert [list(answer.raw) for answer in answers] == [[layer]] * 2


@pytest.mark.parametrize("build", [detr, yolos])
@pytest.mark.parametrize("read", ["class", "score", "y1"])
def test_the_gradient_for_a_query_is_that_of_differences(build: Any, read: Any) -> None:
    model, rows = build(), torch.tensor([0])
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    question = Question(None, (), None, 1, output=model(image), size=SIZE)
    target: Any = resolve(seewhy.Box(threshold=0, read=read), question, torch.zeros(1, 0))
    clean = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target(model(clean), rows).sum(), clean)
    step = 1e-5 * gradient / gradient.abs().max()
    with torch.no_grad():
        difference = (target(model(image + step), rows) - target(model(image - step), rows)) / 2
    torch.testing.assert_close((gradient * step).sum()[None], difference, rtol=1e-4, atol=1e-12)


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
