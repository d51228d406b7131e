"""The placebo beside every claim of coupling: a run's sharpness with the ECE of other runs."""

import numpy as np

from .configs import TrajectoryConfig
from .correlations import at_even_steps
from .records import Sweep

# Whose ECE it is, the hardest placebo first: same optimizer and learning rate, another seed.
PLACEBOS = ("own", "other seed", "other rate", "other optimizer")


def pairings(
    sweep: Sweep[TrajectoryConfig], column: str = "train_ece", changes: bool = False
) -> np.ndarray:
    """Correlation of the sharpness of every run with a quantity of every run.

    Args:
        sweep: n runs with equally many evenly spaced probes.
        column: the quantity.
        changes: correlate the changes of the logarithms from probe to probe, the first two left
            out, whose jumps dwarf the rest: what two curves share because both rise and fall is
            gone.

    Returns:
        (n, n) in [-1, 1]; row i is the sharpness of run i, column j the quantity of run j.

    Raises:
        ValueError: runs with unlike numbers of probes, or no such column.

    Example:
        >>> from calibcourse.reproduce import load_recorded
        >>> pairings(load_recorded("cifar10_small").select(optimizer="gd")).shape
        (6, 6)
    """
    probes = sorted({len(at_even_steps(run, column)) for run in sweep.runs})
    if len(probes) > 1:
        raise ValueError(
            f"sweep must hold runs with equally many evenly spaced probes, got {probes}; "
            "leave out the runs that diverged"
        )
    sharpness, quantity = (
        np.stack([at_even_steps(run, name) for run in sweep.runs]) for name in ("sharpness", column)
    )
    if changes:
        sharpness, quantity = (np.diff(np.log(v[:, 2:])) for v in (sharpness, quantity))
    return np.corrcoef(sharpness, quantity)[: len(sharpness), len(sharpness) :]


def placebo_kinds(sweep: Sweep[TrajectoryConfig]) -> np.ndarray:
    """What run j is to run i: an index into `PLACEBOS`.

    Args:
        sweep: n runs.

    Returns:
        (n, n) int, 0 on the diagonal and only there, if no run is in the sweep twice.

    Example:
        >>> from calibcourse.reproduce import load_recorded
        >>> placebo_kinds(load_recorded("cifar10_small").select(optimizer="gd"))[0].tolist()
        [0, 2, 1, 2, 1, 2]
    """
    labels, rates, seeds = (
        np.array([getattr(run.config, name) for run in sweep.runs])
        for name in ("label", "lr", "seed")
    )
    unlike = [np.not_equal.outer(values, values) for values in (labels, rates, seeds)]
    return np.select(unlike, [3, 2, 1], default=0)
