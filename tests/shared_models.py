"""The real networks of ../shared/data: architectures written from its README, weights read from its files.

Every function returns a `Loaded` with real weights, its preprocessing and its labels. torchvision and timm are imported
only by those that are built from them. Detector and segmenter are in `shared_dense`, questions in `shared_vqa`.
"""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.data.preprocess import Preprocess
from seewhy.zoo import Loaded

DATA = Path(__file__).parents[2] / "shared" / "data"
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS = tuple(str(digit) for digit in range(10))
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
TINY = "lifeboat,ladybug,pizza,bell pepper,school bus,koala,espresso,red panda,orange,sport car"


def loaded(name: str, module: nn.Module, preprocess: Preprocess, labels: tuple[str, ...]) -> Loaded:
    """The module with the weights of that name, strictly."""
    module.load_state_dict(load_file(DATA / "weights" / f"{name}.safetensors"))
    return Loaded(module.eval(), preprocess, labels, name)


def plain(
    side: int, mean: float = 0.0, std: float = 1.0, channels: Literal["rgb", "bgr", "grey"] = "rgb"
) -> Preprocess:
    """The whole picture, stretched to a square; one mean and std for every channel."""
    count = 1 if channels == "grey" else 3
    return Preprocess((side, side), "squash", mean=(mean,) * count, std=(std,) * count, channels=channels)


def cropped(mean: tuple[float, ...], std: tuple[float, ...]) -> Preprocess:
    """ImageNet's evaluation, which the README's figures are of: the short side to 256, the center 224x224 cut out."""
    return Preprocess((224, 224), "crop", resize=256, mean=mean, std=std)


def imagenet_names() -> tuple[str, ...]:
    """The 1000 names in torchvision's order."""
    return tuple(entry["name"] for entry in json.loads((DATA / "imagenet_classes.json").read_text(encoding="utf-8")))


def mobilenet_v2() -> Loaded:
    """MobileNetV2, ImageNet."""
    from torchvision.models import mobilenet_v2 as build

    return loaded("mobilenet_v2_imagenet", build(), cropped((0.5,) * 3, (0.5,) * 3), imagenet_names())


