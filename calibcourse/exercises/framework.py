"""Exercises whose check says which property failed and which misconception explains it.

An exercise is data: a reference, cases of increasing difficulty, named wrong solutions and hints.
`check` shows one of four outcomes and never raises:

    from calibcourse.exercises import lesson_01 as ex
    ex.ece.check(my_ece)      # not attempted · your code raised · incorrect · correct
    ex.ece.hint()             # one more hint with each call
    ex.ece.solution()

`claim` states what a lesson asserts and stops the notebook where it does not hold.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import display
from torch import Tensor

from . import store
from ._card import Card
from ._examine import Feedback, Finding, Outcome, examine
from ._standing import standing
from ._values import Unreadable, array, difference, dtype_remark, number, parts, show

__all__ = [
    "Case",
    "ClaimFailed",
    "Counted",
    "Exercise",
    "Feedback",
    "Finding",
    "Outcome",
    "Unreadable",
    "WrongSolution",
    "array",
    "claim",
    "number",
    "parts",
    "show",
    "value_case",
]


@dataclass(frozen=True)
class Case:
    """One named check of an answer.

    Attributes:
        name: a few words, shown to the learner.
        given: the input, in words, so that the learner can rebuild it.
        check: called with the learner's function; returns None where it passes, else a Finding
            (what came back, which property failed) or a plain message. Each call of the function
            copies its arguments. Read what comes back with `number`, `parts` or `show`.
    """

    name: str
    given: str
    check: Callable[[Callable], Finding | str | None]


@dataclass(frozen=True)
class WrongSolution:
    """A mistake that learners make, as a function, with the misconception behind it.

    Attributes:
        name: of the mistake.
        function: makes it; same arguments as the reference.
        diagnosis: what the learner probably thought, and why it fails; never the answer.
    """

    name: str
    function: Callable
    diagnosis: str


def value_case(
    name: str,
    given: str,
    arguments: tuple,
    expected: Any,
    should: str,
    *,
    names: tuple[str, ...] = (),
    tolerance: float = 1e-4,
) -> Case:
    """A case that compares what comes back with the right numbers.

    Args:
        name: a few words, shown to the learner.
        given: the input, in words.
        arguments: of the call.
        expected: the right numbers, or a function of the arguments that computes them. Prefer
            numbers worked out by hand: they do not share the reference's mistakes.
        should: the property that the result has, in a sentence; not the result.
        names: of the values, for functions that return several.
        tolerance: absolute and relative; the message states it.

    Returns:
        The case.

    Example:
        >>> case = value_case("four", "x = 4", (4,), 2.0, "The result is half of x.")
        >>> case.check(lambda x: x / 2) is None
        True
        >>> case.check(lambda x: x * 2).returned
        '8'
    """

    def check(answer: Callable) -> Finding | None:
        returned = answer(*arguments)
        right = expected(*arguments) if callable(expected) else expected
        fault = difference(returned, right, tolerance, names)
        if fault is None:
            return None
        text = f"{should} {fault} {dtype_remark(returned)}".strip()
        return Finding(show(returned, names), text)

    return Case(name, given, check)


class Counted:
    """A function that counts its calls: for cases where their number is the point.

    Example:
        >>> doubled = Counted(lambda x: 2 * x)
        >>> doubled(1) + doubled(2), doubled.calls
        (6, 2)
    """

    def __init__(self, function: Callable):
        self.function = function
        self.calls = 0

    def __call__(self, *arguments: Any) -> Any:
        """Call the function, and count."""
        self.calls += 1
        return self.function(*arguments)


def _as_it_is(value: Tensor) -> Tensor:
    return value


def _returned(answer: Callable, *arguments: Any) -> Any:
    return answer(*arguments)


def _not_explained(found: list[Tensor]) -> None:
    return None


@dataclass(eq=False, repr=False)
class Exercise:
    """An exercise: the lesson tells what to write, this tells what is right.

    Attributes:
        lesson: two digits, such as "01".
        name: as in `ex.<name>`.
        title: for the learner.
        difficulty, importance: of 5.
        minutes: a typical time.
        reference: a right answer, short and worth reading: `solution()` shows its source.
        cases: the easiest first, so that the first failure locates the mistake.
        wrong: named wrong solutions.
        hints: from a nudge to nearly there.
        probes: argument tuples on which answers are compared to find out which mistake was made:
            each wrong solution differs from the reference and from the other wrong ones on one.
        tolerance: absolute and relative, when two answers are compared on the probes.
        canonical: maps each returned tensor to what is compared, where several answers are equally
            right (the log of a temperature, an eigenvector up to its sign).
        observe: called as observe(answer, *arguments) with each probe's arguments: what two answers
            are compared by, where the returned value does not tell all (a loss has a gradient).
        explain: called with what the probes showed of an answer (canonical tensors), where no known
            mistake fits: a diagnosis of a kind of mistake that is no single function, or None.
        hints_shown: so far, in this session.

    Example:
        >>> def double(x):
        ...     return 2 * x
        >>> exercise = Exercise(
        ...     "99", "double", "Twice", difficulty=1, importance=1, minutes=1, reference=double,
        ...     cases=(value_case("three", "x = 3", (3.0,), 6.0, "The result is twice x."),),
        ...     wrong=(WrongSolution("square", lambda x: x * x, "You squared x."),),
        ...     hints=("Add it to itself.", "Or use *."),
        ...     probes=((3.0,), (5.0,)),
        ... )
        >>> exercise.evaluate(lambda x: x + x).outcome.value
        'correct'
        >>> exercise.evaluate(lambda x: x**2)
        ✗ incorrect · Twice
          Check 1 of 1  three
          Input         x = 3
          Came back     9
          Should hold   The result is twice x. Compared to within 0.0001.
          Likely cause  You squared x.
          Next          `ex.double.hint()` shows hint 1 of 2.
    """

    lesson: str
    name: str
    title: str
    difficulty: int
    importance: int
    minutes: int
    reference: Callable
    cases: tuple[Case, ...]
    wrong: tuple[WrongSolution, ...]
    hints: tuple[str, ...]
    probes: tuple[tuple, ...]
    tolerance: float = 1e-4
    canonical: Callable[[Tensor], Tensor] = _as_it_is
    observe: Callable[..., Any] = _returned
    explain: Callable[[list[Tensor]], str | None] = _not_explained
    hints_shown: int = field(default=0, init=False)
    _checked: tuple[Any, Outcome] | None = field(default=None, init=False)

    @property
    def key(self) -> str:
        """Under which progress is stored, such as "01/ece"."""
        return f"{self.lesson}/{self.name}"

    def check(self, answer: Callable) -> None:
        """Examine the learner's function, show the outcome and remember it; never raises.

        Args:
            answer: the function itself, not the result of calling it.
        """
        feedback = self.evaluate(answer)
        self._checked = answer, feedback.outcome
        note, card = None, feedback.card
        if feedback.outcome is not Outcome.NOT_ATTEMPTED:
            source = _source(answer)
            answer_digest = None if source is None else store.digest(source)
            note = store.record_attempt(
                self.key, feedback.outcome.value, self.mistake(feedback), answer_digest
            )
        if feedback.outcome is Outcome.CORRECT:
            card = replace(card, progress=self._standing())
        _display(card, note)

    def evaluate(self, answer: Any) -> Feedback:
        """Examine an answer without showing or storing anything.

        Args:
            answer: anything at all; a right one is a function.

        Returns:
            The feedback that `check` shows.
        """
        return examine(self, answer)

    def mistake(self, feedback: Feedback) -> str | None:
        """The name of the mistake that a check found, for the progress file; None if correct.

        That of a wrong solution, else the first sentence of a general diagnosis.
        """
        if feedback.outcome is not Outcome.INCORRECT:
            return None if feedback.outcome is Outcome.CORRECT else feedback.outcome.value
        if feedback.diagnosis is None:
            return "not explained"
        for wrong in self.wrong:
            if wrong.diagnosis == feedback.diagnosis:
                return wrong.name
        return feedback.diagnosis.partition(".")[0]

    def mine(self, answer: Callable) -> Callable:
        """The learner's own function where it is correct, else the course's: for the next cells.

        Args:
            answer: the function itself.

        Returns:
            `answer`, or the reference, which takes the same arguments.

        Example:
            >>> from calibcourse.exercises.lesson_00 import over_confidence, my_over_confidence
            >>> over_confidence.mine(lambda confidence, correct: ...) is my_over_confidence
            True
        """
        # What `check` has just found of this very function serves once: later on, what the
        # function calls may have changed.
        checked, self._checked = self._checked, None
        known = checked is not None and checked[0] is answer
        outcome = checked[1] if known else self.evaluate(answer).outcome
        return answer if outcome is Outcome.CORRECT else self.reference

    def hint(self) -> None:
        """Show the next hint; after the last one, the last again."""
        again = self.hints_shown == len(self.hints)
        self.hints_shown = min(self.hints_shown + 1, len(self.hints))
        rows = [("Hint", self.hints[self.hints_shown - 1])]
        if again:
            rows.append(("Note", f"This is the last hint. `ex.{self.name}.solution()` is left."))
        word = f"hint {self.hints_shown} of {len(self.hints)}"
        note = store.record_hint(self.key, self.hints_shown)
        _display(Card("?", word, self.title, "calm", tuple(rows)), note)

    def solution(self) -> None:
        """Show the source of the reference solution, and remember that it was seen.

        In a copy that `calibcourse release --without-solutions` made, it stays shut.
        """
        if (Path(__file__).parent / "graded_class").exists():
            row = ("Note", "In a graded class solutions are not shown; hints are.")
            return _display(Card("→", "no solution", self.title, "calm", (row,)), None)
        source = inspect.getsource(self.reference).strip()
        note = store.record_solution(self.key)
        _display(Card("→", "one solution", self.title, "calm", code=source), note)

    def _standing(self) -> str:
        from . import all_exercises  # whose modules import this one

        try:
            return standing(self.key, all_exercises(), store.load())
        except (store.UnreadableProgress, OSError, RuntimeError):  # which has been said
            return ""

    def __repr__(self) -> str:
        return repr(self._rating())

    def _repr_html_(self) -> str:
        return self._rating()._repr_html_()

    def _rating(self) -> Card:
        minutes = f"about {self.minutes} minute{'' if self.minutes == 1 else 's'}"
        rows = (
            ("Difficulty", _of_five(self.difficulty)),
            ("Importance", _of_five(self.importance)),
            ("Time", minutes),
        )
        return Card("✎", "exercise", self.title, "calm", rows)


class ClaimFailed(AssertionError):
    """A statement of a lesson did not hold in this run."""


def claim(text: str, holds: Any, **numbers: Any) -> None:
    """State what a lesson asserts: print it where it holds, stop the notebook where it does not.

    Args:
        text: the statement, without numbers that vary between runs.
        holds: a bool, or an array or tensor with one bool.
        **numbers: behind the statement; shown (rounded) only if it fails.

    Raises:
        ClaimFailed: the statement does not hold; the message has the numbers.
        TypeError: `holds` is not a bool, so that a number cannot pass for a truth.

    Example:
        >>> claim("The network is over-confident", 0.95 > 0.88, confidence=0.95, accuracy=0.88)
        ✓ The network is over-confident
    """
    holds = holds.item() if hasattr(holds, "item") else holds
    if not isinstance(holds, bool | np.bool_):
        raise TypeError(f"holds must be a bool, got {type(holds).__name__}")
    if not holds:
        measured = ", ".join(f"{name} = {show(value)}" for name, value in numbers.items())
        raise ClaimFailed(f"✗ {text}" + (f" ({measured})" if measured else ""))
    print(f"✓ {text}")


def _display(card: Card, note: str | None) -> None:
    display(replace(card, rows=(*card.rows, ("Note", note))) if note else card)


def _source(answer: Any) -> str | None:
    try:
        return inspect.getsource(answer)
    except Exception:  # no function, or one that was made without a file or a cell
        return None


def _of_five(stars: int) -> str:
    return f"{'●' * stars}{'○' * (5 - stars)} {stars} of 5"
