"""Which layer seewhy chooses by itself, on many architectures with random weights, beside what was expected.

Run: `python benchmarks/architectures.py > docs/architectures.md` (or `--only REGEX`). No weights are loaded.
"""

import argparse
import gc
import itertools
import os
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.model.batch import Batch
from seewhy.model.choice import around
from seewhy.model.forms import Channels
from seewhy.model.layers import Choice, candidates, choose
from seewhy.model.run import Run
from seewhy.model.tokens import Layout
from seewhy.model.trace import Trace
from seewhy.nested import tensors
from seewhy.targets.box import Box
from seewhy.targets.detections import Candidates, Decode
from seewhy.targets.question import Question
from seewhy.targets.walking import extent, whole
from seewhy.zoo.keras_models import observable

# torchvision's pure Python part imports on a build without CUDA libraries once these schemas are declared
_VISION = torch.library.Library("torchvision", "DEF")
if not hasattr(torch.ops.torchvision, "nms"):
    _VISION.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _VISION.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


@dataclass(frozen=True)
class Case:
    """A model, and the layer that a reader of its paper would take.

    `expected` names it, several names of one tensor by `|`, and is "-" where no tensor meets the criterion. Of a
    detector, it is the layer of its best box; levels that are joined as tokens are all named, with ` & `, and `grid` is
    that of the first.
    """

    library: str
    model: str
    expected: str
    grid: tuple[int, ...]
    build: Callable[[], nn.Module]
    size: tuple[int, ...] = (3, 224, 224)
    decode: Decode | None = None
    boxed: bool = False


@dataclass(frozen=True)
class Row:
    case: Case
    choice: Choice | None
    share: float
    error: str
    seconds: float

    @property
    def verdict(self) -> str:
        if self.choice is None:
            return "**error**"
        if self.case.expected == "-":
            return "fallback" if self.choice.notes else "**wrong**"
        named = self.choice.name in self.case.expected.split("|")
        right = named and self.choice.grid == self.case.grid and self.share > 0
        return "**wrong**" if not right else "right, mended" if self.case.model in MENDED else "right"

    def cells(self) -> list[str]:
        case, choice = self.case, self.choice
        expected = f"{case.expected.replace('|', ' or ')} {by(case.grid)}" if case.expected != "-" else "none"
        if choice is None:
            return [case.library, case.model, by(case.size), "", "", "", "", "", expected, self.verdict, self.error]
        mended = f"first expected {MENDED[case.model]}" if case.model in MENDED else ""
        reason = "" if any(note.startswith(choice.reason) for note in choice.notes) else choice.reason
        remark = "; ".join(filter(None, [reason, *choice.notes, REMARKS.get(case.model, ""), mended]))
        told = [choice.name, by(choice.shape[1:]), spelled(choice.layout), by(choice.grid), f"{self.share:.2f}"]
        return [case.library, case.model, by(case.size), *told, expected, self.verdict, remark]


