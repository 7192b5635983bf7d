"""The biases that a network adds on the way: those of its convolutions, batch norms and linear layers."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]

from seewhy.model.graph import kind
from seewhy.model.kinds import ACTIVATIONS
from seewhy.model.spot import Spot
from seewhy.model.trace import Trace


def biased(trace: Trace) -> dict[str, Spot]:
    """Where biases are added, by the name on the record: the outputs of modules that have one, as they ran."""
    found = {
        traced.name: traced.spot
        for outputs in trace.outputs.values()
        for traced in outputs
        if traced.spot.rectifier is None
        and traced.edge is not None
        and traced.edge[0] in trace.positions
        and kind(traced.edge[0]) not in ACTIVATIONS  # a norm that activates too puts out something else than it adds to
    }
    return {name: spot for name, spot in found.items() if implicit_bias(trace.modules[spot.module]) is not None}


def implicit_bias(module: nn.Module) -> Float[Tensor, " c"] | None:
    """What the module adds to each channel whatever its input; of a batch norm beta - mean gamma / sqrt(var + eps)."""
    if isinstance(module, _BatchNorm):
        if module.running_mean is None or module.running_var is None:
            return None
        gamma, beta = (module.weight, module.bias) if module.affine else (1.0, 0.0)
        return (beta - module.running_mean * gamma / (module.running_var + module.eps).sqrt()).detach()
    if isinstance(module, _ConvNd | nn.Linear) and module.bias is not None:
        return module.bias.detach()
    return None
