"""How an answer is judged: case by case, and if one fails, which known mistake explains it."""

import inspect
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ._answer import Answer, Blank, Mutated, Raised, Signal
from ._card import Card
from ._values import Unreadable, agree, kind, parts, show

_REPEATABLE = (
    "Two calls with the same input gave different results. Does your function draw random numbers, "
    "or keep something from one call to the next? The same input must give the same result."
)
_CONSTANT = (
    "Your function returns the same numbers whatever its input. Is the result of one example "
    "written into the code, or are all fractions lost?"
)
_MUTATED = (
    "Your function changes its argument in place. Make a new tensor: `x = x - 1` for `x -= 1`, "
    "`x.exp()` for `x.exp_()`."
)


class Outcome(Enum):
    """What a check can end in."""

    NOT_ATTEMPTED = "not attempted"
    RAISED = "your code raised"
    INCORRECT = "incorrect"
    CORRECT = "correct"


_LOOK = {
    Outcome.NOT_ATTEMPTED: ("○", "calm"),
    Outcome.RAISED: ("!", "warn"),
    Outcome.INCORRECT: ("✗", "bad"),
    Outcome.CORRECT: ("✓", "good"),
}


@dataclass(frozen=True)
class Finding:
    """What a case found wrong.

    Attributes:
        returned: what came back, as text (`show` writes numbers).
        should: the property that failed, in a sentence; never the answer.
    """

    returned: str
    should: str


@dataclass(frozen=True, repr=False)
class Feedback:
    """The outcome of a check, the diagnosis if a named mistake fits, and the card that shows it."""

    outcome: Outcome
    card: Card
    diagnosis: str | None = None

    def __repr__(self) -> str:
        return repr(self.card)


def examine(exercise: Any, answer: Any) -> Feedback:
    """Judge an answer: run the cases in order, stop at the first failure and explain it.

    Args:
        exercise: an `Exercise`.
        answer: anything at all; a right one is a function.

    Returns:
        The feedback; no exception of the answer's escapes.
    """
    if answer is None or answer is ...:
        return _feedback(exercise, Outcome.NOT_ATTEMPTED, [("To do", _pass_function(exercise))])
    if not callable(answer):
        found = f"`check` was given {kind(answer)}, not a function. {_pass_function(exercise)}"
        return _feedback(exercise, Outcome.INCORRECT, [("Found", found)])
    guarded = Answer(answer, tuple(inspect.signature(exercise.reference).parameters))
    for position, case in enumerate(exercise.cases, 1):
        feedback = _run(exercise, position, case, guarded)
        if feedback:
            return feedback
    if not _same(_fingerprint(exercise, answer, 0), _fingerprint(exercise, answer, 1), exercise):
        return _incorrect(exercise, [], _REPEATABLE)
    passed = " · ".join(case.name for case in exercise.cases)
    return _feedback(exercise, Outcome.CORRECT, [(f"All {len(exercise.cases)} checks", passed)])


def diagnose(exercise: Any, answer: Any) -> str | None:
    """Say which mistake a failing answer makes, if it behaves like a known one on the probes.

    Args:
        exercise: an `Exercise`.
        answer: a function that has failed one of its cases.

    Returns:
        The diagnosis of the wrong solution it agrees with, or of a general fault, or None.
    """
    found = _fingerprint(exercise, answer, 0)
    if not _same(found, _fingerprint(exercise, answer, 1), exercise):
        return _REPEATABLE
    for wrong in exercise.wrong:
        if _same(found, _fingerprint(exercise, wrong.function, 0), exercise):
            return wrong.diagnosis
    if None not in found and len(found) > 1 and _same(found, found[:1] * len(found), exercise):
        return _CONSTANT
    return None


def _run(exercise: Any, position: int, case: Any, answer: Answer) -> Feedback | None:
    rows = [(f"Check {position} of {len(exercise.cases)}", case.name), ("Input", case.given)]
    try:
        finding = case.check(answer)
    except Blank:
        return _blank(exercise, rows, first=answer.calls == 1)
    except Raised as raised:
        rows += [("Error", raised.error)] + [("Where", raised.where)] * bool(raised.where)
        return _feedback(exercise, Outcome.RAISED, rows + _printed(answer) + _next(exercise))
    except Mutated as mutated:
        should = f"The caller's `{mutated.argument}` is as it was before the call."
        return _incorrect(exercise, [*rows, ("Should hold", should)], _MUTATED)
    except Unreadable as problem:
        finding = Finding(str(problem), "Numbers come back: tensors, arrays or floats.")
    except Exception as error:  # the check itself raised on what came back
        finding = Finding(show(answer.returned), f"The result has another form ({error}).")
    if finding is None:
        return None
    if isinstance(finding, str):
        rows.append(("Found", finding))
    else:
        rows += [("Came back", finding.returned), ("Should hold", finding.should)]
    return _incorrect(exercise, rows + _printed(answer), diagnose(exercise, answer.function))


def _blank(exercise: Any, rows: list, first: bool) -> Feedback:
    if not first:
        should = "Every input has a result: one path through your function lacks its `return`."
        rows += [("Came back", "None"), ("Should hold", should)]
        return _incorrect(exercise, rows, None)
    text = (
        f"Replace the `...` in your function, then check again. (Already written? Then it returns "
        f"nothing: is the `return` missing?) `ex.{exercise.name}.hint()` helps."
    )
    return _feedback(exercise, Outcome.NOT_ATTEMPTED, [("To do", text)])


def _incorrect(exercise: Any, rows: list, diagnosis: str | None) -> Feedback:
    cause = [("Likely cause", diagnosis)] if diagnosis else []
    return _feedback(exercise, Outcome.INCORRECT, rows + cause + _next(exercise), diagnosis)


def _feedback(
    exercise: Any, outcome: Outcome, rows: list[tuple[str, str]], diagnosis: str | None = None
) -> Feedback:
    icon, tone = _LOOK[outcome]
    return Feedback(
        outcome, Card(icon, outcome.value, exercise.title, tone, tuple(rows)), diagnosis
    )


def _next(exercise: Any) -> list[tuple[str, str]]:
    shown, available = exercise.hints_shown, len(exercise.hints)
    if shown < available:
        return [("Next", f"`ex.{exercise.name}.hint()` shows hint {shown + 1} of {available}.")]
    return [("Next", f"`ex.{exercise.name}.solution()` shows one solution.")]


def _printed(answer: Answer) -> list[tuple[str, str]]:
    return [("It printed", answer.printed)] if answer.printed else []


def _pass_function(exercise: Any) -> str:
    name = exercise.reference.__name__
    return f"Pass the function itself, without calling it: `ex.{exercise.name}.check({name})`."


def _fingerprint(exercise: Any, function: Any, seed: int) -> list:
    """What is observed of a function on the probes, ready to compare; None where it fails."""
    answer = Answer(function, seed=seed)
    results = []
    for arguments in exercise.probes:
        try:
            observed = exercise.observe(answer, *arguments)
            results.append(tuple(map(exercise.canonical, parts(observed))))
        except (Signal, Unreadable, RuntimeError, IndexError):  # or a shape canonical cannot take
            results.append(None)
    return results


def _same(left: list, right: list, exercise: Any) -> bool:
    return all(
        a is b or (None not in (a, b) and agree(a, b, exercise.tolerance))
        for a, b in zip(left, right, strict=True)
    )
