"""What a lesson's text says of its exercises is what the exercises say of themselves."""

from importlib import import_module
from pathlib import Path

import pytest

from calibcourse.exercises import all_exercises

SOURCES = Path(__file__).parents[1] / "solutions"


@pytest.mark.parametrize("exercise", all_exercises(), ids=lambda exercise: exercise.key)
def test_the_lesson_rates_and_checks_every_exercise(exercise):
    (source,) = SOURCES.glob(f"{exercise.lesson}_*.py")
    text = source.read_text(encoding="utf-8")
    rating = (
        f"*Difficulty {exercise.difficulty} of 5 · importance {exercise.importance} of 5 · "
        f"about {exercise.minutes} minutes.*"
    )
    checked = text.index(f"ex.{exercise.name}.check(")
    assert rating in text[:checked]
    assert hasattr(import_module(f"calibcourse.exercises.lesson_{exercise.lesson}"), exercise.name)
