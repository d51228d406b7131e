"""Where a run turns: warm-up, climb, plateau and decay, read from its columns."""

from dataclasses import dataclass

import numpy as np

from ..history import History


@dataclass(frozen=True)
class Phases:
    """Where a run turns, as training steps.

    Args:
        sure_from: the first probe from which on held-out confidence is never below accuracy again;
            None where the run ends under-confident.
        steep_from, steep_until: the first and the last probe at which the sharpness is at least
            half of its largest value.
    """

    sure_from: int | None
    steep_from: int
    steep_until: int


def phases(history: History) -> Phases:
    """Find the phases of a run from its columns: warm-up, climb, plateau, decay.

    Calibration and curvature change at different steps: the warm-up, in which the network is
    under-confident on held-out images, lasts until `sure_from`; the sharpness climbs until
    `steep_from` and decays after `steep_until`. A run that never gets sharper than twice its start
    has `steep_from` 0.

    Args:
        history: with columns sharpness, test_confidence and test_accuracy, all finite.

    Returns:
        The steps.

    Raises:
        ValueError: a column is missing or not finite.

    Example:
        >>> rows = [(0, 2, 0.2, 0.1), (1, 4, 0.3, 0.6), (5, 9, 0.8, 0.7), (9, 3, 0.9, 0.7)]
        >>> names = ("step", "sharpness", "test_confidence", "test_accuracy")
        >>> phases(History([dict(zip(names, row)) for row in rows]))
        Phases(sure_from=5, steep_from=5, steep_until=5)
    """
    names = ("sharpness", "test_confidence", "test_accuracy")
    sharpness, confidence, accuracy = (history.column(name) for name in names)
    if not np.isfinite([sharpness, confidence, accuracy]).all():
        raise ValueError(f"history must have finite {', '.join(names)}, got NaN")
    steps = history.column("step")
    after_doubt = np.flatnonzero(confidence < accuracy).max(initial=-1) + 1
    steep = steps[sharpness >= sharpness.max() / 2]
    return Phases(
        int(steps[after_doubt]) if after_doubt < len(steps) else None, int(steep[0]), int(steep[-1])
    )
