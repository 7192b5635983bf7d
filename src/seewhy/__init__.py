"""Why did you say that? Heat maps that explain vision models, exact to their papers.

`e = seewhy.explain(model, images)`, then `e.map`, `e.notes`, `e[0].overlay()`.
"""

import types as _types
import typing as _typing

from seewhy.arrays import from_arrays as from_arrays
from seewhy.comparison import Comparison as Comparison
from seewhy.data.image import Photo as Photo
from seewhy.data.image import read as read
from seewhy.data.preprocess import Preprocess as Preprocess
from seewhy.ensemble import Flips as Flips
from seewhy.ensemble import Noise as Noise
from seewhy.ensemble import Scales as Scales
from seewhy.explain import compare as compare
from seewhy.explain import explain as explain
from seewhy.explain import layers as layers
from seewhy.explanation import Explanation as Explanation
from seewhy.facts import needs as needs
from seewhy.methods import ablation_cam as ablation_cam
from seewhy.methods import attention_rollout as attention_rollout
from seewhy.methods import best as best
from seewhy.methods import cam as cam
from seewhy.methods import chefer as chefer
from seewhy.methods import deconvnet as deconvnet
from seewhy.methods import dff as dff
from seewhy.methods import eigen_cam as eigen_cam
from seewhy.methods import eigen_grad_cam as eigen_grad_cam
from seewhy.methods import expected_grad_cam as expected_grad_cam
from seewhy.methods import factorize as factorize
from seewhy.methods import fem as fem
from seewhy.methods import full_grad as full_grad
from seewhy.methods import grad_cam as grad_cam
from seewhy.methods import grad_cam_elementwise as grad_cam_elementwise
from seewhy.methods import grad_cam_pp as grad_cam_pp
from seewhy.methods import grad_eclip as grad_eclip
from seewhy.methods import gradient_rollout as gradient_rollout
from seewhy.methods import group_cam as group_cam
from seewhy.methods import guided_backprop as guided_backprop
from seewhy.methods import guided_grad_cam as guided_grad_cam
from seewhy.methods import hires_cam as hires_cam
from seewhy.methods import input_x_gradient as input_x_gradient
from seewhy.methods import integrated_gradients as integrated_gradients
from seewhy.methods import is_cam as is_cam
from seewhy.methods import kpca_cam as kpca_cam
from seewhy.methods import layer_cam as layer_cam
from seewhy.methods import legrad as legrad
from seewhy.methods import occlusion as occlusion
from seewhy.methods import opti_cam as opti_cam
from seewhy.methods import recipro_cam as recipro_cam
from seewhy.methods import refine_cam as refine_cam
from seewhy.methods import rise as rise
from seewhy.methods import saliency as saliency
from seewhy.methods import score_cam as score_cam
from seewhy.methods import shapley_cam as shapley_cam
from seewhy.methods import sharp as sharp
from seewhy.methods import smooth_grad as smooth_grad
from seewhy.methods import smooth_grad_cam_pp as smooth_grad_cam_pp
from seewhy.methods import ss_cam as ss_cam
from seewhy.methods import winsor_cam as winsor_cam
from seewhy.methods import xgrad_cam as xgrad_cam
from seewhy.registry import METHODS as METHODS
from seewhy.saving import release as _release
from seewhy.targets.box import Box as Box
from seewhy.targets.classes import Logit as Logit
from seewhy.targets.classes import LogProbability as LogProbability
from seewhy.targets.classes import Probability as Probability
from seewhy.targets.classes import ReST as ReST
from seewhy.targets.detections import Candidates as Candidates
from seewhy.targets.ranked import Contrast as Contrast
from seewhy.targets.ranked import Rank as Rank
from seewhy.targets.region import Region as Region
from seewhy.targets.sentence import Sentence as Sentence
from seewhy.targets.similarity import Similarity as Similarity
from seewhy.targets.value import Value as Value
from seewhy.tiles import Tiled as Tiled
from seewhy.tiles import tiles as tiles
from seewhy.types import ImageError as ImageError
from seewhy.types import LayerError as LayerError
from seewhy.types import MapWarning as MapWarning
from seewhy.types import MethodError as MethodError
from seewhy.types import ModelError as ModelError
from seewhy.types import OutputError as OutputError
from seewhy.types import SeewhyError as SeewhyError
from seewhy.types import ShapeError as ShapeError
from seewhy.types import TargetError as TargetError
from seewhy.zoo import Loaded as Loaded
from seewhy.zoo import load as load

if _typing.TYPE_CHECKING:
    __version__: str
else:  # hidden from type checkers, to whom any other name would be right too

    def __getattr__(name: str) -> str:
        """The version, looked up when asked for: not every import shall pay for it."""
        if name == "__version__":
            return _release()
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names: neither what Python adds, nor the modules in which they stand."""
    public = [
        name for name, what in globals().items() if not (name.startswith("_") or isinstance(what, _types.ModuleType))
    ]
    return sorted([*public, "__version__"])
