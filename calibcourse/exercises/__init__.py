"""Exercises with checks that diagnose: one module per lesson, named lesson_00, lesson_01, ..."""

import importlib
import pkgutil
from types import ModuleType
from typing import TypeVar

from .framework import ClaimFailed, Exercise, claim
from .predictions import Prediction

__all__ = ["ClaimFailed", "Exercise", "Prediction", "all_exercises", "all_predictions", "claim"]
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
