"""Kinds of operations, by the names that autograd gives them: one set for each thing that is asked of a graph's node.

Names are all that the graph tells of most nodes: a frozen parameter has no node of its own, and what an operation did
to the axes is not kept. Every name is one of torch's own nodes: `tests/test_kinds.py`.
"""

import re

PERMUTATIONS = frozenset({"Permute", "Transpose", "T"})
"""Axes in another order."""

FOLDS = frozenset({"View", "UnsafeView", "ReshapeAlias"})
"""Axes joined, or taken apart."""

COPIES = frozenset({"Clone", "ToCopy", "Alias"})
"""The same values elsewhere."""

LENGTHS_OF_ONE = frozenset({"Squeeze", "Unsqueeze"})
"""Axes of one place dropped or added."""

PARTS = frozenset({"Unbind", "Split", "SplitWithSizes", "UnsafeSplit", "Select", "Slice"})
"""Some of the values."""

VIEWS = PERMUTATIONS | FOLDS | COPIES | LENGTHS_OF_ONE | PARTS | {"Expand"}
"""The same values, arranged in another way."""

RESHAPES = PERMUTATIONS | FOLDS | {"Unfold", "Im2Col"}
"""After these, the number of axes no longer speaks for what they are."""

JOINS = frozenset({"Cat", "Stack"})
"""Several tensors as one."""

CURVES = frozenset({"Elu", "Celu", "Silu", "Gelu", "Mish", "Softplus", "Hardswish"})
"""Activation functions that are no rectifiers, however near to one."""

LEAKY = frozenset({"LeakyRelu", "PreluKernel", "RreluWithNoise"})
"""Rectifiers with a slope below zero."""

LARGEST = frozenset({"Maximum", "Fmax"})
"""The larger of two: of a value and zero, a rectifier."""

FLOORS = {"Threshold": "threshold", "Hardtanh": "min_val", "Clamp": "min", "ClampMin": "min"}
"""Rectifiers where this argument of theirs is zero."""

ACTIVATIONS = CURVES | LEAKY | {"Relu", "Hardtanh", "Clamp", "ClampMin"}
"""Activation functions applied to a tensor alone."""

ACTIVATION_FUNCTIONS = frozenset({"relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu"}) | {
    *("silu", "gelu", "mish", "softplus", "hardtanh", "hardswish"),
}
"""The same as functions of `torch.nn.functional`, which models call outside of any module."""

SQUASHING = frozenset({"Sigmoid", "Softmax", "LogSigmoid", "LogSoftmax"})
"""From logits to probabilities, or to their logarithms."""

GATES = frozenset({"Sigmoid", "Hardsigmoid", "LogSigmoid", "Tanh", "Hardshrink", "Softshrink"})
"""Activation functions that are nothing like a rectifier."""

NO_RECTIFIERS = CURVES | GATES | {"Hardtanh", "Glu"}
"""Activation functions that guided backpropagation leaves as they are; a hard tanh unless its floor is zero."""

ELEMENTWISE = ACTIVATIONS | GATES | COPIES | LARGEST | {
    *("Add", "Sub", "Mul", "Div", "Neg", "Exp", "Log", "Pow", "Sqrt", "Rsqrt", "Abs"),
    *("Minimum", "Where", "Threshold", "NativeDropout"),
}  # fmt: skip
"""Each value of the result is made from the values at its own place alone."""

NORMS_OF_CHANNELS = frozenset({"NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "NativeGroupNorm"})
"""Norms that leave every value at its place."""

OF_PLACES = ELEMENTWISE | NORMS_OF_CHANNELS | VIEWS | JOINS | {"Mean", "Sum", "Amax", "Max"}
"""Where the grid keeps its shape and its axes, what each cell sees is what it saw before."""

AVERAGING = FOLDS | {
    *("Mean", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "AvgPool2D", "AvgPool3D", "MkldnnAdaptiveAvgPool2D"),
    *("Squeeze", "Clone", "Alias"),
}
"""From a grid to its mean, without a change to anything but the shape."""

LINEAR = frozenset({"Addmm", "Mm"})
"""Products of a matrix and a weight."""

PRODUCTS = frozenset({"Bmm", "Baddbmm"})
"""Products of two tensors, one pair of matrices at a time."""

PICKS = frozenset({"Index", "IndexSelect", "Gather", "IndexPut", "MaskedScatter", "MaskedSelect"})
"""Some of the values, or values among others, in an order that only the index knows."""

UPSAMPLING = frozenset(
    f"Upsample{how}{rank}D"
    for how, ranks in {"Nearest": "123", "NearestExact": "123", "Linear": "1", "Bilinear": "2", "Bicubic": "2"}.items()
    for rank in ranks
) | {"UpsampleTrilinear3D", "UpsampleBilinear2DAa", "UpsampleBicubic2DAa"}

CHANNELS_FIRST = re.compile("Convolution|BatchNorm|GroupNorm|MaxPool|AvgPool|Upsample")
"""Operations whose second axis is the channels'."""

POOLS = re.compile(r"(MaxPool\dD\w*|AvgPool\dD)")
"""Poolings with a window; of the adaptive ones, each cell has a window of its own."""

PADS = re.compile(r"(ConstantPadNd|ReflectionPad\dD|ReplicationPad\dD)")
"""Values added around the grid."""

WEIGHTED = re.compile(r"(?!Upsample).*(Conv|[Mm]m|Linear|ScaledDotProduct|Attention|Rnn|Lstm|Gru)")
"""Operations that mix values with weights, of any backend."""
