"""Predictions: asked before, compared after, kept in the progress file, and never in the way."""

import json
import os
import re
from dataclasses import asdict
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from nbclient import NotebookClient

from calibcourse import plots
from calibcourse.course import progress
from calibcourse.exercises import (
    all_predictions,
    calibration_in_words,
    lesson_01,
    my_predictions,
    predictions,
    store,
)
from calibcourse.exercises._guess import Guess
from calibcourse.exercises._prediction_input import PredictionInput, sure_levels
from calibcourse.exercises.predictions import Prediction, counted

SHARE = Prediction("99", "predicted_share", "Share of tails", unit="%", within=5)
RATIO = Prediction("99", "predicted_ratio", "How many times", factor=2)
SIDE = Prediction("99", "predicted_side", "Next", ("heads", "tails", "the edge"))
ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "solutions"


@pytest.fixture(autouse=True)
def path(tmp_path, monkeypatch):
    """A progress file of this test's own; notes are told anew."""
    monkeypatch.setattr(predictions, "_unsaved", {})
    monkeypatch.setattr(predictions, "_told", set())
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(tmp_path / "progress.json"))
    return tmp_path / "progress.json"


@pytest.fixture
def shown(monkeypatch):
    """What was displayed, in order."""
    seen = []
    monkeypatch.setattr(predictions, "display", seen.append)
    return seen


@pytest.mark.parametrize(
    ("prediction", "answer", "truth", "right"),
    [
        (SHARE, 89.3, 84.3, True),  # 84.3 + 5 is not 89.3 in floats: the edge belongs to it
        (SHARE, 79.3, 84.3, True),
        (SHARE, 89.31, 84.3, False),
        (RATIO, 0.06, 0.03, True),
        (RATIO, 0.015, 0.03, True),
        (RATIO, 0.061, 0.03, False),
        (RATIO, 0, 0.03, False),
        (RATIO, -0.03, 0.03, False),
        (RATIO, 0, 0, True),
        (SIDE, "tails", "tails", True),
        (SIDE, "heads", "tails", False),
        (SIDE, 3.0, "tails", False),
    ],
)
def test_what_is_right_is_what_the_input_says(prediction, answer, truth, right):
    assert prediction.is_right(answer, truth) is right


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"within": 1, "factor": 2},
        {"options": ("one",)},
        {"options": ("a", "a")},
        {"options": ("a", "b"), "within": 1},
        {"options": ("a", "b" * 500)},
    ],
)
def test_a_declaration_needs_one_rule_of_what_is_right(wrong):
    with pytest.raises(ValueError, match=r"option|within"):
        Prediction("99", "x", "x", **wrong)


def test_the_answer_before_the_result_counts_and_can_be_changed_until_then(path):
    assert SHARE.keep(80, 0.5) is None
    SHARE.keep(90, 0.7)
    store.record_truth(SHARE.key, 84.3)
    SHARE.keep(84, 1.0)  # after the result: too late
    guess = store.load_predictions()[SHARE.key]
    assert (guess.answer, guess.sure, guess.late, guess.truth) == (90, 0.7, False, 84.3)
    confidence, correct = counted([SHARE], store.load_predictions())
    assert (confidence.tolist(), correct.tolist()) == ([0.7], [False])


def test_an_answer_after_the_result_is_kept_and_does_not_count(shown):
    SHARE.compare(0.843)
    assert "does not count" in PredictionInput(SHARE).status.value
    SHARE.keep(84, 1.0)
    assert SHARE.guess.late
    assert len(counted([SHARE], store.load_predictions())[0]) == 0
    SHARE.compare(0.843)
    assert "not counted" in shown[-1]._repr_html_()


def test_what_was_measured_first_stays(shown):
    SHARE.keep(84, 0.9)
    SHARE.compare(0.843)
    SHARE.compare(torch.tensor(0.5))  # the learner changed the cell
    assert store.load_predictions()[SHARE.key].truth == pytest.approx(84.3)
    assert "50 %" in shown[-1]._repr_html_()  # the card shows this run's


