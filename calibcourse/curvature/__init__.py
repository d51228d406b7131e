"""Gauss–Newton curvature, exact and fast: operators, Lanczos, Jacobian norms, sharpness, trace."""

from .density import SpectralDensity, spectral_density
from .jacobian import jacobian_grams, jacobian_norms
from .lanczos import (
    ConvergenceWarning,
    Eigenpair,
    bottom_eigenpairs,
    top_eigenpair,
    top_eigenpairs,
    top_eigenvalue,
)
from .logit_hessian import (
    logit_gradient,
    logit_hessian,
    logit_hessian_factor,
    logit_hessian_product,
)
from .operators import GaussNewton, Hessian, MatrixOperator, SymmetricOperator
from .sharpness import WarmSharpness, batch_sharpness, gauss_newton_sharpness
from .traces import Trace, trace

__all__ = [
    "ConvergenceWarning",
    "Eigenpair",
    "GaussNewton",
    "Hessian",
    "MatrixOperator",
    "SpectralDensity",
    "SymmetricOperator",
    "Trace",
    "WarmSharpness",
    "batch_sharpness",
    "bottom_eigenpairs",
    "gauss_newton_sharpness",
    "jacobian_grams",
    "jacobian_norms",
    "logit_gradient",
    "logit_hessian",
    "logit_hessian_factor",
    "logit_hessian_product",
    "spectral_density",
    "top_eigenpair",
    "top_eigenpairs",
    "top_eigenvalue",
    "trace",
]
