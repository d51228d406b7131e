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
from calibcourse.reproduce.slack import ECE_BOUNDS, PHASES, RUNGS, log_slack, row_phases

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
        own |= {"accuracy": 0.9, "confidence": 0.9}  # u = err = 0.1
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


@pytest.mark.parametrize("split", ["train", "test"])
def test_slack_is_what_was_put_in(split):
    slack = log_slack(HISTORY, split, 10)
    assert set(slack) == {*ECE_BOUNDS, *RUNGS}
    for bound in ("upper", "error_probability", "gap", "paper_upper", *RUNGS):
        np.testing.assert_allclose(slack[bound], [1, 2, 3, 4], rtol=1e-12)
    if split == "test":  # γ < 0 throughout: no lower bound by Q
        assert np.isnan(slack["lower"]).all() and np.isnan(slack["paper_lower"]).all()
        np.testing.assert_allclose(slack["direct_upper"], math.log10(0.2 / 0.01), rtol=1e-12)
    else:
        assert np.isnan(slack["lower"][:3]).all() and slack["lower"][3] == pytest.approx(4)
        # Q = 0.01 · 10^4 / 9 in the last row: Q/10 lies above ECE there, which no run would do.
        assert slack["paper_lower"][3] == pytest.approx(math.log10(0.01 / (100 / 90)))


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


def test_text_has_a_row_per_phase_and_no_empty_ones():
    longer = History([*HISTORY.rows[:2], row(2, 9, -3, 5)])
    sweep = sweep_of(("gd", 0.1, HISTORY), ("sgd", 0.1, longer))
    lines = slack_table_text(sweep, "train").splitlines()
    assert len(lines) == 2 + 3 + 2  # SGD never gets every image right
    assert len({line.count("|") for line in lines}) == 1
    assert "| GD | fitting (1) | 3.0 (3.0 to 3.0) |" in lines[3]
    assert "Q/K" in lines[0] and "Q/K" not in slack_table_text(sweep, "test")


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


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="split"):
        log_slack(HISTORY, "validation", 10)
    with pytest.raises(ValueError, match="n_classes"):
        log_slack(HISTORY, "train", 1)
    with pytest.raises(ValueError, match="phase"):
        median_slack([], "train", "late")
    with pytest.raises(ValueError, match="train_gamma"):
        row_phases(History([{"step": 0, "sharpness": 1.0}]))
    with pytest.raises(ValueError, match="split"):
        slack_table_text(sweep_of(("gd", 0.1, HISTORY)), "both")