REMARKS = {
    "hiera_tiny_224": 'tokens are unrolled by windows, and no tensor shows the later grids; layer="blocks.11", '
    'layout="b n c" works',
    "HieraForImageClassification": "tokens are unrolled by windows, and no tensor shows the later grids",
    "MAnet": "the decoder's first convolution is as wide as the encoder's end, on its grid",
    "PSPNet": "the decoder is wider than the encoder, on the same grid",
    "PAN": "the last two stages have one grid and are both joined there, so that the first of them is on every path",
    "ConvNeXtTiny": "blocks are added by an operation that is no layer, so that only their parts have names, which not "
    "all paths cross; layer= takes any of them",
    "DPTForSemanticSegmentation": "the neck strides to a grid coarser than the encoder's",
}
# expectations that were changed after a first run had differed: what was expected first, and why that was not right
MENDED = {
    "xception41": "act; it is an Identity here, and passes on the tensor of blocks",
    "vit_relpos_small_patch16_224": "norm or blocks; an Identity, and a list that is never called itself",
    "sequencer2d_s": "a grid of 14x14; patches of 7 pixels, halved once, give 16x16",
    "volo_d1_224": "network.4; the auxiliary head reads the patches after the class attention and norm",
    "xcit_nano_12_p16_224": "blocks.11; the first class-attention block passes patches on, the second reads them",
    "coat_lite_tiny": "serial_blocks4.1; the class token alone is read after it; this is that block's input",
    "tnt_s_patch16_224": "blocks.10; two streams, pixels and words, so that no single tensor lies on every path",
    "crossvit_tiny_240": "blocks.1; a list of two branches of different patch size",
    "crossvit_9_240": "blocks.1; a list of two branches of different patch size",
    "Dinov2WithRegistersForImageClassification": "a grid of 16x16; the default patch is 16 pixels, so 14x14",
    "YolosForObjectDetection": "vit.layernorm; only detection tokens are read after it",
    "ConvNextForImageClassification": "convnext.encoder; a record around the tensor of its last stage",
    "ConvNextV2ForImageClassification": "convnextv2.encoder; a record around the tensor of its last stage",
    "SegformerForImageClassification": "segformer.encoder.layer_norm.3; the name in an older release",
    "SegformerForSemanticSegmentation": "segformer.encoder.layer_norm.3; the name in an older release",
    "PvtForImageClassification": "pvt.encoder.layer_norm; the class token alone is read after the last block, and with "
    "one block in the stage its input is the embedding",
    "PvtV2ForImageClassification": "pvt_v2.encoder.layers.3; the encoder puts out the same tensor",
    "CvtForImageClassification": "cvt.encoder.stages.2; the class token alone is read after its last block",
    "LevitForImageClassification": "levit.encoder; a record around the tensor of its last stage",
    "EfficientNetBN, 2-D": "_swish@17; it is the second call of this module, as blocks have their own",
    "UNet, 3-D": "model.1.submodule.1.submodule; what was skipped is joined there, and all paths cross it",
    "AttentionUnet, 3-D": "model.1.submodule.1.submodule.1; the same tensor, named by the part around it",
    "UPerNet": "encoder.layer4; this is its norm, and no less wide",
    "TextNetForImageClassification": "textnet.encoder; a record around the tensor of its last stage",
}

TIMM = """
resnet18 layer4 7
resnet50d layer4 7
resnext50_32x4d layer4 7
seresnet50 layer4 7
skresnet18 layer4 7
res2net50_26w_4s layer4 7
resnest14d layer4 7
resnetv2_50 norm 7
resnetv2_50x1_bit norm 7
vgg16 features.29 14
densenet121 features 7
mobilenetv2_100 bn2 7
mobilenetv3_large_100 blocks 7
mobilenetv4_conv_small blocks 7
efficientnet_b0 bn2 7
efficientnetv2_rw_t bn2 7
tf_efficientnet_lite0 bn2 7
mnasnet_100 bn2 7
mixnet_s bn2 7
regnetx_002 s4 7
regnety_002 s4 7
convnext_atto stages 7
convnextv2_atto stages 7
inception_v3 Mixed_7c 8
inception_v4 features 8
inception_resnet_v2 conv2d_7b 8
xception41 act|blocks 10
dpn68 features 7
nfnet_l0 final_act 7
ghostnet_100 blocks 7
repvgg_a0 stages 7
hrnet_w18_small final_layer 7
cspresnet50 stages 8
cspdarknet53 stages 8
dla34 level5 7
vovnet39a stages 7
hardcorenas_a blocks 7
rexnet_100 features 7
selecsls42b head 4
tresnet_m body 7
gernet_s final_conv 7
lcnet_050 blocks 7
starnet_s1 norm 7
repvit_m0_9 stages 7
vit_tiny_patch16_224 blocks.10 14
vit_base_patch32_224 blocks.10 7
vit_relpos_small_patch16_224 blocks.11 14
vit_base_patch16_siglip_224 norm 14
vit_small_patch14_reg4_dinov2@224 blocks.10 16
deit_tiny_patch16_224 blocks.10 14
deit_tiny_distilled_patch16_224 blocks.10 14
deit3_small_patch16_224 blocks.10 14
beit_base_patch16_224 blocks.11 14
beitv2_base_patch16_224 blocks.11 14
eva02_tiny_patch14_224 blocks.11 16
flexivit_small@240 blocks.10 15
convit_tiny blocks.10 14
cait_xxs24_224 blocks 14
xcit_nano_12_p16_224 cls_attn_blocks.0 14
volo_d1_224 norm 14
levit_128s stages 4
tnt_s_patch16_224 - 14
swin_tiny_patch4_window7_224 norm 7
swinv2_tiny_window8_256 norm 8
swinv2_cr_tiny_224 stages 7
maxvit_tiny_tf_224 stages 7
coatnet_0_rw_224 norm 7
pvt_v2_b0 stages 7
twins_svt_small norm 7
nest_tiny norm 14
mvitv2_tiny norm 7
hiera_tiny_224 blocks.11 7
coat_lite_tiny cpe4@2 7
focalnet_tiny_srf norm 7
davit_tiny stages 7
gcvit_xxtiny stages 7
efficientformer_l1 norm 7
efficientformerv2_s0 norm 7
efficientvit_b0 head.in_conv 7
efficientvit_m0 stages 4
edgenext_xx_small stages 8
fastvit_t8 final_conv 8
mobilevit_xxs final_conv 8
mobilevitv2_050 stages 8
tiny_vit_5m_224 stages 7
visformer_tiny norm 7
poolformer_s12 stages 7
poolformerv2_s12 stages 7
caformer_s18 stages 7
inception_next_tiny stages 7
mambaout_femto stages 7
mixer_s16_224 norm 14
resmlp_12_224 norm 14
gmlp_ti16_224 norm 14
convmixer_1024_20_ks9_p14 blocks 16
sequencer2d_s norm 16
crossvit_tiny_240 - 20
crossvit_9_240 - 20
"""
CLASSIFIERS = """
resnet50 layer4 7
wide_resnet50_2 layer4 7
alexnet features.11 13
vgg11 features.19 14
vgg16 features.29 14
vgg16_bn features.42 14
densenet121 features+relu 7
googlenet inception5b 7
inception_v3 Mixed_7c 8
squeezenet1_0 classifier.2 13
squeezenet1_1 classifier.2 13
mobilenet_v2 features 7
mobilenet_v3_small features 7
mnasnet0_5 layers 7
shufflenet_v2_x0_5 conv5 7
efficientnet_b0 features 7
efficientnet_v2_s features 7
regnet_y_400mf trunk_output 7
convnext_tiny features 7
vit_b_16 encoder.layers.encoder_layer_10 14
swin_t norm|permute 7
swin_v2_t norm|permute 8
maxvit_t blocks.3|blocks.3.layers.1 7
"""


