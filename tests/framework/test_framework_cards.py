"""Hints and solutions, what is remembered of a check, and what is shown."""

import html
import re

import nbformat
import numpy as np
from framework_cases import my_scores, raises
from nbclient import NotebookClient

from calibcourse.exercises import framework, store
from calibcourse.exercises._answer import tidy
from calibcourse.exercises._card import Card


def _in_numpy(values, scale):
    return np.sum(values.numpy()) * scale, values.numpy() * scale


# --- Hints and solutions -------------------------------------------------------------------------


def test_hints_come_one_by_one_and_the_last_repeats(exercise, capsys):
    shown = []
    for _ in range(4):
        exercise.hint()
        shown.append(capsys.readouterr().out)
    assert "hint 1 of 2" in shown[0] and "First hint." in shown[0]
    assert "hint 2 of 2" in shown[1] and "last hint" not in shown[1]
    assert "Second hint." in shown[2] and "This is the last hint" in shown[2]
    assert shown[3] == shown[2]
    assert store.load()["99/scores"].hints_seen == 2


def test_failure_points_at_the_next_hint(exercise, capsys):
    wrong = exercise.wrong[0].function
    assert "shows hint 1 of 2" in repr(exercise.evaluate(wrong))
    exercise.hint()
    assert "shows hint 2 of 2" in repr(exercise.evaluate(wrong))
    exercise.hint()
    assert "ex.scores.solution()` shows one solution" in repr(exercise.evaluate(wrong))


def test_solution_is_the_source_and_is_remembered(exercise, capsys):
    exercise.solution()
    assert "      return values.sum() * scale, values * scale" in capsys.readouterr().out
    record = store.load()["99/scores"]
    assert record.solution_seen and record.attempts == 0


def test_checks_are_remembered(exercise, capsys):
    exercise.check(raises(ValueError()))
    exercise.check(exercise.wrong[0].function)
    assert store.load()["99/scores"].outcome == "incorrect"
    exercise.check(my_scores)
    exercise.check(exercise.wrong[0].function)
    record = store.load()["99/scores"]
    # A right answer stays; the same answer again is no attempt.
    assert (record.outcome, record.attempts) == ("correct", 3)


def test_unwritable_progress_is_one_line_and_the_check_stands(exercise, monkeypatch, capsys):
    exercise_file = store.__file__  # a file where a folder is needed
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", f"{exercise_file}/progress.json")
    exercise.check(my_scores)
    shown = capsys.readouterr().out
    assert shown.startswith("✓ correct") and "Progress not saved" in shown
    assert exercise_file not in shown


def test_what_is_correct_goes_on_being_the_learners(exercise, capsys, progress_file):
    own = _in_numpy
    assert exercise.mine(own) is own
    for other in (None, ..., lambda v, s: None, exercise.wrong[0].function, raises(ValueError())):
        assert exercise.mine(other) is my_scores
    assert (
        capsys.readouterr().out == "" and not progress_file.exists()
    )  # `check` shows, this does not


def test_what_was_just_checked_is_not_examined_again(exercise, monkeypatch):
    examined = []
    evaluate = framework.Exercise.evaluate
    monkeypatch.setattr(
        framework.Exercise, "evaluate", lambda self, f: examined.append(f) or evaluate(self, f)
    )
    own, wrong = _in_numpy, exercise.wrong[0].function
    exercise.check(wrong)
    exercise.check(own)
    assert exercise.mine(own) is own and examined == [wrong, own]
    assert exercise.mine(own) is own and len(examined) == 3  # the helpers may have changed since
    exercise.check(own)
    assert exercise.mine(wrong) is my_scores and examined[-1] is wrong  # of another: nothing known
    exercise.check(wrong)
    assert exercise.mine(wrong) is my_scores and len(examined) == 6


def test_rating_box(exercise):
    assert repr(exercise).splitlines() == [
        "✎ exercise · Scaled scores",
        "  Difficulty  ●●○○○ 2 of 5",
        "  Importance  ●●●○○ 3 of 5",
        "  Time        about 1 minute",
    ]
    assert "●●●○○" in exercise._repr_html_()


# --- What is shown -------------------------------------------------------------------------------


def test_html_says_what_the_text_says_and_escapes_it():
    card = Card("✗", "incorrect", "<b>", "bad", (("Input", "a < `b[0] & c`\nnext"),), code="x < 1")
    page = card._repr_html_()
    assert "&lt;b&gt;" in page and "<b>" not in page
    assert "a &lt; <code>b[0] &amp; c</code>" in page and "x &lt; 1" in page
    words = html.unescape(re.sub(r"<[^>]+>", " ", page)).split()
    assert "".join(words) == "".join(repr(card).replace("`", "").split())


def test_html_follows_the_theme():
    page = Card("✓", "correct", "ECE", "good")._repr_html_()
    assert "color:inherit" in page and "var(--jp-success-color1, #" in page
    assert "background" not in page  # nothing that only one theme can bear
    assert "✓" in page and "correct" in page  # never colour alone


def test_code_is_never_broken_across_lines():
    long = "word " * 15 + "`a = b + c` " + "word " * 5
    assert "`a = b + c`" in repr(Card("?", "hint", "x", "calm", (("Hint", long),)))


def test_tidy_is_short_and_free_of_the_machine():
    assert tidy("see C:\\Users\\ada\\x.py and /tmp/ipykernel_12/34.py") == "see x.py and 34.py"
    assert tidy("1/2 and a/b/c stay, and/or too") == "1/2 and a/b/c stay, and/or too"
    long = tidy("\n".join(["x" * 500] * 50))
    assert len(long.splitlines()) == 9 and max(map(len, long.splitlines())) == 201


def test_in_a_real_kernel_messages_name_the_cells_line_and_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    cells = [
        "from calibcourse.exercises import lesson_00 as ex\nex.over_confidence",
        "def helper(c):\n    return c.meen()",
        "def mine(c, y):\n    print('see', c.shape)\n    return helper(c)\n"
        "ex.over_confidence.check(mine)",
        "ex.over_confidence.check(ex.over_confidence.reference)\nex.over_confidence.hint()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(notebook, timeout=120).execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    assert [output.output_type for output in outputs] == ["execute_result"] + ["display_data"] * 3
    for output in outputs:
        assert {"text/plain", "text/html"} <= set(output.data)
        assert "ipykernel" not in str(output) and "calibcourse/" not in str(output)
    raised = outputs[1].data["text/plain"]
    assert "line 2 of helper: return c.meen()" in raised
    assert "It printed    see torch.Size([4])" in raised
    assert outputs[2].data["text/plain"].startswith("✓ correct")
    assert outputs[3].data["text/plain"].startswith("? hint 1 of 3")
