"""What `calibcourse doctor` and `calibcourse progress` print, as cards for a notebook.

A kernel finds the package where a terminal may not find the command:

    from calibcourse.course import cards
    cards.progress()
"""

from itertools import groupby

from ..exercises import Exercise, all_exercises
from ..exercises._card import Card
from ..exercises.store import OUTCOMES, Record, UnreadableProgress, load, progress_path
from .doctor import OK, PROBLEM, WARN, Finding, examine, tally, worst

_LOOKS = {OK: ("✓", "good"), WARN: ("!", "warn"), PROBLEM: ("✗", "bad")}  # icon and tone


def doctor() -> Card:
    """Is this computer ready for the course? What is found, with one remedy for what is wrong.

    Returns:
        The card, which a cell that ends in it shows.
    """
    findings = examine()
    rows = tuple((one.name, _words(one)) for one in findings)
    icon, tone = _LOOKS[worst(findings)]
    return Card(icon, tally(findings), "this computer", tone, rows)


def _words(one: Finding) -> str:
    return one.detail if one.status == OK else f"{one.status}: {one.detail}\nfix: {one.fix}"


def progress() -> Card:
    """Which exercises are correct, and which are not, lesson by lesson.

    Returns:
        The card, which a cell that ends in it shows.
    """
    exercises, notes, records = all_exercises(), [], {}
    try:
        path = progress_path()
        records = load(path)
        if path.is_file():
            notes.append(("Kept in", str(path)))
    except (UnreadableProgress, OSError, RuntimeError) as problem:
        notes.append(("Note", f"The progress file cannot be read: {problem}."))
    outcomes = {one.key: records.get(one.key, Record()).outcome for one in exercises}
    rows = [
        (f"Lesson {lesson}", _standing(list(group), outcomes))
        for lesson, group in groupby(exercises, key=lambda one: one.lesson)
    ]
    count = f"{list(outcomes.values()).count(OUTCOMES[-1])} of {len(exercises)} correct"
    return Card("✎", count, "progress", "calm", (*rows, *notes))


def _standing(exercises: list[Exercise], outcomes: dict[str, str]) -> str:
    """Such as "2 of 4 correct; incorrect: ece; not attempted: temperature"."""
    names = {
        outcome: [one.name for one in exercises if outcomes[one.key] == outcome]
        for outcome in reversed(OUTCOMES)
    }
    correct = names.pop(OUTCOMES[-1])
    rest = (f"; {outcome}: {', '.join(of)}" for outcome, of in names.items() if of)
    return f"{len(correct)} of {len(exercises)} correct" + "".join(rest)