def squeezenet() -> Loaded:
    """SqueezeNet 1.0, ImageNet: its head is a 1x1 conv to 1000 maps, ReLU, global average pooling."""
    from torchvision.models import squeezenet1_0 as build

    usual = cropped((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return loaded("squeezenet1_0_imagenet", build(), usual, imagenet_names())


class DarkConv(nn.Module):
    """Convolution, batch norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return F.leaky_relu(self.bn(self.conv(x)), 0.1)


class TinyDarknet(nn.Module):
    """Tiny Darknet: the last 1x1 convolution gives one map for each class, their means are the logits."""

    WIDTHS = (16, 32, 16, 128, 16, 128, 32, 256, 32, 256, 64, 512, 64, 512, 128)
    KERNELS = (3, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1)
    POOLED = (1, 2, 6, 10)

    def __init__(self) -> None:
        super().__init__()
        inputs = 3
        for index, (width, kernel) in enumerate(zip(self.WIDTHS, self.KERNELS, strict=True), start=1):
            self.add_module(f"conv{index}", DarkConv(inputs, width, kernel))
            inputs = width
        self.conv16 = nn.Conv2d(inputs, 1000, 1)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1000"]:
        for index in range(1, 16):
            x = self.get_submodule(f"conv{index}")(x)
            x = F.max_pool2d(x, 2) if index in self.POOLED else x
        return self.conv16(x).mean((2, 3))


def tiny_darknet() -> Loaded:
    """Tiny Darknet, ImageNet."""
    return loaded("tiny_darknet_imagenet", TinyDarknet(), cropped((0.0,) * 3, (1.0,) * 3), imagenet_names())


class CifarBlock(nn.Module):
    """Two convolutions around a shortcut without parameters (option A)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        missing = y.shape[1] - x.shape[1]
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, missing // 2, missing // 2))
        return F.relu(y + shortcut)


class CifarResNet(nn.Module):
    """The CIFAR ResNet of depth 6 n + 2."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(CifarBlock(16, 16) for _ in range(n)))
        self.layer2 = nn.Sequential(CifarBlock(16, 32), *(CifarBlock(32, 32) for _ in range(n - 1)))
        self.layer3 = nn.Sequential(CifarBlock(32, 64), *(CifarBlock(64, 64) for _ in range(n - 1)))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 10"]:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def cifar10_resnet(depth: Literal[20, 56] = 20) -> Loaded:
    """ResNet-20 or -56, CIFAR-10."""
    return loaded(f"cifar10_resnet{depth}", CifarResNet((depth - 2) // 6), Preprocess((32, 32), "squash"), CIFAR10)


class LeNet5(nn.Module):
    """LeNet-5 with fully connected layers, logits."""

    def __init__(self) -> None:
        super().__init__()
        self.convnet = nn.Sequential(
            OrderedDict(
                c1=nn.Conv2d(1, 6, 5),
                relu1=nn.ReLU(),
                s2=nn.MaxPool2d(2),
                c3=nn.Conv2d(6, 16, 5),
                relu3=nn.ReLU(),
                s4=nn.MaxPool2d(2),
                c5=nn.Conv2d(16, 120, 5),
                relu5=nn.ReLU(),
            )
        )
        self.fc = nn.Sequential(OrderedDict(f6=nn.Linear(120, 84), relu6=nn.ReLU(), f7=nn.Linear(84, 10)))

    def forward(self, x: Float[Tensor, "b 1 32 32"]) -> Float[Tensor, "b 10"]:
        return self.fc(self.convnet(x).flatten(1))


def lenet5() -> Loaded:
    """LeNet-5, MNIST: the picture of 28x28 in a black frame of 2 pixels."""
    framed = Preprocess((32, 32), "crop", resize=28, mean=(0.0,), std=(1.0,), channels="grey")
    return loaded("lenet5_mnist", LeNet5(), framed, DIGITS)


def vit_tiny_mnist() -> Loaded:
    """A small vision transformer, MNIST: 49 patch tokens and a class token."""
    from timm.models.vision_transformer import VisionTransformer

    vit = VisionTransformer(
        img_size=28, patch_size=4, in_chans=1, num_classes=10, embed_dim=64, depth=4, num_heads=4, mlp_ratio=2.0
    )
    return loaded("vit_tiny_mnist", vit, plain(28, 0.5, 0.5, "grey"), DIGITS)


class Separable(nn.Module):
    """A depthwise and a pointwise convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return self.pointwise(self.depthwise(x))


class XceptionBlock(nn.Module):
    """Two separable convolutions and a pooling, beside a strided shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.sep1, self.bn1 = Separable(inputs, outputs), nn.BatchNorm2d(outputs, eps=1e-3)
        self.sep2, self.bn2 = Separable(outputs, outputs), nn.BatchNorm2d(outputs, eps=1e-3)
        self.short, self.bns = nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        y = self.bn2(self.sep2(F.relu(self.bn1(self.sep1(x)))))
        # TensorFlow's 'same': 1 pixel more at the bottom and right where the padding is odd
        rows, columns = (max((-(-side // 2) - 1) * 2 + 3 - side, 0) for side in y.shape[2:])
        around = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        return F.max_pool2d(F.pad(y, around, value=-torch.inf), 3, 2) + self.bns(self.short(x))


class MiniXception(nn.Module):
    """mini-Xception: the last convolution gives one map for each emotion, their means are the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8, eps=1e-3)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8, eps=1e-3)
        self.block1, self.block2 = XceptionBlock(8, 16), XceptionBlock(16, 32)
        self.block3, self.block4 = XceptionBlock(32, 64), XceptionBlock(64, 128)
        self.conv_last = nn.Conv2d(128, 7, 3, padding=1)

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 7"]:
        x = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return self.conv_last(self.block4(self.block3(self.block2(self.block1(x))))).mean((2, 3))


def mini_xception() -> Loaded:
    """mini-Xception, FER-2013: emotions of a cropped grey face."""
    return loaded("mini_xception_fer", MiniXception(), plain(64, 0.5, 0.5, "grey"), EMOTIONS)


def tiny_vgg() -> Loaded:
    """A VGG-like chain with Flatten and Linear, 10 classes of Tiny ImageNet."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for stage, inputs in ((1, 3), (2, 10)):
        layers |= {f"conv_{stage}_1": nn.Conv2d(inputs, 10, 3), f"relu_{stage}_1": nn.ReLU()}
        layers |= {f"conv_{stage}_2": nn.Conv2d(10, 10, 3), f"relu_{stage}_2": nn.ReLU()}
        layers |= {f"max_pool_{stage}": nn.MaxPool2d(2)}
    layers |= {"flatten": nn.Flatten(), "output": nn.Linear(1690, 10)}
    return loaded("tiny_vgg", nn.Sequential(layers), plain(64), tuple(TINY.split(",")))
