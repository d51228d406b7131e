"""A class on one page: what is counted, and that no file of a student's can spoil it."""

import csv
import io
import json
import os
import random
from dataclasses import asdict
from html.parser import HTMLParser

import pytest

from calibcourse import cli
from calibcourse._page import csv_text, page, table, tag
from calibcourse.course.class_report import (
    COLUMNS,
    Class,
    class_report,
    hardest,
    read_class,
    report_csv,
    report_page,
    summarise,
)
from calibcourse.exercises import all_exercises, all_predictions, lesson_01, store
from calibcourse.exercises._guess import Guess
from calibcourse.exercises.lesson_00 import over_confidence
from calibcourse.exercises.store import Record

KEY = over_confidence.key
DAY = "2026-01-01T00:00:00Z"


def write(path, records: dict[str, Record], monkeypatch) -> None:
    """A progress file as the course itself writes it."""
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(path))
    for key, record in records.items():
        assert store._update(key, lambda _, record=record: record) is None


def record(outcome: str, mistakes: tuple[str, ...] = (), **more) -> Record:
    """What is kept of one answer per mistake and one with the outcome."""
    kept = Record()
    for mistake in mistakes:
        kept = kept.attempted("incorrect", DAY, mistake)
    return kept.attempted(outcome, DAY) if outcome == "correct" else kept


