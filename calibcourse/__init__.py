"""Too sharp, too sure: measure, explain and repair calibration while a network trains."""

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
from .probes import LogitProbe, calibration_probe, margin_probe
from .training import History, default_device, even_steps, fit, log_steps, set_seed

__version__ = "0.1.0"

__all__ = [
    "CalibrationError",
    "CrossEntropy",
    "Dataset",
    "History",
    "LogitProbe",
    "LossTerms",
    "Split",
    "TemperatureScaling",
    "accuracy",
    "bootstrap_interval",
    "brier_score",
    "calibration_probe",
    "confidence_and_correct",
    "default_device",
    "even_steps",
    "expected_calibration_error",
    "fit",
    "input_margin_gradient",
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
    "predicted_margin",
    "reliability_curve",
    "resnet20",
    "set_seed",
    "small_cnn",
    "smooth_calibration_error",
    "true_margin",
    "true_misconfidence",
]
