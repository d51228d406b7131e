"""Results taken along and brought back, and what a session says of where they are kept."""

import base64
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibcourse.exercises import _carry, _place, export_progress, import_progress, store
from calibcourse.exercises._guess import Guess, possible
from calibcourse.exercises.lesson_00 import over_confidence
from calibcourse.exercises.store import OUTCOMES, Record

SAID = "vanish with the session"


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, as text."""
    outputs = []
    monkeypatch.setattr(_carry, "display", outputs.append)
    return outputs


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(tmp_path / "kept" / "progress.json"))
    return tmp_path / "kept" / "progress.json"


@pytest.fixture
def session(tmp_path, monkeypatch):
    """A fresh session outside of any course, on nobody's machine."""
    monkeypatch.setattr(_place, "_said", False)
    for name in ("CALIBCOURSE_PROGRESS", "COLAB_RELEASE_TAG", "BINDER_LAUNCH_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("BINDER_SERVICE_HOST", raising=False)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ------------------------------------------------------- taken along, brought back


def test_what_is_taken_along_comes_back(path, shown):
    store.record_attempt("01/ece", "correct")
    store.record_hint("01/bins", 2)
    store.record_guess("01/predicted_ece", 0.1, 0.9)
    store.record_truth("01/predicted_ece", 0.12)
    kept = store.read_progress()
    export_progress()
    assert store.read_progress(Path("my_progress.json")) == kept
    assert {file.name for file in Path().iterdir()} == {"kept", "my_progress.json"}
    (link,) = re.findall(r'href="data:application/json;base64,([^"]+)"', shown[-1].data)
    assert json.loads(base64.b64decode(link)) == json.loads(Path("my_progress.json").read_text())

    path.unlink()  # the session ended
    import_progress()
    assert store.read_progress() == kept and "2 exercises, 1 predictions" in repr(shown[-1])
    before = path.read_bytes()
    import_progress()
    assert path.read_bytes() == before and "0 exercises, 0 predictions" in repr(shown[-1])


def test_neither_side_loses(path, shown):
    """Of two sessions, neither the older export nor the newer result goes."""
    store.record_attempt("01/ece", "correct", None, "a" * 16)
    export_progress()
    path.unlink()
    store.record_attempt("01/ece", "incorrect", "softmax twice", "b" * 16)
    store.record_attempt("02/band", "correct")
    export_progress()
    import_progress()
    for found in (store.load(), store.load(Path("my_progress.json"))):
        ece = found["01/ece"]
        assert (ece.outcome, ece.attempts) == ("correct", 2)
        assert set(ece.answers) == {"a" * 16, "b" * 16} and ece.mistakes == {"softmax twice": 1}
        assert found["02/band"].outcome == "correct"


def test_what_is_no_progress_file_is_neither_read_nor_written_over(path, shown):
    store.record_attempt("01/ece", "correct")
    before = path.read_bytes()
    for content in (b"my diary", b"[]", b'{"version": 999, "exercises": {}}', b" " * 2_000_000):
        Path("my_progress.json").write_bytes(content)
        export_progress()
        assert shown[-1].word == "not exported"
        import_progress()
        assert shown[-1].word == "not imported"
        assert Path("my_progress.json").read_bytes() == content and path.read_bytes() == before
    import_progress("elsewhere.json")
    assert "there is no file elsewhere.json" in repr(shown[-1])
    import_progress(".")
    assert shown[-1].word == "not imported" and path.read_bytes() == before


def test_without_results_nothing_is_exported(path, shown):
    export_progress()
    assert shown[-1].word == "nothing to export" and not Path("my_progress.json").exists()


def test_a_file_too_large_to_be_read_again_is_not_written(path, shown):
    names = {f"{number:0119}": 1 for number in range(100)}
    store.absorb({f"a/{i}": Record(mistakes=names) for i in range(60)}, {})
    before = path.read_bytes()
    note = store.absorb({f"b/{i}": Record(mistakes=names) for i in range(60)}, {})
    assert "too large" in note and path.read_bytes() == before and len(store.load()) == 60


def test_on_colab_the_file_is_handed_to_the_browser(path, shown, monkeypatch):
    handed = []
    files = SimpleNamespace(download=handed.append)
    monkeypatch.setitem(sys.modules, "google", SimpleNamespace(colab=SimpleNamespace(files=files)))
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace(files=files))
    store.record_attempt("01/ece", "correct")
    export_progress()
    assert handed == ["my_progress.json"] and len(shown) == 1


