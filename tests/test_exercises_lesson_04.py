"""Lesson 04 as learners write it: right answers by other means, and mistakes in other words."""

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
import torch

import calibcourse as cc
from calibcourse.exercises import lesson_04 as ex
from calibcourse.exercises.framework import Outcome
from calibcourse.history import History
from calibcourse.reproduce import correlation, growth_weights


def correlation_by_scipy(step, x, y, chosen):
    rows = [i for i, s in enumerate(step) if s in chosen and x[i] == x[i] and y[i] == y[i]]
    return scipy.stats.pearsonr(x[rows], y[rows]).statistic


def correlation_by_z_scores(step, x, y, chosen):
    use = np.isin(step, chosen) & ~np.isnan(x) & ~np.isnan(y)
    x, y = torch.tensor(x[use]), torch.tensor(y[use])
    return ((x - x.mean()) / x.std() * (y - y.mean()) / y.std()).sum() / (len(x) - 1)


def ece_bounds_by_maximum(confidence, accuracy):
    return torch.maximum(
        torch.as_tensor(confidence) - accuracy, torch.as_tensor(accuracy) - confidence
    ), 2 - confidence - accuracy


def signs_by_scipy(doubt, error, sharpness, stops):
    gap = [max(u - e, e - u) for u, e in zip(doubt, error, strict=True)]
    return torch.tensor([
        math.copysign(1, scipy.stats.pearsonr(gap[:n], sharpness[:n]).statistic) for n in stops
    ])  # fmt: skip


def signs_by_weights(doubt, error, sharpness, stops):
    """By the weights of growth, THEORY.md 4.6."""
    moves = np.diff(np.abs(doubt - error))
    return tuple(1 if growth_weights(sharpness[:n]) @ moves[: n - 1] > 0 else -1 for n in stops)


def kce_in_order(confidence, correct, bandwidth):
    """By the recursion over sorted confidences: no matrix."""
    order = confidence.argsort()
    c, r = confidence[order].tolist(), (correct.float() - confidence)[order].tolist()
    discounted, total = r[0], 0.0
    for (a, b), gap in zip(pairwise(c), r[1:], strict=True):
        decay = math.exp((a - b) / bandwidth)
        total += (1 - decay**2) * discounted**2
        discounted = gap + decay * discounted
    return math.sqrt(total + discounted**2) / len(c)


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        (ex.correlation, correlation_by_scipy),
        (ex.correlation, correlation_by_z_scores),
        (ex.ece_bounds, ece_bounds_by_maximum),
        (ex.signs, signs_by_scipy),
        (ex.signs, signs_by_weights),
        (ex.kce, kce_in_order),
        (ex.kce, lambda c, y, h: ex.my_kce(c.double(), y, h)),
    ],
)
def test_right_answers_of_other_kinds_are_correct(exercise, answer):
    feedback = exercise.evaluate(answer)
    assert feedback.outcome is Outcome.CORRECT, feedback


@pytest.mark.parametrize(
    ("exercise", "answer", "name"),
    [
        (
            ex.correlation,
            lambda s, x, y, chosen: (
                scipy.stats.spearmanr(
                    x[ex._measured(s, x, y, chosen)], y[ex._measured(s, x, y, chosen)]
                ).statistic
            ),
            "ranks",
        ),
        (
            ex.correlation,
            lambda s, x, y, chosen: np.corrcoef(x[np.isin(s, chosen)], y[np.isin(s, chosen)])[0, 1],
            "NaN kept",
        ),
        (ex.ece_bounds, lambda c, a: (c - a, 2 - c - a), "only over-confidence"),
        (
            ex.kce,
            lambda c, y, h: torch.sqrt(((y.float() - c).mean()) ** 2),
            "no kernel",
        ),
    ],
)
def test_mistakes_in_other_words_get_the_same_diagnosis(exercise, answer, name):
    (wrong,) = (wrong for wrong in exercise.wrong if wrong.name == name)
    feedback = exercise.evaluate(answer)
    assert feedback.diagnosis == wrong.diagnosis, feedback


# --- The references are what the package computes


def test_the_correlation_is_the_packages():
    rng = np.random.default_rng(0)
    names = ("sharpness", "test_confidence")
    for _ in range(20):
        step = np.cumsum(rng.integers(1, 9, 15))
        values = rng.random((2, 15))
        history = History(
            [
                {"step": int(s), **dict(zip(names, row, strict=True))}
                for s, row in zip(step, values.T.tolist(), strict=True)
            ]
        )
        chosen = step[::2].tolist()
        ours = ex.my_correlation(step, values[0], values[1], chosen)
        # The package rounds to 12 digits.
        theirs = correlation(history, "test_confidence", "sharpness", steps=chosen)
        assert ours == pytest.approx(theirs, abs=1e-11)


def test_kce_is_the_packages():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(200, 10, generator=generator)
    target = torch.randint(10, (200,), generator=generator)
    confidence, correct = cc.confidence_and_correct(logits, target)
    for bandwidth in (0.05, 0.4):
        ours = ex.my_kce(confidence, correct, bandwidth)
        theirs = cc.kernel_calibration_error(logits, target, bandwidth)
        assert float(ours) == pytest.approx(float(theirs), rel=1e-5)  # float32 sums of 200 terms
