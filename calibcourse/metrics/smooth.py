"""Smooth calibration error smECE: residuals smoothed at the scale of the error itself."""

import math

import torch
from torch import Tensor

from .._checks import check_logits_and_target
from .._devices import where_float64_is
from .scores import scores

# Cells of the grid that carries the residuals; halvings of [0, 1], after which σ is right to 1e-9.
_N_CELLS = 1 << 14
_N_BISECTIONS = 30


@where_float64_is
def smooth_calibration_error(logits: Tensor, target: Tensor) -> Tensor:
    """smECE, the smooth ECE of Błasiok and Nakkiran 2023 (arXiv 2309.12236): no bins, no parameter.

    The residuals, as a signed measure on [0, 1], are smoothed by a Gaussian of width σ that is
    reflected at both ends; smECE_σ is the integral of the absolute value. It falls as σ grows, and
    smECE is its one fixed point, smECE_σ = σ: the error is judged at the scale of its own size. It
    is continuous in the confidences, as no binned error is, and small exactly when a calibrated
    model is near (their "consistent calibration measure"). It is what the package relplot reports;
    the "smooth calibration error" smCE, a supremum over Lipschitz functions, is another quantity.

    Cost: one pass over the logits, then 30 Fourier transforms of fixed length. Each residual is
    shared between the two nearest of 16,384 cells: where σ is above 1e-3 this changes the result by
    less than 1e-3 of itself; where it is below 1e-4 the cells, not σ, decide what is averaged.
    Deterministic.

    Args:
        logits: (N, K), K >= 2, any floating dtype.
        target: (N,) int64 labels in 0..K-1.

    Returns:
        0-dim float64 tensor in [0, 1].

    Raises:
        ValueError, TypeError: empty, misshapen or non-finite logits; labels that do not fit.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [1.5, 0.0], [0.0, 0.1], [3.0, 0.0]])
        >>> smooth_calibration_error(logits, torch.tensor([0, 1, 1, 0]))
        tensor(0.1686, dtype=torch.float64)
    """
    check_logits_and_target(logits, target)
    cells = torch.zeros(_N_CELLS, dtype=torch.float64, device=logits.device)
    for confidence, residual, _ in scores(logits, target):
        _share_between_cells(cells, confidence.double(), residual)
    return _smooth_fixed_point(cells / len(logits))


def _share_between_cells(cells: Tensor, position: Tensor, mass: Tensor) -> None:
    """Add each mass at a position in [0, 1] to the two nearest cell centres, by distance.

    Beyond the outermost centres the neighbour is the cell's own reflection, so it takes all.
    """
    place = (position * len(cells) - 0.5).clamp(0, len(cells) - 1)
    left = place.floor().clamp(max=len(cells) - 2)
    right_share = (place - left) * mass
    left = left.long()
    cells.index_add_(0, left, mass - right_share)
    cells.index_add_(0, left + 1, right_share)


def _smooth_fixed_point(cells: Tensor) -> Tensor:
    """The σ at which the smoothed cells have absolute sum σ, by bisection.

    Smoothing is the heat kernel of the grid, e^{σ²Δ/2} with Δ the second difference: positive, so
    the sum can only fall as σ grows, as for the Gaussian it approaches. Mirroring the cells makes
    the reflection at both ends, and a Fourier transform makes Δ diagonal.
    """
    n_cells = len(cells)
    spectrum = torch.fft.rfft(torch.cat([cells, cells.flip(0)]))
    angle = torch.arange(n_cells + 1, dtype=torch.float64, device=cells.device) * math.pi / n_cells
    eigenvalue = 2 * (angle.cos() - 1) * n_cells**2

    def error(sigma: float) -> Tensor:
        smoothed = torch.fft.irfft(spectrum * torch.exp(eigenvalue * sigma**2 / 2), n=2 * n_cells)
        return smoothed[:n_cells].abs().sum()

    low, high = 0.0, 1.0
    for _ in range(_N_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if error(middle) > middle else (low, middle)
    return error(high)