def test_text_is_the_same_with_an_answer_as_without(shown):
    SHARE.compare(0.843)
    untouched = repr(shown[0]), repr(PredictionInput(SHARE))
    assert "You said" not in shown[0]._repr_html_()
    Path(os.environ["CALIBCOURSE_PROGRESS"]).unlink()
    SHARE.keep(95, 0.8)
    SHARE.compare(0.9)
    assert (repr(shown[1]), repr(PredictionInput(SHARE))) == untouched
    text = shown[1]._repr_html_()
    assert "95 %, 80 % sure to be within 5 percentage points: it is." in text


def test_nbval_does_not_compare_what_is_personal(shown):
    """The sanitising rules leave the same of both."""
    SIDE.compare("tails")
    Path(os.environ["CALIBCOURSE_PROGRESS"]).unlink()
    SIDE.keep("heads", 0.5)
    SIDE.compare("tails")
    without, with_answer = (card._repr_html_() for card in shown)
    assert without != with_answer
    assert _sanitised(without) == _sanitised(with_answer) == "prediction"


def test_the_result_must_be_a_possible_answer():
    with pytest.raises(ValueError, match="one of"):
        SIDE.compare("Tails")
    with pytest.raises(ValueError, match="finite number"):
        SHARE.compare(float("nan"))


CELLS = (
    "from calibcourse import plots\nfrom calibcourse.exercises import lesson_01 as ex",
    "ex.predicted_noise.ask()\nex.predicted_temperature.ask()",
    "fig, (ax,) = plots.figure(1)\nex.predicted_accuracy.mark(ax)\nplots.show(fig, alt='x')",
    "ex.predicted_accuracy.compare(0.843)\nex.predicted_temperature.compare('above 1')",
)


@pytest.mark.slow
def test_a_notebook_with_answers_compares_equal_to_the_stored_one(tmp_path, monkeypatch):
    """As nbval compares: pictures and views left out, the rest sanitised."""
    compared = []
    for answered in (False, True):
        monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(tmp_path / f"{answered}.json"))
        if answered:
            lesson_01.predicted_accuracy.keep(95.0, 0.9)
            lesson_01.predicted_temperature.keep("below 1", 0.6)
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
        NotebookClient(notebook, timeout=300).execute()
        outputs = [output for cell in notebook.cells for output in cell.outputs]
        assert all(output.data["text/plain"].endswith("Run this cell to answer.")
                   for output in notebook.cells[1].outputs)  # fmt: skip
        compared.append([
            {kind: _sanitised(text) for kind, text in output.data.items() if kind not in SKIPPED}
            for output in outputs
        ])  # fmt: skip
        said = "".join(output.data.get("text/html", "") for output in outputs)
        assert ("You said" in said) is answered
    assert compared[0] == compared[1]
    assert len(compared[0]) == 5  # two inputs, a figure, two cards


SKIPPED = ("image/png", "application/vnd.jupyter.widget-view+json")
RULES = re.findall(
    r"^regex: (.*)\nreplace: (.*)$", (ROOT / "tests/nbval_sanitize.cfg").read_text(), re.M
)


def _sanitised(text):
    for pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text)
    return text


# --- The input --------------------------------------------------------------------------------


def test_a_number_is_typed_and_kept():
    box = PredictionInput(SHARE)
    box.button.click()
    assert "how sure" in box.status.value
    box.sure.value = 0.8
    box.button.click()
    assert "Type a number" in box.status.value and SHARE.guess == Guess()
    box.answer.value = "84,5 %"
    box.button.click()
    assert "Kept: 84.5 %, 80 % sure" in box.status.value
    assert (SHARE.guess.answer, SHARE.guess.sure) == (84.5, 0.8)
    again = PredictionInput(SHARE)  # the cell is run again
    assert (again.answer.value, again.sure.value) == ("84.5", 0.8)


def test_what_is_typed_is_sent_as_a_whole():
    """Sent letter by letter, "95 %" once arrived as "9 %": an echo came in between."""
    assert not PredictionInput(SHARE).answer.continuous_update


