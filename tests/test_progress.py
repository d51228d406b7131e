"""The progress file: nothing lost, nothing trusted, nothing in the way of a check."""

import csv
import io
import json
import multiprocessing
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibcourse.course import cards, progress
from calibcourse.exercises import all_exercises, store
from calibcourse.exercises.lesson_00 import over_confidence

_KEYS = [exercise.key for exercise in all_exercises()]


@pytest.fixture
def path(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "progress.json"
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(path))
    return path


def _neighbours(path: Path) -> set[str]:
    return {file.name for file in path.parent.iterdir()} - {path.name, f"{path.name}.lock"}


def test_the_best_outcome_and_the_times_are_kept(path):
    before = datetime.now(UTC) - timedelta(seconds=1)  # times are stored to the second
    for outcome in ("incorrect", "your code raised", "correct", "incorrect"):
        assert store.record_attempt("01/ece", outcome) is None
    first = store.load()["01/ece"]
    assert (first.outcome, first.attempts) == ("correct", 4)
    for time in (first.first_attempt, first.last_attempt, first.first_correct):
        assert before <= datetime.fromisoformat(time) <= datetime.now(UTC)
        assert time.endswith("Z")
    assert not _neighbours(path)  # no temporary file is left


def test_first_correct_is_not_moved(path):
    record = store.Record().attempted("incorrect", "2026-01-01T00:00:00Z")
    assert record.first_correct is None
    record = record.attempted("correct", "2026-01-02T00:00:00Z")
    record = record.attempted("correct", "2026-01-03T00:00:00Z")
    assert record == store.Record(
        outcome="correct",
        attempts=3,
        first_attempt="2026-01-01T00:00:00Z",
        last_attempt="2026-01-03T00:00:00Z",
        first_correct="2026-01-02T00:00:00Z",
        attempts_until_correct=2,
    )


def test_mistakes_and_different_answers_are_counted(path):
    checks = [  # the outcome, the mistake and the answer of each check
        ("incorrect", "softmax twice", "a" * 16),
        ("incorrect", "softmax twice", "a" * 16),  # run again: no attempt
        ("incorrect", "softmax twice", "b" * 16),
        ("your code raised", "your code raised", "c" * 16),
        ("correct", None, "d" * 16),
        ("incorrect", "softmax twice", "a" * 16),
        ("correct", None, "d" * 16),
        ("correct", None, None),  # without a source nobody knows: it counts
    ]
    for check in checks:
        assert store.record_attempt("01/ece", *check) is None
    record = store.load()["01/ece"]
    assert record.mistakes == {"softmax twice": 2, "your code raised": 1}
    assert record.answers == ("a" * 16, "b" * 16, "c" * 16, "d" * 16)
    assert (record.attempts, record.attempts_until_correct) == (5, 4)


def test_an_answer_that_is_right_only_later_counts_as_right(path):
    """A helper it calls was mended, and its own source stayed."""
    store.record_attempt("01/ece", "incorrect", "not explained", "a" * 16)
    store.record_attempt("01/ece", "correct", None, "a" * 16)
    record = store.load()["01/ece"]
    assert (record.outcome, record.attempts, record.attempts_until_correct) == ("correct", 1, 1)


def test_what_is_kept_of_one_exercise_has_an_end(path):
    record = store.Record()
    for number in range(2000):
        record = record.attempted(
            "incorrect", "2026-01-01T00:00:00Z", f"{number}\n" * 99, f"{number:016x}"
        )
    assert record.attempts == 2000 and record.answers[-1] == f"{1999:016x}"
    store._update("01/ece", lambda _: record)
    assert store.load()["01/ece"] == record and path.stat().st_size < 50_000


@pytest.mark.parametrize("same", ["def f(x):\n  return x  # why", "    def f(x): return (x)\n"])
def test_layout_and_comments_make_no_other_answer(same):
    assert store.digest(same) == store.digest("def f(x):\n    return x")


def test_any_text_has_a_digest():
    texts = ["def f(x): return 2", "ex.check(lambda x: (", "\0", "\ud800", "(" * 10_000, "x is 1"]
    assert len({store.digest(text) for text in texts}) == len(texts)


OLD = {  # as written before mistakes and answers were recorded
    "outcome": "correct",
    "attempts": 3,
    "first_attempt": "2026-01-01T00:00:00Z",
    "last_attempt": "2026-01-02T00:00:00Z",
    "first_correct": "2026-01-02T00:00:00Z",
    "hints_seen": 2,
    "solution_seen": True,
}


