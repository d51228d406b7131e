"""The exercise framework: outcomes for whatever a learner may return, messages, hints, claims."""

import functools
import html
import random
import re
import signal
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nbclient import NotebookClient

from calibcourse.exercises import ClaimFailed, _answer, claim, framework, store
from calibcourse.exercises._answer import Answer, Mutated, Slow, tidy
from calibcourse.exercises._card import Card
from calibcourse.exercises._deadline import TooLong, deadline
from calibcourse.exercises._effects import copied
from calibcourse.exercises._values import Unreadable, agree, difference, number, parts, show
from calibcourse.exercises.framework import (
    Case,
    Exercise,
    Finding,
    Outcome,
    WrongSolution,
    value_case,
)


def my_scores(values, scale):
    return values.sum() * scale, values * scale


_VALUES = torch.tensor([1.0, 2.0, 4.0])
_OTHER = torch.tensor([0.5, 0.25])


@pytest.fixture(autouse=True)
def progress_file(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv("CALIBCOURSE_PROGRESS", str(path))
    return path


@pytest.fixture
def exercise():
    names = ("total", "scaled")
    return Exercise(
        lesson="99",
        name="scores",
        title="Scaled scores",
        difficulty=2,
        importance=3,
        minutes=1,
        reference=my_scores,
        cases=(
            value_case(
                "small",
                "three values, scale 2",
                (_VALUES, 2.0),
                (14.0, [2.0, 4.0, 8.0]),
                "Both are scaled.",
                names=names,
            ),
            value_case(
                "fractions",
                "two fractions, scale 3",
                (_OTHER, 3.0),
                my_scores,
                "Both are scaled.",
                names=names,
            ),
        ),
        wrong=(
            WrongSolution("total unscaled", lambda v, s: (v.sum(), v * s), "Total not scaled."),
            WrongSolution("values unscaled", lambda v, s: (v.sum() * s, v), "Values not scaled."),
            WrongSolution("NaN", lambda v, s: (v.sum() * s, v * float("nan")), "NaN came in."),
        ),
        hints=("First hint.", "Second hint."),
        probes=((_VALUES, 2.0), (_OTHER, 3.0)),
    )


class _Scores:
    def __call__(self, values, scale):
        return my_scores(values, scale)


RIGHT = {
    "tuple of tensors": my_scores,
    "list": lambda v, s: [v.sum() * s, v * s],
    "numpy": lambda v, s: (np.sum(v.numpy()) * s, v.numpy() * s),
    "python numbers": lambda v, s: (sum(v.tolist()) * s, [x * s for x in v.tolist()]),
    "list of 0-d tensors": lambda v, s: (v.sum() * s, [x * s for x in v]),
    "shape (1,) for a number": lambda v, s: ((v.sum() * s).reshape(1), v * s),
    "float64": lambda v, s: (v.double().sum() * s, v.double() * s),
    "a list of rows": lambda v, s: [(v * s).sum(), np.stack([x * s for x in v.numpy()])],
    "carries a gradient": lambda v, s: (v.requires_grad_().sum() * s, v * s),
    "prints": lambda v, s: print("debug", v) or my_scores(v, s),
    "extra argument with a default": lambda v, s, more=0: my_scores(v, s),
    "partial": functools.partial(lambda power, v, s: my_scores(v, s**power), 1),
    "callable object": _Scores(),
    "warns": lambda v, s: warnings.warn("careful", stacklevel=1) or my_scores(v, s),
}


@pytest.mark.parametrize("answer", RIGHT.values(), ids=RIGHT)
def test_whatever_is_mathematically_right_is_correct(exercise, answer):
    feedback = exercise.evaluate(answer)
    assert feedback.outcome is Outcome.CORRECT, feedback
    assert "small · fractions" in repr(feedback)


NOT_ATTEMPTED = {
    "None": None,
    "dots": ...,
    "returns None": lambda v, s: None,
    "returns dots": lambda v, s: ...,
    "a tuple of dots": lambda v, s: (..., v),
    "dots used as a tensor": lambda v, s: (...).sum(),
    "dots passed to torch": lambda v, s: torch.exp(...),
}


@pytest.mark.parametrize("answer", NOT_ATTEMPTED.values(), ids=NOT_ATTEMPTED)
def test_stub_is_not_attempted_and_leaves_no_trace(exercise, answer, progress_file, capsys):
    assert exercise.evaluate(answer).outcome is Outcome.NOT_ATTEMPTED
    exercise.check(answer)
    assert "○ not attempted · Scaled scores" in capsys.readouterr().out
    assert not progress_file.exists()


def _changes_input(values, scale):
    values *= scale
    return values.sum(), values


_calls = []


def _remembers(values, scale):
    _calls.append(1)
    return values.sum() * scale * len(_calls), values * scale


WRONG = {
    "the result, not the function": (torch.zeros(3), "Pass the function itself"),
    "a number": (14.0, "given a float, not a function"),
    "text": (lambda v, s: "14", "a str"),
    "dict": (lambda v, s: {"total": 14}, "a dict"),
    "generator": (lambda v, s: (x for x in v), "a generator"),
    "text inside": (lambda v, s: (v.sum() * s, "no"), "a str"),
    "ragged": (lambda v, s: (v.sum() * s, [[1, 2], [3]]), "not all numbers"),
    "complex": (lambda v, s: (v.sum() * s, v * 1j), "complex numbers"),
    "object array": (lambda v, s: (1, np.array([object()])), "not all numbers"),
    "empty tuple": (lambda v, s: (), "2 values are expected, not 0"),
    "too few": (lambda v, s: v.sum(), "2 values are expected, not 1"),
    "wrong shape": (
        lambda v, s: (v.sum() * s, v[:2] * s),
        "scaled: a tensor of shape (3,) is expected, not a tensor of shape (2,)",
    ),
    "one entry": (
        lambda v, s: (v.sum() * s, v * s + torch.eye(len(v))[-1]),
        "First difference: scaled[2] (compared to within 0.0001)",
    ),
    "infinite": (lambda v, s: (v.sum() * s, v / 0), "scaled[0] (a finite number is expected)"),
    "integers": (
        lambda v, s: ((v.sum() * s).int(), (v * s).int()),
        "The result has dtype torch.int32: fractions are cut off",
    ),
    "half precision": (
        lambda v, s: ((v.sum() * s).half() + 0.01, (v * s).half()),
        "16-bit floats",
    ),
    "mutates": (_changes_input, "The caller's `values` is as it was before the call"),
    "remembers": (_remembers, "Two calls with the same input gave different results"),
    "random": (lambda v, s: (torch.rand(()), v * s), "Two calls with the same input"),
    "numpy random": (lambda v, s: (np.random.rand(), v * s), "Two calls with the same input"),
    "python random": (lambda v, s: (random.random(), v * s), "Two calls with the same input"),
    "hard-coded": (lambda v, s: (14.0, [2.0, 4.0, 8.0]), "the same numbers for different inputs"),
    "prints for returning": (
        lambda v, s: print(v.sum() * s, v * s),
        "Your function prints its result and returns nothing",
    ),
    "a default dtype left behind": (
        lambda v, s: torch.set_default_dtype(torch.float64) or my_scores(v, s),
        "leaves a setting of PyTorch changed",
    ),
    "gradients switched off for good": (
        lambda v, s: [torch.set_grad_enabled(False), *my_scores(v, s)][1:],
        "leaves a setting of PyTorch changed",
    ),
    "a path without return": (
        lambda v, s: my_scores(v, s) if len(v) == 3 else None,
        "one path through your function lacks its `return`",
    ),
    "dots on one path": (
        lambda v, s: my_scores(v, s) if len(v) == 3 else (...).sum(),
        "Came back",
    ),
}


@pytest.mark.parametrize(("answer", "message"), WRONG.values(), ids=WRONG)
def test_wrong_values_are_named(exercise, answer, message):
    _calls.clear()
    feedback = exercise.evaluate(answer)
    assert feedback.outcome is Outcome.INCORRECT, feedback
    assert message in " ".join(repr(feedback).split())
    if callable(answer):
        assert "ex.scores.hint()" in repr(feedback)


def _recurses(values, scale):
    return _recurses(values, scale)


class _BadError(Exception):
    def __str__(self):
        raise RuntimeError


def _raises(error):
    def answer(values, scale):
        print("on the way")
        raise error

    return answer


RAISED = {
    "a typo": (lambda v, s: v.summ() * s, "AttributeError: 'Tensor' object has no attribute"),
    "wrong arity": (lambda v: v, "with (values, scale), it takes (v)"),
    "endless recursion": (_recurses, "RecursionError: the function calls itself without end"),
    "exit": (_raises(SystemExit(1)), "SystemExit: 1"),
    "unprintable error": (_raises(_BadError()), "_BadError"),
    "prints first": (_raises(ValueError("no")), "It printed on the way"),
    "address": (_raises(ValueError("<at 0x7f12ab>")), "ValueError: <at 0x…>"),
    "path": (_raises(OSError("/home/ada/ipykernel_77/1.py")), "OSError: 1.py"),
}


@pytest.mark.parametrize(("answer", "message"), RAISED.values(), ids=RAISED)
def test_errors_are_shown_not_raised(exercise, answer, message):
    feedback = exercise.evaluate(answer)
    assert feedback.outcome is Outcome.RAISED, feedback
    assert message in " ".join(repr(feedback).split())
    assert "three values, scale 2" in repr(feedback)  # the input is named
    assert "Traceback" not in repr(feedback) and '.py"' not in repr(feedback)


def test_interrupt_is_the_learners(exercise):
    with pytest.raises(KeyboardInterrupt):
        exercise.evaluate(_raises(KeyboardInterrupt()))


def test_line_of_a_helper_is_found(exercise):
    def helper(values):
        return values / {}

    feedback = exercise.evaluate(lambda v, s: helper(v))
    assert re.search(r"line \d+ of helper: return values / {}", repr(feedback))


@pytest.mark.parametrize("index", range(3))
def test_named_mistake_is_recognised_in_another_style(exercise, index):
    styles = (
        lambda v, s: (float(v.sum()), (v * s).tolist()),
        lambda v, s: [v.sum().numpy() * s, v.double().numpy()],
        lambda v, s: (v.sum() * s, [float("nan")] * len(v)),
    )
    assert exercise.evaluate(styles[index]).diagnosis == exercise.wrong[index].diagnosis


def test_answer_that_drifts_after_the_cases_is_not_correct(exercise):
    factors = iter([1.0] * len(exercise.cases) + [float(n) for n in range(2, 20)])
    feedback = exercise.evaluate(lambda v, s: my_scores(v * next(factors), s))
    assert feedback.outcome is Outcome.INCORRECT
    assert "Two calls with the same input" in feedback.diagnosis


def test_unknown_mistake_gets_no_diagnosis(exercise):
    feedback = exercise.evaluate(lambda v, s: (v.sum() * s + 1, v * s))
    assert feedback.outcome is Outcome.INCORRECT and feedback.diagnosis is None
    assert "Came back     total = 15, scaled = [2, 4, 8]" in repr(feedback)


def test_check_leaves_random_states_and_inputs_alone(exercise):
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    expected = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    exercise.evaluate(lambda v, s: (torch.rand(()) + np.random.rand() + random.random(), v))
    exercise.evaluate(_changes_input)
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected
    assert _VALUES.tolist() == [1.0, 2.0, 4.0]


def test_case_may_give_a_message_or_trip(exercise):
    exercise.cases = (Case("message", "anything", lambda answer: "not like this"),)
    assert "Found         not like this" in repr(exercise.evaluate(my_scores))
    exercise.cases = (Case("trips", "anything", lambda answer: answer(_VALUES, 2.0).shape),)
    feedback = exercise.evaluate(my_scores)
    assert feedback.outcome is Outcome.INCORRECT and "another form" in repr(feedback)
    exercise.cases = (Case("finding", "x", lambda answer: Finding("`7`", "Less than 5.")),)
    assert "<code>7</code>" in exercise.evaluate(my_scores).card._repr_html_()


def test_canonical_lets_equally_right_answers_agree(exercise):
    exercise.canonical = torch.abs
    feedback = exercise.evaluate(lambda v, s: (-v.sum(), v * s))
    assert feedback.diagnosis == "Total not scaled."


def test_observe_tells_answers_apart_by_more_than_what_they_return():
    """A loss is its gradient too: here the values agree, and one answer is detached."""
    weight = torch.tensor(3.0, requires_grad=True)

    def slope(answer, scale):
        value = answer(scale)
        return torch.autograd.grad(value, weight)[0] if value.requires_grad else 0.0

    exercise = Exercise(
        lesson="99",
        name="square",
        title="A square",
        difficulty=1,
        importance=1,
        minutes=1,
        reference=lambda scale: scale * weight**2,
        cases=(Case("moves", "2", lambda answer: None if slope(answer, 2.0) else "It stays."),),
        wrong=(WrongSolution("detached", lambda s: s * weight.detach() ** 2, "Detached."),),
        hints=("One.", "Two."),
        probes=((2.0,), (5.0,)),
        observe=lambda answer, scale: (answer(scale), slope(answer, scale)),
    )
    assert exercise.evaluate(lambda s: weight * weight * s).outcome is Outcome.CORRECT
    assert exercise.evaluate(lambda s: torch.tensor(9.0) * s).diagnosis == "Detached."
    exercise.observe = lambda answer, scale: answer(scale)  # the value alone cannot tell
    exercise.wrong = (WrongSolution("as good", exercise.reference, "By value."),)
    assert exercise.evaluate(lambda s: torch.tensor(9.0) * s).diagnosis == "By value."


def test_settings_left_changed_are_put_back(exercise):
    exercise.evaluate(WRONG["a default dtype left behind"][0])
    exercise.evaluate(WRONG["gradients switched off for good"][0])
    assert torch.get_default_dtype() is torch.float32 and torch.is_grad_enabled()


def _endless(values, scale):
    while True:
        with suppress(Exception):
            values = values * 1


def _asleep(values, scale):
    time.sleep(3600)


@pytest.mark.parametrize("answer", [_endless, _asleep])
def test_a_call_without_end_is_stopped_and_located(exercise, answer, monkeypatch, impatience):
    monkeypatch.setattr(_answer, "CALL_SECONDS", 0.05)
    feedback = exercise.evaluate(answer)
    assert feedback.outcome is Outcome.RAISED
    text = " ".join(repr(feedback).split())
    assert "! your code ran too long" in text and f"of {answer.__name__}:" in text
    assert "loop that never ends" in text and "ex.scores.hint()" in text


def test_calls_of_one_check_share_a_limit(monkeypatch, impatience):
    monkeypatch.setattr(_answer, "CALL_SECONDS", 0.05)
    monkeypatch.setattr(_answer, "CHECK_SECONDS", 0.08)
    answer, limits = Answer(_endless), []
    for _ in range(3):
        with pytest.raises(Slow) as caught:
            answer(_VALUES, 2.0)
        limits.append(caught.value.seconds)
    assert limits[0] == 0.05 and limits[1] <= 0.03 and limits[2] == 0.01


def test_in_another_thread_a_call_is_stopped_too(exercise, monkeypatch, impatience):
    """As on Windows, which has no such timer."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(exercise.evaluate, my_scores).result().outcome is Outcome.CORRECT
        monkeypatch.setattr(_answer, "CALL_SECONDS", 0.05)
        assert "your code ran too long" in repr(pool.submit(exercise.evaluate, _endless).result())


def test_a_timer_of_somebody_else_goes_on(impatience):
    with deadline(50.0):
        pass
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    assert 50 < left <= 600  # the fixture's ten minutes
    with pytest.raises(TooLong), deadline(0.01):
        while True:
            pass


def _model_with_gradients():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return model


EFFECTS_ON_MODELS = {
    "values": lambda model: model[0].weight.data.zero_(),
    "gradients": lambda model: model[0](torch.ones(1, 2)).sum().backward() or 1,
    "erased gradients": lambda model: model.zero_grad() or 1,
    "mode": lambda model: model.eval()(torch.ones(1, 2)),
    "dtype": lambda model: model.double()(torch.ones(1, 2).double()),
    "frozen": lambda model: model.requires_grad_(False)(torch.ones(1, 2)),
}


@pytest.mark.parametrize(("effect", "answer"), EFFECTS_ON_MODELS.items(), ids=EFFECTS_ON_MODELS)
def test_what_an_answer_does_to_a_model_is_seen_and_undone(effect, answer):
    model = _model_with_gradients()
    guarded = Answer(answer, ("model",))
    for _ in range(2):  # nothing is left over for the next call
        with pytest.raises(Mutated) as caught:
            guarded(model)
        assert (caught.value.argument, caught.value.effect) == ("model", effect)
    assert copied(model)[0].weight.grad.tolist() == [[1, 1], [1, 1]]
    assert Answer(lambda model: model(torch.ones(1, 2)))(model).dtype == torch.float32


def test_gradients_where_none_were_are_seen():
    with pytest.raises(Mutated) as caught:
        Answer(EFFECTS_ON_MODELS["gradients"])(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    assert caught.value.effect == "gradients"


def test_modules_are_copied_and_a_changed_mode_is_noticed():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
    batch = torch.zeros(1, 2)
    with pytest.raises(Mutated) as caught:
        Answer(lambda model, x: model.eval()(x), ("model", "x"))(model, batch)
    assert caught.value.argument == "model" and model.training
    with pytest.raises(Mutated):
        Answer(lambda model, x: model[0].weight.data.zero_())(model, batch)
    assert Answer(lambda model, x: model[0](x))(model, batch).shape == (1, 2)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_an_argument_with_nan_is_not_taken_for_a_changed_one(kind):
    values = kind([1.0, float("nan"), 3.0])
    assert Answer(lambda x: x[0] + x[2])(values) == 4

    def fill(x):
        x[1] = 0.0  # replaces the NaN in place
        return x

    with pytest.raises(Mutated):
        Answer(fill)(values)


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
    exercise.check(_raises(ValueError()))
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
    own = RIGHT["numpy"]
    assert exercise.mine(own) is own
    for other in (None, ..., lambda v, s: None, exercise.wrong[0].function, _raises(ValueError())):
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
    own, wrong = RIGHT["numpy"], exercise.wrong[0].function
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


# --- Values --------------------------------------------------------------------------------------

_JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.complex_numbers()
    | st.just(...)
    | st.sampled_from([torch.zeros(0), torch.ones(2, 2), np.array("x"), np.float16(3), object()]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers(), inner, max_size=2)
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=100)
@given(value=_JUNK)
def test_nothing_a_learner_returns_escapes(value):
    case = value_case("one", "x = 1", (1.0,), 2.0, "Twice x.")
    wrong = WrongSolution("same", lambda x: x, "The same.")
    exercise = Exercise(
        "99", "twice", "Twice", 1, 1, 1, lambda x: 2 * x, (case,), (wrong,), ("a", "b"), ((1.0,),)
    )
    feedback = exercise.evaluate(lambda x: value)
    assert feedback.outcome in Outcome
    if isinstance(value, int | float) and abs(value) > 3:
        assert feedback.outcome is Outcome.INCORRECT
    assert repr(feedback) and feedback.card._repr_html_()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=5), st.integers(0, 4))
def test_agreement_has_the_stated_tolerance(values, index):
    index %= len(values)
    tensor = torch.tensor(values, dtype=torch.float64)
    moved = tensor.clone()
    # Just inside and outside of atol + rtol |b|, with room for the rounding of the sum.
    step = 1e-4 * (1 + abs(values[index]))
    moved[index] += 0.99 * step
    assert agree(moved, tensor, 1e-4) and difference(moved, tensor, 1e-4) is None
    moved[index] += 0.02 * step
    assert not agree(moved, tensor, 1e-4)
    assert f"[{index}]" in difference(moved, tensor, 1e-4)


def test_rows_in_a_list_are_a_matrix_and_a_value_in_a_tuple_is_not_the_value():
    matrix = torch.tensor([[1.0, 2.0]])
    assert difference([[1.0, 2.0]], matrix, 1e-4) is None
    assert difference([matrix[0]], matrix, 1e-4) is None
    assert difference(torch.eye(3).tolist(), torch.eye(3), 1e-4) is None
    for value, expected in ((matrix, matrix), (0.5, 0.5)):
        with pytest.raises(Unreadable, match="a tuple with one value in it"):
            difference((value,), expected, 1e-4)
    with pytest.raises(Unreadable, match="a tuple with one value in it"):
        number((2.0,))
    assert difference([matrix], [matrix], 1e-4) is None  # one value, in a list as is expected
    assert difference(([1, 2], [3]), matrix, 1e-4) == "1 value is expected, not 2."


def test_values_are_read_and_shown():
    assert [p.tolist() for p in parts(torch.eye(2), 2)] == [[1, 0], [0, 1]]
    assert len(parts(torch.eye(2))) == 1
    assert number(np.float32(0.5)) == 0.5 and number([2]) == 2 and number(10**30) == 1e30
    with pytest.raises(Unreadable, match=r"a tensor of shape \(2,\) where a single number"):
        number([1, 2])
    assert show(torch.arange(20)) == "[0, 1, 2, 3, 4, 5, 6, 7, …] (20 entries)"
    assert show(torch.eye(3)) == "a tensor of shape (3, 3), first row [1, 0, 0]"
    assert show(-0.0) == "0" and show(float("nan")) == "nan" and show(1 / 3) == "0.3333"
    assert show("x") == "a str"


# --- Claims --------------------------------------------------------------------------------------


@pytest.mark.parametrize("holds", [True, np.True_, torch.tensor(True), torch.tensor([2.0]) > 1])
def test_claim_that_holds_prints_the_text_and_no_numbers(holds, capsys):
    claim("CalMO lowers ECE", holds, before=0.123, after=0.1)
    assert capsys.readouterr().out == "✓ CalMO lowers ECE\n"


def test_claim_that_fails_stops_with_rounded_numbers(capsys):
    with pytest.raises(ClaimFailed) as caught:
        claim("it is so", False, a=1 / 3, b=torch.tensor([0.5, 2]), c="text")
    assert str(caught.value) == "✗ it is so (a = 0.3333, b = [0.5, 2], c = a str)"
    with pytest.raises(ClaimFailed, match=r"^✗ it is so$"):
        claim("it is so", torch.tensor(1.0) > 2)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("holds", [0.3, 1, None, "yes", torch.tensor(0.3)])
def test_claim_refuses_what_is_not_a_truth_value(holds):
    with pytest.raises(TypeError, match="holds must be a bool"):
        claim("a number is no truth", holds)