def test_nothing_is_chosen_for_the_learner():
    box = PredictionInput(SIDE)
    assert box.answer.value is None and box.sure.value is None
    box.sure.value = 0.5
    box.button.click()
    assert "Choose one" in box.status.value
    box.answer.value = "tails"
    box.button.click()
    assert SIDE.guess.answer == "tails"
    assert box.sure.options[0] == ("33 %", 0.33)


@pytest.mark.parametrize("prediction", [SHARE, SIDE], ids=["number", "choice"])
def test_after_the_result_the_input_says_what_counts(prediction, shown):
    truth = 0.8 if prediction is SHARE else "tails"
    prediction.keep(80 if prediction is SHARE else "tails", 0.9)
    prediction.compare(truth)
    box = PredictionInput(prediction)
    assert "your first answer stays" in box.status.value
    box.sure.value = 1.0
    box.button.click()
    assert prediction.guess.sure == 0.9


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,500", 1500), ("0,050", 0.05), ("−3", -3), ("1e5", 1e5), (" 12.5 % ", 12.5), ("1,5", 1.5)],
)
def test_numbers_are_read_as_people_write_them(text, value):
    assert SHARE.read(text) == value


@pytest.mark.parametrize("text", ["", "many", "nan", "inf", "1e999", "5 %%"])
def test_what_is_no_number_is_not_kept(text):
    with pytest.raises(ValueError, match="Type a number, in %"):
        SHARE.read(text)


def test_levels_start_at_a_blind_guess():
    assert sure_levels(0.5) == [50, 60, 70, 80, 90, 95, 99, 100]
    assert sure_levels(0)[0] == 5


def test_the_mark_is_the_learners_and_leaves_the_axis():
    fig, (ax,) = plots.figure(1)
    ax.set(xlim=(0.5, 1))
    SHARE.mark(ax)
    assert not ax.lines and not ax.texts
    SHARE.keep(95, 0.8)
    SHARE.mark(ax)
    assert ax.lines[0].get_xdata()[0] == 0.95
    assert "95 %" in ax.texts[0].get_text()
    SHARE.keep(10, 0.8)
    SHARE.mark(ax)
    assert len(ax.lines) == 1 and "off this axis" in ax.texts[1].get_text()
    assert ax.get_xlim() == (0.5, 1)
    with pytest.raises(ValueError, match="number has a mark"):
        SIDE.mark(ax)
    plt.close(fig)


# --- The progress file --------------------------------------------------------------------------


def test_exercises_and_predictions_share_a_file(path):
    store.record_attempt("01/ece", "correct")
    SHARE.keep(80, 0.5)
    store.record_hint("01/ece", 2)
    assert store.load()["01/ece"].hints_seen == 2
    assert store.load_predictions()[SHARE.key].answer == 80


def test_a_file_of_version_2_is_read_and_survives(path):
    store.record_attempt("98/unknown", "correct")
    document = json.loads(path.read_text())
    del document["predictions"]
    path.write_text(json.dumps(document | {"version": 2}))
    assert store.load_predictions() == {}
    SHARE.keep(80, 0.5)
    assert store.load()["98/unknown"].outcome == "correct"
    assert json.loads(path.read_text())["version"] == 3


def test_a_prediction_of_an_unknown_lesson_survives(path):
    Prediction("98", "gone", "Gone", within=1).keep(1, 0.5)
    SHARE.keep(80, 0.5)
    assert store.load_predictions()["98/gone"].answer == 1
    assert len(counted(all_predictions(), store.load_predictions())[0]) == 0