def test_a_file_of_the_first_version_is_read_and_goes_on(path):
    path.parent.mkdir()
    path.write_text(json.dumps({"version": 1, "exercises": {"01/ece": OLD, "01/bins": OLD}}))
    assert store.load()["01/ece"] == store.Record(**OLD)
    assert store.record_attempt("01/ece", "incorrect", "softmax twice", "a" * 16) is None
    assert json.loads(path.read_text())["version"] == store.VERSION
    records = store.load()
    assert records["01/bins"] == store.Record(**OLD)
    record = records["01/ece"]
    assert (record.attempts, record.mistakes) == (4, {"softmax twice": 1})
    assert record.first_correct == OLD["first_correct"] and record.attempts_until_correct is None
    assert not _neighbours(path)


def test_a_check_tells_its_mistake_and_its_answer(path):
    def my_over_confidence(confidence, correct):
        return correct.float().mean() - confidence.mean()

    for _ in range(2):
        over_confidence.check(my_over_confidence)
    over_confidence.check(lambda confidence, correct: 1 / 0)
    over_confidence.check(lambda confidence, correct: confidence.mean() * 3)
    over_confidence.check(over_confidence.reference)
    over_confidence.check(None)  # not attempted
    record = store.load()["00/over_confidence"]
    assert record.mistakes == {"sign reversed": 1, "your code raised": 1, "not explained": 1}
    assert (record.attempts, record.attempts_until_correct, len(record.answers)) == (4, 4, 4)


def test_hints_and_solution_are_kept_beside_attempts(path):
    store.record_hint("01/ece", 2)
    store.record_hint("01/ece", 1)  # a fresh session starts at the first hint
    store.record_solution("01/ece")
    store.record_attempt("01/ece", "incorrect")
    record = store.load()["01/ece"]
    assert (record.hints_seen, record.solution_seen, record.attempts) == (2, True, 1)


def test_entries_of_other_versions_of_the_course_survive(path):
    store.record_attempt("42/retired", "correct")
    store.record_attempt("01/ece", "correct")
    assert set(store.load()) == {"42/retired", "01/ece"}


def _write_many(start, number: int) -> None:
    start.wait()
    for _ in range(100):
        assert store.record_attempt("01/shared", "incorrect") is None
        assert store.record_attempt(f"01/own{number}", "correct") is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starting a fresh session takes too long")
def test_sessions_that_write_at_once_lose_nothing(path, impatience, monkeypatch):
    monkeypatch.setattr(store, "_LOCK_SECONDS", 600)  # a busy machine is no other session
    processes = multiprocessing.get_context("fork")
    start = processes.Barrier(3)  # without it the first is done before the last has begun
    sessions = [processes.Process(target=_write_many, args=(start, n)) for n in range(3)]
    for session in sessions:
        session.start()
    for session in sessions:
        session.join()
    assert [session.exitcode for session in sessions] == [0, 0, 0]
    records = store.load()
    assert records["01/shared"].attempts == 300
    assert [records[f"01/own{number}"].attempts for number in range(3)] == [100, 100, 100]


def test_a_session_that_holds_the_lock_delays_but_does_not_break(path, monkeypatch):
    monkeypatch.setattr(store, "_LOCK_SECONDS", 0.05)
    store.record_attempt("01/ece", "incorrect")
    with store.FileLock(f"{path}.lock"):
        note = store.record_attempt("01/ece", "correct")
    assert note == "Progress not saved: another program holds the progress file."
    assert store.load()["01/ece"].outcome == "incorrect"


def test_a_write_that_fails_leaves_the_old_file(path, monkeypatch):
    store.record_attempt("01/ece", "correct")
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    assert "Progress not saved" in store.record_attempt("01/ece", "incorrect")
    assert path.read_bytes() == before
    assert not _neighbours(path)


_ENTRY = {
    "outcome": "correct",
    "attempts": 1,
    "first_attempt": None,
    "last_attempt": None,
    "first_correct": None,
    "hints_seen": 0,
    "solution_seen": False,
    "mistakes": {},
    "answers": [],
    "attempts_until_correct": None,
}


def _document(**changes) -> bytes:
    return json.dumps({"version": 2, "exercises": {"01/ece": {**_ENTRY, **changes}}}).encode()


