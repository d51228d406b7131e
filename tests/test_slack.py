"""The slack table: against slacks worked out by hand, a live run's own ladder, and the record."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from calibcourse import LadderProbe, LogitProbe, curvature_ladder, direct_sandwich, ece_bounds, fit
from calibcourse.data import load_dataset
from calibcourse.history import History
from calibcourse.models import mlp
from calibcourse.probes import (
    SharpnessProbe,
    bound_quantities,
    calibration_quantities,
    margin_quantities,
)
from calibcourse.reproduce import (
    Run,
    Sweep,
    TrajectoryConfig,
    median_slack,
    slack_summary,
    slack_table,
    slack_table_text,
)
from calibcourse.reproduce.slack import (
    ECE_BOUNDS,
    PHASES,
    RUNGS,
    SlackEntry,
    log_slack,
    row_phases,
)

# Whoever prints a table would read NumPy's warnings above it.
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

CONFIG = TrajectoryConfig(
    dataset="fashion_mnist_small",
    optimizer="gd",
    lr=0.1,
    steps=4,
    batch_size=None,
    train_samples=10,
    held_out_samples=10,
)


def row(step: int, sharpness: float, gamma: float, decades: float) -> dict[str, float]:
    """A row in which every upper bound is `decades` too large and every lower bound too small."""
    values = {"step": step, "sharpness": sharpness}
    lost = decades * math.log(10)
    for split in ("train", "test"):
        own = {"gamma": gamma if split == "train" else -1.0, "ece": 0.01, "log_u0": 2.0}
        own |= {"accuracy": 0.9, "confidence": 0.899}  # err = 0.1, u = 0.101
        own |= {"log_q": math.log(0.01) + lost - math.log(9)}
        own |= {
            f"log_{name}": math.log(0.01) + lost for name in ("upper", "error_probability", "gap")
        }
        own |= {"log_lower": math.log(0.01) - lost if own["gamma"] > 0 else math.nan}
        own |= {f"log_{rung}": 2.0 + (lost if rung[0] == "u" else -lost) for rung in RUNGS}
        values |= {f"{split}_{name}": value for name, value in own.items()}
    return values


HISTORY = History([row(0, 1, -9, 1), row(1, 5, -9, 2), row(2, 9, -3, 3), row(3, 4, 1, 4)])


def sweep_of(*runs: tuple[str, float, History]) -> Sweep:
    return Sweep(
        tuple(
            Run(replace(CONFIG, optimizer=name, lr=lr), history, {}) for name, lr, history in runs
        )
    )


def entries_of(sweep: Sweep) -> dict[tuple, object]:
    return {(e.optimizer, e.phase, e.split, e.bound): e for e in slack_table(sweep)}


def test_phases_come_from_the_run_itself():
    assert row_phases(HISTORY).tolist() == ["rising", "rising", "fitting", "interpolating"]
    # Every image right before the peak: the theorem's regime decides, and nothing is left to fit.
    early = History([row(0, 1, -9, 1), row(1, 5, 2, 1), row(2, 9, 2, 1)])
    assert row_phases(early).tolist() == ["rising", "interpolating", "interpolating"]
    # γ = 0 is a tie: an image that is not right by any margin, and the theorem asks for γ > 0.
    assert row_phases(History([row(0, 9, 0, 1), row(1, 1, 0, 1)])).tolist() == ["fitting"] * 2


@pytest.mark.parametrize("split", ["train", "test"])
def test_slack_is_what_was_put_in(split):
    slack = log_slack(HISTORY, split, 10)
    assert set(slack) == {*ECE_BOUNDS, *RUNGS}
    for bound in ("upper", "error_probability", "gap", "paper_upper", *RUNGS):
        np.testing.assert_allclose(slack[bound], [1, 2, 3, 4], rtol=1e-12)
    if split == "test":  # γ < 0 throughout: no lower bound by Q
        assert np.isnan(slack["lower"]).all() and np.isnan(slack["paper_lower"]).all()
        np.testing.assert_allclose(slack["direct_upper"], math.log10(0.201 / 0.01), rtol=1e-12)
        np.testing.assert_allclose(slack["direct_lower"], math.log10(0.01 / 0.001), rtol=1e-12)
    else:
        assert np.isnan(slack["lower"][:3]).all() and slack["lower"][3] == pytest.approx(4)
        # Q = 0.01 · 10^4 / 9 in the last row: Q/10 lies above ECE there, which no run would do.
        assert slack["paper_lower"][3] == pytest.approx(math.log10(0.01 / (100 / 90)))


def test_two_classes_are_enough_and_a_tie_has_no_lower_bound():
    slack = log_slack(History([row(0, 1, 0, 1)]), "train", 2)
    # With two classes (K - 1) Q = Q, a ninth of the bound that ten classes have from this Q.
    assert slack["paper_upper"] == pytest.approx(1 - math.log10(9))
    assert np.isnan(slack["paper_lower"]).all()


def test_a_confidence_that_rounds_to_one_keeps_its_bounds():
    """Every image right, 1 - p_y = 1e-20 on the mean: the confidence itself says 1."""
    sure = row(0, 1, 1, 0) | {
        "train_ece": 1e-20, "train_log_error_probability": math.log(1e-20),
        "train_accuracy": 1.0, "train_confidence": 1.0,
    }  # fmt: skip
    slack = log_slack(History([sure]), "train", 10)
    for bound in ("direct_upper", "direct_lower", "error_probability"):
        assert slack[bound] == pytest.approx(0, abs=1e-12)
    # An error computed from that confidence is 0: every upper bound is infinitely wide.
    slack = log_slack(History([sure | {"train_ece": 0.0}]), "train", 10)
    assert slack["upper"] == slack["direct_upper"] == math.inf


def test_slack_equals_that_of_the_functions_on_a_live_run():
    data = load_dataset("fashion_mnist_small")
    data = replace(data, train=data.train.head(60), test=data.test.head(40))
    model = mlp(hidden=(16,), seed=0)
    quantities = (calibration_quantities, margin_quantities, bound_quantities)
    probes = [
        LogitProbe(*quantities, splits=("train", "test")),
        SharpnessProbe(),
        LadderProbe("train"),
        LadderProbe("test"),
    ]
    history = fit(
        model, data, optimizer="adamw", lr=1e-2, steps=120, probes=probes, probe_steps=[0, 120],
        progress=False,
    )  # fmt: skip
    assert row_phases(history)[-1] == "interpolating"
    for split in ("train", "test"):
        images, slack = getattr(data, split), log_slack(history, split, 10)
        ladder = curvature_ladder(model, images.inputs, images.target)
        with torch.no_grad():
            bounds = ece_bounds(model(images.inputs), images.target)
        sandwich = direct_sandwich(model, images.inputs, images.target, ladder=ladder)
        for rung in RUNGS:  # λ_max itself is known to 1e-3, less than 1e-3 decades
            assert slack[rung][-1] == pytest.approx(ladder.slack()[rung].total, abs=1e-3)
        # The probe computes in float32, the functions in float64: ECE of 1e-3 to 1e-4.
        for bound in set(ECE_BOUNDS) & set(bounds.slack()):
            assert slack[bound][-1] == pytest.approx(bounds.slack()[bound].total, abs=1e-4)
        for bound, value in (
            ("direct_lower", sandwich.inner_lower),
            ("direct_upper", sandwich.inner_upper),
        ):
            sign = -1 if bound == "direct_lower" else 1
            assert slack[bound][-1] == pytest.approx(
                sign * math.log10(value / sandwich.ece), abs=1e-3
            )


def test_table_takes_medians_over_probes_then_over_runs():
    longer = History([*HISTORY.rows[:2], row(2, 9, -3, 5), row(3, 4, -3, 7), row(4, 4, -3, 30)])
    steep = History([*HISTORY.rows[:2], row(2, 9, -3, 20)])
    gd = [("gd", lr, history) for lr, history in ((0.1, HISTORY), (0.2, longer), (0.4, steep))]
    table = entries_of(sweep_of(*gd, ("sgd", 0.1, longer)))
    entry = table["GD", "fitting", "train", "u6"]
    # The runs' medians are 3, 7 (of 5, 7, 30) and 20: their median, and their range.
    assert (entry.median, entry.low, entry.high) == pytest.approx((7, 3, 20))
    assert entry.n_runs == 3
    assert table["GD", "interpolating", "train", "u6"].n_runs == 1
    missing = table["SGD", "interpolating", "train", "u6"]
    assert missing.n_runs == 0 and math.isnan(missing.median) and repr(missing) == "—"
    assert len(table) == 2 * 2 * len(PHASES) * (len(ECE_BOUNDS) + len(RUNGS))


# How much looser each bound is than the decades of `row`, so that no two columns are alike.
LOOSER = {
    "upper": 0.1, "error_probability": 0.2, "lower": 0.3,
    "u6": 0.4, "u4": 0.5, "u1": 0.6, "l4": 0.7, "l1": 0.8,
}  # fmt: skip
TRAIN = (
    "| optimizer | phase (runs) | ECE ≤ (K−1) Q [paper] | ECE ≤ mean σ(log(K−1)−m) [here] "
    "| ECE ≤ mean 1−p_y [paper] | ECE ≥ abs(u−err) [here] | ECE ≥ Q/K [paper] "
    "| ECE ≥ Q/(1+e^−γ) [here] | λ ≤ u6 [paper] | λ ≤ u4 [here] | λ ≤ u1 [here] | λ ≥ l4 [here] "
    "| λ ≥ l1 [here] |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
    "| GD | rising (2) | 1.5 (1.5 to 1.5) | 1.6 (1.6 to 1.6) | 1.7 (1.7 to 1.7) "
    "| 1.0 (1.0 to 1.0) | — | — | 1.9 (1.9 to 1.9) | 2.0 (2.0 to 2.0) | 2.1 (2.1 to 2.1) "
    "| 2.2 (2.2 to 2.2) | 2.3 (2.3 to 2.3) |\n"
    "| GD | fitting (2) | 4.0 (3.0 to 5.0) | 4.1 (3.1 to 5.1) | 4.2 (3.2 to 5.2) "
    "| 1.0 (1.0 to 1.0) | — | — | 4.4 (3.4 to 5.4) | 4.5 (3.5 to 5.5) | 4.6 (3.6 to 5.6) "
    "| 4.7 (3.7 to 5.7) | 4.8 (3.8 to 5.8) |\n"
    "| GD | interpolating (1) | 4.0 (4.0 to 4.0) | 4.1 (4.1 to 4.1) | 4.2 (4.2 to 4.2) "
    "| -4.2 (-4.2 to -4.2) | -2.0 (-2.0 to -2.0) | 4.3 (4.3 to 4.3) | 4.4 (4.4 to 4.4) "
    "| 4.5 (4.5 to 4.5) | 4.6 (4.6 to 4.6) | 4.7 (4.7 to 4.7) | 4.8 (4.8 to 4.8) |\n"
    "| SGD | rising (1) | 1.0 (1.0 to 1.0) | 1.1 (1.1 to 1.1) | 1.2 (1.2 to 1.2) "
    "| 1.0 (1.0 to 1.0) | — | — | 1.4 (1.4 to 1.4) | 1.5 (1.5 to 1.5) | 1.6 (1.6 to 1.6) "
    "| 1.7 (1.7 to 1.7) | 1.8 (1.8 to 1.8) |\n"
    "| SGD | fitting (1) | 2.0 (2.0 to 2.0) | 2.1 (2.1 to 2.1) | 2.2 (2.2 to 2.2) "
    "| 1.0 (1.0 to 1.0) | — | — | 2.4 (2.4 to 2.4) | 2.5 (2.5 to 2.5) | 2.6 (2.6 to 2.6) "
    "| 2.7 (2.7 to 2.7) | 2.8 (2.8 to 2.8) |\n"
)


def test_text_has_a_row_per_phase_and_no_empty_ones():
    """The rows' decades are 1, 2 (rising), 3 or 5 (fitting) and 4; SGD stops after the second."""

    def looser(row: dict[str, float]) -> dict[str, float]:
        change = {
            f"train_log_{name}": (-more if name[0] == "l" else more) * math.log(10)
            for name, more in LOOSER.items()
        }
        return {name: value + change.get(name, 0.0) for name, value in row.items()}

    rows = [looser(row) for row in HISTORY.rows]
    short = [*rows[:2], looser(row(2, 9, -3, 5))]
    runs = (("gd", 0.1, rows), ("gd", 0.2, short), ("sgd", 0.1, rows[:2]))
    sweep = sweep_of(*((name, lr, History(rows)) for name, lr, rows in runs))
    assert slack_table_text(sweep, "train") == TRAIN
    test = slack_table_text(sweep, "test")
    assert "| λ ≤ u6 [paper] |" in test and "Q/K" not in test  # γ < 0 on the test images


