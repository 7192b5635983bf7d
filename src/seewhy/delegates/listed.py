"""The rows of the methods that are Captum's."""

from collections.abc import Mapping
from types import MappingProxyType

from seewhy.delegates import patches, pixels
from seewhy.delegates.lending import library
from seewhy.method import Method
from seewhy.types import MethodError

_ROWS = (
    Method(
        patches.lime,
        "LIME",
        2016,
        "Ribeiro et al., KDD 2016, arXiv:1602.04938",
        signed=True,
        passes="1000 forwards",
        library="captum",
        weakness="depends on patches, penalty and kernel; the linear model that it shows may fit badly",
    ),
    Method(
        patches.kernel_shap,
        "KernelSHAP",
        2017,
        "Lundberg and Lee, NeurIPS 2017, arXiv:1705.07874",
        signed=True,
        passes="2146 forwards",
        library="captum",
        weakness="patches hidden at random leave images that the network never saw; carries the noise of its sample",
    ),
    Method(
        patches.shapley_sampling,
        "Shapley value sampling",
        2009,
        "Castro et al., Computers and Operations Research 36, 2009",
        signed=True,
        passes="1250 forwards",
        library="captum",
        weakness="patches hidden at random leave images that the network never saw; carries the noise of its sample",
    ),
    Method(
        pixels.gradient_shap,
        "GradientSHAP",
        2017,
        "Lundberg and Lee, NeurIPS 2017, arXiv:1705.07874",
        signed=True,
        passes="200 forwards, 200 back",
        library="captum",
        pixels=True,
        weakness="depends on the references; of a single one it is integrated gradients at random places",
    ),
    Method(
        pixels.deep_lift,
        "DeepLIFT",
        2017,
        "Shrikumar et al., ICML 2017, arXiv:1704.02685",
        signed=True,
        passes="4 forwards, 2 back",
        library="captum",
        pixels=True,
        weakness="depends on the baseline; takes what is no module of a known kind as linear (ReLU6, F.relu, GELU)",
    ),
    Method(
        pixels.deep_lift_shap,
        "DeepLIFT SHAP",
        2017,
        "Lundberg and Lee, NeurIPS 2017, arXiv:1705.07874",
        signed=True,
        passes="8 forwards, 4 back",
        library="captum",
        pixels=True,
        weakness="as DeepLIFT; and the references are the caller's to choose",
    ),
    Method(
        pixels.lrp,
        "LRP",
        2015,
        "Bach et al., PLoS ONE 10, 2015",
        signed=True,
        passes="2 forwards, 1 back",
        library="captum",
        pixels=True,
        weakness="near input times gradient, as noisy; additions and activations that are no modules have no rule",
    ),
)

DELEGATES: Mapping[str, Method] = MappingProxyType({row.name: row for row in _ROWS})
"""Every method of Captum's that is handed on, by name."""


def delegate(name: str) -> Method:
    """The method of that name, such as "captum:lime", if Captum is there.

    Raises:
        MethodError: No such method, or no Captum.
    """
    row = DELEGATES.get(name.lower().replace("-", "_").replace(" ", "_"))
    if row is None:
        raise MethodError(f"no method {name!r}; of Captum's there are {', '.join(map(repr, DELEGATES))}")
    library(row.name.partition(":")[2])
    return row