def timm_cases() -> Iterator[Case]:
    import timm

    for line in TIMM.split("\n")[1:-1]:
        model, expected, cells = line.split()
        name, _, size = model.partition("@")
        known = timm.get_pretrained_cfg(name)
        shape = (3, int(size), int(size)) if size else tuple(known.input_size) if known else (3, 224, 224)
        options = {"img_size": int(size)} if size else {}
        yield Case(
            "timm",
            name,
            expected,
            (int(cells),) * 2,
            lambda name=name, options=options: timm.create_model(name, **options),
            shape,
        )


def torchvision_cases() -> Iterator[Case]:
    from torchvision import models

    for line in CLASSIFIERS.split("\n")[1:-1]:
        model, expected, cells = line.split()
        side = {"inception_v3": 299, "swin_v2_t": 256}.get(model, 224)
        options = {"init_weights": False} if model in ("googlenet", "inception_v3") else {}
        yield Case(
            "torchvision",
            model,
            expected.replace("+", " + "),
            (int(cells),) * 2,
            lambda model=model, options=options: models.get_model(model, weights=None, **options),
            (3, side, side),
        )
    for model in ("fcn_resnet50", "deeplabv3_resnet50"):
        yield Case(
            "torchvision",
            model,
            "backbone.layer4",
            (28, 28),
            lambda model=model: models.get_model(model, weights=None, weights_backbone=None),
        )
    yield Case(
        "torchvision",
        "lraspp_mobilenet_v3_large",
        "backbone.16",
        (14, 14),
        lambda: models.get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None),
    )
    video = models.video
    yield Case("torchvision", "r3d_18", "layer4", (1, 7, 7), lambda: video.r3d_18(weights=None), (3, 8, 112, 112))
    yield Case(
        "torchvision",
        "swin3d_t",
        "norm",
        (4, 3, 3),
        lambda: video.swin3d_t(weights=None),
        (3, 8, 96, 96),
    )
    yield Case(
        "torchvision",
        "mvit_v2_s",
        "blocks.14",
        (8, 7, 7),
        lambda: video.mvit_v2_s(weights=None),
        (3, 16, 224, 224),
    )


