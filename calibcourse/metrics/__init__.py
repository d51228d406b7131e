"""Calibration of a classifier, measured from its logits.

Notation (THEORY.md 1): p = softmax(z), ŷ = argmax z (the lowest index on a tie), confidence
c = p_ŷ, misconfidence 1 - c = Σ_{j≠ŷ} p_j. Per sample the **residual** is
1{ŷ = y} - c: calibrated means that residuals average to zero among samples of equal confidence.
Where they average to something negative the model is over-confident.

Two habits run through the files. Samples are read in blocks that fit the processor's cache, so that
no N × K array of probabilities is ever written. And 1 - c is never a subtraction: with
s = Σ_{j≠ŷ} e^{z_j - z_ŷ} it is s/(1+s), right to the last digits where 1 - c would round to 0.

Results are float64 on the device of the logits (on the CPU for Apple's MPS, which has no float64);
no gradient flows through a measurement.
"""

from .binned import (
    ReliabilityCurve,
    debiased_ece,
    ece_of_confidence,
    expected_calibration_error,
    maximum_calibration_error,
    reliability_curve,
    reliability_of_confidence,
)
from .comparison import Comparison, compare_models, paired_difference
from .decomposition import BrierDecomposition, brier_decomposition
from .intervals import Interval, bootstrap_interval, wilson_interval
from .kernel import kernel_calibration_error
from .means import (
    accuracy,
    brier_score,
    mean_confidence,
    mean_misconfidence,
    negative_log_likelihood,
)
from .noise import NoiseFloor, noise_floor
from .per_class import (
    ClassOverConfidence,
    class_over_confidence,
    classwise_calibration_error,
    over_confidence_by_class,
    top_label_calibration_error,
)
from .scores import confidence_and_correct, predicted_class
from .smooth import smooth_calibration_error
from .streaming import CalibrationError, CalibrationSummary

__all__ = [
    "BrierDecomposition",
    "CalibrationError",
    "CalibrationSummary",
    "ClassOverConfidence",
    "Comparison",
    "Interval",
    "NoiseFloor",
    "ReliabilityCurve",
    "accuracy",
    "bootstrap_interval",
    "brier_decomposition",
    "brier_score",
    "class_over_confidence",
    "classwise_calibration_error",
    "compare_models",
    "confidence_and_correct",
    "debiased_ece",
    "ece_of_confidence",
    "expected_calibration_error",
    "kernel_calibration_error",
    "maximum_calibration_error",
    "mean_confidence",
    "mean_misconfidence",
    "negative_log_likelihood",
    "noise_floor",
    "over_confidence_by_class",
    "paired_difference",
    "predicted_class",
    "reliability_curve",
    "reliability_of_confidence",
    "smooth_calibration_error",
    "top_label_calibration_error",
    "wilson_interval",
]
