"""All methods, one row each: what the command line, the documentation, the tests and the benchmarks iterate over."""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from seewhy import methods
from seewhy.types import Map, MethodError


@dataclass(frozen=True)
class Method:
    """A formula and what a reader should know before trusting its maps."""

    name: str
    function: Callable[..., Map]
    title: str
    year: int
    paper: str
    family: Literal["activation", "gradient"]
    class_specific: bool
    """Whether the map depends on the question at all."""
    signed: bool
    """Whether the map may hold negative values, with default options."""
    cost: str
    forwards: int
    backwards: int
    fusion: Literal["mean", "max_tanh"]
    """How maps of several layers become one: see `ensemble.fuse`."""
    weakness: str
    ranks: str = "any"
    """The number of spatial axes of a layer's grid that it works on."""

    @staticmethod
    def of(function: Callable[..., Map]) -> "Method":
        """The row of a method given as a function; of a user's own function, a row that says what it is."""
        for row in METHODS.values():
            if row.function is function:
                return row
        name = str(getattr(function, "__name__", type(function).__name__))
        return Method(
            name=name,
            function=function,
            title=name,
            year=0,
            paper="none: the caller's own function",
            family="gradient",
            class_specific=True,
            signed=True,
            cost="unknown",
            forwards=1,
            backwards=1,
            fusion="mean",
            weakness="not checked against any paper",
        )


_FORWARD = "1 forward"
_BACKWARD = "1 forward + 1 backward through the layers above the chosen one"
_PACKAGE = "no publication; the definition of the pytorch-grad-cam package"

_ROWS = (
    Method(
        name="cam",
        function=methods.cam,
        title="CAM",
        year=2016,
        paper="Zhou et al., CVPR 2016, arXiv:1512.04150",
        family="activation",
        class_specific=True,
        signed=True,
        cost=_FORWARD,
        forwards=1,
        backwards=0,
        fusion="mean",
        weakness="only for networks that end in global average pooling and one linear layer",
    ),
    Method(
        name="grad_cam",
        function=methods.grad_cam,
        title="Grad-CAM",
        year=2017,
        paper="Selvaraju et al., ICCV 2017, arXiv:1610.02391",
        family="gradient",
        class_specific=True,
        signed=False,
        cost=_BACKWARD,
        forwards=1,
        backwards=1,
        fusion="mean",
        weakness="averages the gradient over space, so it may mark places that the score does not depend on",
    ),
    Method(
        name="grad_cam_pp",
        function=methods.grad_cam_pp,
        title="Grad-CAM++",
        year=2018,
        paper="Chattopadhay et al., WACV 2018, arXiv:1710.11063",
        family="gradient",
        class_specific=True,
        signed=False,
        cost=_BACKWARD,
        forwards=1,
        backwards=1,
        fusion="mean",
        weakness="the picture changes with the scale of the logits, and may mark places the score does not depend on",
    ),
    Method(
        name="xgrad_cam",
        function=methods.xgrad_cam,
        title="XGrad-CAM",
        year=2020,
        paper="Fu et al., BMVC 2020, arXiv:2008.02312",
        family="gradient",
        class_specific=True,
        signed=True,
        cost=_BACKWARD,
        forwards=1,
        backwards=1,
        fusion="mean",
        weakness="divides by each channel's sum, which may come near zero where activations are signed (GELU, SiLU)",
    ),
    Method(
        name="hires_cam",
        function=methods.hires_cam,
        title="HiResCAM",
        year=2020,
        paper="Draelos and Carin, 2020, arXiv:2011.08891",
        family="gradient",
        class_specific=True,
        signed=True,
        cost=_BACKWARD,
        forwards=1,
        backwards=1,
        fusion="mean",
        weakness="blocky; sums to the score only for a linear or a bias-free piecewise linear network above the layer",
    ),
    Method(
        name="layer_cam",
        function=methods.layer_cam,
        title="LayerCAM",
        year=2021,
        paper="Jiang et al., IEEE Transactions on Image Processing 30, 2021",
        family="gradient",
        class_specific=True,
        signed=False,
        cost=_BACKWARD,
        forwards=1,
        backwards=1,
        fusion="max_tanh",
        weakness="leaves out all evidence against the class, so it does not sum to the score",
    ),
    Method(
        name="grad_cam_elementwise",
        function=methods.grad_cam_elementwise,
        title="Element-wise Grad-CAM",
        year=2022,
        paper=_PACKAGE,
        family="gradient",
        class_specific=True,
        signed=False,
        cost=_BACKWARD,
        forwards=1,
        backwards=1,
        fusion="mean",
        weakness="drops negative evidence channel by channel, so places where channels cancel look important",
    ),
    Method(
        name="eigen_cam",
        function=methods.eigen_cam,
        title="Eigen-CAM",
        year=2020,
        paper="Muhammad and Yeasin, IJCNN 2020, arXiv:2008.00299",
        family="activation",
        class_specific=False,
        signed=True,
        cost=_FORWARD,
        forwards=1,
        backwards=0,
        fusion="mean",
        weakness="the same map for every question, and dependent on the arbitrary scale of each channel",
    ),
    Method(
        name="eigen_grad_cam",
        function=methods.eigen_grad_cam,
        title="Eigen-Grad-CAM",
        year=2021,
        paper=_PACKAGE,
        family="gradient",
        class_specific=True,
        signed=True,
        cost=_BACKWARD,
        forwards=1,
        backwards=1,
        fusion="mean",
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
    close = difflib.get_close_matches(_letters(name), spellings, n=4)
    names = dict.fromkeys(spellings[spelling].name for spelling in close) or METHODS
    listed = ", ".join(repr(known) for known in names)
    raise MethodError(f"no method {name!r}; there are {len(METHODS)}, {'closest' if close else 'namely'} {listed}")


def _letters(name: str) -> str:
    """The letters of a name without case and separators, with "+" and "plus" spelled "p"."""
    return re.sub("[^a-z0-9]", "", name.lower().replace("plus", "p").replace("+", "p"))
