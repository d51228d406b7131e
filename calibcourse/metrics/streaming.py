"""ECE over a stream of batches, merged between workers, in constant memory."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor

from .._checks import check_logits_and_target
from .._devices import where_float64_is
from .binned import (
    ReliabilityCurve,
    curve,
    equal_width_edges,
    equal_width_totals,
    expected_error,
    maximum_error,
)


@dataclass(frozen=True, eq=False)
class CalibrationSummary:
    """What `CalibrationError.compute` returns: plain numbers and the curve behind them."""

    expected_calibration_error: float
    maximum_calibration_error: float
    accuracy: float
    mean_confidence: float
    count: int
    curve: ReliabilityCurve

    def __repr__(self) -> str:
        return (
            f"CalibrationSummary(expected_calibration_error={self.expected_calibration_error:.4f}, "
            f"maximum_calibration_error={self.maximum_calibration_error:.4f}, "
            f"accuracy={self.accuracy:.4f}, mean_confidence={self.mean_confidence:.4f}, "
            f"count={self.count})"
        )


class CalibrationError:
    """ECE and its companions over a stream of batches, in O(n_bins) float64 state.

    Batches of any sizes give what one call on all samples gives. Which bin a sample falls in, the
    counts and the accuracy are identical to the last bit; the summed residuals agree to float64
    rounding (about 1e-15 relative), because residuals span many magnitudes and addition rounds in
    the order of arrival.

    Args:
        n_bins: M, at least 1; equal-width bins as in `reliability_curve`.

    Raises:
        ValueError, TypeError: n_bins is not an int of at least 1.

    Example:
        >>> metric = CalibrationError(n_bins=10)
        >>> for batch in (torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0], [3.0, 0.0]])):
        ...     _ = metric.update(batch, torch.zeros(len(batch), dtype=torch.int64))
        >>> metric.compute()  # doctest: +NORMALIZE_WHITESPACE
        CalibrationSummary(expected_calibration_error=0.2992, maximum_calibration_error=0.7311,
        accuracy=0.6667, mean_confidence=0.8548, count=3)
    """

    def __init__(self, n_bins: int = 15):
        self._edges = equal_width_edges(n_bins)
        self.reset()

    def reset(self) -> "CalibrationError":
        """Forget every sample; returns self."""
        self._totals = torch.zeros(3, len(self._edges) - 1, dtype=torch.float64, device="cpu")
        return self

    @where_float64_is
    def update(self, logits: Tensor, target: Tensor) -> "CalibrationError":
        """Add a batch; returns self.

        Args:
            logits: (N, K), K >= 2, any floating dtype and device; K may differ between batches.
            target: (N,) int64 labels in 0..K-1.

        Raises:
            ValueError, TypeError: as in `expected_calibration_error`; the state is then unchanged.
        """
        check_logits_and_target(logits, target)
        return self._add(equal_width_totals(logits, target, self._edges))

    def merge(self, other: "CalibrationError") -> "CalibrationError":
        """Add the samples that another one has seen, on another worker say; returns self.

        Args:
            other: a `CalibrationError` with the same n_bins; it stays as it is.

        Raises:
            TypeError: other is something else.
            ValueError: other has another number of bins.
        """
        if not isinstance(other, CalibrationError):
            raise TypeError(f"other must be a CalibrationError, got {type(other).__name__}")
        if len(other._edges) != len(self._edges):
            raise ValueError(
                f"other must have n_bins = {len(self._edges) - 1}, got {len(other._edges) - 1}"
            )
        return self._add(other._totals)

    def all_reduce(self, group: torch.distributed.ProcessGroup | None = None) -> "CalibrationError":
        """The samples of all workers of `torch.distributed`, as a new one on each of them.

        Every worker must call it; one that has seen no sample adds none. This one stays as it is,
        so that training can go on and reduce again.

        Args:
            group: the workers; None takes all.

        Raises:
            RuntimeError: `torch.distributed.init_process_group` has not been called.
            ValueError: the workers differ in n_bins; raised on all of them.
        """
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            raise RuntimeError("call torch.distributed.init_process_group before all_reduce()")
        n_bins = len(self._edges) - 1
        nccl = "nccl" in torch.distributed.get_backend(group)
        device = torch.device("cuda") if nccl else torch.device("cpu")
        extremes = torch.tensor([n_bins, -n_bins], device=device)
        torch.distributed.all_reduce(extremes, torch.distributed.ReduceOp.MAX, group=group)
        if extremes[0] != -extremes[1]:
            raise ValueError(
                f"n_bins must be the same on all workers, got {-extremes[1]} to {extremes[0]}"
            )
        whole = CalibrationError(n_bins)
        whole._totals = self._totals.to(device, copy=True)
        torch.distributed.all_reduce(whole._totals, group=group)
        return whole

    def state_dict(self) -> dict[str, Tensor]:
        """The state as a tensor that `torch.save` writes and `load_state_dict` takes back."""
        return {"totals": self._totals.cpu().clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> "CalibrationError":
        """Take over a state that `state_dict` gave; returns self, unchanged where it is refused.

        Args:
            state: of a `CalibrationError` with the same n_bins.

        Raises:
            ValueError: no such state, of another number of bins, or impossible counts.
        """
        totals = state.get("totals")
        wanted = self._totals.shape
        if not isinstance(totals, Tensor) or totals.dtype != torch.float64:
            raise ValueError("state must hold 'totals', float64, as state_dict() gives it")
        if totals.shape != wanted:
            raise ValueError(f"totals must have shape {tuple(wanted)}, got {tuple(totals.shape)}")
        count, n_correct, residual = totals
        whole = (totals[:2] == totals[:2].floor()).all() and (n_correct >= 0).all()
        if not (whole and (n_correct <= count).all() and (residual.abs() <= count).all()):
            raise ValueError("totals must be counts of samples and their residuals: state damaged")
        self._totals = totals.detach().clone()
        return self

    def compute(self) -> CalibrationSummary:
        """Summarise all samples seen so far.

        Raises:
            RuntimeError: there are none.
        """
        count, n_correct, residual = self._totals.sum(1).tolist()
        if count == 0:
            raise RuntimeError("no samples yet: call update(logits, target) before compute()")
        return CalibrationSummary(
            expected_calibration_error=float(expected_error(self._totals)),
            maximum_calibration_error=float(maximum_error(self._totals)),
            accuracy=n_correct / count,
            mean_confidence=(n_correct - residual) / count,
            count=int(count),
            curve=curve(self._edges.to(self._totals.device), self._totals),
        )

    def _add(self, totals: Tensor) -> "CalibrationError":
        # The state follows the data: on a GPU no update waits for a copy.
        self._totals = self._totals.to(totals.device) + totals
        return self
