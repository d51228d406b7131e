"""Exercises of lesson 04: correlation along a run, the two-sided bound, signs, kernel error."""

import math

import numpy as np
import torch
from torch import Tensor

from .framework import Case, Exercise, Finding, WrongSolution, number, parts, show, value_case
from .predictions import Prediction

# --- 1. Correlation along a run ------------------------------------------------------------------


def my_correlation(step, x, y, chosen):
    rows = np.isin(step, chosen) & ~np.isnan(x + y)
    return np.corrcoef(x[rows], y[rows])[0, 1]


def _measured(step: np.ndarray, x: np.ndarray, y: np.ndarray, chosen: list[int]) -> np.ndarray:
    """The chosen rows in which both quantities were measured."""
    return np.isin(step, chosen) & np.isfinite(x) & np.isfinite(y)


def _of_rows(statistic, rows=_measured):
    """A statistic of x and y, on rows that may be the wrong ones."""

    def wrong(step, x, y, chosen):
        use = rows(step, x, y, chosen)
        return statistic(x[use], y[use])

    return wrong


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / math.sqrt((x @ x) * (y @ y)))


def _every_row(step, x, y, chosen):
    return np.isfinite(x) & np.isfinite(y)


def _as_row_numbers(step, x, y, chosen):
    rows = np.isin(np.arange(len(step)), chosen)
    return rows & np.isfinite(x) & np.isfinite(y)


def _up_to_the_last(step, x, y, chosen):
    return (step <= max(chosen)) & np.isfinite(x) & np.isfinite(y)


def _nan_kept(step, x, y, chosen):
    return np.isin(step, chosen)


def _nan_as_zero(step, x, y, chosen):
    use = np.isin(step, chosen)
    return _pearson(np.nan_to_num(x[use]), np.nan_to_num(y[use]))


def _each_over_its_own_rows(step, x, y, chosen):
    use = np.isin(step, chosen)
    x, y = x[use] - np.nanmean(x[use]), y[use] - np.nanmean(y[use])
    return np.nanmean(x * y) / np.sqrt(np.nanmean(x * x) * np.nanmean(y * y))


def _ranked(x: np.ndarray, y: np.ndarray) -> float:
    return _pearson(*(v.argsort().argsort().astype(float) for v in (x, y)))