times = st.sampled_from([None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])
records = st.builds(
    Record,
    outcome=st.sampled_from(OUTCOMES),
    attempts=st.integers(0, 10**9 - 1),
    first_attempt=times,
    last_attempt=times,
    first_correct=times,
    hints_seen=st.integers(0, 5),
    solution_seen=st.booleans(),
    mistakes=st.dictionaries(st.sampled_from("abc"), st.integers(0, 10**9 - 1)),
    answers=st.lists(st.integers(0, 999).map(lambda n: f"{n:016x}"), max_size=500).map(tuple),
    attempts_until_correct=st.none() | st.integers(0, 10**9 - 1),
)


@settings(max_examples=50)
@given(records, records)
def test_the_joined_record_knows_what_both_know(a, b):
    joined = a.joined(b)
    document = {"version": 2, "exercises": {"x": store.asdict(joined)}}
    assert store._validated(json.loads(json.dumps(document)))[0]["x"] == joined  # it can be kept
    assert joined.joined(b) == joined.joined(joined) == joined
    for one in (a, b):
        assert OUTCOMES.index(joined.outcome) >= OUTCOMES.index(one.outcome)
        assert joined.hints_seen >= one.hints_seen
        assert joined.solution_seen or not one.solution_seen
        assert all(joined.mistakes[name] >= count for name, count in one.mistakes.items())
        assert not one.first_correct or joined.first_correct <= one.first_correct
    if len({*a.answers, *b.answers}) <= 500:
        assert {*joined.answers} == {*a.answers, *b.answers}


def moments(day: int, *changes) -> Guess:
    guess = Guess()
    for name, *values in changes:
        day += 1
        guess = getattr(guess, name)(*values, f"2026-01-{day:02}T00:00:00Z")
    return guess


def test_the_first_answer_to_a_prediction_stays_and_one_given_after_its_result_is_late():
    open_early = moments(1, ("with_answer", 0.1, 0.9))
    settled = moments(5, ("with_answer", 0.3, 0.6), ("with_truth", 0.2))
    only_seen = moments(3, ("with_truth", 0.25))
    assert open_early.joined(settled) == replace(
        settled, answer=0.1, sure=0.9, answered=open_early.answered
    )
    late = only_seen.joined(settled)
    assert (late.answer, late.late, late.truth) == (0.3, True, 0.25)
    for a in (open_early, settled, only_seen, Guess()):
        for b in (open_early, settled, only_seen, Guess()):
            joined = a.joined(b)
            assert joined == b.joined(a) == joined.joined(b) and possible(joined)


# ---------------------------------------------------------------- where it is kept


def checked(capsys) -> str:
    over_confidence.check(over_confidence.reference)
    return " ".join(capsys.readouterr().out.split())


def test_outside_the_course_the_first_check_says_where_results_go(session, capsys):
    first, second = checked(capsys), checked(capsys)
    assert "outside the folder of the course" in first and "progress.json" in first
    assert "outside" not in second
    assert (session / ".calibcourse/progress.json").is_file()


@pytest.mark.parametrize("variable", ["BINDER_LAUNCH_HOST", "BINDER_SERVICE_HOST"])
def test_on_binder_the_first_check_says_that_results_vanish(variable, session, monkeypatch, capsys):
    (session / "lessons").mkdir()  # Binder serves the course's own folder
    (session / "solutions").mkdir()
    monkeypatch.setenv(variable, "https://mybinder.org/")
    first, second = checked(capsys), checked(capsys)
    assert f"On Binder your results {SAID}" in first and "export_progress()" in first
    assert SAID not in second


def test_on_colab_too(session, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())
    assert f"On Colab your results {SAID}" in checked(capsys)


def test_what_it_names_can_be_run(path, shown):
    exec(f"{_place.FUNCTIONS}\nexport_progress()\nimport_progress()", {})
    assert [card.word for card in shown] == ["nothing to export", "not imported"]


@pytest.mark.parametrize("usual", ["course", "chosen", "unwritable"])
def test_where_all_is_usual_nothing_is_said(usual, session, monkeypatch, capsys):
    if usual == "course":
        (session / "lessons").mkdir()
        (session / "solutions").mkdir()
    elif usual == "chosen":
        monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(session / "mine.json"))
        monkeypatch.setenv("BINDER_LAUNCH_HOST", "https://mybinder.org/")
    else:
        (session / ".calibcourse").touch()  # a file where the folder would be
    text = checked(capsys)
    assert "outside" not in text and SAID not in text
    assert ("not saved" in text) == (usual == "unwritable")
