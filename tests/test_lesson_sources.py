"""What a lesson's text says of its exercises is what the exercises say of themselves."""

import ast
import inspect
from importlib import import_module
from pathlib import Path

import pytest

from calibcourse.course.source import solution_blocks
from calibcourse.exercises import all_exercises
from calibcourse.exercises.framework import Outcome

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


@pytest.mark.parametrize("exercise", all_exercises(), ids=lambda exercise: exercise.key)
def test_the_blank_takes_what_the_solution_takes_and_the_lesson_goes_on_with_it(exercise):
    text = _source(exercise)
    name = exercise.reference.__name__
    blank = next(line for line in text.splitlines() if line.startswith(f"def {name}("))
    assert blank == f"def {name}{inspect.signature(exercise.reference)}:"
    assert f"{name} = ex.{exercise.name}.mine({name})" in text


@pytest.mark.parametrize("exercise", all_exercises(), ids=lambda exercise: exercise.key)
def test_a_solution_runs_by_itself_in_its_lesson(exercise):
    """With what the lesson has imported, and nothing that another exercise defines."""
    imports = [
        node
        for node in ast.parse(_source(exercise)).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    namespace: dict = {}
    exec(compile(ast.Module(imports, []), "<imports>", "exec"), namespace)
    exec(inspect.getsource(exercise.reference), namespace)
    answer = namespace[exercise.reference.__name__]
    assert exercise.evaluate(answer).outcome is Outcome.CORRECT


def test_every_solution_has_one_text():
    """That of the exercise's reference: the sources only say where it belongs."""
    blocks = [
        block.strip()
        for path in SOURCES.glob("[0-9]*.py")
        for block in solution_blocks(path.read_text(encoding="utf-8"))
    ]
    expected = [f"# {{{{solution: {exercise.key}}}}}" for exercise in all_exercises()]
    assert sorted(blocks) == sorted(expected)


def _source(exercise) -> str:
    (source,) = SOURCES.glob(f"{exercise.lesson}_*.py")
    return source.read_text(encoding="utf-8")
