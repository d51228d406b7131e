"""Every exercise of every lesson: the reference passes and each known mistake gets its diagnosis.

The lesson modules are found in the package, so a new lesson is covered as soon as it exists.
"""

import ast
import inspect
import textwrap

import pytest

from calibcourse.exercises import all_exercises
from calibcourse.exercises.framework import Exercise, Outcome

EXERCISES = all_exercises()
every_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.key)
every_mistake = pytest.mark.parametrize(
    ("exercise", "wrong"),
    [(exercise, wrong) for exercise in EXERCISES for wrong in exercise.wrong],
    ids=lambda value: value.key if isinstance(value, Exercise) else value.name.replace(" ", "-"),
)


def _stub_like(function):
    """What a learner's copy holds before any work: the same arguments, and dots."""
    names = ", ".join(inspect.signature(function).parameters)
    namespace: dict = {}
    exec(f"def stub({names}):\n    ...  # your code here", namespace)
    return namespace["stub"]


@every_exercise
def test_reference_is_correct(exercise):
    feedback = exercise.evaluate(exercise.reference)
    assert feedback.outcome is Outcome.CORRECT, feedback


@every_exercise
def test_stub_is_not_attempted(exercise):
    assert exercise.evaluate(_stub_like(exercise.reference)).outcome is Outcome.NOT_ATTEMPTED


@every_mistake
def test_each_mistake_gets_its_own_diagnosis(exercise, wrong):
    feedback = exercise.evaluate(wrong.function)
    assert feedback.outcome is Outcome.INCORRECT, feedback
    assert feedback.diagnosis == wrong.diagnosis, feedback


@every_exercise
def test_mistakes_are_at_least_three_and_told_apart(exercise):
    assert len(exercise.wrong) >= 3
    assert len({wrong.name for wrong in exercise.wrong}) == len(exercise.wrong)
    assert len({wrong.diagnosis for wrong in exercise.wrong}) == len(exercise.wrong)


@every_exercise
def test_raising_answer_is_shown_with_its_line_and_no_path(exercise):
    mistake = ArithmeticError("my mistake in /home/ada/course/work.py")

    def answer(*arguments):
        raise mistake

    feedback = exercise.evaluate(answer)
    assert feedback.outcome is Outcome.RAISED
    assert "ArithmeticError: my mistake in work.py" in repr(feedback)
    assert "of answer: raise mistake" in repr(feedback)
    assert "/home" not in repr(feedback) + feedback.card._repr_html_()


@every_exercise
def test_hints_lead_without_telling(exercise):
    assert len(exercise.hints) >= 2
    assert len(set(exercise.hints)) == len(exercise.hints)
    statements = _statements(exercise.reference)
    assert statements
    told = [exercise.hints, [wrong.diagnosis for wrong in exercise.wrong]]
    for text in [text for texts in told for text in texts]:
        # Whole statements of the solution, compared without white space.
        assert not [line for line in statements if line in "".join(text.split())]


def _statements(function) -> list[str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    inner = [node for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.Return)]
    values = ["".join(ast.unparse(node.value).split()) for node in inner if node.value]
    return [value for value in values if len(value) > 15]  # `count` alone is no solution


@every_exercise
def test_output_is_the_same_twice(exercise):
    for answer in (exercise.reference, exercise.wrong[0].function, exercise.wrong[-1].function):
        first, second = exercise.evaluate(answer), exercise.evaluate(answer)
        assert repr(first) == repr(second)
        assert first.card._repr_html_() == second.card._repr_html_()


@every_exercise
def test_declaration_is_complete(exercise):
    lesson = inspect.getmodule(exercise.reference)
    assert lesson.__name__.endswith(f"lesson_{exercise.lesson}")
    assert getattr(lesson, exercise.name) is exercise  # so that `ex.<name>.hint()` in messages runs
    assert 1 <= exercise.difficulty <= 5 and 1 <= exercise.importance <= 5
    assert 1 <= exercise.minutes <= 60
    assert len(exercise.cases) >= 3
    source = textwrap.dedent(inspect.getsource(exercise.reference))
    assert len(source.splitlines()) <= 15  # a solution is read on one screen


def test_keys_are_unique():
    assert len({exercise.key for exercise in EXERCISES}) == len(EXERCISES)
