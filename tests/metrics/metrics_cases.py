"""What the tests of metrics share."""

import torch

from calibcourse.metrics import (
    accuracy,
    brier_score,
    expected_calibration_error,
    kernel_calibration_error,
    maximum_calibration_error,
    mean_confidence,
    mean_misconfidence,
    negative_log_likelihood,
    smooth_calibration_error,
)

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


SCALARS = {
    function.__name__: function
    for function in (
        accuracy,
        mean_confidence,
        mean_misconfidence,
        negative_log_likelihood,
        brier_score,
        expected_calibration_error,
        maximum_calibration_error,
        kernel_calibration_error,
        smooth_calibration_error,
    )
}


def sample(n_samples, n_classes=10, seed=0, scale=3.0, dtype=torch.float32):
    """Logits of a model that is too sure by about a third, with labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n_samples, n_classes, generator=generator, dtype=torch.float64)
    target = torch.multinomial((logits / 1.5).softmax(1), 1, generator=generator)[:, 0]
    return logits.to(dtype), target
