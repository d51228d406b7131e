"""Every exercise accepts three right answers in other styles, and goes on with them."""

import pytest
from right_answers import RIGHT

from calibcourse.exercises import all_exercises
from calibcourse.exercises.framework import Outcome

EXERCISES = {exercise.key: exercise for exercise in all_exercises()}


@pytest.mark.parametrize(
    ("key", "answer"),
    [(key, answer) for key, answers in RIGHT.items() for answer in answers],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_right_answer_in_another_style_is_correct_and_the_learners_own(key, answer):
    feedback = EXERCISES[key].evaluate(answer)
    assert feedback.outcome is Outcome.CORRECT, feedback
    assert EXERCISES[key].mine(answer) is answer


def test_every_exercise_has_three():
    assert RIGHT.keys() == EXERCISES.keys()
    assert all(len(set(answers)) == 3 for answers in RIGHT.values())
