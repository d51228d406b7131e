"""From scores and labels as they stand in a file to logits and int64 labels, or a refusal."""

import math
import os

import numpy as np
import torch
from torch import Tensor

from .._checks import check_choice
from .formats import SCORES, read_arrays

KINDS = ("logits", "probabilities", "log-probabilities")
_SUM_TOLERANCE = 0.05  # of a row of rounded probabilities
_MASK = -1e4  # a constant at or below it is a mask, not a logit
MASKED = -1e9  # what a masked class is read as: its exponential is 0 beside any logit


def read_logits(
    path: str | os.PathLike,
    scores: str | None = None,
    labels: str | os.PathLike | None = None,
) -> tuple[Tensor, Tensor]:
    """Read a model's scores from a file as logits, with the labels.

    Args:
        path: see `read_arrays`.
        scores: what the scores are, one of KINDS; None where their name or their values say it.
        labels: see `read_arrays`.

    Returns:
        Logits (N, K), float32 or float64, and labels (N,), int64.

    Raises:
        FileNotFoundError, OSError: see `read_arrays`.
        ValueError: see `read_arrays` and `as_logits`; the file is named.

    Example:
        >>> import tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "model.npz")
        >>> np.savez(path, logits=np.array([[2.0, -1.0]] * 3), target=np.array([0, 1, 0]))
        >>> [tuple(array.shape) for array in read_logits(path)]
        [(3, 2), (3,)]
    """
    name, values, target = read_arrays(path, labels)
    try:
        return as_logits(values, target, scores or SCORES[name])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def as_logits(
    values: np.ndarray, target: np.ndarray, scores: str | None = None
) -> tuple[Tensor, Tensor]:
    """Make logits of scores, or refuse to guess what they are.

    Log-probabilities are logits. Probabilities become their logarithms; where one is 0, it is read
    as half the smallest positive one in the file, since rounding is what makes zeros. A single
    column is that of class 1 of two. A class masked by -inf, or by one constant of -10,000 or less,
    gets probability 0.

    Args:
        values: (N, K), (N,) or (N, 1) numbers.
        target: (N,) or (N, 1) whole numbers of any dtype, or bool, in 0..K-1.
        scores: one of KINDS, or None: then taken for logits unless they may be probabilities.

    Returns:
        Logits (N, K), float64 for float64 or whole numbers, else float32, and labels (N,), int64.

    Raises:
        ValueError: the scores may be probabilities and nobody said so; they are not what `scores`
            says; shapes, labels or values that do not fit.

    Example:
        >>> as_logits(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 0]), "probabilities")[0]
        tensor([[-0.6931, -0.6931],
                [ 0.0000, -1.3863]], dtype=torch.float64)
    """
    if scores is not None:
        check_choice(scores, "scores", KINDS)
    values = _as_rows(values)
    if scores is None:
        _refuse_probabilities(values)
    logits = _CONVERT[scores or "logits"](values)
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    labels = _as_labels(target, *logits.shape)
    logits = _masked(logits, labels)
    return torch.from_numpy(logits), torch.from_numpy(labels)


def _as_rows(values: np.ndarray) -> np.ndarray:
    if values.ndim == 1:
        values = values[:, None]
    if values.dtype.kind not in "fiu" or values.ndim != 2 or 0 in values.shape:
        raise ValueError(
            f"scores must be numbers of shape (N, K) or (N,), got {values.dtype}, {values.shape}"
        )
    single = values.dtype.kind == "f" and values.dtype.itemsize <= 4
    values = np.ascontiguousarray(values, dtype=np.float32 if single else np.float64)
    highest = values.max(1)
    if not np.isfinite(highest).all():
        row = int((~np.isfinite(highest)).argmax())
        raise ValueError(
            f"scores must be finite, or -inf where a class is masked; sample {row} holds "
            "NaN, +inf or nothing else"
        )
    return values


