"""Formulas from facts to a map: pure functions of tensors that know no model and no module.

A method's positional parameters are the facts it needs, its keyword-only parameters the options, with the paper's
defaults. Maps come raw: the layer's resolution, no scaling to 0..1, no colors.
"""

from seewhy.methods.activation import cam, eigen_cam
from seewhy.methods.gradient import (
    eigen_grad_cam,
    grad_cam,
    grad_cam_elementwise,
    grad_cam_pp,
    hires_cam,
    layer_cam,
    xgrad_cam,
)

__all__ = [
    "cam",
    "eigen_cam",
    "eigen_grad_cam",
    "grad_cam",
    "grad_cam_elementwise",
    "grad_cam_pp",
    "hires_cam",
    "layer_cam",
    "xgrad_cam",
]
