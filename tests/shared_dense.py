"""The dense networks of ../shared/data: a segmenter and a detector, written from its README."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy import Candidates
from seewhy.zoo import Loaded
from shared_models import loaded, plain

VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)
COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,"
    "stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,"
    "backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,"
    "baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,"
    "banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,"
    "oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)


class DeepLab(nn.Module):
    """DeepLabV3 on MobileNetV2: the last stage dilated, image pooling beside one 1x1 branch."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import mobilenet_v2

        self.backbone = mobilenet_v2().features[:18]
        self.backbone[14].conv[1][0].stride = (1, 1)
        for block in self.backbone[15:18]:
            block.conv[1][0].dilation = block.conv[1][0].padding = (2, 2)
        self.aspp, self.image_pool = nn.Conv2d(320, 256, 1), nn.Conv2d(320, 256, 1)
        self.project, self.classifier = nn.Conv2d(512, 256, 1), nn.Conv2d(256, 21, 1)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 21 h w"]:
        features = self.backbone(x)
        local = F.relu(self.aspp(features))
        everywhere = F.relu(self.image_pool(features.mean((2, 3), keepdim=True))).expand_as(local)
        y = self.classifier(F.relu(self.project(torch.cat((everywhere, local), 1))))
        return F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=True)


def deeplabv3() -> Loaded:
    """DeepLabV3 on MobileNetV2, 21 VOC classes."""
    return loaded("deeplabv3_mnv2_voc", DeepLab(), plain(513, 0.5, 0.5), tuple(VOC.split()))


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution without bias, and its batch norm."""
    weights = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [weights, nn.BatchNorm2d(outputs)]


class ShuffleUnit(nn.Module):
    """ShuffleNetV2's unit: even channels pass, odd ones are worked on; a shrinking unit works on all of them twice."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        middle, made = outputs // 2, outputs - inputs
        self.branch_main = nn.Sequential(
            *conv(inputs, middle), nn.ReLU(), *conv(middle, middle, 3, stride, middle), *conv(middle, made), nn.ReLU()
        )
        shrunk = [*conv(inputs, inputs, 3, 2, inputs), *conv(inputs, inputs), nn.ReLU()]
        self.branch_proj = nn.Sequential(*shrunk) if stride == 2 else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        if self.branch_proj is not None:
            return torch.cat((self.branch_proj(x), self.branch_main(x)), 1)
        return torch.cat((x[:, ::2], self.branch_main(x[:, 1::2])), 1)


class ShuffleNet(nn.Module):
    """ShuffleNetV2 down to its three last stages."""

    def __init__(self) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(*conv(3, 24, 3, 2), nn.ReLU())
        self.stage2, self.stage3, self.stage4 = self._stage(24, 48, 4), self._stage(48, 96, 8), self._stage(96, 192, 4)

    def _stage(self, inputs: int, outputs: int, repeats: int) -> nn.Sequential:
        rest = (ShuffleUnit(outputs // 2, outputs, 1) for _ in range(repeats - 1))
        return nn.Sequential(ShuffleUnit(inputs, outputs, 2), *rest)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor, Tensor]:
        second = self.stage2(F.max_pool2d(self.first_conv(x), 3, 2, 1))
        third = self.stage3(second)
        return second, third, self.stage4(third)


class Named(nn.Module):
    """A chain under the name that the weights file gives it."""

    def __init__(self, name: str, *layers: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, nn.Sequential(*layers))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return self.get_submodule(self.name)(x)


class Pyramid(nn.Module):
    """One, two and three depthwise 5x5 convolutions side by side, around a shortcut."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.Conv1x1 = Named("conv1x1", *conv(inputs, width), nn.ReLU())
        for depth in (1, 2, 3):
            layers = [layer for _ in range(depth) for layer in (*conv(width, width, 5, groups=width), nn.ReLU())]
            self.add_module(f"S{depth}", nn.Sequential(*layers))
        self.output = nn.Sequential(*conv(3 * width, width))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        x = self.Conv1x1(x)
        return F.relu(x + self.output(torch.cat([self.get_submodule(f"S{depth}")(x) for depth in (1, 2, 3)], 1)))


class DetectHead(nn.Module):
    """Objectness (sigmoid), raw box and class (softmax) of each cell: 1 + 4 + 80 maps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1x1 = Named("conv1x1", *conv(width, width), nn.ReLU())
        self.obj_layers, self.reg_layers, self.cls_layers = (self._branch(width, maps) for maps in (1, 4, 80))

    def _branch(self, width: int, maps: int) -> Named:
        return Named("conv5x5", *conv(width, width, 5, groups=width), nn.ReLU(), *conv(width, maps))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 85 h w"]:
        x = self.conv1x1(x)
        return torch.cat((self.obj_layers(x).sigmoid(), self.reg_layers(x), self.cls_layers(x).softmax(1)), 1)


class FastestDet(nn.Module):
    """FastestDet: one detection for each of 22x22 cells of a 352x352 picture."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.SPP, self.detect_head = ShuffleNet(), Pyramid(336, 96), DetectHead(96)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 85 h2 w2"]:
        second, third, fourth = self.backbone(x)
        small, large = F.avg_pool2d(second, 3, 2, 1), F.interpolate(fourth, scale_factor=2.0)
        return self.detect_head(self.SPP(torch.cat((small, third, large), 1)))


def fastestdet() -> Loaded:
    """FastestDet, 80 COCO classes; takes BGR."""
    return loaded("fastestdet_coco", FastestDet(), plain(352, channels="bgr"), tuple(COCO.split(",")))


@dataclass(frozen=True)
class Detection:
    """A found object: class index, score 0..1, box xyxy in fractions of the picture, cell (row, column)."""

    label: int
    score: float
    box: tuple[float, float, float, float]
    cell: tuple[int, int]


def detections(output: Float[Tensor, "85 h w"], threshold: float = 0.5) -> list[Detection]:
    """What FastestDet says about one picture, best first, without suppressing overlaps."""
    confidence, label = output[5:].max(0)
    scores = output[0] ** 0.6 * confidence**0.4
    cells = (scores >= threshold).nonzero().tolist()
    found = [_decoded(output, int(label[y, x]), (y, x), float(scores[y, x])) for y, x in cells]
    return sorted(found, key=lambda detection: -detection.score)


def _decoded(output: Float[Tensor, "85 h w"], label: int, cell: tuple[int, int], score: float) -> Detection:
    row, column = cell
    height, width = output.shape[1:]
    dx, dy, w, h = output[1:5, row, column].tolist()
    x = (column + torch.tensor(dx).tanh().item()) / width
    y = (row + torch.tensor(dy).tanh().item()) / height
    half_w, half_h = (torch.tensor([w, h]).sigmoid() / 2).tolist()
    return Detection(label, score, (x - half_w, y - half_h, x + half_w, y + half_h), cell)


def fastestdet_boxes(output: Float[Tensor, "b 85 h w"]) -> Candidates:
    """FastestDet's cells as candidates: objectness, class probabilities, and the score by which it ranks."""
    height, width = output.shape[2:]
    objects, raw, classes = output[:, 0].flatten(1), output[:, 1:5].flatten(2), output[:, 5:].flatten(2).mT
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = (columns.flatten() + raw[:, 0].tanh()) / width, (rows.flatten() + raw[:, 1].tanh()) / height
    half_w, half_h = raw[:, 2].sigmoid() / 2, raw[:, 3].sigmoid() / 2
    boxes = torch.stack((x - half_w, y - half_h, x + half_w, y + half_h), -1)
    return Candidates(boxes, classes, objects, objects[..., None] ** 0.6 * classes**0.4, fractions=True)