def transformers_cases() -> Iterator[Case]:
    import transformers as hf

    small = {"num_hidden_layers": 4, "hidden_size": 96, "num_attention_heads": 4, "intermediate_size": 192}

    def case(
        kind: str, expected: str, cells: int | tuple[int, ...], head: str = "ForImageClassification", **options: Any
    ) -> Case:
        size = options.pop("image", (3, 224, 224))
        grid = cells if isinstance(cells, tuple) else (cells, cells)

        def build() -> nn.Module:
            return getattr(hf, kind + head)(getattr(hf, kind + "Config")(**options))

        return Case("transformers", kind + head, expected, grid, build, size)

    yield case("ViT", "vit.layers.2|vit.encoder.layer.2", 14, **small)
    yield case("DeiT", "deit.layers.2|deit.encoder.layer.2", 14, **small)
    yield case("DeiT", "deit.layers.2|deit.encoder.layer.2", 14, "ForImageClassificationWithTeacher", **small)
    yield case("Beit", "beit.encoder.layer.3|beit.encoder|beit.layers.3", 14, **small)
    yield case("Dinov2", "dinov2.layernorm|dinov2.encoder.layer.3", 16, image_size=224, **small)
    yield case("Dinov2WithRegisters", "dinov2_with_registers.layernorm", 14, image_size=224, **small)
    yield case("IJepa", "ijepa.layernorm", 14, image_size=224, patch_size=16, **small)
    yield case("ViTMSN", "vit.layers.2|vit.encoder.layer.2", 14, **small)
    yield case("CLIP", "vision_model.post_layernorm|vision_model.encoder.layers.3", 7, vision_config=small)
    yield case("Siglip", "vision_model.post_layernorm", 14, vision_config=small)
    yield case("Yolos", "vit.encoder.layer.2", 14, "ForObjectDetection", image_size=[224, 224], **small)
    yield case("Swin", "swin.layernorm|swin.encoder.layers.3", 7, depths=[1, 1, 1, 1])
    yield case("Swinv2", "swinv2.layernorm", 7, depths=[1, 1, 1, 1], window_size=7)
    yield case("ConvNext", "convnext.encoder.stages.3", 7, depths=[1, 1, 1, 1])
    yield case("ConvNextV2", "convnextv2.encoder.stages.3", 7, depths=[1, 1, 1, 1])
    yield case("ResNet", "resnet.encoder.stages.3", 7, depths=[1, 1, 1, 1])
    yield case("RegNet", "regnet.encoder.stages.3", 7, depths=[1, 1, 1, 1])
    yield case("Bit", "bit.norm", 7, depths=[1, 1, 1, 1])
    yield case("MobileNetV1", "mobilenet_v1.layer.25", 7)
    yield case("MobileNetV2", "mobilenet_v2.conv_1x1", 7)
    yield case("MobileViT", "mobilevit.conv_1x1_exp", 8, image=(3, 256, 256))
    yield case("EfficientNet", "efficientnet.encoder.top_activation", 7, num_hidden_layers=16)
    yield case("PoolFormer", "norm", 7, depths=[1, 1, 1, 1])
    yield case("Segformer", "segformer.stages.3", 7, depths=[1, 1, 1, 1])
    yield case("Segformer", "segformer.stages.3", 7, "ForSemanticSegmentation", depths=[1, 1, 1, 1])
    yield case("Pvt", "pvt.encoder.patch_embeddings.3.dropout", 7, depths=[1, 1, 1, 1])
    yield case("PvtV2", "pvt_v2.encoder", 7, depths=[1, 1, 1, 1])
    yield case("Levit", "levit.encoder.stages.2", 4, depths=[1, 1, 1])
    yield case("Cvt", "cvt.encoder.stages.2.layers.8", 14)
    yield case("FocalNet", "focalnet.layernorm", 7, depths=[1, 1, 1, 1])
    yield case("SwiftFormer", "swiftformer.norm|norm", 7)
    yield case("Hiera", "hiera.encoder.stages.3", 7, depths=[1, 1, 2, 1], embed_dim=48)
    yield case("TextNet", "textnet.encoder.stages.3", 7)
    video = {**small, "image_size": 64, "num_frames": 8, "image": (3, 8, 64, 64)}
    yield case("VideoMAE", "videomae.encoder.layer.3", (4, 4, 4), "ForVideoClassification", **video)
    yield case("Vivit", "vivit.layers.2|vivit.encoder.layer.2", (4, 4, 4), "ForVideoClassification", **video)
    yield case("UperNet", "backbone.encoder.stages.3", 7, "ForSemanticSegmentation", backbone_config=None)
    yield case(
        "DPT",
        "dpt.encoder.layer.3",
        14,
        "ForSemanticSegmentation",
        image_size=224,
        backbone_out_indices=[0, 1, 2, 3],
        **small,
    )


