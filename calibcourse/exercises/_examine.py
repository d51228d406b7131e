"""How an answer is judged: case by case, and if one fails, which known mistake explains it."""

import inspect
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ._answer import Answer, Blank, Mutated, Raised, Signal, Slow
from ._card import Card
from ._effects import EFFECTS
from ._values import Unreadable, array, kind, parts, same_parts, several, show

_REPEATABLE = (
    "Two calls with the same input gave different results. Does your function draw random numbers, "
    "or keep something from one call to the next? The same input must give the same result."
)
_CONSTANT = (
    "Your function gave the same numbers for different inputs. Is the result of one example "
    "written into the code, or are all fractions lost?"
)
_PRINTED = (
    "Your function prints its result and returns nothing. `print` shows a value to you and drops "
    "it; `return` hands it to whoever called."
)
_TWO_DEVICES = (
    "Tensors of two devices meet. The check gives tensors of the CPU, the lesson may give others: "
    "make new ones where the arguments lie, as in `torch.zeros(3, device=x.device)`."
)
_NEVER_ENDS = (
    "Is there a loop that never ends, since what it waits for never comes? Or a loop over far "
    "more steps than the precision asked for needs?"
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
    if not _passes_again(exercise.cases[-1], guarded):
        return _incorrect(exercise, [("Input", exercise.cases[-1].given)], _REPEATABLE)
    passed = " · ".join(case.name for case in exercise.cases)
    return _feedback(exercise, Outcome.CORRECT, [(f"All {len(exercise.cases)} checks", passed)])


def diagnose(exercise: Any, answer: Answer) -> str | None:
    """Say which mistake a failing answer makes, if it behaves like a known one on the probes.

    Args:
        exercise: an `Exercise`.
        answer: has failed one of the cases.

    Returns:
        The diagnosis of the wrong solution it agrees with, or of a general fault, or None.
    """
    answer.seed = 0
    found, returned = _fingerprint(exercise, answer, exercise.probes)
    seen = [place for place, parts_of in enumerate(found) if parts_of is not None][:1]
    answer.seed = 1
    again, _ = _fingerprint(exercise, answer, [exercise.probes[place] for place in seen])
    if not _same([found[place] for place in seen], again, exercise):
        return _REPEATABLE
    for wrong in exercise.wrong:
        theirs, _ = _fingerprint(exercise, Answer(wrong.function), exercise.probes)
        if _same(found, theirs, exercise):
            return wrong.diagnosis
    if _is_constant(returned):
        return _CONSTANT
    seen = [part for parts_of in found if parts_of for part in parts_of]
    return exercise.explain(seen) if len(seen) == len(found) else None


def _passes_again(case: Any, answer: Answer) -> bool:
    answer.seed = 1
    try:
        return case.check(answer) is None
    except Exception:  # whatever it is, it did not happen the first time
        return False


def _run(exercise: Any, position: int, case: Any, answer: Answer) -> Feedback | None:
    rows = [(f"Check {position} of {len(exercise.cases)}", case.name), ("Input", case.given)]
    try:
        finding = case.check(answer)
    except Blank:
        return _blank(exercise, rows, answer)
    except Raised as raised:
        rows += [("Error", raised.error)] + [("Where", raised.where)] * bool(raised.where)
        rows += [("Likely cause", _TWO_DEVICES)] * ("on the same device" in raised.error)
        return _feedback(exercise, Outcome.RAISED, rows + _printed(answer) + _next(exercise))
    except Slow as slow:
        rows.append(("Stopped", f"After {slow.seconds:.0f} seconds it had not come back."))
        rows += [("Where", slow.where)] * bool(slow.where) + [("Likely cause", _NEVER_ENDS)]
        rows += _printed(answer) + _next(exercise)
        return _feedback(exercise, Outcome.RAISED, rows, word="your code ran too long")
    except Mutated as mutated:
        should = f"The caller's `{mutated.argument}` is as it was before the call."
        return _incorrect(exercise, [*rows, ("Should hold", should)], EFFECTS[mutated.effect])
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
    return _incorrect(exercise, rows + _printed(answer), diagnose(exercise, answer))


def _blank(exercise: Any, rows: list, answer: Answer) -> Feedback:
    if answer.printed:
        rows += [("Came back", "None"), *_printed(answer)]
        return _incorrect(exercise, rows, _PRINTED)
    if answer.calls > 1:
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
    exercise: Any,
    outcome: Outcome,
    rows: list[tuple[str, str]],
    diagnosis: str | None = None,
    word: str = "",
) -> Feedback:
    icon, tone = _LOOK[outcome]
    card = Card(icon, word or outcome.value, exercise.title, tone, tuple(rows))
    return Feedback(outcome, card, diagnosis)


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


def _fingerprint(exercise: Any, answer: Answer, probes: Any) -> tuple[list, list]:
    """What is observed of an answer on each probe, ready to compare, and what it returned.

    None stands where it fails. Both are read as the reference's own values are: a list of rows is
    one matrix where the reference returns one.
    """
    canonical, returned = [], []
    for arguments in probes:
        model = exercise.observe(Answer(exercise.reference), *arguments)
        try:
            observed = exercise.observe(answer, *arguments)
            read = parts(observed, len(parts(model))) if several(model) else (array(observed),)
            canonical.append(tuple(map(exercise.canonical, read)))
            returned.append(parts(answer.returned))
        except (Signal, Unreadable, RuntimeError, IndexError):  # or a shape canonical cannot take
            canonical.append(None)
            returned.append(None)
    return canonical, returned


def _same(left: list, right: list, exercise: Any) -> bool:
    return all(
        a is b or (None not in (a, b) and same_parts(a, b, exercise.tolerance))
        for a, b in zip(left, right, strict=True)
    )


def _is_constant(returned: list) -> bool:
    """Whether every input gave the same finite numbers."""
    return len(returned) > 1 and all(
        each is not None
        and all(part.isfinite().all() for part in each)
        and same_parts(each, returned[0], 1e-6)
        for each in returned
    )
