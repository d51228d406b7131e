"""The outcome and the words for whatever a learner may answer."""

import functools
import random
import re
import warnings

import numpy as np
import pytest
import torch
from framework_cases import VALUES, my_scores, raises

from calibcourse.exercises.framework import (
    Case,
    Exercise,
    Finding,
    Outcome,
    WrongSolution,
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


RAISED = {
    "a typo": (lambda v, s: v.summ() * s, "AttributeError: 'Tensor' object has no attribute"),
    "wrong arity": (lambda v: v, "with (values, scale), it takes (v)"),
    "endless recursion": (_recurses, "RecursionError: the function calls itself without end"),
    "exit": (raises(SystemExit(1)), "SystemExit: 1"),
    "unprintable error": (raises(_BadError()), "_BadError"),
    "prints first": (raises(ValueError("no")), "It printed on the way"),
    "address": (raises(ValueError("<at 0x7f12ab>")), "ValueError: <at 0x…>"),
    "path": (raises(OSError("/home/ada/ipykernel_77/1.py")), "OSError: 1.py"),
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
        exercise.evaluate(raises(KeyboardInterrupt()))


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
    assert VALUES.tolist() == [1.0, 2.0, 4.0]


def test_case_may_give_a_message_or_trip(exercise):
    exercise.cases = (Case("message", "anything", lambda answer: "not like this"),)
    assert "Found         not like this" in repr(exercise.evaluate(my_scores))
    exercise.cases = (Case("trips", "anything", lambda answer: answer(VALUES, 2.0).shape),)
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
