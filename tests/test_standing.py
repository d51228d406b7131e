"""What a right answer's card says of the learner's way, and that no test of a notebook sees it."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from nbval.plugin import get_sanitize_patterns

from calibcourse.exercises import all_exercises
from calibcourse.exercises import lesson_00 as ex
from calibcourse.exercises._card import Card
from calibcourse.exercises._standing import standing
from calibcourse.exercises.lesson_01 import ece
from calibcourse.exercises.store import Record

SANITIZE = Path(__file__).parent / "nbval_sanitize.cfg"


@dataclass
class Made:
    lesson: str
    title: str

    @property
    def key(self) -> str:
        return f"{self.lesson}/{self.title.lower()}"


COURSE = [Made("00", "A"), Made("01", "B"), Made("01", "C"), Made("01", "D"), Made("02", "E")]


@pytest.mark.parametrize(
    ("key", "right", "line"),
    [
        ("01/b", "b", "1 of 3 here, 1 of 5 in all. Next: “C”."),
        ("01/c", "abc", "2 of 3 here, 3 of 5 in all. Next: “D”."),
        ("01/d", "acd", "2 of 3 here, 3 of 5 in all. Next: “B”."),  # left open before it
        ("01/d", "abcd", "3 of 3 here, 4 of 5 in all. Next: lesson 02, “E”."),
        ("02/e", "abde", "1 of 1 here, 4 of 5 in all. Next: lesson 01, “C”."),
        ("02/e", "abcde", "1 of 1 here, 5 of 5 in all. That was the last one."),
        ("01/c", "ab", ""),  # it was not saved
        ("09/x", "abcde", ""),  # none of the course
    ],
)
def test_what_is_done_and_what_is_next(key, right, line):
    records = {made.key: Record("correct") for made in COURSE if made.key[-1] in right}
    records["02/e"] = records.get("02/e", Record("incorrect"))  # tried is not done
    assert standing(key, COURSE, records | {"99/gone": Record("correct")}) == line


def published(check, answer, monkeypatch) -> Card:
    shown = []
    monkeypatch.setattr("calibcourse.exercises.framework.display", shown.append)
    check(answer)
    return shown[-1]


def test_a_right_answer_says_how_far_one_is(tmp_path, monkeypatch):
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(tmp_path / "progress.json"))
    card = published(ece.check, lambda *a: 0.0, monkeypatch)
    assert card.word == "incorrect" and not card.progress
    published(ece.check, ece.reference, monkeypatch)
    card = published(ex.over_confidence.check, ex.over_confidence.reference, monkeypatch)
    assert card.progress.startswith(f"1 of 1 here, 2 of {len(all_exercises())} in all. Next: ")
    assert card.progress in card._repr_html_()
    assert repr(card) == repr(replace(card, progress=""))  # the text is everybody's


@pytest.mark.parametrize("kept", [os.devnull, "here", "broken"])
def test_without_progress_nothing_is_said_of_it(kept, tmp_path, monkeypatch):
    path = {"here": tmp_path, "broken": tmp_path / "newer.json"}.get(kept, kept)
    (tmp_path / "newer.json").write_text('{"version": 999, "exercises": {}}')
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(path))
    card = published(ex.over_confidence.check, ex.over_confidence.reference, monkeypatch)
    assert card.word == "correct" and not card.progress


def test_a_test_of_a_notebook_passes_over_it():
    """nbval compares the HTML of two runs after these rules."""
    rules = get_sanitize_patterns(SANITIZE.read_text(encoding="utf-8"))

    def compared(card: Card) -> str:
        text = card._repr_html_()
        for pattern, replacement in rules:
            text = re.sub(pattern, replacement, text)
        return text

    card = Card("✓", "correct", "ECE", "good", (("Checks", "all 4"), ("Note", "of a < b")))
    assert compared(card) == card._repr_html_()
    assert compared(replace(card, progress="1 of 4 here. Next: “a < `b`”.")) == compared(card)
    assert compared(replace(card, rows=card.rows[:1], progress="1 of 4 here.")) != compared(card)