def test_a_slack_that_rounds_to_nothing_has_no_sign():
    entry = SlackEntry("GD", "rising", "train", "u4", -0.04, -0.16, 0.04, 3)
    assert repr(entry) == "0.0 (-0.2 to 0.0)"


def test_summary_states_the_factors_gained():
    sweep = sweep_of(("gd", 0.1, HISTORY))
    entries = [
        replace(e, median=e.median - 1) if e.bound == "u4" else e for e in slack_table(sweep)
    ]
    lines = slack_summary(entries).splitlines()
    assert lines[0] == "train, rising:" and lines[-3] == "test, interpolating:"
    # The first two rows lose 1 and 2 decades, 1.5 in the median; u4 was given one less.
    assert lines[1].endswith(
        "the paper's bound is 32 times too large; u4 3.2 times, 10 times tighter; "
        "u1 32 times, 1 times tighter"
    )
    assert "the paper's bound is 10^4.0 times too large; u4 1,000 times" in lines[-2]
    assert median_slack(entries, "train", "fitting")["u6"] == pytest.approx(3)


@pytest.mark.parametrize(
    ("decades", "words"),
    [(-1.5, "0.032"), (0.5, "3.2"), (1.0, "10"), (1.51, "32"), (3.94, "8,700"), (4.0, "10^4.0")],
)
def test_factors_have_two_digits_or_are_powers_of_ten(decades, words):
    bounds = ("u6", "u4", "u1", "paper_upper", "error_probability")
    entries = [SlackEntry("GD", "fitting", "train", bound, *[decades] * 3, 1) for bound in bounds]
    assert slack_summary(entries).splitlines()[1] == (
        f"    λ_max: the paper's bound is {words} times too large; "
        f"u4 {words} times, 1 times tighter; u1 {words} times, 1 times tighter"
    )


def test_the_median_over_optimizers_counts_those_that_have_the_bound():
    def entry(median: float, optimizer: str = "GD", n_runs: int = 1, phase: str = "fitting"):
        return SlackEntry(optimizer, phase, "train", "u4", median, median, median, n_runs)

    entries = [entry(1), entry(2, "SGD"), entry(9, "SAM"), entry(math.nan, "Muon", 0)]
    assert median_slack([*entries, entry(50, phase="rising")], "train", "fitting") == {"u4": 2}
    assert (
        median_slack(entries, "train", "rising") == median_slack(entries, "test", "fitting") == {}
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: log_slack(HISTORY, "both", 10), "^split must be one of test, train"),
        (lambda: log_slack(HISTORY, "train", 1), "^n_classes must be at least 2"),
        (lambda: median_slack([], "both", "fitting"), "^split must be one of test, train"),
        (lambda: median_slack([], "train", "late"), "^phase must be one of fitting"),
        (lambda: slack_table_text(sweep_of(("gd", 0.1, HISTORY)), "both"), "^split must be one of"),
        (lambda: row_phases(History([{"step": 0, "sharpness": 1.0}])), "train_gamma"),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
