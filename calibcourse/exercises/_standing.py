"""How far a learner is, and what is next, in one line."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from .store import OUTCOMES, Record


class _Exercise(Protocol):
    key: str
    lesson: str
    title: str


def standing(key: str, exercises: Sequence[_Exercise], records: Mapping[str, Record]) -> str:
    """What to say of progress after a right answer.

    Args:
        key: of the exercise that was answered.
        exercises: of the course, in their order.
        records: by key.

    Returns:
        How many are right in its lesson and in all, and the next that is open: after this one in
        the lesson, else before it, else in a later lesson, else in an earlier one. "" where the
        answer is not recorded or the exercise is none of the course.

    Example:
        >>> from calibcourse.exercises import all_exercises
        >>> records = {"00/over_confidence": Record("correct")}
        >>> standing("00/over_confidence", all_exercises()[:5], records)
        '1 of 1 here, 1 of 5 in all. Next: lesson 01, “The bins of a reliability diagram”.'
    """
    done = {exercise.key for exercise in exercises if _right(records.get(exercise.key))}
    place = next((i for i, exercise in enumerate(exercises) if exercise.key == key), None)
    if place is None or key not in done:
        return ""
    lesson = exercises[place].lesson
    here = [exercise for exercise in exercises if exercise.lesson == lesson]
    count = (
        f"{sum(one.key in done for one in here)} of {len(here)} here, "
        f"{len(done)} of {len(exercises)} in all."
    )
    ahead = [*exercises[place + 1 :], *exercises[:place]]
    ahead.sort(key=lambda one: one.lesson != lesson)  # stable: in their order, this lesson's first
    following = next((one for one in ahead if one.key not in done), None)
    if following is None:
        return f"{count} That was the last one."
    where = "" if following.lesson == lesson else f"lesson {following.lesson}, "
    return f"{count} Next: {where}“{following.title}”."


def _right(record: Record | None) -> bool:
    return record is not None and record.outcome == OUTCOMES[-1]
