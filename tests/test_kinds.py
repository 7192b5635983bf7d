"""The names that the graph is read by: every one is a node of torch's, and means what its set says."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seewhy.model import kinds
from seewhy.model.batch import Batch
from seewhy.model.clues import clues_of
from seewhy.model.graph import kind, saved
from seewhy.model.trace import Trace

MODEL = Path(kinds.__file__).parent
SETS = {name: value for name, value in vars(kinds).items() if isinstance(value, frozenset | dict) and name.isupper()}
PATTERNS = {name: value for name, value in vars(kinds).items() if isinstance(value, re.Pattern)}
NODES = {name.split("Backward")[0] for name in dir(torch._C._functions) if "Backward" in name}


@pytest.mark.parametrize("name", sorted(SETS.keys() - {"ACTIVATION_FUNCTIONS"}))
def test_every_kind_is_one_of_torchs_nodes(name):
    assert SETS[name]
    assert set(SETS[name]) <= NODES


def test_every_activation_function_is_one_of_torchs():
    assert all(callable(getattr(F, name)) for name in kinds.ACTIVATION_FUNCTIONS)


@pytest.mark.parametrize("name", PATTERNS)
def test_every_alternative_of_a_pattern_is_found_among_torchs_nodes(name):
    inner = re.search(r"\(([^?()]*)\)$", PATTERNS[name].pattern)
    alternatives = (inner.group(1) if inner else PATTERNS[name].pattern).split("|")
    assert len(alternatives) > 1
    for alternative in alternatives:
        assert any(re.search(alternative, node) for node in NODES), alternative


def test_every_kind_that_code_compares_with_is_one_of_torchs_nodes():
    code = "\n".join(path.read_text() for path in MODEL.glob("*.py"))
    compared = set(re.findall(r'(?:kind\(.*\)|name) == "([A-Z]\w+)"', code))
    assert {"Convolution", "Permute", "Cat"} <= compared <= NODES


def image():
    return (torch.rand(1, 4, 6, 6) + 0.1).requires_grad_()


MADE = {
    "Permute": lambda x: x.permute(0, 2, 3, 1),
    "Transpose": lambda x: x.transpose(1, 2),
    "T": lambda x: x.flatten(1).t(),
    "View": lambda x: x.flatten(1),
    "UnsafeView": lambda x: x.flatten(2).transpose(1, 2) @ torch.rand(4, 2),
    "Clone": lambda x: x.transpose(1, 2).contiguous(),
    "ToCopy": lambda x: x.double(),
    "Unbind": lambda x: x.unbind(1)[0],
    "Split": lambda x: x.chunk(2, 1)[0],
    "SplitWithSizes": lambda x: x.split([1, 3], 1)[0],
    "UnsafeSplit": lambda x: x.unsafe_chunk(2, 1)[0],
    "Select": lambda x: x[:, 0],
    "Slice": lambda x: x.narrow(1, 0, 2),
    "Expand": lambda x: x[:, :1].expand(1, 3, 6, 6),
    "Unsqueeze": lambda x: x[None],
    "Squeeze": lambda x: x.squeeze(0),
    "Unfold": lambda x: x.unfold(2, 2, 2),
    "Im2Col": lambda x: F.unfold(x, 2),
    "Cat": lambda x: torch.cat([x, x], 1),
    "Stack": lambda x: torch.stack([x, x]),
    "Relu": F.relu_,
    "Hardtanh": F.relu6,
    "Clamp": lambda x: x.clip(min=0),
    "ClampMin": lambda x: x.clamp_min(0),
    "LeakyRelu": F.leaky_relu,
    "PreluKernel": nn.PReLU(),
    "RreluWithNoise": F.rrelu,
    "Threshold": lambda x: F.threshold(x, 0, 0),
    "Maximum": lambda x: torch.maximum(x, torch.zeros(())),
    "Elu": F.selu,
    "Celu": F.celu,
    "Silu": F.silu,
    "Gelu": F.gelu,
    "Mish": F.mish,
    "Softplus": F.softplus,
    "Hardswish": F.hardswish,
    "Hardsigmoid": F.hardsigmoid,
    "LogSigmoid": F.logsigmoid,
    "Glu": lambda x: F.glu(x, 1),
    "Sigmoid": torch.sigmoid,
    "Softmax": lambda x: x.softmax(1),
    "Mean": lambda x: F.adaptive_avg_pool2d(x, 1),
    "AdaptiveAvgPool2D": lambda x: F.adaptive_avg_pool2d(x, 2),
    "MkldnnAdaptiveAvgPool2D": lambda x: F.adaptive_avg_pool2d(x.to_mkldnn(), 1),
    "AvgPool2D": lambda x: F.avg_pool2d(x, 2),
    "MaxPool2DWithIndices": lambda x: F.max_pool2d(x, 2),
    "Convolution": lambda x: F.conv2d(x, torch.rand(2, 4, 3, 3)),
    "NativeBatchNorm": lambda x: F.batch_norm(x, torch.zeros(4), torch.ones(4)),
    "NativeGroupNorm": lambda x: F.group_norm(x, 2),
    "NativeLayerNorm": lambda x: F.layer_norm(x, (6,)),
    "Addmm": lambda x: F.linear(x[0, 0], torch.rand(2, 6), torch.rand(2)),
    "Mm": lambda x: F.linear(x[0, 0], torch.rand(2, 6)),
    "Bmm": lambda x: x[0] @ x[0],
    "ConstantPadNd": lambda x: F.pad(x, (1, 1)),
    "ReflectionPad2D": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "ReplicationPad2D": lambda x: F.pad(x, (1, 1, 1, 1), mode="replicate"),
}


@pytest.mark.parametrize("name", MADE)
def test_an_operation_has_the_kind_that_it_is_known_by(name):
    if name == "MkldnnAdaptiveAvgPool2D" and not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    x = image()
    made = MADE[name](x.clone() if name == "Relu" else x)
    node = made.grad_fn
    while (
        name in ("UnsafeView", "Mm", "Bmm") and kind(node) != name
    ):  # a product of matrices is seen as a stack of them
        node = node.next_functions[0][0]
    assert kind(node) == name


@pytest.mark.parametrize("name", sorted(kinds.ELEMENTWISE & MADE.keys()))
def test_an_elementwise_operation_keeps_every_value_to_its_place(name):
    x = image()
    made = MADE[name](x.clone() if name == "Relu" else x)
    assert made.numel() == x.numel()
    (gradient,) = torch.autograd.grad(made.flatten()[0], x)
    assert int(gradient.count_nonzero()) <= 1


def test_weights_are_told_from_what_only_sounds_like_them():
    assert [name for name in ("Convolution", "Addmm", "Bmm", "MkldnnRnnLayer") if kinds.WEIGHTED.match(name)] == [
        *("Convolution", "Addmm", "Bmm", "MkldnnRnnLayer")
    ]
    assert not any(kinds.WEIGHTED.match(name) for name in ("UpsampleLinear1D", "Relu", "Mean", "NativeBatchNorm"))


def test_negative_arguments_are_read_with_their_sign():
    x = image()
    assert saved(x.transpose(-1, -2).grad_fn, "dim0") == -1
    assert saved(x.permute(0, -1, 1, 2).grad_fn, "dims") == (0, -1, 1, 2)
    assert saved(torch.ops.aten.slice(x, -1, -2).grad_fn, "start") == -2
    assert saved(F.hardtanh(x).grad_fn, "min_val") == -1.0
    assert saved(x[:, :2].grad_fn, "end") == 2


class Tokens(nn.Module):
    """Three tokens ahead of the patches, of which a slice that counts from the end keeps one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 6, 4, 4)
        self.others = nn.Parameter(torch.randn(1, 3, 6))
        self.dropped = nn.Identity()
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.others.expand(len(x), -1, -1), tokens], 1)
        return self.head(self.dropped(tokens[:, -17:]).mean(1))


def test_tokens_that_are_counted_from_the_end_are_told_apart():
    torch.manual_seed(1)
    trace = Trace.of(Tokens().eval(), Batch(torch.randn(1, 3, 16, 16)), lambda output: output)
    (traced,) = trace.outputs["dropped"]
    assert clues_of(trace, traced.edge).patches[1] == range(1, 17)
