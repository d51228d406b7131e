"""Robust margins, measured elsewhere, on their way into a bound."""

import torch
from torch import Tensor


def robust_or_clean(robust: Tensor | None, margin: Tensor) -> tuple[Tensor, str]:
    """Robust margins (the clean ones where there are none), and why they are missing, if so."""
    if robust is None:
        return margin, "needs robust_margins"
    if not isinstance(robust, Tensor):
        raise TypeError(f"robust_margins must be a torch.Tensor, got {type(robust).__name__}")
    if robust.shape != margin.shape:
        raise ValueError(
            f"robust_margins must have shape {tuple(margin.shape)}, got {tuple(robust.shape)}"
        )
    robust = robust.detach().to(margin)
    # Above the clean margin by more than float32 rounding: margins of other samples, or of another
    # model. (NaN fails this comparison too.)
    if not (robust <= margin + 1e-3 * (1 + margin.abs())).all():
        raise ValueError(
            "robust_margins must not exceed the clean margins: were they measured on the same "
            "samples, in the same order, with the same model?"
        )
    return torch.minimum(robust, margin), ""