DAMAGED = {
    "empty": b"",
    "half-written": _document()[:-9],
    "binary": bytes(range(256)),
    "a list": b"[]",
    "no version": b'{"exercises": {}}',
    "version is text": b'{"version": "1", "exercises": {}}',
    "exercises is a list": b'{"version": 1, "exercises": []}',
    "an entry is a number": b'{"version": 1, "exercises": {"01/ece": 3}}',
    "nested without end": b"[" * 100_000,
    "a number without end": b'{"version": ' + b"1" * 5000 + b"}",
    "too large": b" " * 1_000_001,
    "NaN": _document().replace(b'"attempts": 1', b'"attempts": NaN'),
    "unknown outcome": _document(outcome="perfect"),
    "outcome is a list": _document(outcome=["correct"]),
    "negative attempts": _document(attempts=-1),
    "attempts is a bool": _document(attempts=True),
    "attempts is a fraction": _document(attempts=1.5),
    "too many attempts": _document(attempts=10**12),
    "time is not a time": _document(first_correct='=HYPERLINK("x")'),
    "time is a number": _document(last_attempt=5),
    "solution_seen is a number": _document(solution_seen=1),
    "mistakes is a list": _document(mistakes=["softmax twice"]),
    "a mistake is not printable": _document(mistakes={"\x1b[2J": 1}),
    "a mistake is too long": _document(mistakes={"x" * 121: 1}),
    "too many mistakes": _document(mistakes={str(number): 1 for number in range(101)}),
    "a mistake happened half a time": _document(mistakes={"softmax twice": 0.5}),
    "answers is a dictionary": _document(answers={"a" * 16: 1}),
    "an answer is no digest": _document(answers=["return 1"]),
    "too many answers": _document(answers=["a" * 16] * 501),
    "attempts_until_correct is text": _document(attempts_until_correct="3"),
    "a file of version 1 with later fields": _document().replace(b'"version": 2', b'"version": 1'),
    "a field too many": _document(extra=1),
    "a field too few": _document().replace(b'"hints_seen": 0, ', b""),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_file_is_set_aside_with_a_note(path, content, capsys):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(store.UnreadableProgress):
        store.load()
    assert progress.main() == 1  # only looking: the file stays
    assert path.read_bytes() == content
    assert capsys.readouterr().err.startswith("The progress file cannot be read: ")

    note = store.record_attempt("01/ece", "incorrect")
    assert note.startswith("The progress file was unreadable (")
    assert note.endswith("kept as progress.json.bak.") and len(note.splitlines()) == 1
    assert str(path.parent) not in note
    assert (path.parent / "progress.json.bak").read_bytes() == content
    assert store.load()["01/ece"].outcome == "incorrect"
    assert store.record_attempt("01/ece", "correct") is None


def test_a_second_damaged_file_does_not_overwrite_the_first(path):
    path.parent.mkdir()
    for content in (b"first", b"second", b"third"):
        path.write_bytes(content)
        store.record_attempt("01/ece", "correct")
    kept = [path.with_name(f"progress.json{n}.bak").read_bytes() for n in ("", ".2", ".3")]
    assert kept == [b"first", b"second", b"third"]


def test_file_of_a_newer_version_is_left_alone(path):
    path.parent.mkdir()
    content = json.dumps({"version": store.VERSION + 1, "exercises": {}, "more": 1})
    path.write_text(content)
    assert "newer version" in store.record_attempt("01/ece", "correct")
    assert path.read_text() == content and not _neighbours(path)


@settings(deadline=None, max_examples=100)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["version", "exercises", *_ENTRY]), inner, max_size=4)
        ),
    )
)
def test_any_json_is_read_or_refused(value):
    try:
        records = store._validated(value)
    except store.UnreadableProgress:
        return
    assert all(isinstance(record, store.Record) for record in records.values())


def test_a_folder_or_a_pipe_in_its_place_is_left_alone(path, monkeypatch):
    path.mkdir(parents=True)
    assert "Progress not saved" in store.record_attempt("01/ece", "correct")
    assert path.is_dir()
    if hasattr(os, "mkfifo"):
        pipe = path.parent / "pipe"
        os.mkfifo(pipe)
        monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(pipe))
        assert "Progress not saved" in store.record_attempt("01/ece", "correct")
        assert progress.main() == 1  # and does not wait for somebody to write into it
        assert pipe.is_fifo()


