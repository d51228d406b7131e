"""What a class predicted, without names: a histogram per prediction, and how calibrated it is."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median

import torch

from .._page import Html, heat, table, tag
from ..exercises import Prediction
from ..exercises.predictions import BINS, counted, counting
from ..exercises.store import Guess
from ..metrics import ece_of_confidence, noise_floor, reliability_of_confidence

_SURE = (0.0, 0.5, 0.7, 0.9, 1.0)  # ends of the groups by how sure
_FAR = 3  # tolerances from what was measured


def predictions_section(
    predictions: Iterable[Prediction], guesses: Sequence[dict[str, Guess]]
) -> list[Html]:
    """Fragments of the class page; none where no prediction counts.

    Args:
        predictions: of the course.
        guesses: of each student, by prediction.
    """
    predictions = list(predictions)
    rows = [row for one in predictions if (row := _row(one, guesses)) is not None]
    if not rows:
        return []
    header = ("prediction", "answers", "right", "what they expected", "how sure")
    return [
        tag("h2", "Predictions"),
        tag("p", "Answers that were given before their result was shown, without names; ✓ marks "
            "what was measured."),
        table(header, rows),
        tag("h3", "How calibrated is the class?"),
        *_calibration(predictions, guesses),
    ]  # fmt: skip


def _row(prediction: Prediction, guesses: Sequence[dict[str, Guess]]) -> tuple | None:
    counts = [guess for one in guesses if (guess := counting(prediction, one)) is not None]
    if not counts:
        return None
    n_right = sum(prediction.is_right(guess.answer, guess.truth) for guess in counts)
    groups = _options(prediction, counts) if prediction.options else _ranges(prediction, counts)
    expected = [heat(f"{text} · {n}", n / len(counts)) for text, n in groups if n or "✓" in text]
    return (
        f"{prediction.key.partition('/')[0]} · {prediction.label}",
        len(counts),
        heat(
            f"{n_right}\N{NO-BREAK SPACE}of\N{NO-BREAK SPACE}{len(counts)}", n_right / len(counts)
        ),
        Html(" ".join(expected)),
        Html(" ".join(heat(f"{text} · {n}", n / len(counts)) for text, n in _sure(counts) if n)),
    )


def _options(prediction: Prediction, counts: list[Guess]) -> list[tuple[str, int]]:
    """Each option with the number of its answers; what most files say was measured is marked."""
    answers = Counter(guess.answer for guess in counts)
    truth = Counter(guess.truth for guess in counts).most_common(1)[0][0]
    return [
        (f"{option}{' ✓' if option == truth else ''}", answers[option])
        for option in prediction.options
    ]


def _ranges(prediction: Prediction, counts: list[Guess]) -> list[tuple[str, int]]:
    """Far below, below, right, above and far above what was measured, with numbers for the ends.

    Each answer is held against what its own file measured; the ends are those of the median file.
    """
    truth = median(guess.truth for guess in counts)
    groups = [0] * 5
    for guess in counts:
        if prediction.is_right(guess.answer, guess.truth):
            groups[2] += 1
            continue
        below = guess.answer < guess.truth
        near = prediction.distance(guess.answer, guess.truth) <= _FAR
        groups[(1 if near else 0) if below else (3 if near else 4)] += 1
    ends = [prediction.show(_end(prediction, truth, steps)) for steps in (-_FAR, -1, 1, _FAR)]
    texts = (
        f"below {ends[0]}",
        f"{ends[0]} to {ends[1]}",
        f"{ends[1]} to {ends[2]} ✓ measured {prediction.show(truth)}",
        f"{ends[2]} to {ends[3]}",
        f"above {ends[3]}",
    )
    return list(zip(texts, groups, strict=True))


def _end(prediction: Prediction, truth: float, steps: int) -> float:
    """What lies some tolerances from the truth; a share stays between 0 and 100 %."""
    if prediction.within is None:
        return truth * prediction.factor**steps
    end = truth + steps * prediction.within
    return min(max(end, 0.0), 100.0) if prediction.unit == "%" else end


def _sure(counts: list[Guess]) -> list[tuple[str, int]]:
    """The number of answers by how sure, in (a, b] as the bins of ECE; 0 is in the first."""
    groups = Counter(bisect_left(_SURE, guess.sure, lo=1) for guess in counts)
    return [
        (f"{100 * low:.0f} to {100 * high:.0f} %", groups[number])
        for number, (low, high) in enumerate(pairwise(_SURE), start=1)
    ]


def _calibration(
    predictions: list[Prediction], guesses: Sequence[dict[str, Guess]]
) -> tuple[Html, Html]:
    """The class's reliability diagram as a table, and its ECE beside what chance gives."""
    pairs = [counted(predictions, one) for one in guesses]
    confidence, correct = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    curve = reliability_of_confidence(confidence, correct, BINS)
    ece, floor = float(ece_of_confidence(confidence, correct, BINS)), noise_floor(confidence, BINS)
    sure, right = float(confidence.mean()), float(correct.double().mean())
    said = (
        f"{len(correct)} predictions: {100 * sure:.0f} % sure on average, right in "
        f"{100 * right:.0f} %. ECE {ece:.3f}; for calibrated people chance alone gives "
        f"{floor.low:.3f} to {floor.high:.3f}, and more where answers hang together, as those of "
        "one student or to one question do."
    )
    rows = [
        (
            f"{100 * low:.0f} to {100 * high:.0f} %",
            int(count),
            f"{100 * mean:.0f} %",
            heat(f"{100 * share:.0f} %", share),
        )
        for low, high, count, mean, share in zip(
            curve.edges[:-1].tolist(),
            curve.edges[1:].tolist(),
            curve.count.tolist(),
            curve.confidence.tolist(),
            curve.accuracy.tolist(),
            strict=True,
        )
        if count
    ]
    return tag("p", said), table(("how sure", "answers", "mean", "right"), rows)
