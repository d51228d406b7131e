"""What comes of a comparison of methods: read by two rules, paired by seed, tabled and drawn."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from calibcourse import plots, widgets
from calibcourse.history import History
from calibcourse.metrics.intervals import student_t
from calibcourse.reproduce import (
    COMPARISONS,
    METHODS,
    REMEDIES,
    ComparisonConfig,
    Run,
    Sweep,
    accuracy_and_ece_text,
    as_good,
    comparison_figure,
    difference,
    every_quantity_text,
    grid_figure,
    grid_values,
    outcomes,
    plan,
    remedies_figure,
    remedies_text,
    step_costs,
    verdict_text,
    verdicts,
    weights_panel,
)
from calibcourse.reproduce.methods_report import REPORTED
from calibcourse.reproduce.paper import TEST, TRAIN
from calibcourse.reproduce.report import write_report
from calibcourse.reproduce.runner import provenance

TINY = ComparisonConfig(
    dataset="fashion_mnist_small",
    model="small_cnn",
    optimizer="adamw",
    lr=0.01,
    loss="cross_entropy",
    steps=24,
    batch_size=16,
    train_samples=60,
    held_out_samples=80,
    probes=7,
    attacked_samples=20,
)


# --- what comes out


def made_up(values: dict[tuple[str, str, int], tuple[float, float]], **extra: float) -> Sweep:
    """Runs with these (final, best) test ECEs by optimizer, method and seed."""
    runs = []
    for (optimizer, method, seed), (final, best) in values.items():
        loss, options = METHODS[method]
        config = replace(
            TINY, optimizer=optimizer, loss=loss, loss_options=dict(options), seed=seed
        )
        rows = [
            {"step": 0, "validation_loss": 3.0},
            {"step": 12, "validation_loss": 1.0, "test_ece": best, "test_scaled_ece": best / 2},
            {"step": 24, "validation_loss": 2.0, "test_ece": final, "test_scaled_ece": final / 2},
        ]
        for row in rows[1:]:
            row |= {"test_accuracy": 0.8, "train_ece": 0.0, "train_accuracy": 1.0} | extra
        runs.append(Run(config, History(rows), {"seconds_per_step": 0.001 * (seed + 1)}))
    return Sweep(tuple(runs), "reproduce table2")


THREE = made_up(
    {("sgd", "CE", seed): (0.10 + 0.01 * seed, 0.05) for seed in (2, 0, 1)}
    | {("sgd", "CalMO", seed): (0.04 + 0.02 * seed, 0.05) for seed in (0, 1, 2)}
)


def test_outcomes_are_read_by_either_rule_in_the_order_of_seeds():
    np.testing.assert_allclose(outcomes(THREE, "test_ece", "sgd", "CE"), [0.10, 0.11, 0.12])
    np.testing.assert_allclose(outcomes(THREE, "test_ece", "sgd", "CE", "best"), [0.05] * 3)
    scaled = outcomes(THREE, "test_ece", "sgd", "CE + temperature")
    np.testing.assert_allclose(scaled, [0.05, 0.055, 0.06])


def test_differences_are_paired_by_seed():
    change = difference(THREE, "test_ece", "sgd", "CalMO")
    np.testing.assert_allclose(change.values, [-0.06, -0.05, -0.04])
    # mean -0.05, standard deviation 0.01: t(0.975, 2) / sqrt(3) standard deviations either way.
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert change.mean == pytest.approx(-0.05)
    assert change.low == pytest.approx(-0.05 - half, abs=1e-5)
    assert change.high == pytest.approx(-0.05 + half, abs=1e-5)
    assert repr(change) == "-0.0500 [-0.0748, -0.0252]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("test_ece", "sgd", "CE", "median"), "rule must be one of"),
        (("test_ece", "sgd", "MixUp"), "method must be one of"),
        (("test_ece", "sgd", "Flat"), "no run has"),
        (("test_ece", "muon", "CE"), "no run has"),
        (("test_nll", "sgd", "CE"), "column must be one of"),
    ],
)
def test_bad_questions_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        outcomes(THREE, *arguments)


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_intervals_are_students_for_any_number_of_seeds(n):
    calmo = np.random.default_rng(n).normal(-0.02, 0.01, n)
    made = made_up(
        {("sgd", "CE", seed): (0.0, 0.0) for seed in range(n)}
        | {("sgd", "CalMO", seed): (value, 0.0) for seed, value in enumerate(calmo)}
    )
    change = difference(made, "test_ece", "sgd", "CalMO")
    expected = scipy.stats.t.interval(0.95, n - 1, calmo.mean(), scipy.stats.sem(calmo))
    assert (change.low, change.high) == pytest.approx(expected, rel=1e-9)


@given(freedom=st.integers(1, 400))
@settings(deadline=None, max_examples=60)
def test_students_t_agrees_with_scipy(freedom):
    # Sixty halvings of a right angle, and sums of at most 200 terms in float64.
    assert student_t(freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=1e-10)


def test_differences_need_the_same_seeds_and_more_than_one():
    two = Sweep(THREE.runs[:2] + THREE.runs[3:])
    words = r"same seeds of CalMO and CE with sgd, got \[0, 1, 2\] and \[0, 2\]"
    with pytest.raises(ValueError, match=words):
        difference(two, "test_ece", "sgd", "CalMO")
    with pytest.raises(ValueError, match=r"same seeds of CE and CalMO.*\[0, 2\] and \[0, 1, 2\]"):
        as_good(two, "test_ece", "sgd", "CE")
    # As many, but others: pairs by place would set seed 2 against seed 1.
    other = Sweep(THREE.runs[1:4] + THREE.runs[5:])
    assert len(outcomes(other, "test_ece", "sgd", "CE")) == 2
    with pytest.raises(ValueError, match=r"\[0, 2\] and \[0, 1\]"):
        difference(other, "test_ece", "sgd", "CalMO")
    with pytest.raises(ValueError, match="at least two seeds of CalMO, got 1"):
        difference(THREE.select(seed=0), "test_ece", "sgd", "CalMO")


# Two optimizers, so that a mix of them would be seen; CalMO ties with CE in one of two seeds.
TWO = made_up(
    {
        (optimizer, method, seed): (place + 0.25 * (method == "CE" and seed == 1), 0.0)
        for place, optimizer in enumerate(("sgd", "muon"))
        for method in ("CE", "CalMO")
        for seed in (0, 1)
    }
)


def test_step_costs_come_from_the_runs():
    np.testing.assert_allclose(step_costs(THREE, "sgd", "CalMO"), [0.001, 0.002, 0.003])
    np.testing.assert_allclose(step_costs(TWO, "muon", "CE + temperature"), [0.001, 0.002])


def test_as_good_is_better_or_equal_whichever_way_the_quantity_goes():
    assert as_good(TWO, "test_ece", "muon", "CE").tolist() == [True, False]
    assert as_good(TWO, "test_ece", "muon", "CalMO", than="CE").tolist() == [True, True]
    # Every run's accuracy is the same: a tie, each as good as the other.
    for one, other in (("CE", "CalMO"), ("CalMO", "CE")):
        assert as_good(TWO, "test_accuracy", "muon", one, than=other).all()
    for argument in ("remedy", "than"):
        with pytest.raises(ValueError, match=f"^{argument} must be one of CE, .*; got 'MixUp'$"):
            as_good(TWO, "test_ece", "muon", **{"remedy": "CE", argument: "MixUp"})


def test_the_papers_numbers_are_whole():
    assert TEST.keys() == {(run.optimizer, run.label) for run in plan("methods", seeds=[0])}
    assert TRAIN.keys() == {(run.optimizer, run.label) for run in plan("tableA1", seeds=[0])}


def finished(config: ComparisonConfig) -> Run:
    """A run of a configuration with made-up numbers, different for every configuration."""
    draw = np.random.default_rng(int(config.key[-8:], 16))
    names = {"validation_loss", "test_scaled_ece", "test_scaled_accuracy", *REPORTED}
    names |= {"train_accuracy", "train_ece", "validation_ece", "temperature"} | {
        f"test_scaled_{n}" for n in ("kce", "loss", "brier")
    }
    rows = [{"step": step} | dict.fromkeys(names, 0.0) for step in (0, 700, 1500)]
    rows = [{n: v if n == "step" else draw.uniform() for n, v in row.items()} for row in rows]
    return Run(config, History(rows), provenance() | {"seconds": 1.0, "seconds_per_step": 0.01})


SWEEPS = {
    table: Sweep(tuple(map(finished, plan(table))), f"reproduce {table}")
    for table in ("methods", "grid")
}


@pytest.mark.parametrize("table", ["methods", "table2", "tableA1", "tableA2", "grid"])
@pytest.mark.parametrize("seeds", [[7], pytest.param([0, 4], marks=pytest.mark.slow)])
def test_a_report_is_written_for_any_number_of_seeds(table, seeds, tmp_path):
    made = Sweep(tuple(map(finished, plan(table, seeds=seeds))), f"reproduce {table}")
    text = write_report(made, table, tmp_path)[1].read_text(encoding="utf-8")
    assert "nan" not in text
    if table == "methods":
        assert ("No interval can be told from a single seed." in text) == (len(seeds) == 1)
        assert ("✓" in text or "✗" in text) == (len(seeds) > 1)
    if table != "grid":
        ours = next(line for line in text.splitlines() if line.startswith("| SGD, final step"))
        assert ("±" in ours) == (len(seeds) > 1)


@pytest.mark.parametrize("table", ["methods", "grid"])
def test_a_report_is_written_and_its_record_comes_back(table, tmp_path):
    made = SWEEPS[table]
    paths = write_report(made, table, tmp_path)
    assert [path.name for path in paths] == [f"{table}.png", f"{table}.md", f"{table}.json"]
    back = Sweep.load(paths[2])
    assert [run.config for run in back.runs] == [run.config for run in made.runs]
    for ours, theirs in zip(made.runs, back.runs, strict=True):
        # The record keeps five significant digits: half a unit of the fifth.
        assert theirs.history.rows[-1] == pytest.approx(ours.history.rows[-1], rel=5e-5)
        assert theirs.provenance == ours.provenance
    assert COMPARISONS[table].title in paths[1].read_text(encoding="utf-8")


def test_tables_show_ours_by_both_rules_and_the_papers():
    text = accuracy_and_ece_text(SWEEPS["methods"], "table2")
    lines = text.splitlines()
    assert len(lines) == 2 + 3 * 4
    assert lines[2].startswith("| SGD, final step |") and lines[3].startswith("| SGD, best valid")
    assert "75.2 ± 1.2, 0.081 ± 0.021" in lines[4]
    values = outcomes(SWEEPS["methods"], "test_ece", "sgd", "CE")
    assert f"{values.mean():.3f} ± {values.std(ddof=1):.3f}" in lines[2].split("|")[2]
    train = accuracy_and_ece_text(SWEEPS["methods"], "tableA1")
    assert "99.5, 0.003 ± 0.001" in train and "temperature" not in train
    rows = every_quantity_text(SWEEPS["methods"], "muon", "best").splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:]] == [*METHODS, "CE + temperature"]


def test_the_grid_is_laid_out_by_its_weights():
    values = grid_values(SWEEPS["grid"], "test_ece")
    assert values.shape == (4, 4) and np.isfinite(values).all()
    cell = SWEEPS["grid"].select(label="CalMO(2, 0.1)")
    assert values[3, 3] == np.mean([run.history.rows[-1]["test_ece"] for run in cell.runs])
    ce = SWEEPS["grid"].select(label="CE")
    assert values[0, 0] == np.mean([run.history.rows[-1]["test_ece"] for run in ce.runs])
    with pytest.raises(ValueError, match=r"weights \(0, 0.001\)"):
        grid_values(THREE, "test_ece")


def test_figures_show_every_seed():
    fig = comparison_figure(SWEEPS["methods"])
    assert len(fig.axes) == 2 * 4
    assert all(len(c.get_offsets()) == 3 for ax in fig.axes for c in ax.collections)
    assert len(fig.axes[0].collections) == 2 * (len(METHODS) + 1)
    assert len(grid_figure(SWEEPS["grid"]).axes) == 3


def claimed(ece: tuple, best: tuple, accuracy: tuple, log_q: tuple) -> Sweep:
    """CE and CalMO with three seeds each: CE's columns are 0, and CalMO's these differences."""
    columns = ("test_ece", "test_accuracy", "test_robust_log_q")
    runs = []
    for method in ("CE", "CalMO"):
        loss, options = METHODS[method]
        for seed in range(3):
            config = replace(TINY, loss=loss, loss_options=dict(options), seed=seed)
            final = dict.fromkeys(columns, 0.0) | {"step": 24, "validation_loss": 2.0}
            first = dict.fromkeys(columns, 0.0) | {"step": 12, "validation_loss": 1.0}
            if method == "CalMO":
                final |= dict(zip(columns, (ece[seed], accuracy[seed], log_q[seed]), strict=True))
                first["test_ece"] = best[seed]
            runs.append(Run(config, History([first, final]), {}))
    return Sweep(tuple(runs))


def test_verdicts_count_seeds_and_show_what_fails():
    down = (-0.02, -0.01, -0.03)
    found = verdicts(claimed(down, (-0.01, 0.0, -0.01), (-0.01, 0.0, 0.02), (-1, -2, 3)))
    assert [(v.seeds, v.holds) for v in found] == [(3, True), (2, False), (2, True), (2, False)]
    # mean -0.02, standard deviation 0.01: t(0.975, 2) / sqrt(3) standard deviations either way.
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert repr(found[0]) == f"✓ 3 of 3, -0.020 [{-0.02 - half:+.3f}, {-0.02 + half:+.3f}]"
    rows = verdict_text(found).splitlines()
    assert len(rows) == 2 + 4 and rows[0] == "| claim | AdamW |"
    assert rows[3].startswith("| test ECE lower at the best validation step | ✗ 2 of 3, -0.007 [")


def test_a_verdict_is_against_the_baseline_that_is_asked_for():
    worse = claimed((0.01, 0.02, 0.03), (0,) * 3, (0,) * 3, (0,) * 3)
    assert [v.holds for v in verdicts(worse)] == [False, False, True, False]
    # The other way round CE's ECE is the lower one.
    back = verdicts(worse, "CE", baseline="CalMO")
    assert [(v.holds, v.seeds) for v in back] == [(True, 3), (False, 0), (True, 3), (False, 0)]
    assert back[0].change.values == pytest.approx((-0.01, -0.02, -0.03))


def test_an_accuracy_fails_only_where_its_interval_lies_below_0():
    same = verdicts(claimed((0,) * 3, (0,) * 3, (0,) * 3, (0,) * 3))[2]
    assert same.holds and same.seeds == 3 and same.change.high == 0
    worse = verdicts(claimed((0,) * 3, (0,) * 3, (-0.020, -0.021, -0.022), (0,) * 3))[2]
    assert not worse.holds and worse.seeds == 0 and worse.change.high < 0
    unsure = verdicts(claimed((0,) * 3, (0,) * 3, (-0.001, -0.02, -0.03), (0,) * 3))[2]
    assert unsure.holds and unsure.seeds == 0 and unsure.change.high > 0


def test_a_temperature_divides_robust_margins_and_leaves_robust_log_q_open():
    made = SWEEPS["methods"]
    margin, temperature = (
        outcomes(made, column, "sgd", "CE") for column in ("test_robust_margin", "temperature")
    )
    scaled = outcomes(made, "test_robust_margin", "sgd", "CE + temperature")
    np.testing.assert_allclose(scaled, margin / temperature)
    with pytest.raises(ValueError, match="test_scaled_robust_log_q"):
        outcomes(made, "test_robust_log_q", "sgd", "CE + temperature")
    for text in (remedies_text(made, "test_robust_log_q"), every_quantity_text(made, "sgd")):
        (row,) = (line for line in text.splitlines() if line.startswith("| CE + temperature"))
        assert "not recorded" in row and text.count("not recorded") == row.count("not recorded")


def test_of_steps_that_tie_in_a_record_the_one_that_was_chosen_is_read():
    seen = {"validation_loss": 1.5, "test_ece": 0.25}
    unseen = {"validation_loss": 1.5, "test_ece": math.nan}
    last = {"step": 3, "validation_loss": 2.0, "test_ece": 0.5}
    for rows in (
        [unseen | {"step": 1}, seen | {"step": 2}],
        [seen | {"step": 1}, unseen | {"step": 2}],
    ):
        made = Sweep((Run(TINY, History([*rows, last]), {}),))
        assert outcomes(made, "test_ece", TINY.optimizer, "CE", "best").tolist() == [0.25]


def test_robust_accuracy_is_shown_where_it_was_recorded_and_no_temperature_changes_it():
    best = {"step": 1, "validation_loss": 1.0, "temperature": 2.0, "test_robust_accuracy": 0.25}
    last = {"step": 2, "validation_loss": 2.0, "temperature": 3.0, "test_robust_accuracy": 0.5}
    made = Sweep((Run(TINY, History([best, last]), {}),))
    for method in ("CE", "CE + temperature"):
        for rule, expected in (("best", 0.25), ("final", 0.5)):
            found = outcomes(made, "test_robust_accuracy", TINY.optimizer, method, rule)
            assert found.tolist() == [expected]
    new = SWEEPS["methods"]
    old = Sweep(
        tuple(
            replace(run, history=History([{k: v for k, v in row.items() if "robust_acc" not in k}
                                          for row in run.history.rows]))
            for run in new.runs
        )
    )  # fmt: skip
    assert "| robust accuracy |" in every_quantity_text(new, "sgd")
    assert "| robust accuracy |" not in every_quantity_text(old, "sgd")


def test_remedies_are_read_by_their_own_rule_and_compared_with_calmo():
    made = SWEEPS["methods"]
    early = outcomes(made, "test_ece", "muon", "CE", "best")
    calmo = outcomes(made, "test_ece", "muon", "CalMO")
    np.testing.assert_array_equal(
        as_good(made, "test_ece", "muon", "CE, stopped early"), early <= calmo
    )
    # Higher is better.
    focal, calmo = (outcomes(made, "test_accuracy", "muon", m) for m in ("focal", "CalMO"))
    np.testing.assert_array_equal(as_good(made, "test_accuracy", "muon", "focal"), focal >= calmo)
    with pytest.raises(ValueError, match="remedy must be one of"):
        as_good(made, "test_ece", "muon", "MixUp")

    rows = remedies_text(made, "test_ece").splitlines()
    assert [row.split(" | ")[0].strip("| ") for row in rows[2:]] == list(REMEDIES)
    for row in rows[2:-1]:
        for cell in row.split("|")[2:-1]:
            assert cell.strip().startswith("**") == ("(2 of 3)" in cell or "(3 of 3)" in cell)
    cell = rows[2 + list(REMEDIES).index("CE, stopped early")].split("|")[4]
    good = as_good(made, "test_ece", "muon", "CE, stopped early").sum()
    assert f"{early.mean():.3f} ± {early.std(ddof=1):.3f} ({good} of 3)" in cell


def test_remedies_figure_shows_every_seed():
    axes = remedies_figure(SWEEPS["methods"]).axes
    assert len(axes) == 4 and all(len(ax.collections) == len(REMEDIES) for ax in axes)
    at = REMEDIES["CE, stopped early"]
    x = outcomes(SWEEPS["methods"], "test_ece", "sgd", *at)
    y = outcomes(SWEEPS["methods"], "test_robust_margin", "sgd", *at)
    (dots,) = (c for c in axes[0].collections if c.get_label() == "CE, stopped early")
    np.testing.assert_allclose(dots.get_offsets(), np.stack([x, y], axis=1))


def test_the_weights_explorer_shows_the_cell_that_its_sliders_name():
    grid = SWEEPS["grid"]
    _, axes = plots.figure(2)
    weights_panel(grid, 2.0, 0.1, axes)
    cell = grid.select(label="CalMO(2, 0.1)")
    x = [run.history.rows[-1]["test_ece"] for run in cell.runs]
    np.testing.assert_allclose(axes[1].collections[2].get_offsets()[:, 0], x)
    losses = grid_values(grid, "validation_loss")
    assert f"rank {1 + (losses < losses[3, 3]).sum()} of 16" in axes[1].get_title()
    with pytest.raises(ValueError, match=r"weights \(3, 0.1\)"):
        weights_panel(grid, 3.0, 0.1, axes)

    explorer = widgets.weights_explorer(grid)
    before = explorer.children[-1].value
    explorer.controls["robust_weight"].value = 2.0
    after = explorer.children[-1].value
    assert after != before and "robust weight 2 and smoothness weight 0.01" in after