GOOD = asdict(Guess(80.0, 0.5, False, 84.3, "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"))


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {"answer": 1},
        GOOD | {"more": 1},
        GOOD | {"answer": [1]},
        GOOD | {"answer": True},
        GOOD | {"answer": "x" * 1000},
        GOOD | {"answer": "\x1b[2J"},
        GOOD | {"answer": 10**200},
        GOOD | {"answer": None},
        GOOD | {"sure": 1.5},
        GOOD | {"sure": -0.1},
        GOOD | {"sure": "0.5"},
        GOOD | {"sure": None},
        GOOD | {"late": 1},
        GOOD | {"truth": {"a": 1}},
        GOOD | {"truth": None},
        GOOD | {"answered": "yesterday"},
        GOOD | {"shown": 3},
    ],
)
def test_impossible_entries_are_refused_and_set_aside(path, wrong):
    path.write_text(json.dumps({"version": 3, "exercises": {}, "predictions": {"99/x": wrong}}))
    with pytest.raises(store.UnreadableProgress, match="prediction"):
        store.load_predictions()
    assert SHARE.guess == Guess()
    assert "unreadable" in SHARE.keep(80, 0.5)
    assert SHARE.guess.answer == 80 and path.with_name("progress.json.bak").exists()


@pytest.mark.parametrize("entries", [None, [], "x"])
def test_what_is_no_table_of_predictions_is_refused(path, entries):
    path.write_text(json.dumps({"version": 3, "exercises": {}, "predictions": entries}))
    with pytest.raises(store.UnreadableProgress, match="not a progress file"):
        store.load()


def test_a_good_entry_is_read(path):
    path.write_text(json.dumps({"version": 3, "exercises": {}, "predictions": {"99/x": GOOD}}))
    assert asdict(store.load_predictions()["99/x"]) == GOOD


@pytest.mark.parametrize("kept_nowhere", ["folder", "null device"])
def test_where_nothing_can_be_written_the_session_remembers(
    kept_nowhere, tmp_path, monkeypatch, shown
):
    nowhere = os.devnull if kept_nowhere == "null device" else str(tmp_path)
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", nowhere)
    note = SHARE.keep(80, 0.5)
    assert (note is None) == (kept_nowhere == "null device")
    SHARE.compare(0.9)
    SIDE.compare("tails")
    assert "80 %, 50 % sure" in shown[0]._repr_html_()
    told = [card for card in shown if "not saved" in card._repr_html_()]
    assert len(told) == (kept_nowhere == "folder")  # once
    SHARE.keep(90, 1.0)
    assert SHARE.guess.answer == 80


def test_an_answer_that_cannot_be_one_counts_for_nothing():
    entries = {SIDE.key: Guess(3.0, 0.9, False, "tails", "x", "x")}
    assert len(counted([SIDE], entries)[0]) == 0


def test_progress_gains_a_line(capsys, shown):
    first = next(one for one in all_predictions() if one.options)
    first.keep(first.options[0], 0.9)
    first.compare(first.options[1])
    assert progress.main() == 0
    assert "1 prediction with a result: 0 right; on average you were 90 % sure" in (
        capsys.readouterr().out
    )


def test_own_calibration_is_told_with_what_chance_explains():
    """40 answers, 90 % sure and 60 % right; then as many right as said; then too few."""
    told = calibration_in_words(torch.full((40,), 0.9), torch.arange(40) < 24)
    assert "over-confident" in told and "0.300" in told
    told = calibration_in_words(torch.full((40,), 0.6), torch.arange(40) < 40)
    assert "under-confident" in told
    told = calibration_in_words(torch.full((40,), 0.9), torch.arange(40) < 36)
    assert "cannot be told from chance" in told
    told = calibration_in_words(torch.full((1,), 0.9), torch.ones(1, dtype=torch.bool))
    assert told.startswith("1 prediction of yours counts so far")
    told = calibration_in_words(torch.empty(0), torch.empty(0, dtype=torch.bool))
    assert told.startswith("No predictions of yours count so far")


def test_the_diagram_of_predictions_has_their_numbers():
    confidence = torch.tensor([0.5] * 6 + [0.9] * 9, dtype=torch.float64)
    ax = plots.reliability_of_predictions(confidence, torch.arange(15) % 2 == 0)
    assert [text.get_text() for text in ax.texts] == ["6", "9"]
    plt.close(ax.figure)


def test_my_predictions_without_a_readable_file(path):
    path.write_text("{")
    confidence, correct = my_predictions()
    assert len(confidence) == len(correct) == 0