def detector_cases() -> Iterator[Case]:
    import transformers as hf

    stages = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "num_queries": 6, "num_labels": 4}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    own = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
    pyramid = {"encoder_hidden_dim": 32, "decoder_in_channels": [32] * 3, "encoder_in_channels": [12, 16, 24]}
    levels = {**stages, "out_features": ["stage2", "stage3", "stage4"]}

    def case(kind: str, expected: str, grid: tuple[int, int], body: Any, **options: Any) -> Case:
        def build() -> nn.Module:
            config = getattr(hf, f"{kind}Config")(backbone_config=body, **{**sizes, **options})
            model = getattr(hf, f"{kind}ForObjectDetection")(config)
            for parameter in model.parameters():
                if parameter.ndim == 4:  # or random weights this small would leave next to nothing
                    nn.init.kaiming_normal_(parameter)
            return model

        return Case("transformers", f"{kind}ForObjectDetection", expected, grid, build, (3, 128, 192), boxed=True)

    last = hf.ResNetConfig(**stages, out_features=["stage4"])
    for kind in ("Detr", "ConditionalDetr"):
        yield case(kind, "model.encoder.layers.1", (4, 6), last, **own)
    inputs, decoded = (" & ".join(f"model.{name}.{n}" for n in range(count)) for name, count in JOINED)
    flat = {**own, "disable_custom_kernels": True}
    yield case("DeformableDetr", inputs, (16, 24), hf.ResNetConfig(**levels), **flat)
    for kind in ("RTDetr", "RTDetrV2"):
        yield case(kind, decoded, (16, 24), hf.RTDetrResNetConfig(**levels), **pyramid, encoder_layers=1)


JOINED = (("input_proj", 4), ("decoder_input_proj", 3))


def ultralytics_cases() -> Iterator[Case]:
    os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
    try:
        from ultralytics.nn import tasks
    except ImportError:  # its package asks for OpenCV's with windows
        print("without Ultralytics", file=sys.stderr)
        return

    def build(kind: str, name: str) -> nn.Module:
        model = getattr(tasks, f"{kind}Model")(f"{name}.yaml", verbose=False)
        for number, head in enumerate(getattr(model.model[-1], "cv2", [])):  # boxes of four cells, on the middle level
            head[-1].bias.data.copy_(-10 * (torch.arange(64) % 16 - 2.0) ** 2)
            model.model[-1].cv3[number][-1].bias.data.fill_(0.0 if number == 1 else -12.0)
        return model

    for kind, name, layer in (
        ("Detection", "yolov8n", "model.18"),
        ("Detection", "yolo11n", "model.19"),
        ("Segmentation", "yolov8n-seg", "model.18"),
        ("Segmentation", "yolo11n-seg", "model.19"),
    ):
        made = partial(build, kind, name)
        yield Case("ultralytics", name, layer, (14, 14), made, decode=Candidates.yolo, boxed=True)
    for name, layer in (("yolov8n-cls", "model.9.conv"), ("yolo11n-cls", "model.10.conv")):
        yield Case("ultralytics", name, layer, (7, 7), partial(build, "Classification", name))


def keras_cases() -> Iterator[Case]:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    nets = {
        "ResNet50": ("conv5_block3_out", 2),
        "MobileNetV2": ("out_relu", 2),
        "EfficientNetB0": ("top_activation", 2),
        "DenseNet121": ("relu", 2),
        "VGG16": ("block5_conv3", 4),
        "ConvNeXtTiny": ("convnext_tiny_stage_3_block_2_identity", 2),
    }
    for name, (layer, cells) in nets.items():
        options = {"weights": None, "input_shape": (64, 64, 3), "classes": 10}
        made = partial(getattr(keras.applications, name), **options)
        yield Case("keras", name, layer, (cells, cells), made, (3, 64, 64))


