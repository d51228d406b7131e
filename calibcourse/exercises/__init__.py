"""Exercises with checks that diagnose: one module per lesson, named lesson_00, lesson_01, ..."""

import importlib
import pkgutil

from .framework import ClaimFailed, Exercise, claim

__all__ = ["ClaimFailed", "Exercise", "all_exercises", "claim"]


def all_exercises() -> tuple[Exercise, ...]:
    """Every exercise of the course, in the order of lessons and of their modules.

    Example:
        >>> all_exercises()[0].key
        '00/over_confidence'
    """
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    lessons = [
        importlib.import_module(f"{__name__}.{name}")
        for name in names
        if name.startswith("lesson_")
    ]
    return tuple(
        value
        for lesson in lessons
        for value in vars(lesson).values()
        if isinstance(value, Exercise)
    )
