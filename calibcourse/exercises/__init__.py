"""Exercises with checks that diagnose: one module per lesson, named lesson_00, lesson_01, ..."""

import importlib
import pkgutil
from types import ModuleType
from typing import TypeVar

from torch import Tensor

from ._carry import export_progress, import_progress
from .framework import ClaimFailed, Exercise, claim
from .predictions import Prediction, calibration_in_words, counted
from .store import UnreadableProgress, load_predictions

__all__ = [
    "ClaimFailed",
    "Exercise",
    "Prediction",
    "all_exercises",
    "all_predictions",
    "calibration_in_words",
    "claim",
    "export_progress",
    "import_progress",
    "my_predictions",
]
Declared = TypeVar("Declared")


def all_exercises() -> tuple[Exercise, ...]:
    """Every exercise of the course, in the order of lessons and of their modules.

    Example:
        >>> all_exercises()[0].key
        '00/over_confidence'
    """
    return _all(Exercise)


def all_predictions() -> tuple[Prediction, ...]:
    """Every prediction that the lessons ask for, in their order.

    Example:
        >>> "01/predicted_accuracy" in [prediction.key for prediction in all_predictions()]
        True
    """
    return _all(Prediction)


def my_predictions() -> tuple[Tensor, Tensor]:
    """How sure the learner was of each prediction that counts, and whether it was right.

    Returns:
        Confidence (N,) float64 in [0, 1], correct (N,) bool; N is 0 where the progress file has
        none or cannot be read.
    """
    try:
        guesses = load_predictions()
    except (UnreadableProgress, OSError, RuntimeError):
        guesses = {}
    return counted(all_predictions(), guesses)


def _all(kind: type[Declared]) -> tuple[Declared, ...]:
    return tuple(
        value for lesson in _lessons() for value in vars(lesson).values() if isinstance(value, kind)
    )


def _lessons() -> list[ModuleType]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [
        importlib.import_module(f"{__name__}.{name}")
        for name in names
        if name.startswith("lesson_")
    ]