def other_cases() -> Iterator[Case]:
    def lite() -> nn.Module:
        from efficientnet_lite_pytorch import EfficientNet

        return EfficientNet.from_name("efficientnet-lite0")

    yield Case("efficientnet_lite_pytorch", "efficientnet-lite0", "_swish@2|_relu@2", (7, 7), lite)


def monai_cases() -> Iterator[Case]:
    from monai.networks import nets

    def case(name: str, expected: str, grid: tuple[int, ...], colors: int = 3, side: int = 224, **options: Any) -> Case:
        axes = len(grid)
        sizes = {"spatial_dims": axes} if name != "ViT" else {"spatial_dims": axes, "img_size": (side,) * axes}
        return Case(
            "monai",
            f"{name}, {axes}-D",
            expected,
            grid,
            lambda: getattr(nets, name)(**sizes, **options),
            (colors, *(side,) * axes),
        )

    yield case("DenseNet121", "class_layers.relu", (7, 7), in_channels=3, out_channels=4)
    yield case("DenseNet121", "class_layers.relu", (2, 2, 2), 1, 64, in_channels=1, out_channels=4)
    yield case("resnet18", "layer4", (4, 4, 4), 1, 64, n_input_channels=1, num_classes=4)
    yield case("SEResNet50", "layer4", (7, 7), in_channels=3, num_classes=4)
    yield case("SEResNet50", "layer4", (2, 2, 2), 1, 64, in_channels=1, num_classes=4)
    yield case(
        "EfficientNetBN",
        "_swish@2",
        (7, 7),
        model_name="efficientnet-b0",
        pretrained=False,
        in_channels=3,
        num_classes=4,
    )
    patched = {"patch_size": 16, "hidden_size": 96, "mlp_dim": 192, "num_layers": 4, "num_heads": 4}
    yield case("ViT", "blocks.2", (14, 14), in_channels=3, classification=True, **patched)
    yield case("ViT", "blocks.2", (4, 4, 4), 1, 64, in_channels=1, classification=True, **patched)
    dense = {"in_channels": 1, "out_channels": 2}
    steps = {"channels": (8, 16, 32), "strides": (2, 2)}
    yield case("UNet", "model.1.submodule.1", (16, 16, 16), 1, 64, **dense, **steps)
    yield case("BasicUNet", "down_4", (4, 4, 4), 1, 64, in_channels=1, out_channels=2)
    yield case("SegResNet", "down_layers.3", (8, 8, 8), 1, 64, in_channels=1, out_channels=2)
    yield case("AttentionUnet", "model.1.submodule.1.submodule", (16, 16, 16), 1, 64, **dense, **steps)


def segmentation_cases() -> Iterator[Case]:
    import segmentation_models_pytorch as smp

    cells = {"Unet": 7, "UnetPlusPlus": 7, "MAnet": 7, "Linknet": 7, "FPN": 7, "PSPNet": 28, "PAN": 14}
    cells |= {"DeepLabV3": 28, "DeepLabV3Plus": 14, "UPerNet": 7, "Segformer": 7}
    for name, cell in cells.items():
        stage = {"PSPNet": "encoder.layer2", "UPerNet": "decoder.feature_norms.3"}.get(name, "encoder.layer4")

        def build(name: str = name) -> nn.Module:
            return getattr(smp, name)("resnet18", encoder_weights=None, classes=3)

        yield Case("segmentation_models_pytorch", name, stage, (cell, cell), build)


def awakened(model: nn.Module) -> nn.Module:
    """Matrices initialised to zero, such as heads, get random values: behind a zero head nothing has a gradient."""
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model.eval()


def scores(output: Any) -> Tensor:
    found = dict(tensors(output))
    return next((found[path] for path in ((), ("logits",), ("out",)) if path in found), next(iter(found.values())))


