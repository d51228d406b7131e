"""Predictions: a lesson asks before it shows, and compares what you said.

A prediction is declared beside the lesson's exercises, asked for in one cell and compared in the
cell that has the result:

    ex.predicted_accuracy.ask()              # an input: the answer, and how sure
    ex.predicted_accuracy.mark(ax)           # a dashed line at the answer; nothing without one
    ex.predicted_accuracy.compare(accuracy)  # one card: what you said, what was measured

Answers stay in the progress file, on the learner's own disk. One that was given before its result
was shown counts; until then it may be changed. Without an answer nothing stops, and what a notebook
prints as text is the same with an answer as without.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from IPython.display import display
from torch import Tensor

from ..metrics import ece_of_confidence, noise_floor
from . import store
from ._card import Card
from ._guess import MAX_TEXT, Guess, Value, is_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENOUGH = 10  # predictions to say anything
BINS = 5  # of some fifty predictions, ten to a bin
COLOUR = "#882255"  # wine: the learner's own word, in no other figure's palette
# Where the progress file cannot be written, answers live as long as the notebook's kernel.
_unsaved: dict[str, Guess] = {}
_told: set[str] = set()  # notes on saving that were shown already


@dataclass(frozen=True)
class Prediction:
    """A question about a result that is measured further down.

    Without options the answer is a number, and it is right within an absolute distance or within a
    factor of what is measured.

    Attributes:
        lesson: two digits, such as "01".
        name: as in `ex.<name>`.
        label: a few words; the question itself stands in the lesson.
        options: of a choice.
        unit: of a number; "%" is typed in percent and measured as a share in [0, 1].
        within: the largest distance that is right, in the unit; percentage points for "%".
        factor: the largest ratio that is right, above 1.

    Raises:
        ValueError: options, within and factor: exactly one is needed; or an option is repeated.

    Example:
        >>> share = Prediction("99", "share", "Share of tails", unit="%", within=5)
        >>> share.is_right(47, truth=50), share.is_right(44, truth=50)
        (True, False)
        >>> share.right_means
        'within 5 percentage points'
        >>> Prediction("99", "side", "Next", ("heads", "tails")).chance
        0.5
    """

    lesson: str
    name: str
    label: str
    options: tuple[str, ...] = ()
    unit: str = ""
    within: float | None = None
    factor: float | None = None

    def __post_init__(self) -> None:
        given = [bool(self.options), self.within is not None, self.factor is not None]
        if sum(given) != 1:
            raise ValueError("a prediction needs options, or within, or factor: one of the three")
        if self.options and (len(self.options) < 2 or len(set(self.options)) < len(self.options)):
            raise ValueError(f"options must be two or more, all different, got {self.options}")
        if any(len(option) > MAX_TEXT for option in self.options):
            raise ValueError(f"an option has at most {MAX_TEXT} characters")

    @property
    def key(self) -> str:
        """Under which it is stored, such as "01/predicted_accuracy"."""
        return f"{self.lesson}/{self.name}"

    @property
    def chance(self) -> float:
        """The probability of being right by guessing blindly; 0 for a number."""
        return 1 / len(self.options) if self.options else 0.0

    @property
    def right_means(self) -> str:
        """What counts as right, for the learner; empty for a choice."""
        if self.factor is not None:
            return f"within a factor of {self.factor:g}"
        if self.within is not None:
            unit = "percentage points" if self.unit == "%" else self.unit
            return f"within {self.within:g} {unit}".rstrip()
        return ""

    def takes(self, value: Any) -> bool:
        """Whether a value can be an answer: one of the options, or a finite number."""
        if self.options:
            return value in self.options
        return is_value(value) and not isinstance(value, str)

    def is_right(self, answer: Value, truth: Value) -> bool:
        """Whether an answer is right; the edges of the tolerance belong to it.

        Args:
            answer, truth: options, or numbers in the unit.
        """
        if isinstance(answer, str) or isinstance(truth, str):
            return answer == truth
        return self.distance(answer, truth) <= 1 + 1e-9  # 84.3 + 5 is not 89.3 in floats

    def distance(self, answer: float, truth: float) -> float:
        """How many tolerances a number is from the truth: 1 is the edge of what is right.

        Args:
            answer, truth: finite, in the unit.

        Example:
            >>> Prediction("99", "ratio", "Ratio", factor=2).distance(12, truth=3)
            2.0
        """
        if self.within is not None:
            return abs(answer - truth) / self.within
        if answer == truth:
            return 0.0
        if answer == 0 or truth == 0 or (answer < 0) != (truth < 0):
            return math.inf
        return abs(math.log(abs(answer)) - math.log(abs(truth))) / math.log(self.factor)

    def read(self, text: str) -> float:
        """A typed number, with or without its unit; a comma parts thousands, else it is a point.

        Raises:
            ValueError: it is no number; the message is for the learner.

        Example:
            >>> share = Prediction("99", "share", "Share", unit="%", within=5)
            >>> [share.read(text) for text in ("47,5 %", "120,000", "10^5")]
            [47.5, 120000.0, 100000.0]
        """
        number = text.strip().removesuffix(self.unit).strip().replace("−", "-")
        if re.fullmatch(r"-?[1-9]\d{0,2}(,\d{3})+", number):
            number = number.replace(",", "")
        number = number.replace(",", ".").replace("10^", "1e")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not is_value(value):
            raise ValueError(f"Type a number{', in ' + self.unit if self.unit else ''}.")
        return value

    def show(self, value: Value) -> str:
        """A value as text, with its unit.

        Example:
            >>> Prediction("99", "share", "Share", unit="%", within=5).show(84.3)
            '84.3 %'
        """
        if isinstance(value, str):
            return value
        digits = f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
        return f"{digits} {self.unit}".rstrip()

    @property
    def guess(self) -> Guess:
        """What is remembered of it."""
        try:
            kept = store.load_predictions().get(self.key)
        except (store.UnreadableProgress, OSError, RuntimeError):
            kept = None
        return _unsaved.get(self.key) or kept or Guess()

    def keep(self, answer: Value, sure: float) -> str | None:
        """Remember an answer.

        Args:
            answer: one of the options, or a number in the unit.
            sure: the probability of being right, in [0, 1].

        Returns:
            None, or one line on why it is not saved.

        Raises:
            ValueError: the answer or `sure` is impossible.
        """
        if not self.takes(answer):
            raise ValueError(f"answer must be {self._possible}, got {answer!r}")
        if not 0 <= sure <= 1:
            raise ValueError(f"sure must be a probability, got {sure}")
        expected = self.guess.with_answer(answer, sure, "now")
        return self._saved(expected, store.record_guess(self.key, answer, sure))

    def ask(self) -> None:
        """Show the input."""
        from ._prediction_input import PredictionInput  # widgets load only where one is shown

        display(PredictionInput(self).bundle(), raw=True)

    def compare(self, measured: Any) -> None:
        """Show what was measured beside the learner's answer, and remember both.

        Args:
            measured: one of the options, or a number; a share in [0, 1] where the unit is "%".

        Raises:
            ValueError: it is no possible answer.
        """
        truth = self._truth(measured)
        before = self.guess
        note = self._saved(before.with_truth(truth, "now"), store.record_truth(self.key, truth))
        display(_Comparison(self, before, truth, _once(note)))

    def mark(self, ax: "Axes", along: str = "x") -> None:
        """Draw the learner's number as a dashed line on a figure; nothing without an answer.

        Args:
            ax: of the figure; its limits stay.
            along: the axis that the number stands on, "x" or "y".

        Raises:
            ValueError: it is a choice, or unknown `along`.
        """
        if self.options or along not in ("x", "y"):
            raise ValueError('a number has a mark, along "x" or "y"')
        answer = self.guess.answer
        if answer is None or not self.takes(answer):
            return
        _draw_mark(ax, along, answer / 100 if self.unit == "%" else answer, self.show(answer))

    def _truth(self, measured: Any) -> Value:
        value = measured.item() if hasattr(measured, "item") else measured
        if not self.takes(value):
            raise ValueError(f"measured must be {self._possible}, got {value!r}")
        if isinstance(value, str):
            return value
        return float(value) * 100 if self.unit == "%" else float(value)

    @property
    def _possible(self) -> str:
        return f"one of {self.options}" if self.options else "a finite number"

    def _saved(self, expected: Guess, note: str | None) -> str | None:
        """Keep for the rest of the session what the file does not have."""
        _unsaved.pop(self.key, None)
        kept = self.guess
        if (kept.answer, kept.truth) != (expected.answer, expected.truth):
            _unsaved[self.key] = expected
        return note

    def __repr__(self) -> str:
        right = f"right: {self.right_means}" if self.right_means else " · ".join(self.options)
        unit = f", in {self.unit}" if self.unit else ""
        return f"Prediction {self.key} ({self.label}{unit}; {right})"


def counted(
    predictions: Iterable[Prediction], guesses: Mapping[str, Guess]
) -> tuple[Tensor, Tensor]:
    """How sure somebody was of each prediction, and whether it was right.

    Args:
        predictions: of the course.
        guesses: by key. One without an answer or a result, one that came after its result, and
            one that cannot be an answer do not count.

    Returns:
        Confidence (N,) float64 in [0, 1], correct (N,) bool; N may be 0.
    """
    pairs = [
        (guess.sure, prediction.is_right(guess.answer, guess.truth))
        for prediction in predictions
        if (guess := counting(prediction, guesses)) is not None
    ]
    confidence = torch.tensor([sure for sure, _ in pairs], dtype=torch.float64)
    return confidence, torch.tensor([right for _, right in pairs], dtype=torch.bool)


def counting(prediction: Prediction, guesses: Mapping[str, Guess]) -> Guess | None:
    """The guess at a prediction if it counts: a possible answer, in time, and its result."""
    guess = guesses.get(prediction.key, Guess())
    counts = not guess.late and prediction.takes(guess.answer) and prediction.takes(guess.truth)
    return guess if counts else None


def calibration_in_words(confidence: Tensor, correct: Tensor) -> str:
    """What somebody's predictions say of their own calibration, and what they do not.

    Args:
        confidence: (N,) float in [0, 1].
        correct: (N,) bool.

    Returns:
        Sentences: how sure and how often right, the ECE beside what chance alone gives, and which
        way it errs, if that can be told. With fewer than `ENOUGH` predictions, that they are few.

    Example:
        >>> print(calibration_in_words(torch.full((40,), 0.9), torch.arange(40) < 24))
        40 predictions: you were 90 % sure on average, and right in 60 %.
        Your ECE is 0.300; for a calibrated person chance alone gives 0.000 to 0.100.
        You are over-confident: surer than right, by 30 points; chance explains at most 9.
    """
    n = len(correct)
    if n < ENOUGH:
        counted = f"{n or 'No'} prediction{'' if n == 1 else 's'} of yours count{'s' * (n == 1)}"
        return f"{counted} so far: {ENOUGH} are needed to say anything about your calibration."
    sure, right = float(confidence.double().mean()), float(correct.double().mean())
    ece = float(ece_of_confidence(confidence, correct, BINS))
    floor = noise_floor(confidence, BINS)
    # A calibrated person's mean of sure minus right: mean 0, variance the sum of c(1 - c) over N².
    by_chance = 1.96 * float((confidence * (1 - confidence)).sum().sqrt()) / n
    gap = sure - right
    if abs(gap) <= by_chance:
        way = "That you are too sure, or not sure enough, cannot be told from chance"
        way += f": {100 * abs(gap):.0f} points, and chance explains {100 * by_chance:.0f}."
    else:
        word, way_of = ("over", "surer than right") if gap > 0 else ("under", "righter than sure")
        way = f"You are {word}-confident: {way_of}, by {100 * abs(gap):.0f} points; chance "
        way += f"explains at most {100 * by_chance:.0f}."
    return (
        f"{n} predictions: you were {100 * sure:.0f} % sure on average, and right in "
        f"{100 * right:.0f} %.\n"
        f"Your ECE is {ece:.3f}; for a calibrated person chance alone gives "
        f"{floor.low:.3f} to {floor.high:.3f}.\n{way}"
    )


@dataclass(frozen=True, repr=False)
class _Comparison:
    """What `compare` shows. The text is the same for every learner; the HTML has the answer."""

    prediction: Prediction
    guess: Guess
    truth: Value
    note: str | None

    def __repr__(self) -> str:
        return f"→ measured · {self.prediction.label}"

    def _repr_html_(self) -> str:
        asked = self.prediction
        rows = []
        if self.guess.answer is not None and asked.takes(self.guess.answer):
            rows.append(("You said", self._said()))
        if self.guess.late:
            rows.append(("Note", "You answered after the result was shown: kept, not counted."))
        if self.note:
            rows.append(("Note", self.note))
        title = f"{asked.label}: {asked.show(self.truth)}"
        card = Card("→", "measured", title, "calm", tuple(rows))
        # tests/nbval_sanitize.cfg knows the class: what is personal is not compared.
        return f'<div class="calibcourse-prediction">{card._repr_html_()}</div>'

    def _said(self) -> str:
        asked, guess = self.prediction, self.guess
        right = asked.is_right(guess.answer, self.truth)
        sure = f"{guess.sure:.0%}".replace("%", " %")
        if asked.options:
            return f"{guess.answer}, {sure} sure: {'right' if right else 'not so'}."
        verdict = "it is" if right else "it is not"
        return f"{asked.show(guess.answer)}, {sure} sure to be {asked.right_means}: {verdict}."


def _once(note: str | None) -> str | None:
    if note is None or note in _told:
        return None
    _told.add(note)
    return note


def _draw_mark(ax: "Axes", along: str, value: float, text: str) -> None:
    low, high = sorted(ax.get_xlim() if along == "x" else ax.get_ylim())
    inside = low <= value <= high
    shown = min(max(value, low), high)
    text = f"your prediction: {text}" + ("" if inside else ", off this axis")
    if inside:
        (ax.axvline if along == "x" else ax.axhline)(value, color=COLOUR, ls="--", lw=1.4)
    spot = (shown, 0.98) if along == "x" else (0.98, shown)
    left = shown > (low + high) / 2
    ground = {"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1}
    places = {"ha": "right" if along == "y" or left else "left", "va": "top"}
    if along == "y":
        places["va"] = "top" if left else "bottom"
    transform = ax.get_xaxis_transform() if along == "x" else ax.get_yaxis_transform()
    ax.text(
        *spot, f" {text} ", transform=transform, color=COLOUR, fontsize=8, bbox=ground, **places
    )
