"""Too sharp, too sure: measure, explain and repair calibration while a network trains."""

from .attacks import RobustMargin, pgd, robust_margin
from .bounds import softmax_tail_bounds
from .curvature import (
    GaussNewton,
    Hessian,
    batch_sharpness,
    gauss_newton_sharpness,
    jacobian_grams,
    jacobian_norms,
    top_eigenpair,
    top_eigenpairs,
    trace,
)
from .data import Dataset, Split, load_dataset
from .losses import CrossEntropy, LossTerms
from .margins import (
    input_margin_gradient,
    linear_robust_margin,
    log_margin_moment,
    margin_moment,
    margin_moment_share,
    predicted_margin,
    true_margin,
    true_misconfidence,
)
from .metrics import (
    CalibrationError,
    accuracy,
    bootstrap_interval,
    brier_score,
    confidence_and_correct,
    expected_calibration_error,
    kernel_calibration_error,
    maximum_calibration_error,
    mean_confidence,
    mean_misconfidence,
    negative_log_likelihood,
    reliability_curve,
    smooth_calibration_error,
)
from .models import mlp, resnet20, small_cnn
from .optimizers import make_optimizer
from .posthoc import TemperatureScaling
from .probes import LogitProbe, SharpnessProbe, calibration_probe, margin_probe
from .training import History, default_device, even_steps, fit, log_steps, set_seed

__version__ = "0.1.0"

__all__ = [
    "CalibrationError",
    "CrossEntropy",
    "Dataset",
    "GaussNewton",
    "Hessian",
    "History",
    "LogitProbe",
    "LossTerms",
    "RobustMargin",
    "SharpnessProbe",
    "Split",
    "TemperatureScaling",
    "accuracy",
    "batch_sharpness",
    "bootstrap_interval",
    "brier_score",
    "calibration_probe",
    "confidence_and_correct",
    "default_device",
    "even_steps",
    "expected_calibration_error",
    "fit",
    "gauss_newton_sharpness",
    "input_margin_gradient",
    "jacobian_grams",
    "jacobian_norms",
    "kernel_calibration_error",
    "linear_robust_margin",
    "load_dataset",
    "log_margin_moment",
    "log_steps",
    "make_optimizer",
    "margin_moment",
    "margin_moment_share",
    "margin_probe",
    "maximum_calibration_error",
    "mean_confidence",
    "mean_misconfidence",
    "mlp",
    "negative_log_likelihood",
    "pgd",
    "predicted_margin",
    "reliability_curve",
    "resnet20",
    "robust_margin",
    "set_seed",
    "small_cnn",
    "smooth_calibration_error",
    "softmax_tail_bounds",
    "top_eigenpair",
    "top_eigenpairs",
    "trace",
    "true_margin",
    "true_misconfidence",
]
