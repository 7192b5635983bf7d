"""All methods, one row each: what the command line, the documentation, the tests and the benchmarks iterate over."""

import re
from collections.abc import Callable
from dataclasses import replace

from seewhy import methods
from seewhy.delegates.listed import DELEGATES, delegate
from seewhy.ensemble import Flips, Scales
from seewhy.method import Method
from seewhy.methods.layers import full_grad_residual
from seewhy.methods.pixel import completeness_residual
from seewhy.types import Map, MethodError
from seewhy.wording import near

_PACKAGE = "no publication; the definition of the pytorch-grad-cam package"

_ROWS = (
    # activations alone
    Method(
        methods.cam,
        "CAM",
        2016,
        "Zhou et al., CVPR 2016, arXiv:1512.04150",
        signed=True,
        weakness="only for networks that end in global average pooling and one linear layer",
    ),
    Method(
        methods.eigen_cam,
        "Eigen-CAM",
        2020,
        "Muhammad and Yeasin, IJCNN 2020, arXiv:2008.00299",
        signed=True,
        weakness="the same map for every question, and dependent on the arbitrary scale of each channel",
    ),
    Method(
        methods.kpca_cam,
        "KPCA-CAM",
        2024,
        "Karmani et al., 2024, arXiv:2410.00267",
        signed=True,
        weakness="the same map for every question, dependent on the activations' scale; slow on grids beyond 28x28",
    ),
    Method(
        methods.fem,
        "FEM",
        2020,
        "Fuad et al., IPTA 2020",
        signed=True,
        weakness="the same map for every question; its thresholds make a channel count fully or not at all",
    ),
    # gradients at a layer
    Method(
        methods.grad_cam,
        "Grad-CAM",
        2017,
        "Selvaraju et al., ICCV 2017, arXiv:1610.02391",
        signed=False,
        weakness="averages the gradient over space, so it may mark places that the score does not depend on",
    ),
    Method(
        methods.grad_cam_pp,
        "Grad-CAM++",
        2018,
        "Chattopadhay et al., WACV 2018, arXiv:1710.11063",
        signed=False,
        weakness="the picture changes with the scale of the logits, and may mark places the score does not depend on",
    ),
    Method(
        methods.xgrad_cam,
        "XGrad-CAM",
        2020,
        "Fu et al., BMVC 2020, arXiv:2008.02312",
        signed=True,
        weakness="divides by each channel's sum, which may come near zero where activations are signed (GELU, SiLU)",
    ),
    Method(
        methods.hires_cam,
        "HiResCAM",
        2020,
        "Draelos and Carin, 2020, arXiv:2011.08891",
        signed=True,
        weakness="blocky; sums to the score only for a linear or a bias-free piecewise linear network above the layer",
    ),
    Method(
        methods.layer_cam,
        "LayerCAM",
        2021,
        "Jiang et al., IEEE Transactions on Image Processing 30, 2021",
        signed=False,
        fusion="max_tanh",
        weakness="leaves out all evidence against the class, so it does not sum to the score",
    ),
    Method(
        methods.grad_cam_elementwise,
        "Element-wise Grad-CAM",
        2022,
        _PACKAGE,
        signed=False,
        weakness="drops negative evidence channel by channel, so places where channels cancel look important",
    ),
    Method(
        methods.eigen_grad_cam,
        "Eigen-Grad-CAM",
        2021,
        _PACKAGE,
        signed=True,
        weakness="keeps the direction of largest spread, not the sum: its sign is a convention, its values no shares",
    ),
    Method(
        methods.shapley_cam,
        "ShapleyCAM",
        2025,
        "Cai, 2025, arXiv:2501.06261",
        signed=False,
        passes="1 forward, 2 back",
        weakness="the same as Grad-CAM for the logits of networks of rectifiers; a second pass back for nothing there",
    ),
    Method(
        methods.smooth_grad_cam_pp,
        "Smooth Grad-CAM++",
        2019,
        "Omeiza et al., 2019, arXiv:1908.01224",
        signed=False,
        passes="50 forwards, 50 back",
        weakness="a pass forward and back for each sample; not linear in the score, as Grad-CAM++",
    ),
    Method(
        methods.expected_grad_cam,
        "Expected Grad-CAM",
        2024,
        "Buono et al., 2024, arXiv:2406.01274",
        signed=False,
        passes="50 forwards, 50 back",
        weakness="our reading of the paper's abstract, not checked against its equations",
    ),
    Method(
        methods.dff,
        "Deep feature factorization",
        2018,
        "Collins et al., ECCV 2018, arXiv:1806.10206",
        signed=False,
        batchwise=True,
        weakness="depends on the batch and on the number of concepts; what no concept covers is left out",
    ),
    # several layers
    Method(
        methods.winsor_cam,
        "Winsor-CAM",
        2025,
        "Wall et al., TPAMI 2026, arXiv:2507.10846",
        signed=False,
        layers="convolutions",
        relative=True,
        weakness="ranks layers by their mean gradient, which depends on the arbitrary scale of their activations",
    ),
    Method(
        methods.refine_cam,
        "RefineCAM",
        2026,
        "Domeniconi et al., 2026, arXiv:2605.14641",
        signed=False,
        layers="pair",
        relative=True,
        weakness="one layer that misses a place erases it, and a layer without a positive value erases everything",
    ),
    Method(
        methods.full_grad,
        "FullGrad",
        2019,
        "Srinivas and Fleuret, NeurIPS 2019, arXiv:1905.00780",
        signed=False,
        relative=True,
        weakness="signs are lost: evidence against the class looks like evidence for it",
        residual=full_grad_residual,
    ),
    Method(
        methods.sharp,
        "sharp (our preset)",
        2026,
        "none: ours; measured in docs/quality.md",
        signed=False,
        layers="pair",
        relative=True,
        weakness="says where, not how much; evidence that only one of its layers sees is lost",
    ),
    Method(
        methods.best,
        "best (our preset)",
        2026,
        "none: ours; measured in docs/quality.md",
        signed=False,
        layers="pair",
        relative=True,
        ensemble=(Flips((-1,)), Scales((1.0, 2.0))),
        passes="11 to 16 forwards, 4 back",
        weakness="ten times the cost of sharp for a little more",
    ),
    # changed images and activations
    Method(
        methods.score_cam,
        "Score-CAM",
        2020,
        "Wang et al., CVPRW 2020, arXiv:1910.01279",
        signed=False,
        passes="1 forward for each channel",
        weakness="its softmax over channels is almost one-hot or almost uniform, as the logits' scale has it",
    ),
    Method(
        methods.ss_cam,
        "SS-CAM",
        2020,
        "Wang et al., 2020, arXiv:2006.14255",
        signed=False,
        passes="10 forwards for each channel",
        weakness="noise of that size leaves little of the image to recognize; ten times the cost of Score-CAM",
    ),
    Method(
        methods.is_cam,
        "IS-CAM",
        2020,
        "Naidu et al., 2020, arXiv:2010.03023",
        signed=False,
        passes="10 forwards for each channel",
        weakness="ten times the cost of Score-CAM for weights that hardly differ from its",
    ),
    Method(
        methods.group_cam,
        "Group-CAM",
        2021,
        "Zhang et al., 2021, arXiv:2103.13859",
        signed=False,
        passes="33 forwards, 1 back",
        weakness="which channels share a group is an accident of their order in the network",
    ),
    Method(
        methods.opti_cam,
        "Opti-CAM",
        2024,
        "Zhang et al., CVIU 2024, arXiv:2301.07002",
        signed=False,
        passes="100 forwards, 100 back",
        weakness="the mask that pleases the network most need not be what it used",
    ),
    Method(
        methods.ablation_cam,
        "Ablation-CAM",
        2020,
        "Desai and Ramaswamy, WACV 2020",
        signed=False,
        passes="1 tail for each channel",
        weakness="a channel that another can stand in for counts as nothing; zero is nothing special to signed ones",
    ),
    Method(
        methods.recipro_cam,
        "Recipro-CAM",
        2024,
        "Byun and Lee, CVPRW 2024, arXiv:2209.14074",
        signed=False,
        relative=True,
        passes="1 tail for each cell",
        weakness="a place alone is nothing the network ever saw; stretched even where the scores hardly differ",
    ),
    Method(
        methods.rise,
        "RISE",
        2018,
        "Petsiuk et al., BMVC 2018, arXiv:1806.07421",
        signed=True,
        passes="4000 forwards",
        weakness="carries the noise of its sample of masks: another seed, another texture",
    ),
    Method(
        methods.occlusion,
        "Occlusion",
        2014,
        "Zeiler and Fergus, ECCV 2014, arXiv:1311.2901",
        signed=True,
        passes="1 forward for each patch",
        weakness="depends on size and color of the patch, which is itself something to see",
    ),
    # tokens
    Method(
        methods.attention_rollout,
        "Attention rollout",
        2020,
        "Abnar and Zuidema, ACL 2020, arXiv:2005.00928",
        signed=False,
        layers="tokens",
        passes="1 forward, 1 back",
        weakness="the same map for all questions that read the same tokens: where a model looks, not what for",
    ),
    Method(
        methods.gradient_rollout,
        "Gradient rollout",
        2020,
        "no publication; the definition of the vit-explain package",
        signed=False,
        layers="tokens",
        weakness="not linear in the score: beside a fixed identity, doubling the logits changes the picture",
    ),
    Method(
        methods.chefer,
        "Chefer's relevance",
        2021,
        "Chefer, Gur and Wolf, ICCV 2021, arXiv:2103.15679",
        signed=False,
        layers="tokens",
        weakness="follows attention only: leaves out the rest of each block, and evidence against the class",
    ),
    Method(
        methods.legrad,
        "LeGrad",
        2024,
        "Bousselham et al., 2024, arXiv:2404.03214",
        signed=False,
        layers="tokens",
        passes="2 forwards, 3 back",
        weakness="sensitivity, not attention; early blocks answer through a head that was never trained on them",
    ),
    Method(
        methods.grad_eclip,
        "Grad-ECLIP",
        2024,
        "Zhao et al., ICML 2024; extended, arXiv:2502.18816",
        signed=False,
        layers="tokens",
        weakness="sees the last block only, where tokens are already mixed",
    ),
    # pixels
    Method(
        methods.saliency,
        "Saliency",
        2014,
        "Simonyan et al., ICLR 2014 workshop, arXiv:1312.6034",
        signed=False,
        weakness="noisy, and blind to what no small change moves",
    ),
    Method(
        methods.input_x_gradient,
        "Input x gradient",
        2016,
        "Shrikumar et al., 2016, arXiv:1605.01713",
        signed=True,
        weakness="pixels of the mean color count for nothing, however much the score depends on them",
    ),
    Method(
        methods.integrated_gradients,
        "Integrated gradients",
        2017,
        "Sundararajan et al., ICML 2017, arXiv:1703.01365",
        signed=True,
        passes="50 forwards, 50 back",
        weakness="depends on the baseline: what has its color gets no share",
        residual=completeness_residual,
    ),
    Method(
        methods.smooth_grad,
        "SmoothGrad",
        2017,
        "Smilkov et al., 2017, arXiv:1706.03825",
        signed=False,
        passes="50 forwards, 50 back",
        weakness="answers for a blurred score, whose blur is a choice",
    ),
    Method(
        methods.guided_backprop,
        "Guided backpropagation",
        2015,
        "Springenberg et al., ICLR 2015 workshop, arXiv:1412.6806",
        signed=False,
        passes="1 forward, 2 back",
        weakness="looks like an edge detector: much the same for every class, and for random weights",
    ),
    Method(
        methods.deconvnet,
        "Deconvnet",
        2014,
        "Zeiler and Fergus, ECCV 2014, arXiv:1311.2901",
        signed=False,
        passes="1 forward, 2 back",
        weakness="looks like an edge detector: much the same for every class, and hardly dependent on the image",
    ),
    Method(
        methods.guided_grad_cam,
        "Guided Grad-CAM",
        2017,
        "Selvaraju et al., ICCV 2017, arXiv:1610.02391",
        signed=False,
        passes="1 forward, 3 back",
        weakness="its fine detail is guided backpropagation's: edges, insensitive to the weights",
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
    if name.lower().startswith("captum:"):
        return delegate(name)
    spellings = {_letters(spelling): row for row in METHODS.values() for spelling in (row.name, row.title)}
    if (row := spellings.get(_letters(name))) is not None:
        return row
    spelled = near(_letters(name), spellings, 4)
    names = dict.fromkeys(spellings[spelling].name for spelling in spelled) or METHODS
    listed = ", ".join(repr(known) for known in names)
    raise MethodError(f"no method {name!r}; there are {len(METHODS)}, {'closest' if spelled else 'namely'} {listed}")


def row_of(function: Callable[..., Map]) -> Method:
    """The row of a method given as a function; of a user's own function, a row that says what it is."""
    for row in (*METHODS.values(), *DELEGATES.values()):
        if row.function is function:
            return row
    own = Method(function, "", 0, "none: the caller's own function", True, "not checked against any paper")
    return replace(own, title=own.name)


def _letters(name: str) -> str:
    """The letters of a name without case and separators, with "+" and "plus" spelled "p"."""
    return re.sub("[^a-z0-9]", "", name.lower().replace("plus", "p").replace("+", "p"))
