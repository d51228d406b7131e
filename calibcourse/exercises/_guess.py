"""What is remembered of one prediction: the answer, how sure, and what was measured."""

import math
from dataclasses import dataclass, fields, replace

MAX_TEXT = 200  # characters of an option
NEVER = "~"  # after every time

Value = float | str  # a number, or one of a choice's options


@dataclass(frozen=True)
class Guess:
    """A learner's answer to one prediction, and the result it was compared with.

    Attributes:
        answer: the number or the option; None without one.
        sure: the learner's probability of being right, in [0, 1]; None without an answer.
        late: the result had been shown before the answer was given: it does not count.
        truth: what was measured when the result was shown first; None before.
        answered, shown: UTC, ISO 8601, or None.
    """

    answer: Value | None = None
    sure: float | None = None
    late: bool = False
    truth: Value | None = None
    answered: str | None = None
    shown: str | None = None

    @property
    def settled(self) -> bool:
        """Whether the answer can no longer be changed: it was given, and the result was shown."""
        return self.answer is not None and self.shown is not None

    def with_answer(self, answer: Value, sure: float, now: str) -> "Guess":
        """After an answer; once the result was shown, the first answer stays.

        Args:
            answer: a number, or an option.
            sure: in [0, 1].
            now: UTC, ISO 8601.
        """
        if self.settled:
            return self
        late = self.shown is not None
        return replace(self, answer=answer, sure=sure, late=late, answered=now)

    def with_truth(self, truth: Value, now: str) -> "Guess":
        """After the result was shown; what was measured first stays."""
        return self if self.shown else replace(self, truth=truth, shown=now)

    def joined(self, other: "Guess") -> "Guess":
        """What both know of one prediction: the first answer, and the result that was seen first.

        The same in either order, and joining again changes nothing.

        Args:
            other: of the same prediction, from another file.
        """
        first = min((self, other), key=lambda one: (one.answered or NEVER, repr(one)))
        seen = min((self, other), key=lambda one: (one.shown or NEVER, repr(one)))
        late = first.late or bool(first.answered and seen.shown and seen.shown < first.answered)
        return replace(first, late=late, truth=seen.truth, shown=seen.shown)


FIELDS = {field.name for field in fields(Guess)}


def is_value(value: object) -> bool:
    """Whether somebody's file has what can be an answer: a finite number or a short text."""
    if isinstance(value, str):
        return value.isprintable() and len(value) <= MAX_TEXT
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e100 and math.isfinite(value)


def possible(guess: Guess) -> bool:
    """Whether the values fit each other; the times are left to the reader of the file."""
    answered = guess.answer is not None
    return (
        isinstance(guess.late, bool)
        and (guess.answer is None or is_value(guess.answer))
        and (guess.truth is None or is_value(guess.truth))
        and (guess.sure is not None, guess.answered is not None) == (answered, answered)
        and (guess.truth is None) == (guess.shown is None)
        and (not answered or _is_share(guess.sure))
        and (not guess.late or answered)
    )


def _is_share(value: object) -> bool:
    return is_value(value) and not isinstance(value, str) and 0 <= value <= 1
