"""Too sharp, too sure: measure, explain and repair calibration while a network trains."""

from .losses import CrossEntropy, LossTerms
from .models import mlp, resnet20, small_cnn

__version__ = "0.1.0"

__all__ = [
    "CrossEntropy",
    "LossTerms",
    "mlp",
    "resnet20",
    "small_cnn",
]