def test_null_device_keeps_nothing_and_is_never_written(monkeypatch, capsys):
    def never(*_):
        # Writing replaces the file: for root, a defect here would cost the machine its null device.
        raise AssertionError("the null device must not be replaced")

    monkeypatch.setattr(store, "write_json", never)
    monkeypatch.setattr(store, "FileLock", never)
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", os.devnull)
    assert store.record_attempt("01/ece", "correct") is None
    assert progress.main() == 0
    assert "not kept" in capsys.readouterr().out


def test_a_link_stays_a_link(path):
    path.parent.mkdir()
    elsewhere = path.parent / "elsewhere.json"
    try:
        path.symlink_to(elsewhere)
    except OSError:
        pytest.skip("no links here")
    store.record_attempt("01/ece", "correct")
    assert path.is_symlink() and elsewhere.is_file()


# --- Where it is kept ----------------------------------------------------------------------------


def test_file_is_in_the_course_folder_wherever_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.delenv("CALIBCOURSE_PROGRESS", raising=False)
    lessons = tmp_path / "course" / "lessons"
    lessons.mkdir(parents=True)
    monkeypatch.chdir(lessons)
    assert store.progress_path() == lessons / ".calibcourse" / "progress.json"  # just a folder
    (tmp_path / "course" / "solutions").mkdir()
    course = tmp_path / "course" / ".calibcourse" / "progress.json"
    assert store.progress_path() == course
    monkeypatch.chdir(tmp_path / "course")
    assert store.progress_path() == course
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(tmp_path / "mine.json"))
    assert store.progress_path() == tmp_path / "mine.json"


def test_course_without_solutions_is_found_by_its_project_file(tmp_path, monkeypatch):
    monkeypatch.delenv("CALIBCOURSE_PROGRESS", raising=False)
    (tmp_path / "lessons").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path / "lessons")
    assert store.progress_path().parent.parent == tmp_path


# --- What is printed -----------------------------------------------------------------------------


def test_table_lists_every_exercise_and_counts_the_correct(path, capsys):
    assert progress.main() == 0
    untouched = capsys.readouterr().out
    assert untouched.count("not attempted") == len(_KEYS)
    assert f"0 of {len(_KEYS)} correct\nWill be kept in {path}" in untouched
    assert not path.parent.exists()  # looking leaves no file

    store.record_attempt("01/ece", "incorrect")
    store.record_attempt("01/bins", "correct")
    assert progress.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"1 of {len(_KEYS)} correct" in lines and lines[-1] == f"Kept in {path}"
    (row,) = [line for line in lines if line.startswith("01") and " ece " in line]
    assert row.split() == ["01", "ece", "incorrect", "1", "0", "no"]


def test_csv_is_for_machines(path, capsys):
    store.record_hint("01/ece", 3)
    store.record_solution("01/ece")
    store.record_attempt("01/ece", "correct")
    store.record_attempt("77/unknown", "correct")
    assert progress.main(csv=True) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [f"{row['lesson']}/{row['exercise']}" for row in rows] == _KEYS
    (ece,) = [row for row in rows if row["exercise"] == "ece"]
    assert datetime.fromisoformat(ece.pop("first_correct")).tzinfo is not None
    assert ece == {
        "lesson": "01",
        "exercise": "ece",
        "outcome": "correct",
        "attempts": "1",
        "hints": "3",
        "solution_seen": "yes",
    }


def test_the_card_says_what_is_correct_lesson_by_lesson(path):
    untouched = cards.progress()
    assert untouched.word == f"0 of {len(_KEYS)} correct" and len(untouched.rows) == 10
    assert "Kept in" not in repr(untouched) and not path.parent.exists()

    store.record_attempt("01/ece", "incorrect")
    store.record_attempt("01/bins", "correct")
    store.record_attempt("01/temperature", "your code raised")
    card = cards.progress()
    rows = dict(card.rows)
    assert card.word == f"1 of {len(_KEYS)} correct" and rows["Kept in"] == str(path)
    assert rows["Lesson 01"] == (
        "1 of 4 correct; incorrect: ece; your code raised: temperature; not attempted: useless"
    )
    assert all(word in card._repr_html_() for word in ("temperature", str(path)))


def test_the_card_of_an_unreadable_file_says_so(path):
    path.parent.mkdir()
    path.write_text("[]")
    assert "not a progress file" in dict(cards.progress().rows)["Note"]