def _as_labels(target: np.ndarray, n_samples: int, n_classes: int) -> np.ndarray:
    if target.ndim == 2 and target.shape[1] == 1:
        target = target[:, 0]
    if target.shape != (n_samples,):
        hint = (
            ": one-hot labels? give their argmax" if target.shape == (n_samples, n_classes) else ""
        )
        raise ValueError(
            f"labels must have shape ({n_samples},) like the scores, got {target.shape}{hint}"
        )
    if target.dtype.kind not in "fiub":
        raise ValueError(f"labels must be whole numbers, got {target.dtype}")
    if target.dtype.kind == "f" and not (np.isfinite(target) & (target == np.floor(target))).all():
        raise ValueError("labels must be whole numbers, got fractions, NaN or infinite values")
    low, high = target.min(), target.max()
    if low < 0 or high >= n_classes:
        hint = ": do they count from 1? subtract 1" if (low, high) == (1, n_classes) else ""
        raise ValueError(
            f"labels must lie in 0..{n_classes - 1}, got {int(low)} to {int(high)}{hint}"
        )
    return target.astype(np.int64)


def _refuse_probabilities(values: np.ndarray) -> None:
    """Raise where the scores may be probabilities: as logits they would reverse every finding."""
    ask = "say which by --scores logits, --scores probabilities or --scores log-probabilities"
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        raise ValueError(f"all scores lie in [0, 1] and may be probabilities: {ask}")
    if values.shape[1] == 1:
        if low >= 0 and high <= 100:
            raise ValueError(
                f"all scores lie in [0, 100] and may be percentages: {ask} after dividing by 100"
            )
        return
    for total, what in ((1.0, "probabilities"), (100.0, "percentages")):
        sums = values.sum(1, dtype=np.float64)  # masks add up beyond float32
        good = (np.abs(sums - total) <= _SUM_TOLERANCE * total) & (values.min(1) >= 0)
        if good.mean() > 0.5:
            odd = f"; sample {int((~good).argmax())} does not" if not good.all() else ""
            raise ValueError(
                f"most rows are non-negative and sum to {total:g} as {what} do{odd}: {ask}"
                + (" after dividing by 100" if total == 100 else "")
            )


def _from_probabilities(values: np.ndarray) -> np.ndarray:
    if values.shape[1] == 1:
        values = np.concatenate([1 - values, values], axis=1)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1 + 1e-3:
        hint = ": percentages? divide by 100" if low >= 0 and high <= 100 else ""
        raise ValueError(f"probabilities must lie in [0, 1], got {low:g} to {high:g}{hint}")
    sums = values.sum(1)
    _require_sums(np.abs(sums - 1) <= _SUM_TOLERANCE, sums, "probabilities")
    smallest = float(values[values > 0].min())
    return np.log(np.maximum(values, smallest / 2))


def _from_log_probabilities(values: np.ndarray) -> np.ndarray:
    if values.shape[1] == 1:
        raise ValueError("log-probabilities must have a column for each class, got one column")
    high = float(values.max())
    if high > 1e-3:
        raise ValueError(f"log-probabilities must be at most 0, got {high:g}")
    sums = np.exp(values).sum(1)
    _require_sums(np.abs(sums - 1) <= _SUM_TOLERANCE, sums, "the exponentials")
    return values


def _require_sums(good: np.ndarray, sums: np.ndarray, what: str) -> None:
    if not good.all():
        row = int((~good).argmax())
        raise ValueError(
            f"{what} must sum to 1 in every row, got {sums[row]:.4g} in sample {row} "
            f"({int((~good).sum())} of {len(sums)} rows): sigmoids of one class against the rest "
            "are no distribution over classes"
        )


_CONVERT = {
    "logits": lambda values: values,
    "probabilities": _from_probabilities,
    "log-probabilities": _from_log_probabilities,
}


def _masked(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The logits, masked classes at one finite value; a masked label is refused."""
    low = float(logits.min())
    if low > _MASK:
        return logits
    masked = logits == low
    # -inf is a mask; so is one constant that is met many times, where a large logit is met once.
    if math.isfinite(low) and masked.sum() <= max(1, len(logits) // 100):
        return logits
    wrong = masked[np.arange(len(labels)), labels]
    if wrong.any():
        raise ValueError(
            f"labels must be no masked class, got {int(wrong.sum())}, the first in sample "
            f"{int(wrong.argmax())}"
        )
    return np.where(masked, logits.dtype.type(MASKED), logits)