def _rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A made-up run: steps in growing strides, two quantities with gaps at different rows."""
    rng = np.random.default_rng(seed)
    step = np.cumsum(rng.integers(1, 4, n)) - 1
    x = np.exp(rng.standard_normal(n))
    y = 0.5 + 0.6 * x + rng.standard_normal(n)
    x[n // 3], y[n // 2] = np.nan, np.nan
    return step, x, y


def _scipy_correlation(step, x, y, chosen):
    use = [s in set(chosen) and math.isfinite(a + b) for s, a, b in zip(step, x, y, strict=True)]
    return np.corrcoef(x[use], y[use])[0, 1]


_STEPS = np.arange(5)
_CUBES = (_STEPS, _STEPS.astype(float), _STEPS.astype(float) ** 3, [0, 1, 2, 3, 4])
# The chosen steps lie on a falling line, all others far off it.
_CHOSEN = (
    np.array([0, 1, 2, 5, 6, 10]),
    np.array([1.0, 2.0, 9.0, 4.0, 9.0, 8.0]),
    np.array([8.0, 7.0, 9.0, 5.0, 9.0, 1.0]),
    [0, 1, 5, 10],
)
_GAPS = (
    np.arange(6),
    np.array([1.0, np.nan, 2.0, 4.0, 3.0, 3.0]),
    np.array([1.0, 9.0, 2.0, 4.0, np.nan, 3.0]),
    [0, 1, 2, 3, 4, 5],
)
_RUN = (*_rows(60, seed=0), list(range(0, 90, 3)))


def _units_change_nothing(answer) -> Finding | None:
    step, x, y, chosen = _RUN
    plain, scaled = number(answer(*_RUN)), number(answer(step, 1e-3 * x, 7 + 40 * y, chosen))
    if abs(plain - scaled) <= 1e-6:
        return None
    return Finding(
        f"{show(plain)} before, {show(scaled)} after",
        "A correlation has no unit: scaling x or shifting y leaves it as it is.",
    )


correlation = Exercise(
    lesson="04",
    name="correlation",
    title="Correlation along a run",
    difficulty=2,
    importance=4,
    minutes=10,
    reference=my_correlation,
    cases=(
        value_case(
            "five steps",
            "x = 0, 1, 2, 3, 4 and y = x³ at steps 0 to 4, all chosen",
            _CUBES,
            154 / 170,
            "The result is Pearson's coefficient.",
        ),
        value_case(
            "chosen steps",
            "six rows at steps 0, 1, 2, 5, 6, 10; chosen are 0, 1, 5 and 10",
            _CHOSEN,
            -1.0,
            "Only rows whose step is chosen count. Here they lie on a falling line.",
        ),
        value_case(
            "gaps",
            "six rows; x is NaN in the second, y in the fifth",
            _GAPS,
            1.0,
            "A row in which x or y is NaN does not count. In the others x and y are equal.",
        ),
        value_case(
            "a run",
            "60 rows at random steps, with gaps; every third step is chosen",
            _RUN,
            _scipy_correlation,
            "The same definition holds for any run.",
        ),
        Case(
            "other units",
            "the run before; then with x in thousandths and y times 40, plus 7",
            _units_change_nothing,
        ),
    ),
    wrong=(
        WrongSolution(
            "all rows",
            _of_rows(_pearson, _every_row),
            "You use every row, whatever steps are chosen. Log-spaced probes crowd at the start of "
            "a run: with them in, the start outweighs the rest.",
        ),
        WrongSolution(
            "steps as row numbers",
            _of_rows(_pearson, _as_row_numbers),
            "You take steps for row numbers. Row 3 is the fourth probe, which may be at step 75.",
        ),
        WrongSolution(
            "up to the last chosen step",
            _of_rows(_pearson, _up_to_the_last),
            "You use all rows up to the last chosen step. Rows between the chosen ones count too.",
        ),
        WrongSolution(
            "NaN kept",
            _of_rows(_pearson, _nan_kept),
            "You keep rows with a NaN. One of them makes every sum NaN.",
        ),
        WrongSolution(
            "NaN as 0",
            _nan_as_zero,
            "You put 0 where nothing was measured. That is a value like any other, and a far-off "
            "one: leave the row out.",
        ),
        WrongSolution(
            "each over its own rows",
            _each_over_its_own_rows,
            "Your means of x and of y are over different rows: each skips its own gaps only. A row "
            "counts for both quantities or for neither.",
        ),
        WrongSolution(
            "ranks",
            _of_rows(_ranked),
            "You correlate ranks: Spearman's coefficient. It asks whether y grows with x, not "
            "whether along a line.",
        ),
        WrongSolution(
            "covariance",
            _of_rows(lambda x, y: np.cov(x, y)[0, 1]),
            "You return the covariance. It has the units of x times y; divide by both standard "
            "deviations.",
        ),
        WrongSolution(
            "n − 1 above, n below",
            _of_rows(lambda x, y: np.cov(x, y)[0, 1] / (x.std() * y.std())),
            "You divide a covariance with n − 1 (`np.cov`) by standard deviations with n "
            "(`np.std`). The result exceeds 1 on a straight line; either will do, if it is the "
            "same in both.",
        ),
        WrongSolution(
            "n above, n − 1 below",
            _of_rows(lambda x, y: _pearson(x, y) * (len(x) - 1) / len(x)),
            "You divide a mean over n by standard deviations with n − 1. On a straight line the "
            "result stays below 1; either will do, if it is the same in both.",
        ),
        WrongSolution(
            "not centred",
            _of_rows(lambda x, y: x @ y / np.sqrt((x @ x) * (y @ y))),
            "You do not subtract the means. Two positive quantities then always seem to agree.",
        ),
        WrongSolution(
            "r²",
            _of_rows(lambda x, y: _pearson(x, y) ** 2),
            "You return r², the share of explained variance. It has lost the sign.",
        ),
        WrongSolution(
            "no sign",
            _of_rows(lambda x, y: abs(_pearson(x, y))),
            "You return the absolute value. Whether the two move together or apart is asked.",
        ),
        WrongSolution(
            "slope",
            _of_rows(lambda x, y: np.polyfit(x, y, 1)[0]),
            "You return the slope of y on x. It changes with the units of both.",
        ),
        WrongSolution(
            "the matrix",
            _of_rows(np.corrcoef),
            "You return the 2 × 2 matrix of `np.corrcoef`. One of its entries is asked for.",
        ),
    ),
    hints=(
        "First say which rows count: the step is chosen, x is a number, y is a number.",
        "`np.isin(step, chosen)` and `np.isfinite` give arrays of bools; join them with `&` and "
        "index both x and y with the result.",
        "Then subtract the means, and divide the inner product of x and y by the product of their "
        "lengths. `np.corrcoef` does it as well: which entry of its matrix?",
    ),
    probes=(
        _CUBES,
        _CHOSEN,
        _GAPS,
        (*_rows(20, seed=1), [0, 2, 3, 4, 8, 9, 11, 14]),
        (_STEPS, 2.0 + _STEPS, np.array([3.0, 1.0, 4.0, 1.5, -2.0]), [0, 1, 2, 3, 4]),
    ),
    tolerance=1e-6,
)


# --- 2. Two numbers bound the ECE ----------------------------------------------------------------


def my_ece_bounds(confidence, accuracy):
    doubt, error = 1 - confidence, 1 - accuracy
    return abs(doubt - error), doubt + error


def _of_doubt_and_error(bounds):
    """Bounds made from u = 1 - confidence and err = 1 - accuracy."""
    return lambda confidence, accuracy: bounds(1 - confidence, 1 - accuracy)


def _binned_ece(confidence: Tensor, correct: Tensor, edges: Tensor) -> float:
    """ECE for any bins, by a loop over them."""
    index, total = torch.bucketize(confidence, edges), 0.0
    for b in range(len(edges) + 1):
        inside = index == b
        total += (confidence - correct)[inside].sum().abs().item()
    return total / len(confidence)


def _every_binning_is_between(answer) -> Finding | None:
    generator = torch.Generator().manual_seed(0)
    confidence = 0.3 + 0.7 * torch.rand(400, generator=generator).double()
    for bias in (-0.3, 0.0, 0.3):  # under-confident, calibrated, over-confident
        chance = (confidence - bias).clamp(0, 1)
        correct = (torch.rand(400, generator=generator) < chance).double()
        means = confidence.mean(0, keepdim=True), correct.mean(0, keepdim=True)
        lower, upper = (part.item() for part in parts(answer(*means), 2))
        eces = [
            _binned_ece(confidence, correct, torch.rand(n, generator=generator).sort().values)
            for n in (0, 1, 5, 50, 300)
        ]
        if lower > min(eces) + 1e-6:
            return Finding(
                f"a lower bound of {show(lower)}, where ECE with one of these binnings is "
                f"{show(min(eces))}",
                "No binning has an ECE below the lower bound.",
            )
        if lower < eces[0] - 1e-6:
            return Finding(
                f"a lower bound of {show(lower)}, where ECE with a single bin is {show(eces[0])}",
                "The lower bound is reached: by a single bin.",
            )
        if upper < max(eces) - 1e-6:
            return Finding(
                f"an upper bound of {show(upper)}, where ECE with one of these binnings is "
                f"{show(max(eces))}",
                "No binning has an ECE above the upper bound.",
            )
    return None


_SURE = (torch.tensor([0.9]), torch.tensor([0.8]))
_DOUBTING = (torch.tensor([0.6, 0.3, 0.97]), torch.tensor([0.9, 0.7, 1.0]))
_BOTH = (torch.tensor([0.2, 0.55, 0.9, 0.98]), torch.tensor([0.5, 0.75, 0.8, 0.79]))
_SIDES = ("lower", "upper")

ece_bounds = Exercise(
    lesson="04",
    name="ece_bounds",
    title="Two numbers bound the ECE",
    difficulty=2,
    importance=5,
    minutes=8,
    reference=my_ece_bounds,
    cases=(
        value_case(
            "too sure",
            "confidence 0.9, accuracy 0.8",
            _SURE,
            ([0.1], [0.3]),
            "The bounds are |u − err| and u + err, with u and err between 0 and 1.",
            names=_SIDES,
        ),
        value_case(
            "not sure enough",
            "confidences 0.6, 0.3, 0.97 and accuracies 0.9, 0.7, 1 at three probes",
            _DOUBTING,
            ([0.3, 0.4, 0.03], [0.5, 1.0, 0.03]),
            "One pair of bounds comes back for each probe; a bound on an error is never negative.",
            names=_SIDES,
        ),
        Case(
            "any bins",
            "400 images, under-confident, calibrated or over-confident; ECE with 1 to 301 bins",
            _every_binning_is_between,
        ),
    ),
    wrong=(
        WrongSolution(
            "no absolute value",
            _of_doubt_and_error(lambda u, err: (u - err, u + err)),
            "Your lower bound is u − err. It is negative where the network is too sure, and says "
            "nothing there: too sure and too modest are both errors.",
        ),
        WrongSolution(
            "only over-confidence",
            _of_doubt_and_error(lambda u, err: (err - u, u + err)),
            "Your lower bound is err − u, confidence less accuracy. It is negative where the "
            "network is not sure enough: that is miscalibration too.",
        ),
        WrongSolution(
            "error forgotten",
            _of_doubt_and_error(lambda u, err: (u, u)),
            "You return u on both sides. That is right only where every answer is right.",
        ),
        WrongSolution(
            "error forgotten above",
            _of_doubt_and_error(lambda u, err: (abs(u - err), u)),
            "Your upper bound counts the doubt alone. A wrong answer given with confidence near 1 "
            "adds its whole confidence to the ECE.",
        ),
        WrongSolution(
            "the larger of the two",
            _of_doubt_and_error(lambda u, err: (abs(u - err), torch.as_tensor(u).clamp(min=err))),
            "Your upper bound is the larger of u and err. Right answers contribute their doubt and "
            "wrong ones their confidence: they add up.",
        ),
        WrongSolution(
            "accuracy for the error",
            lambda confidence, accuracy: (
                abs(1 - confidence - accuracy),
                1 - confidence + accuracy,
            ),
            "You take accuracy for the error rate. err is the share of wrong answers.",
        ),
        WrongSolution(
            "confidence for the doubt",
            lambda confidence, accuracy: (
                abs(confidence - (1 - accuracy)),
                confidence + 1 - accuracy,
            ),
            "You take confidence for u. Mean misconfidence u is what is missing to certainty.",
        ),
        WrongSolution(
            "swapped",
            _of_doubt_and_error(lambda u, err: (u + err, abs(u - err))),
            "You return the upper bound first.",
        ),
        WrongSolution(
            "mean over the run",
            _of_doubt_and_error(lambda u, err: (abs(u.mean() - err.mean()), u.mean() + err.mean())),
            "You average over the probes. Each moment of training has its own bounds.",
        ),
    ),
    hints=(
        "u is what is missing in mean confidence to 1, err what is missing in accuracy.",
        "Below: with a single bin, ECE is the distance between confidence and accuracy, and "
        "splitting a bin never lowers it. Above: a right answer contributes 1 − c, a wrong one at "
        "most 1.",
    ),
    probes=(_SURE, _DOUBTING, _BOTH),
)


# --- 3. The sign of a correlation ----------------------------------------------------------------


def my_signs(doubt, error, sharpness, stops):
    ece = abs(doubt - error)
    return [np.sign(np.corrcoef(ece[:n], sharpness[:n])[0, 1]) for n in stops]


def _sign_of(ece_of, part=lambda values, n: values[:n]):
    """Signs as in the reference, of another calibration error or over another part of the run."""

    def wrong(doubt, error, sharpness, stops):
        ece = ece_of(doubt, error)
        pairs = [(part(ece, n), part(sharpness, n)) for n in stops]
        return [_sign(x, y) for x, y in pairs]

    return wrong


def _sign(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.sign(np.cov(x, y)[0, 1])) if len(x) > 1 else math.nan


def _growth_alone(doubt, error, sharpness, stops):
    ece = abs(doubt - error)
    return [float(np.sign(ece[n - 1] - ece[0])) for n in stops]


def _last_moves(doubt, error, sharpness, stops):
    ece = abs(doubt - error)
    moves = [(ece[n - 1] - ece[n - 2]) * (sharpness[n - 1] - sharpness[n - 2]) for n in stops]
    return [float(np.sign(move)) for move in moves]


def _coefficients(doubt, error, sharpness, stops):
    ece = abs(doubt - error)
    return [_pearson(ece[:n], sharpness[:n]) for n in stops]


def _unseen(doubt, error, sharpness, stops) -> tuple:
    return *(np.array(values, dtype=float) for values in (doubt, error, sharpness)), stops


# Over-confidence that grows while sharpness climbs; one that starts in doubt; training images.
_NATURAL = _unseen(
    [0.88, 0.65, 0.50, 0.40, 0.30, 0.20, 0.10, 0.05],
    [0.90, 0.70, 0.60, 0.60, 0.60, 0.60, 0.60, 0.60],
    [2, 4, 8, 10, 6, 4, 2, 1],
    (4, 6, 7),
)
_IN_DOUBT = _unseen(
    [0.92, 0.60, 0.45, 0.30, 0.20, 0.12, 0.03, 0.01],
    [0.90, 0.50, 0.30, 0.20, 0.16, 0.16, 0.16, 0.16],
    [3, 6, 8, 10, 9, 6, 3, 1],
    (8, 3, 5),
)
_FITTED = _unseen(
    [0.60, 0.50, 0.30, 0.22, 0.15, 0.06, 0.03, 0.01, 0.005, 0.003, 0.002],
    [0.25, 0.20, 0.12, 0.10, 0.06, 0.00, 0.00, 0.00, 0.000, 0.000, 0.000],
    [3, 5, 6, 9, 12, 8, 4, 2, 1, 1, 1],
    (5, 11),
)

_RISING_ERROR = _unseen([0.90, 0.60, 0.40, 0.20], [0.50, 0.52, 0.54, 0.56], [1, 2, 3, 4], (3, 4))

signs = Exercise(
    lesson="04",
    name="signs",
    title="Predict the sign",
    difficulty=3,
    importance=5,
    minutes=12,
    reference=my_signs,
    cases=(
        value_case(
            "too sure from the start",
            "eight probes; err is 0.9, 0.7 and then 0.6, u falls from 0.88 to 0.05; sharpness "
            "peaks at the fourth; stops 4, 6 and 7",
            _NATURAL,
            [1.0, 1.0, -1.0],
            "Up to the peak both grow; in the end most of the growth comes after it.",
        ),
        value_case(
            "in doubt first",
            "eight probes; u starts above err and falls through it after the fifth; sharpness "
            "peaks at the fourth; stops 8, 3 and 5, in this order",
            _IN_DOUBT,
            [-1.0, 1.0, 1.0],
            "ECE is at least the distance of u and err: doubt beyond the error rate counts too.",
        ),
        value_case(
            "training images",
            "eleven probes; err falls from 0.25 to 0 at the sixth, u from 0.6 to 0.002; sharpness "
            "peaks at the fifth; stops 5 and 11",
            _FITTED,
            [-1.0, 1.0],
            "Up to the peak the distance of u and err falls while sharpness grows; in the decay "
            "both fall.",
        ),
    ),
    wrong=(
        WrongSolution(
            "over-confidence with its sign",
            _sign_of(lambda u, err: err - u),
            "You correlate err − u, which is negative while the network is in doubt. ECE has no "
            "sign: too much doubt is miscalibration as well.",
        ),
        WrongSolution(
            "doubt alone",
            _sign_of(lambda u, err: u),
            "You correlate the doubt alone. ECE compares it with the error rate.",
        ),
        WrongSolution(
            "error alone",
            _sign_of(lambda u, err: err),
            "You correlate the error rate alone. A network can be wrong and know it.",
        ),
        WrongSolution(
            "their sum",
            _sign_of(lambda u, err: u + err),
            "You correlate u + err, the upper bound of ECE. It is the lower one, |u − err|, that "
            "ECE nearly equals.",
        ),
        WrongSolution(
            "the whole run each time",
            _sign_of(lambda u, err: abs(u - err), lambda values, n: values),
            "Every stop gets the sign of the whole run. Only the first so many probes count.",
        ),
        WrongSolution(
            "one probe too few",
            _sign_of(lambda u, err: abs(u - err), lambda values, n: values[: n - 1]),
            "You leave out the last probe before the stop. A stop is a number of probes: all of "
            "them count.",
        ),
        WrongSolution(
            "the rest of the run",
            _sign_of(lambda u, err: abs(u - err), lambda values, n: values[n:]),
            "You use the probes after the stop. The run ends there.",
        ),
        WrongSolution(
            "growth alone",
            _growth_alone,
            "You look only at whether |u − err| has grown. The correlation also asks what the "
            "sharpness did meanwhile.",
        ),
        WrongSolution(
            "the last moves",
            _last_moves,
            "You compare the last moves of both before the stop. A correlation weighs all probes.",
        ),
        WrongSolution(
            "no sign",
            _coefficients,
            "You return the coefficients themselves. Their signs are asked, +1 or −1.",
        ),
    ),
    hints=(
        "Section 5: which number, made of u and err, is ECE nearly equal to?",
        "Cut that number and the sharpness after the first n probes, and correlate the two pieces; "
        "`np.sign` gives the sign.",
    ),
    probes=(_NATURAL, _IN_DOUBT, _FITTED, _RISING_ERROR),
)


# --- 4. Kernel calibration error -----------------------------------------------------------------


def my_kce(confidence, correct, bandwidth=0.4):
    gap = correct.to(confidence) - confidence
    distance = (confidence[:, None] - confidence[None, :]).abs()
    weights = (-distance / bandwidth).exp()
    return (gap @ weights @ gap).sqrt() / len(gap)


def _kce_with(
    kernel=lambda distance, h: torch.exp(-distance / h),
    gap_of=lambda confidence, correct: correct - confidence,
    finish=lambda total, gap: total.sqrt() / len(gap),
    pairs=torch.ones_like,
):
    """KCE as in the reference, except for one of its parts."""

    def wrong(confidence, correct, bandwidth):
        gap = gap_of(confidence, correct.to(confidence))
        distance = (confidence[:, None] - confidence[None, :]).abs()
        weights = kernel(distance, bandwidth) * pairs(distance)
        return finish(gap @ weights @ gap, gap)

    return wrong


def _kce_by_loop(confidence, correct, bandwidth):
    c, r = confidence.tolist(), (correct.double() - confidence.double()).tolist()
    total = sum(
        a * b * math.exp(-abs(p - q) / bandwidth)
        for a, p in zip(r, c, strict=True)
        for b, q in zip(r, c, strict=True)
    )
    return math.sqrt(total) / len(c)


def _images(n: int, seed: int, low: float = 0.3) -> tuple[Tensor, Tensor]:
    """Confidences, and right answers that are fewer than they promise."""
    generator = torch.Generator().manual_seed(seed)
    confidence = low + (1 - low) * torch.rand(n, generator=generator)
    return confidence, torch.rand(n, generator=generator) < 0.8 * confidence


_PAIR = (torch.tensor([0.6, 0.8]), torch.tensor([True, False]), 0.4)
_LEVEL = (torch.full((5,), 0.7), torch.tensor([True, True, False, True, True]), 0.4)

kce = Exercise(
    lesson="04",
    name="kce",
    title="Kernel calibration error",
    difficulty=3,
    importance=3,
    minutes=12,
    reference=my_kce,
    cases=(
        value_case(
            "two images",
            "confidences 0.6 (right) and 0.8 (wrong), h = 0.4",
            _PAIR,
            # gaps 0.4 and -0.8: 0.16 + 0.64 - 2 × 0.32 e^(-1/2), over 4
            math.sqrt(0.8 - 0.64 * math.exp(-0.5)) / 2,
            "KCE² is the mean of r_i r_j e^(−|c_i − c_j|/h) over all pairs, i = j among them.",
        ),
        value_case(
            "one confidence",
            "five images of confidence 0.7, four of them right",
            _LEVEL,
            0.1,
            "Where all confidences are equal, KCE is the distance between confidence and accuracy.",
        ),
        value_case(
            "300 images, a narrow kernel",
            "300 images, h = 0.05",
            (*_images(300, seed=0), 0.05),
            _kce_by_loop,
            "The same definition holds for any number of images and any bandwidth.",
        ),
    ),
    wrong=(
        WrongSolution(
            "no square root",
            _kce_with(finish=lambda total, gap: total / len(gap) ** 2),
            "You return KCE². Its square root is measured in probability, as ECE is.",
        ),
        WrongSolution(
            "divided by N once",
            _kce_with(finish=lambda total, gap: (total / len(gap)).sqrt()),
            "You divide the sum over pairs by N. There are N² pairs.",
        ),
        WrongSolution(
            "not divided",
            _kce_with(finish=lambda total, gap: total.sqrt()),
            "You add the pairs up. KCE² is their mean, or it would grow with the data.",
        ),
        WrongSolution(
            "pairs i ≠ j",
            _kce_with(
                pairs=lambda d: 1 - torch.eye(len(d)),
                finish=lambda total, gap: (total / (len(gap) * (len(gap) - 1))).clamp(min=0).sqrt(),
            ),
            "You leave out the pairs i = j. That estimates KCE² without bias, but it can be "
            "negative; the paper and this course keep them.",
        ),
        WrongSolution(
            "each pair once",
            _kce_with(pairs=torch.triu),
            "You count each pair once, i ≤ j. The mean is over all N² ordered pairs.",
        ),
        WrongSolution(
            "Gaussian kernel",
            _kce_with(kernel=lambda d, h: torch.exp(-((d / h) ** 2) / 2)),
            "Your kernel is Gaussian. Here the exponent is the distance itself over h (Laplace).",
        ),
        WrongSolution(
            "squared distance",
            _kce_with(kernel=lambda d, h: torch.exp(-((d / h) ** 2))),
            "You square the distance in the exponent. Here it is the distance itself over h.",
        ),
        WrongSolution(
            "times the bandwidth",
            _kce_with(kernel=lambda d, h: torch.exp(-d * h)),
            "You multiply the distance by h. The larger the bandwidth, the farther images compare.",
        ),
        WrongSolution(
            "no kernel",
            _kce_with(kernel=lambda d, h: torch.ones_like(d)),
            "You weigh all pairs alike. What remains is |confidence − accuracy| of all images "
            "together: gaps of opposite sign at different confidences cancel.",
        ),
        WrongSolution(
            "absolute gaps",
            _kce_with(gap_of=lambda c, y: (y - c).abs()),
            "You take absolute values of the gaps. At equal confidence, right and wrong answers "
            "must cancel: that is what calibration is.",
        ),
        WrongSolution(
            "diagonal only",
            _kce_with(pairs=lambda d: torch.eye(len(d))),
            "You use the pairs i = j alone. They only tell how large the gaps are.",
        ),
    ),
    hints=(
        "The gap of an image is r = 1{right} − c. `correct` is bool: turn it into floats first.",
        "`confidence[:, None] - confidence[None, :]` is the N × N matrix of all differences; the "
        "kernel is a function of its absolute value.",
        "With the kernel as a matrix W, the sum over pairs is rᵀW r. What is it divided by, and "
        "what is still missing?",
    ),
    probes=(_PAIR, (*_images(12, seed=1), 0.4), (*_images(40, seed=2, low=0.1), 0.2)),
)

# --- Predictions ---------------------------------------------------------------------------------

predicted_high_end = Prediction(
    "04",
    "predicted_high_end",
    "Which ends high: above a third of its peak",
    ("training ECE", "test ECE", "both", "neither"),
)
predicted_cause = Prediction(
    "04",
    "predicted_cause",
    "What moves the correlation of test ECE most",
    ("the bins", "the data", "the length of the runs"),
)
predicted_sign_at_peak = Prediction(
    "04",
    "predicted_sign_at_peak",
    "Mean correlation of test ECE on CIFAR-10, runs cut at the peak",
    ("above 0.2", "within 0.2 of zero", "below −0.2"),
)
predicted_sign_in_decay = Prediction(
    "04",
    "predicted_sign_in_decay",
    "The same, whole runs",
    ("above 0.2", "within 0.2 of zero", "below −0.2"),
)
predicted_own = Prediction(
    "04",
    "predicted_own",
    "A run's own training ECE, against that of another seed",
    ("better by more than 0.1", "better by 0.1 at most", "no better"),
)
