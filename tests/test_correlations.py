"""How two quantities go together along a run: against SciPy, and on runs counted by hand."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from calibcourse.history import History
from calibcourse.reproduce import (
    Run,
    Sweep,
    TrajectoryConfig,
    at_even_steps,
    correlation,
    correlations,
    probes_within,
    table_1,
)
from calibcourse.reproduce.paper import TABLE_1

# Whoever prints a table would read NumPy's warnings above it.
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

CONFIG = TrajectoryConfig(
    dataset="fashion_mnist_small", optimizer="sgd", lr=0.1, steps=24, batch_size=16,
    train_samples=40, held_out_samples=30, even_probes=7, log_probes=3,
)  # fmt: skip
EVEN, LOG = [0, 4, 8, 12, 16, 20, 24], [0, 1, 24]


def history(x, y) -> History:
    rows = enumerate(zip(x, y, strict=True))
    return History([{"step": i, "x": float(a), "y": float(b)} for i, (a, b) in rows])


def run(lr: float = 0.1, seed: int = 0, slope: float = 1.0, optimizer: str = "sgd") -> Run:
    """Every error is a line over sharpness: its correlation is the sign of the slope, or none.

    The step that is no even one would turn any correlation.
    """
    rows = [{"step": s, "sharpness": float(s)} | dict.fromkeys(TABLE_1, slope * s) for s in EVEN]
    rows.insert(1, {"step": 1, "sharpness": 1e6} | dict.fromkeys(TABLE_1, -1e6 * slope))
    return Run(replace(CONFIG, lr=lr, seed=seed, optimizer=optimizer), History(rows), {})


# --- one run


# Whole numbers, so that many are equal, and others.
numbers = st.integers(-3, 3) | st.floats(-100, 100, width=32).map(lambda value: round(value, 2))
series = st.lists(numbers, min_size=3, max_size=30)


@given(x=series, y=series, method=st.sampled_from(["pearson", "spearman"]))
@settings(deadline=None, max_examples=150)
def test_correlation_agrees_with_scipy(x, y, method):
    n = min(len(x), len(y))
    ours = correlation(history(x[:n], y[:n]), "x", "y", method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of constant input and returns NaN, as we do
        theirs = getattr(scipy.stats, f"{method}r")(x[:n], y[:n]).statistic
    if math.isnan(ours):
        assert np.ptp(x[:n]) == 0 or np.ptp(y[:n]) == 0
    else:
        assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_equal_values_share_their_ranks(method):
    x, y = [0, 0, 1, 0, 1, 1], [2, 5, 5, 5, 9, 5]
    # Spearman's by hand: ranks 2, 2, 5, 2, 5, 5 and 1, 3.5, 3.5, 3.5, 6, 3.5.
    by_hand = {
        "pearson": np.corrcoef(x, y)[0, 1],
        "spearman": np.corrcoef([2, 2, 5, 2, 5, 5], [1, 3.5, 3.5, 3.5, 6, 3.5])[0, 1],
    }
    found = correlation(history(x, y), "x", "y", method)
    assert found == pytest.approx(by_hand[method], abs=1e-12)
    assert correlation(history(y, x), "x", "y", method) == found


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize(
    ("x", "y"), [([2, 2, 2], [1, 2, 3]), ([1, 2, 3], [2, 2, 2]), ([1, 2], [1, 2])]
)
def test_without_a_change_or_a_third_probe_there_is_no_correlation(x, y, method):
    assert math.isnan(correlation(history(x, y), "x", "y", method))


@given(scale=st.floats(1e-6, 1e6), shift=st.floats(-1e3, 1e3))
@settings(deadline=None, max_examples=40)
def test_correlation_does_not_depend_on_units(scale, shift):
    x, y = np.random.default_rng(0).standard_normal((2, 12))
    for method in ("pearson", "spearman"):
        a, b = (correlation(history(z, y), "x", "y", method) for z in (x, scale * (x + shift)))
        # The shift costs up to 1e3 / 1 of the 1e-16 relative precision.
        assert a == pytest.approx(b, abs=1e-11)


@pytest.mark.parametrize("scale", [1e-200, 1e-160, 1.0, 1e150])
def test_a_correlation_does_not_vanish_with_its_unit(scale):
    x, y = np.random.default_rng(0).standard_normal((2, 20))
    found = correlation(history(scale * x, scale * y), "x", "y")
    assert found == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)


def test_correlation_uses_the_chosen_steps_and_skips_gaps():
    whole = history([*range(5), 1000, math.nan, 9], [*range(0, -5, -1), 1000, 1, math.nan])
    assert correlation(whole, "x", "y") > 0.9
    for steps in (range(5), [0, 1, 2, 6, 7]):
        assert correlation(whole, "x", "y", steps=steps) == -1
    assert math.isnan(correlation(whole, "x", "y", steps=[0, 1, 6]))
    with pytest.raises(ValueError, match=r"^method must be one of pearson, spearman"):
        correlation(whole, "x", "y", "kendall")


def test_values_at_even_steps_are_those_of_the_table():
    np.testing.assert_array_equal(at_even_steps(run(), "sharpness"), EVEN)


def test_probes_within_a_share_of_the_run():
    assert probes_within(run()) == run().config.even_steps == EVEN
    assert probes_within(run(), 0.5) == [0, 4, 8, 12] and probes_within(run(), 0.0) == [0]
    assert probes_within(run(), 1.0, "log") == LOG and probes_within(run(), 0.9, "log") == LOG[:2]
    for arguments, words in [
        ((1.5,), r"^share must lie in \[0\.0, 1\.0\]"),
        ((-0.5,), r"^share must lie in \[0\.0, 1\.0\]"),
        ((0.5, "cubic"), "^spacing must be one of even, log"),
    ]:
        with pytest.raises(ValueError, match=words):
            probes_within(run(), *arguments)


# --- many runs


def test_correlations_are_grouped_by_optimizer_and_learning_rate():
    slopes = {(0.1, 0): 1, (0.1, 1): -1, (0.2, 0): -1, (0.2, 1): 2}
    runs = [run(lr, seed, slope) for (lr, seed), slope in slopes.items()]
    sweep = Sweep((*runs, run(optimizer="adamw")))
    found = {"SGD": {0.1: [1.0, -1.0], 0.2: [-1.0, 1.0]}, "AdamW": {0.1: [1.0]}}
    assert correlations(sweep, "train_ece") == correlations(sweep, "test_kce", "spearman") == found
    bent = History([row | {"train_ece": row["train_ece"] ** 3} for row in runs[0].history.rows])
    bent = Sweep((replace(runs[0], history=bent),))
    assert correlations(bent, "train_ece", "spearman") == {"SGD": {0.1: [1.0]}}
    assert 0.9 < correlations(bent, "train_ece")["SGD"][0.1][0] < 0.95
    few = correlations(sweep, "test_ece", steps=lambda run: run.config.even_steps[:2])
    assert math.isnan(few["SGD"][0.1][0])


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_table_averages_over_seeds_first_then_over_learning_rates(method):
    runs = (run(0.1, 0), run(0.1, 1, -1.0), run(0.2, 0), run(0.2, 1), run(0.2, 2, 0.0))
    entries = table_1(Sweep(runs), method)
    assert [entry.column for entry in entries] == list(TABLE_1)
    for entry in entries:
        assert (entry.optimizer, entry.method) == ("sgd", method)
        # Per learning rate 0 and 1: mean 1/2, std with n - 1 = sqrt(1/2).
        assert entry.mean == pytest.approx(0.5) and entry.std == pytest.approx(math.sqrt(0.5))
        # Around the means of their learning rates the seeds lie at ±1 and ±0: variance 2 / (4 - 2).
        assert entry.std_seeds == pytest.approx(1)
        assert repr(entry) == "0.50 ± 0.71 (4 of 5 runs)"  # one error did not change


def test_what_cannot_be_told_is_not_a_number():
    alone, flat = (table_1(Sweep((run(slope=slope),)))[0] for slope in (1.0, 0.0))
    assert alone.mean == 1 and math.isnan(alone.std) and math.isnan(alone.std_seeds)
    assert all(map(math.isnan, (flat.mean, flat.std, flat.std_seeds)))
    assert (repr(alone), repr(flat)) == ("1.00", "too few probes")