class Text(HTMLParser):
    """The text of a page, and the tags in it."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


def test_students_mistakes_and_attempts_are_counted(tmp_path, monkeypatch):
    sign, absolute = "sign reversed", "absolute value"
    students = {
        "ada": record("correct", (sign, sign, absolute)),
        "bob": record("incorrect", (sign,)),
        "eve": record("correct"),
    }
    for name, kept in students.items():
        write(tmp_path / f"{name}.json", {KEY: kept, "99/gone": kept}, monkeypatch)
    found = read_class([tmp_path])
    assert list(found.students) == ["ada", "bob", "eve"] and not found.unreadable
    summary = summarise(found.students.values(), [over_confidence])[0]
    assert (summary.tried, summary.correct, summary.stuck, summary.helped) == (3, 2, 1, 0)
    assert summary.attempts == 2.5  # the median of Ada's fourth and Eve's first
    assert summary.mistakes == {sign: 2, absolute: 1}  # students, not answers
    assert hardest([summary]) == [summary]


def test_the_page_names_what_helps_and_who_is_where(tmp_path, monkeypatch, capsys):
    for number in range(60):
        kept = record("correct" if number % 3 else "incorrect", ("sign reversed",))
        write(tmp_path / f"student{number:02}/progress.json", {KEY: kept}, monkeypatch)
    html, table = tmp_path / "class.html", tmp_path / "class.csv"
    arguments = ["class", str(tmp_path), "--html", str(html), "--csv", str(table)]
    assert cli.main(arguments) == 0
    shown = Text(html.read_text(encoding="utf-8")).text
    assert "60 students" in shown and "40 of 60 who tried have it right" in shown
    told = next(wrong.diagnosis for wrong in over_confidence.wrong if wrong.name == "sign reversed")
    assert told in shown and over_confidence.hints[0] in shown
    assert "student59" in shown and f"1 of {len(all_exercises())}" in shown
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert len(rows) == 60 * len(all_exercises()) and tuple(rows[0]) == COLUMNS
    assert rows[0]["mistakes"] == "sign reversed: 1" and rows[0]["student"] == "student00"
    assert "40 / 60" in capsys.readouterr().out


def test_hostile_files_are_named_and_count_for_nothing(tmp_path, monkeypatch, capsys):
    write(tmp_path / "ada.json", {KEY: record("correct")}, monkeypatch)
    hostile = {
        "empty": b"",
        "list": b"[]",
        "huge": b" " * 2_000_000,
        "deep": b"[" * 100_000,
        "binary": bytes(range(256)),
        "newer": json.dumps({"version": 99, "exercises": {}}).encode(),
        "fields": json.dumps({"version": 2, "exercises": {KEY: {"outcome": "correct"}}}).encode(),
    }
    for name, content in hostile.items():
        (tmp_path / f"{name}.json").write_bytes(content)
    paths = [str(tmp_path), str(tmp_path / "missing.json")]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.json")  # never read: nobody writes into it
        hostile["pipe"] = b""
    assert cli.main(["class", *paths, "--html", str(tmp_path / "x.html")]) == 1
    out = capsys.readouterr().out
    assert out.count("cannot be read") == len(hostile) + 1 and "1 students" in out
    shown = Text((tmp_path / "x.html").read_text(encoding="utf-8")).text
    assert all(f"{name}.json" in shown for name in (*hostile, "missing"))


def test_nothing_in_a_file_becomes_html_or_a_formula(tmp_path, monkeypatch):
    mistake = "<script>alert(1)</script>"
    kept = Record().attempted("incorrect", DAY, mistake)
    write(tmp_path / "=cmd<img src=x>.json", {KEY: kept}, monkeypatch)
    found = read_class([tmp_path])
    shown = Text(report_page(found, summarise(found.students.values(), [over_confidence])))
    assert not shown.tags & {"script", "img"} and mistake in shown.text
    (row,) = csv.DictReader(io.StringIO(report_csv(found, [over_confidence])))
    assert row["student"] == "'=cmd<img src=x>" and row["mistakes"] == f"{mistake}: 1"


ACCURACY, RUIN = lesson_01.predicted_accuracy, lesson_01.predicted_ruin
GUESSES = {
    ACCURACY.key: Guess(95.0, 0.8, False, 84.0, DAY, DAY),
    RUIN.key: Guess("both", 0.25, False, "only the MCE", DAY, DAY),
}


def predicted(path, **changes) -> None:
    """A progress file with predictions; `changes` replace the entry of `ACCURACY`."""
    entries = {key: asdict(guess) for key, guess in GUESSES.items()}
    entries[ACCURACY.key] |= changes
    document = {"version": 3, "exercises": {}, "predictions": entries}
    path.write_text(json.dumps(document), encoding="utf-8")


def test_a_class_sees_its_predictions_without_names(tmp_path, capsys):
    predicted(tmp_path / "ada.json")
    predicted(tmp_path / "bob.json", answer=86.0)
    predicted(tmp_path / "cleo.json", late=True)
    predicted(tmp_path / "hostile.json", answer="<script>alert(1)</script>")
    predicted(tmp_path / "hostile2.json", sure=7)
    assert cli.main(["class", str(tmp_path), "--html", str(tmp_path / "x.html")]) == 1
    assert "hostile2.json cannot be read" in capsys.readouterr().out
    shown = Text((tmp_path / "x.html").read_text(encoding="utf-8"))
    assert "script" not in shown.tags
    section = shown.text.partition("Predictions")[2].partition("Students")[0]
    assert "79 % to 89 % ✓ measured 84 % · 1" in section and "89 % to 99 % · 1" in section
    assert "only the MCE ✓ · 0" in section and "both · 4" in section
    assert "6 predictions: 43 % sure on average, right in 17 %" in section
    assert not any(name in section for name in ("ada", "bob", "cleo", "hostile"))


@pytest.mark.parametrize("truth", [1e99, -1e99, 1e-300, 0, 5])
@pytest.mark.parametrize("answer", [1e99, -1e99, 1e-300, 0, 5])
def test_no_number_in_a_file_stops_the_page(tmp_path, answer, truth):
    entries = {
        one.key: asdict(Guess(answer, 0.0, False, truth, DAY, DAY)) for one in all_predictions()
    }
    (tmp_path / "ada.json").write_text(
        json.dumps({"version": 3, "exercises": {}, "predictions": entries})
    )
    found = read_class([tmp_path])
    assert "Predictions" in report_page(found, [])


def test_without_predictions_the_page_has_no_such_section(tmp_path, monkeypatch):
    write(tmp_path / "ada.json", {KEY: record("correct")}, monkeypatch)
    assert "Predictions" not in report_page(read_class([tmp_path]), [])


def test_students_of_one_name_stay_apart(tmp_path, monkeypatch):
    paths = ["a/ada.json", "b/ada.json", "c/ada/.calibcourse/progress.json"]
    for path in paths:
        write(tmp_path / path, {KEY: record("correct")}, monkeypatch)
    assert list(read_class([tmp_path / path for path in paths]).students) == [
        "ada",
        "ada (2)",
        "ada (3)",
    ]


def test_files_of_the_first_version_are_merged_too(tmp_path):
    old = dict(outcome="correct", attempts=3, first_attempt=DAY, last_attempt=DAY)
    old |= dict(first_correct=DAY, hints_seen=1, solution_seen=True)
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"version": 1, "exercises": {KEY: old}}))
    summary = summarise(read_class([path]).students.values(), [over_confidence])[0]
    assert (summary.correct, summary.helped, summary.attempts) == (1, 1, None)


def test_no_file_at_all_is_said(tmp_path, capsys):
    assert cli.main(["class", str(tmp_path)]) == 2
    assert "no progress file" in capsys.readouterr().err


def test_any_files_of_any_class_make_a_page(tmp_path, monkeypatch):
    """Sixty files, each spoilt at a random place or not at all."""
    write(tmp_path / "ada.json", {KEY: record("correct", ("sign reversed",) * 3)}, monkeypatch)
    good, draw = (tmp_path / "ada.json").read_bytes(), random.Random(0)
    for number in range(60):
        content = bytearray(good)
        for _ in range(number % 3):
            content[draw.randrange(len(content))] = draw.randrange(256)
        (tmp_path / f"{number}.json").write_bytes(content)
    lines = []
    html = tmp_path / "class.html"
    assert class_report([tmp_path], html=str(html), log=lines.append) in (0, 1)
    found = read_class([tmp_path])
    assert len(found.students) + len(found.unreadable) == 61 and len(found.students) > 20
    assert html.stat().st_size < 200_000


def test_an_empty_class_has_a_page():
    assert "0 students" in report_page(Class({}, {}), summarise([], all_exercises()))


def test_only_html_is_html():
    made = page("a < b", [tag("p", "x & y"), "1 < 2", table(("<i>",), [(3,), ("'",)])])
    assert "a &lt; b" in made and "x &amp; y" in made and "1 &lt; 2" in made
    assert "&lt;i&gt;" in made and '<td class="number">3</td>' in made and "&#x27;" in made


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_no_cell_of_a_table_is_a_formula(text):
    assert csv_text(text) == f"'{text}"


def test_elements_without_content_are_not_closed():
    assert tag("p", "one", tag("br"), "two") == "<p>one<br>two</p>"
