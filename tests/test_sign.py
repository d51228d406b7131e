"""Why the sign of a correlation along a run turns: the identity, the turn, the prediction."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calibcourse.history import History
from calibcourse.reproduce import TrajectoryConfig, load_recorded
from calibcourse.reproduce.correlations import correlation, pearson, up_to_the_peak, whole_run
from calibcourse.reproduce.records import Run, Sweep
from calibcourse.reproduce.sign import (
    WINDOWS,
    balance,
    correlation_by_stop,
    correlation_by_stop_over_peak,
    growth_weights,
    predicted_correlation,
    sign_predictions,
)

# Whole numbers, so that equal values and exact monotony occur.
SERIES = arrays(np.float64, st.integers(2, 40), elements=st.integers(-50, 50).map(float))
CONFIG = TrajectoryConfig(
    dataset="fashion_mnist_small",
    optimizer="sgd",
    lr=0.1,
    steps=6,
    batch_size=10,
    train_samples=10,
    held_out_samples=10,
    even_probes=7,
    log_probes=2,
)

# Whoever draws a figure would read NumPy's warnings above it.
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def covariance(x, y):
    return float(np.mean((x - x.mean()) * (y - y.mean())))


@given(st.data(), SERIES)
def test_the_weights_give_the_covariance_of_any_error(data, sharpness):
    error = data.draw(arrays(np.float64, len(sharpness), elements=st.floats(0, 1)))
    found = growth_weights(sharpness) @ np.diff(error)
    # Sums of at most 40 products of numbers up to 100: a few hundred units in the last place.
    assert found == pytest.approx(covariance(error, sharpness), abs=1e-11)


def test_the_weights_are_the_difference_of_the_means_after_and_before():
    sharpness = np.array([1.0, 4.0, 9.0, 2.0, 0.5])
    n = len(sharpness)
    by_definition = [
        k * (n - k) / n**2 * (sharpness[k:].mean() - sharpness[:k].mean()) for k in range(1, n)
    ]
    np.testing.assert_allclose(growth_weights(sharpness), by_definition, rtol=1e-13)


def test_the_weights_of_a_window_in_single_precision_are_summed_in_double():
    sharpness = np.random.default_rng(0).uniform(1, 2, 1000).astype(np.float32)
    found = growth_weights(sharpness)
    np.testing.assert_array_equal(found, growth_weights(sharpness.astype(np.float64)))


@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9)))
def test_one_peak_has_one_turn(up, down):
    sharpness = np.array([*np.cumsum(up), *(sum(up) - np.cumsum(down))], dtype=float)
    if len(sharpness) < 2:
        return
    weights, turn = growth_weights(sharpness), balance(sharpness)
    # The sums behind a weight that is 0 are exact but for the division by n.
    assert (weights[:turn] > 0).all() and (weights[turn:] <= 1e-12).all()


@given(SERIES, SERIES)
def test_monotone_windows_have_the_sign_of_their_directions(x, y):
    n = min(len(x), len(y))
    rising, other = np.sort(x[:n]), np.sort(y[:n])
    # Where one does not change there is no correlation, NaN, and so no sign either.
    assert not pearson(rising, other) < 0
    assert not pearson(rising, other[::-1]) > 0


def test_balance_knows_a_window_that_only_rises_and_one_that_only_falls():
    assert balance(np.array([1.0, 2.0, 3.0])) == 2
    assert balance(np.array([3.0, 2.0, 1.0])) == 0
    assert balance(np.array([2.0, 2.0])) == 0  # nothing counts where nothing changes


@pytest.mark.parametrize("bad", [np.zeros(1), np.zeros((2, 2)), np.array([1.0, np.nan])])
def test_bad_windows_are_refused(bad):
    with pytest.raises(ValueError, match="sharpness must be finite"):
        growth_weights(bad)


def made_up(confidence, accuracy, ece, sharpness):
    rows = [
        {"step": step, "test_confidence": c, "test_accuracy": a, "test_ece": e, "sharpness": s}
        for step, (c, a, e, s) in enumerate(zip(confidence, accuracy, ece, sharpness, strict=True))
    ]
    return Run(CONFIG, History(rows), {})


# Over-confidence grows all along; sharpness has its peak at step 3.
CONFIDENCE = np.array([0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9])
ACCURACY = np.array([0.1, 0.2, 0.3, 0.3, 0.3, 0.3, 0.3])
SHARPNESS = np.array([1.0, 3.0, 8.0, 9.0, 4.0, 1.0, 0.5])
# The error exceeds |u - err| by a little here and there: bins where errors do not cancel.
ECE = np.abs(CONFIDENCE - ACCURACY) + np.array([0.02, 0.0, 0.01, 0.0, 0.0, 0.01, 0.0])
RUN = made_up(CONFIDENCE, ACCURACY, ECE, SHARPNESS)


def test_the_prediction_needs_no_calibration_error():
    without = replace(
        RUN,
        history=History(
            [{k: v for k, v in r.items() if k != "test_ece"} for r in RUN.history.rows]
        ),
    )
    for steps in (None, [0, 1, 2, 3]):
        n = 7 if steps is None else 4
        by_hand = np.corrcoef((CONFIDENCE - ACCURACY)[:n], SHARPNESS[:n])[0, 1]
        assert predicted_correlation(without, steps=steps) == pytest.approx(by_hand, abs=1e-12)


def test_under_confidence_counts_as_error_too():
    doubting = made_up(ACCURACY, CONFIDENCE, ECE, SHARPNESS)
    assert predicted_correlation(doubting) == pytest.approx(predicted_correlation(RUN), abs=1e-12)


def test_the_sign_turns_with_the_stopping_point():
    r = correlation_by_stop(RUN, "test_ece")
    assert r.shape == (7,) and np.isnan(r[:2]).all() and not np.isnan(r[2:]).any()
    assert r[3] > 0.9 and r[-1] < -0.2
    for stop in (3, 5, 7):
        steps = list(range(stop))
        assert r[stop - 1] == correlation(RUN.history, "test_ece", steps=steps)


def test_the_peak_is_the_unit_of_time_of_a_stop():
    """Sharpness is largest in the fourth of the probes at steps 0, 2, 4, and so on: at step 6."""
    rows = [row | {"step": 2 * row["step"]} for row in RUN.history.rows]
    slow = Run(replace(CONFIG, steps=12), History(rows), {})
    r = correlation_by_stop(RUN, "test_ece")
    stops = np.array([0.6, 4 / 6, 1.0, 1.5, 2.0, 2.1])
    expected = [np.nan, r[2], r[3], (r[4] + r[5]) / 2, r[6], np.nan]
    found = correlation_by_stop_over_peak(slow, "test_ece", stops)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    # The error of another column, and the stops of the figure: a quarter to sixteen peaks.
    found = correlation_by_stop_over_peak(slow, "sharpness")
    assert len(found) == 49 and found[16] == pytest.approx(1) and np.isnan(found[[0, 48]]).all()


def test_where_the_sharpness_only_falls_there_is_no_unit_of_time():
    falling = made_up(CONFIDENCE, ACCURACY, ECE, np.sort(SHARPNESS)[::-1])
    found = correlation_by_stop_over_peak(falling, "test_ece", np.array([0.5, 1.0]))
    np.testing.assert_array_equal(found, [np.nan, np.nan])


def test_the_windows_end_at_the_peak_and_at_the_end():
    assert up_to_the_peak(RUN) == [0, 1, 2, 3]
    assert whole_run(RUN) == list(range(7))
    for window, positive in (("up to the peak", True), ("whole run", False)):
        (found,) = sign_predictions(Sweep((RUN,)), "test", window)
        assert (found.run, found.split, found.window) == (RUN, "test", window)
        assert found.right and (found.measured > 0) == positive == (found.predicted > 0)


def test_a_wrong_or_missing_sign_is_no_hit():
    errs = made_up(CONFIDENCE, ACCURACY, ECE[::-1], SHARPNESS)
    flat = made_up(CONFIDENCE, ACCURACY, np.full(7, 0.2), SHARPNESS)
    for run in (errs, flat):
        (found,) = sign_predictions(Sweep((run,)), "test", "whole run")
        assert not found.right


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("dev", "whole run"), "split must be one of"), (("test", "half"), "window must be one of")],
)
def test_bad_questions_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        sign_predictions(Sweep((RUN,)), *arguments)


@pytest.mark.parametrize("window", WINDOWS)
def test_equal_signs_are_certain_where_the_theory_says_so(window):
    """THEORY.md 4.6: |r(|u - err|, S)| sd(|u - err|) > sd(δ) forces the sign, run by run."""
    certain = 0
    for run, split in itertools.product(load_recorded().runs, ("train", "test")):
        history, steps = run.history, WINDOWS[window](run)
        use = np.isin(history.column("step"), steps)
        error = np.abs(
            history.column(f"{split}_confidence")[use] - history.column(f"{split}_accuracy")[use]
        )
        rest = history.column(f"{split}_ece")[use] - error
        predicted = predicted_correlation(run, split, steps)
        if abs(predicted) * error.std() > rest.std():
            certain += 1
            assert predicted * correlation(history, f"{split}_ece", steps=steps) > 0
    assert certain > 50