def row(case: Case) -> Row:
    torch.manual_seed(0)
    start = time.perf_counter()
    try:
        model = awakened(case.build())
        generator = torch.Generator().manual_seed(0)
        frames = "Video" in case.model or "Vivit" in case.model
        form = Channels(3 if case.library == "keras" else 2 if frames else 1)
        batch = Batch(torch.randn(1, *case.size, generator=generator), form=form)
        if case.boxed:
            trace, choice = of_a_box(model, batch, case.decode)
            share = next(found.gradient_share for found in candidates(trace) if found.name in choice.name.split(" & "))
        else:
            trace = Trace.of(observable(model), batch, scores)
            choice = choose(trace)
            share = next(found.gradient_share for found in candidates(trace) if found.chosen)
    except Exception as error:
        return Row(case, None, 0, f"{type(error).__name__}: {str(error).splitlines()[0]}", time.perf_counter() - start)
    return Row(case, choice, share, "", time.perf_counter() - start)


def of_a_box(model: nn.Module, batch: Batch, decode: Decode | None) -> tuple[Trace, Choice]:
    """The layers that a detector's best box is explained on."""
    stated = getattr(getattr(model, "config", None), "num_labels", None)
    with torch.no_grad():
        question = Question(None, (), None, 1, output=model(batch.images), size=batch.inputs.shape[2:], stated=stated)
    target = Box(index=0, threshold=0, decode=decode).of(torch.zeros(1, 0), question)
    (trace,) = Run(model, batch).traces(lambda output: [(whole(target, output, batch.rows), extent(target))])
    levels = around(trace)
    return trace, replace(levels[0], name=" & ".join(level.name for level in levels))


def by(lengths: Sequence[int]) -> str:
    return "x".join(map(str, lengths))


def spelled(layout: Layout) -> str:
    if not layout.kind.count("n"):
        return str(layout)
    where = layout.positions
    return f"{layout}, patches {where.start}..{where.stop - 1}" if isinstance(where, range) else f"{layout}, scattered"


def page(rows: Sequence[Row]) -> str:
    count = Counter(row.verdict.strip("*") for row in rows)
    head = ["library", "model", "image", "layer", "raw shape", "layout", "grid", "gradient on the grid"]
    head += ["expected", "verdict", "reason and notes"]
    lines = [head, ["---"] * len(head), *(row.cells() for row in rows)]
    return INTRODUCTION.format(
        models=len(rows), counts=", ".join(f"{n} {what}" for what, n in count.items())
    ) + "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


INTRODUCTION = """# The layer that seewhy chooses, on {models} architectures

Made by `python benchmarks/architectures.py`, with random weights, a noise image, one thread. Verdicts: {counts}.

**Right** is the layer written down as expected before the first run: the last tensor with a spatial grid ahead of the
pooling or class-token read-out, rectified where there is a rectifier, and with a gradient on its patches; for dense
outputs the end of the encoder. **Right, mended**: the first run differed from what was written down, the expectation
was found to miss this criterion (or to misname the layer) and was changed; the last column says from what and why.
Judge these yourself. **Fallback**: no tensor meets the criterion (two branches), one was chosen all the same, and its
notes say so. **Wrong** and **error** are explained in the last column.

The rules were widened while this table was made (attention's inner projections, class tokens that pass through pooling
attention, spatial pyramids, video), so it is no held-out test. Matrices that a library initialises to zero, such as
the head of torchvision's ViT, got random values first: behind a zero head no layer has a gradient.

The rows of detectors, Ultralytics and Keras were written down after a first look at what is chosen; the criterion is
the same. Detectors were asked about their best box, and the layers are those of that box: of levels that are joined as
tokens, each level's. Ultralytics' networks (8.4.190) are from its own configuration files, with biases that put the
best box on the middle level.

Left out: transformers' Dinat (needs a package of its own).

"Gradient on the grid" is the part of the gradient's norm that lies on patch tokens, for a random projection of the
scores.

"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="regular expression on library:model")
    wanted = re.compile(parser.parse_args().only)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows: list[Row] = []
    others = itertools.chain(
        detector_cases(), monai_cases(), segmentation_cases(), ultralytics_cases(), keras_cases(), other_cases()
    )
    for case in itertools.chain(timm_cases(), torchvision_cases(), transformers_cases(), others):
        if wanted.search(f"{case.library}:{case.model}"):
            rows.append(row(case))
            gc.collect()
            got = f"{rows[-1].choice.name} {rows[-1].choice.grid}" if rows[-1].choice else rows[-1].error
            print(f"{case.library}:{case.model} {rows[-1].seconds:.1f}s {rows[-1].verdict} {got}", file=sys.stderr)
    print(page(rows), end="")


if __name__ == "__main__":
    main()
