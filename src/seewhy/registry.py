"""All methods, one row each: what the command line, the documentation, the tests and the benchmarks iterate over."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from seewhy import methods
from seewhy.facts import PER_QUESTION, needs
from seewhy.types import Map, MethodError, Selection
from seewhy.wording import near


@dataclass(frozen=True)
class Method:
    """A formula and what a reader should know before trusting its maps."""

    function: Callable[..., Map]
    title: str
    year: int
    paper: str
    signed: bool
    """Whether the map may hold negative values, with default options."""
    weakness: str
    fusion: Literal["mean", "max_tanh"] = "mean"
    """How maps of several layers become one: see `ensemble.fuse`."""
    layers: Selection = "last"
    """The layers that it looks at where none is named."""
    relative: bool = False
    """Whether its values are of maps that were divided by their maximum, not in units of their own."""
    passes: str = ""
    """What it costs, where that does not follow from its needs."""

    @property
    def name(self) -> str:
        """The function's."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    @property
    def family(self) -> str:
        """What its evidence is: the module that it stands in, such as `gradient`."""
        return self.function.__module__.rpartition(".")[2]

    @property
    def class_specific(self) -> bool:
        """Whether the map depends on the question at all."""
        return bool(PER_QUESTION & set(needs(self.function)))

    @property
    def cost(self) -> str:
        """In forward and backward passes for one image; a pass back is only through what comes after the layer."""
        backward = ", 1 back" if "gradients" in needs(self.function) else ""
        return self.passes or f"1 forward{backward}"

    @staticmethod
    def of(function: Callable[..., Map]) -> "Method":
        """The row of a method given as a function; of a user's own function, a row that says what it is."""
        for row in METHODS.values():
            if row.function is function:
                return row
        own = Method(function, "", 0, "none: the caller's own function", True, "not checked against any paper")
        return replace(own, title=own.name)


_PACKAGE = "no publication; the definition of the pytorch-grad-cam package"

_ROWS = (
    Method(
        function=methods.cam,
        title="CAM",
        year=2016,
        paper="Zhou et al., CVPR 2016, arXiv:1512.04150",
        signed=True,
        weakness="only for networks that end in global average pooling and one linear layer",
    ),
    Method(
        function=methods.grad_cam,
        title="Grad-CAM",
        year=2017,
        paper="Selvaraju et al., ICCV 2017, arXiv:1610.02391",
        signed=False,
        weakness="averages the gradient over space, so it may mark places that the score does not depend on",
    ),
    Method(
        function=methods.grad_cam_pp,
        title="Grad-CAM++",
        year=2018,
        paper="Chattopadhay et al., WACV 2018, arXiv:1710.11063",
        signed=False,
        weakness="the picture changes with the scale of the logits, and may mark places the score does not depend on",
    ),
    Method(
        function=methods.xgrad_cam,
        title="XGrad-CAM",
        year=2020,
        paper="Fu et al., BMVC 2020, arXiv:2008.02312",
        signed=True,
        weakness="divides by each channel's sum, which may come near zero where activations are signed (GELU, SiLU)",
    ),
    Method(
        function=methods.hires_cam,
        title="HiResCAM",
        year=2020,
        paper="Draelos and Carin, 2020, arXiv:2011.08891",
        signed=True,
        weakness="blocky; sums to the score only for a linear or a bias-free piecewise linear network above the layer",
    ),
    Method(
        function=methods.layer_cam,
        title="LayerCAM",
        year=2021,
        paper="Jiang et al., IEEE Transactions on Image Processing 30, 2021",
        signed=False,
        fusion="max_tanh",
        weakness="leaves out all evidence against the class, so it does not sum to the score",
    ),
    Method(
        function=methods.grad_cam_elementwise,
        title="Element-wise Grad-CAM",
        year=2022,
        paper=_PACKAGE,
        signed=False,
        weakness="drops negative evidence channel by channel, so places where channels cancel look important",
    ),
    Method(
        function=methods.eigen_cam,
        title="Eigen-CAM",
        year=2020,
        paper="Muhammad and Yeasin, IJCNN 2020, arXiv:2008.00299",
        signed=True,
        weakness="the same map for every question, and dependent on the arbitrary scale of each channel",
    ),
    Method(
        function=methods.eigen_grad_cam,
        title="Eigen-Grad-CAM",
        year=2021,
        paper=_PACKAGE,
        signed=True,
        weakness="keeps the direction of largest spread, not the sum: its sign is a convention, its values no shares",
    ),
)

METHODS: dict[str, Method] = {row.name: row for row in _ROWS}
"""Every method by name."""


def find(name: str) -> Method:
    """The method of that name, in any spelling: "grad_cam_pp", "Grad-CAM++" and "gradcamplusplus" are one.

    Raises:
        MethodError: No such method; the closest names are listed.
    """
    if name in METHODS:
        return METHODS[name]
    spellings = {_letters(spelling): row for row in METHODS.values() for spelling in (row.name, row.title)}
    if (row := spellings.get(_letters(name))) is not None:
        return row
    spelled = near(_letters(name), spellings, 4)
    names = dict.fromkeys(spellings[spelling].name for spelling in spelled) or METHODS
    listed = ", ".join(repr(known) for known in names)
    raise MethodError(f"no method {name!r}; there are {len(METHODS)}, {'closest' if spelled else 'namely'} {listed}")


def _letters(name: str) -> str:
    """The letters of a name without case and separators, with "+" and "plus" spelled "p"."""
    return re.sub("[^a-z0-9]", "", name.lower().replace("plus", "p").replace("+", "p"))
