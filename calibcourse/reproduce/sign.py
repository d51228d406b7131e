"""Why the correlation of calibration error with sharpness turns its sign along a run.

Pearson's r over a window of probes has the sign of a weighted sum of the steps that the error takes
from probe to probe: growth counts for it as long as the sharpness is larger after that moment than
before, on the average over the window, and against it from then on (THEORY.md 4.6). And the error
is nearly |u - err|, so accuracy, mean confidence and sharpness predict r without any bins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .._checks import check_choice
from ..probes import SPLITS
from .configs import TrajectoryConfig
from .correlations import at_even_steps, correlation, pearson, up_to_the_peak, whole_run
from .records import Run, Sweep


def growth_weights(sharpness: np.ndarray) -> np.ndarray:
    """What a step of the calibration error counts in its covariance with the sharpness.

    cov(E, S) = Σ_k w_k (E_{k+1} - E_k) for every E, by Abel's summation (THEORY.md 4.6), with
    w_k = Σ_{i<=k} (S̄ - S_i) / n = k (n - k) / n² (mean of S after k - mean of S up to k).

    Args:
        sharpness: (n,) S at the probes of a window, in order.

    Returns:
        (n - 1,) w_k, in the unit of the sharpness; the covariance divides by n.

    Raises:
        ValueError: not one-dimensional, fewer than two probes, or not finite.

    Example:
        >>> growth_weights(np.array([1.0, 3.0, 2.0, 0.0])).tolist()
        [0.125, -0.25, -0.375]
    """
    sharpness = np.asarray(sharpness, dtype=np.float64)
    if sharpness.ndim != 1 or len(sharpness) < 2 or not np.isfinite(sharpness).all():
        raise ValueError(
            f"sharpness must be finite, of shape (n,) with n >= 2, got shape {sharpness.shape}"
        )
    return np.cumsum(sharpness.mean() - sharpness)[:-1] / len(sharpness)


def balance(sharpness: np.ndarray) -> int:
    """The probe of a window from which on growth of the calibration error no longer counts for r.

    Where the sharpness rises to one peak and then falls, growth before that probe counts for a
    positive correlation, and growth after it against (THEORY.md 4.6).

    Args:
        sharpness: (n,), as in `growth_weights`.

    Returns:
        Its index; n - 1 where growth counts for r up to the end of the window.

    Raises:
        ValueError: as `growth_weights`.

    Example:
        >>> balance(np.array([1.0, 3.0, 2.0, 0.0]))  # from probe 1 to 2 growth counts against r
        1
    """
    return int(np.argmax(np.append(growth_weights(sharpness) <= 0, True)))


def predicted_correlation(
    run: Run[TrajectoryConfig], split: str = "test", steps: Sequence[int] | None = None
) -> float:
    """The correlation that accuracy, mean confidence and sharpness alone predict: of |u - err|.

    |u - err| = |accuracy - confidence| <= ECE for any bins (THEORY.md 4.3), and as a rule ECE is
    hardly more.

    Args:
        run: with the columns sharpness, SPLIT_confidence and SPLIT_accuracy.
        split: "train", "validation" or "test".
        steps: which of its evenly spaced probes to use; None is all of them.

    Returns:
        In [-1, 1]; NaN as `correlation`.

    Raises:
        ValueError: an unknown split or a missing column.

    Example:
        >>> from calibcourse.reproduce import load_recorded
        >>> run = load_recorded().select(optimizer="sam", lr=0.1, seed=0).runs[0]
        >>> round(predicted_correlation(run), 1)
        -0.8
    """
    check_choice(split, "split", SPLITS)
    confidence, accuracy, sharpness, step = (
        at_even_steps(run, column)
        for column in (f"{split}_confidence", f"{split}_accuracy", "sharpness", "step")
    )
    chosen = np.isin(step, whole_run(run) if steps is None else steps)
    return pearson(np.abs(confidence - accuracy)[chosen], sharpness[chosen])


def correlation_by_stop(run: Run[TrajectoryConfig], column: str) -> np.ndarray:
    """Correlation with the sharpness up to every evenly spaced probe: r against the stopping point.

    Args:
        run: the run.
        column: one of its columns, such as "test_ece".

    Returns:
        (probes,) r over the probes from the start to each of them; NaN for the first two.

    Raises:
        ValueError: no such column.

    Example:
        >>> from calibcourse.reproduce import load_recorded
        >>> run = load_recorded().select(optimizer="sam", lr=0.1, seed=0).runs[0]
        >>> r = correlation_by_stop(run, "test_ece")
        >>> r.shape, bool(np.nanmax(r) > 0 > r[-1])
        ((41,), True)
    """
    values, sharpness = at_even_steps(run, column), at_even_steps(run, "sharpness")
    return np.array(
        [pearson(values[:stop], sharpness[:stop]) for stop in range(1, len(values) + 1)]
    )


# Stopping points as multiples of the step at which the sharpness peaks.
STOPS = np.geomspace(0.25, 16, 49)


def correlation_by_stop_over_peak(
    run: Run[TrajectoryConfig], column: str, stops: np.ndarray = STOPS
) -> np.ndarray:
    """`correlation_by_stop` with the peak of the sharpness as the unit of time.

    Runs with unlike learning rates and lengths can then be laid over each other.

    Args:
        run, column: as in `correlation_by_stop`.
        stops: (n,) stopping points, step over the step of the largest sharpness, ascending.

    Returns:
        (n,) r, linear between probes; NaN before the third probe, after the last, and throughout
        where the sharpness is largest at step 0.

    Raises:
        ValueError: no such column.

    Example:
        >>> from calibcourse.reproduce import load_recorded
        >>> run = load_recorded().select(optimizer="sam", lr=0.1, seed=0).runs[0]
        >>> r = correlation_by_stop_over_peak(run, "test_ece", np.array([0.01, 1.0, 2.0]))
        >>> np.isnan(r).tolist()
        [True, False, False]
    """
    steps, sharpness = at_even_steps(run, "step"), at_even_steps(run, "sharpness")
    peak = steps[np.argmax(sharpness)]
    if peak == 0:
        return np.full(len(stops), np.nan)
    r = correlation_by_stop(run, column)
    known = np.isfinite(r)
    return np.asarray(np.interp(stops, steps[known] / peak, r[known], left=np.nan, right=np.nan))


@dataclass(frozen=True)
class SignPrediction:
    """One correlation along one run, predicted and measured.

    Attributes:
        run: the run.
        split: of the calibration error.
        window: which part of the run: "whole run" or "up to the peak".
        predicted: of |u - err| with the sharpness.
        measured: of the ECE with the sharpness.
    """

    run: Run[TrajectoryConfig]
    split: str
    window: str
    predicted: float
    measured: float

    @property
    def right(self) -> bool:
        """Whether the sign is right; a correlation that is not defined is no hit."""
        return self.predicted * self.measured > 0


WINDOWS: dict[str, Callable[[Run[TrajectoryConfig]], list[int]]] = {
    "whole run": whole_run,
    "up to the peak": up_to_the_peak,
}


def sign_predictions(
    sweep: Sweep[TrajectoryConfig], split: str, window: str
) -> list[SignPrediction]:
    """Predicted and measured correlation of ECE with sharpness for every run.

    Args:
        sweep: the runs.
        split: "train" or "test".
        window: "up to the peak" or "whole run".

    Returns:
        One prediction per run, in their order.

    Raises:
        ValueError: an unknown split or window, or a missing column.

    Example:
        >>> from calibcourse.reproduce import load_recorded
        >>> found = sign_predictions(load_recorded(), "test", "whole run")
        >>> len(found), all(prediction.right for prediction in found)
        (78, True)
    """
    check_choice(window, "window", WINDOWS)
    predictions = []
    for run in sweep.runs:
        steps = WINDOWS[window](run)
        predicted = predicted_correlation(run, split, steps)
        measured = correlation(run.history, f"{split}_ece", steps=steps)
        predictions.append(SignPrediction(run, split, window, predicted, measured))
    return predictions
