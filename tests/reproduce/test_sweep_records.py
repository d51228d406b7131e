"""Records of sweeps: written, read, summed up, and the shipped ones."""

import json
import math
import os
import warnings
from dataclasses import asdict, replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from reproduce_cases import (
    SIX,
    TINY,
)

from calibcourse.data import load_dataset
from calibcourse.history import History
from calibcourse.reproduce import (
    Run,
    Sweep,
    at_even_steps,
    correlation,
    correlations,
    load_recorded,
    probes_within,
    run_all,
    table_1,
    table_1_text,
)
from calibcourse.reproduce.one_run import train
from calibcourse.reproduce.paper import TABLE_1
from calibcourse.reproduce.runner import record_path


def test_unwritable_output_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write to the output folder .*file"):
        run_all(SIX, tmp_path / "file", progress=False)


def test_record_of_another_version_or_content_is_refused(tmp_path):
    run = run_all([TINY], tmp_path, progress=False)[0]
    path = record_path(tmp_path, TINY)
    record = json.loads(path.read_text())
    assert Run.load(path) == run
    for change, words in [
        ({"version": 2}, r"version 1, got \('calibcourse\.run', 2\).*output folder"),
        ({"format": "x"}, "must be a calibcourse.run"),
        ({"config": {}}, "exactly the fields"),
        ({"config": {**record["config"], "lr": -1}}, "lr"),
        ({"config": {**record["config"], "options": 3}}, "options"),
        ({"history": {}}, "calibcourse.history"),
        ({"provenance": None}, "provenance"),
    ]:
        path.write_text(json.dumps({**record, **change}))
        with pytest.raises(ValueError, match=words):
            run_all([TINY], tmp_path, progress=False)
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"must be a calibcourse\.run"):
        Run.load(path)


def test_provenance_names_versions_and_machine_but_no_place(tmp_path):
    provenance = run_all([TINY], tmp_path, progress=False)[0].provenance
    assert {"date", "torch", "numpy", "python", "processor", "seconds"} <= set(provenance)
    assert provenance["threads"] == TINY.threads
    text = json.dumps(provenance)
    assert os.uname().nodename not in text and str(tmp_path) not in text and "/" not in text


def some_sweep(n_lr: int = 2, n_seeds: int = 2) -> Sweep:
    """Made-up runs whose correlation with sharpness is known: +1 for train, -1 for test."""
    runs = []
    for index in range(n_lr):
        for seed in range(n_seeds):
            config = replace(TINY, lr=0.1 * (index + 1), seed=seed)
            rows = [
                {"step": s, "sharpness": 1 / (1 + s), "batch_sharpness": 1.0}
                | {f"train_{q}": 2 / (1 + s) for q in ("ece", "kce", "loss")}
                | {f"test_{q}": 2 - 1 / (1 + s) for q in ("ece", "kce")}
                for s in config.probe_steps
            ]
            runs.append(Run(config, History(rows), {"seconds": 1.0, "note": "made up"}))
    return Sweep(tuple(runs), "reproduce table1 --seeds 0 1")


def test_saved_sweep_comes_back_to_five_digits(tmp_path):
    made = some_sweep()
    made.save(tmp_path / "s.json")
    loaded = Sweep.load(tmp_path / "s.json")
    assert loaded.command == made.command and len(loaded) == len(made)
    for a, b in zip(loaded.runs, made.runs, strict=True):
        assert a.config == b.config and a.provenance == b.provenance
        for name in b.history.columns:
            # Five significant digits: half a unit of the fifth.
            np.testing.assert_allclose(a.history.column(name), b.history.column(name), rtol=5e-5)


def test_hostile_sweeps_are_refused_by_name(tmp_path):
    path = tmp_path / "s.json"
    some_sweep(1, 1).save(path)
    good = json.loads(path.read_text())
    run = good["runs"][0]
    columns = run["columns"]
    text = "x" * len(columns["step"])
    bad = [
        [],
        {**good, "version": 2},
        {**good, "runs": 3},
        {**good, "runs": [3]},
        {**good, "runs": [{**run, "columns": {**columns, "sharpness": [1.0]}}]},
        {**good, "runs": [{**run, "columns": {**columns, "step": columns["step"][::-1]}}]},
        {**good, "runs": [{**run, "columns": {**columns, "sharpness": text}}]},
        {**good, "runs": [{**run, "columns": []}]},
        {**good, "runs": [{**run, "config": {}}]},
        {**good, "runs": [{**run, "provenance": 1}]},
        {**good, "runs": [{**run, "diverged_at": -1}]},
    ]
    for content in bad:
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"s\.json"):
            Sweep.load(path)


def test_select_finds_runs_or_says_what_there_is():
    made = some_sweep()
    assert len(made.select(lr=0.2)) == 2 and len(made.select(lr=0.2, seed=1)) == 1
    with pytest.raises(ValueError, match=r"no run has .*there are .*0\.1.*0\.2"):
        made.select(lr=0.3)
    with pytest.raises(ValueError, match="criterion"):
        made.select(colour=1)


series = st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=30)


@given(x=series, y=series, method=st.sampled_from(["pearson", "spearman"]))
@settings(deadline=None, max_examples=150)
def test_correlation_agrees_with_scipy(x, y, method):
    n = min(len(x), len(y))
    x, y = [round(v, 2) for v in x[:n]], [round(v, 2) for v in y[:n]]
    rows = [{"step": i, "x": a, "y": b} for i, (a, b) in enumerate(zip(x, y, strict=True))]
    ours = correlation(History(rows), "x", "y", method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of constant input and returns NaN, as we do
        theirs = getattr(scipy.stats, f"{method}r")(x, y).statistic
    if math.isnan(ours):
        assert np.ptp(x) == 0 or np.ptp(y) == 0
    else:
        assert ours == pytest.approx(theirs, abs=1e-9)


@given(scale=st.floats(1e-6, 1e6), shift=st.floats(-1e3, 1e3))
@settings(deadline=None, max_examples=40)
def test_correlation_does_not_depend_on_units(scale, shift):
    values = np.random.default_rng(0).standard_normal((2, 12))
    plain = [{"step": i, "x": a, "y": b} for i, (a, b) in enumerate(values.T)]
    moved = [{**row, "x": row["x"] * scale + shift * scale} for row in plain]
    for method in ("pearson", "spearman"):
        a, b = (correlation(History(rows), "x", "y", method) for rows in (plain, moved))
        # The shift costs up to 1e3 / 1 of the 1e-16 relative precision.
        assert a == pytest.approx(b, abs=1e-11)


def test_correlation_uses_the_chosen_steps_and_skips_gaps():
    rows = [{"step": s, "a": float(s), "b": -float(s)} for s in range(5)]
    rows.append({"step": 100, "a": 1000.0, "b": 1000.0})
    rows.append({"step": 101, "a": math.nan, "b": 1.0})
    assert correlation(History(rows), "a", "b") > 0.9
    assert correlation(History(rows), "a", "b", steps=range(5)) == -1
    assert math.isnan(correlation(History(rows), "a", "b", steps=[0, 1]))
    with pytest.raises(ValueError, match="method must be one of pearson, spearman"):
        correlation(History(rows), "a", "b", "kendall")


def test_table_averages_over_seeds_first_then_over_learning_rates():
    def run(lr, seed, slope):
        # Correlation ±1 by construction: y = slope * x.
        config = replace(TINY, lr=lr, seed=seed)
        rows = [
            {"step": s, "sharpness": float(s), **dict.fromkeys(TABLE_1, slope * s)}
            for s in config.probe_steps
        ]
        return Run(config, History(rows), {})

    runs = (run(0.1, 0, 1.0), run(0.1, 1, -1.0), run(0.2, 0, 1.0), run(0.2, 1, 1.0))
    for method in ("pearson", "spearman"):
        entry = table_1(Sweep(runs), method)[0]
        # Per learning rate 0 and 1: mean 1/2, std with n - 1 = sqrt(1/2).
        assert entry.mean == pytest.approx(0.5) and entry.std == pytest.approx(math.sqrt(0.5))
        assert entry.n_runs == 4 and repr(entry) == "0.50 ± 0.71"
        # Around the means of their learning rates the seeds lie at ±1 and ±0: variance 2 / (4 - 2).
        assert entry.std_seeds == pytest.approx(1) and (entry.lowest, entry.highest) == (-1, 1)
    assert math.isnan(table_1(Sweep(runs[:1]))[0].std_seeds)  # one seed tells nothing of seeds


def test_correlations_are_grouped_by_optimizer_and_learning_rate():
    made = some_sweep(n_lr=2, n_seeds=3)
    other = replace(made.runs[0], config=replace(TINY, optimizer="adamw"))
    values = correlations(Sweep((*made.runs, other)), "train_ece", "spearman")
    assert values == {"SGD": {0.1: [1.0] * 3, 0.2: [1.0] * 3}, "AdamW": {0.1: [1.0]}}
    few = correlations(made, "test_ece", steps=lambda run: run.config.even_steps[:2])
    assert math.isnan(few["SGD"][0.1][0])  # two probes


def test_values_at_even_steps_are_those_of_the_table():
    (run,) = some_sweep(1, 1).runs
    values = at_even_steps(run, "sharpness")
    np.testing.assert_array_equal(values, [1 / (1 + s) for s in run.config.even_steps])
    assert len(values) < len(run.history)  # the logarithmic probes are left out


def test_probes_within_a_share_of_the_run():
    (run,) = some_sweep(1, 1).runs
    assert probes_within(run) == run.config.even_steps == [0, 4, 8, 12, 16, 20, 24]
    assert probes_within(run, 0.5) == [0, 4, 8, 12]
    assert probes_within(run, 1.0, "log") == [0, 1, 24]
    for arguments, words in [((1.5,), "share"), ((0.5, "cubic"), "spacing must be one of even")]:
        with pytest.raises(ValueError, match=words):
            probes_within(run, *arguments)


def test_table_text_sets_the_papers_rows_beneath_ours():
    text = table_1_text(some_sweep())
    assert "| train ECE, pearson | 1.00 ± 0.00 |" in text
    assert "| test ECE, spearman | -1.00 ± 0.00 |" in text
    assert "| *train ECE, the paper's (Pearson, CIFAR-10)* | 0.84 ± 0.07 |" in text


def test_a_slice_of_training_is_what_a_sweep_records(undisturbed):
    assert train(TINY.__class__(**asdict(SIX[0]))).to_dict() == undisturbed[SIX[0].key]


@pytest.mark.parametrize(
    ("name", "optimizer", "lr"),
    [
        pytest.param("edge_of_stability", "gd", 0.1, marks=pytest.mark.slow),
        pytest.param("fashion_mnist_small", "gd", 0.1, marks=pytest.mark.slow),
        ("fashion_mnist_small", "sgd", 0.1),
        pytest.param("cifar10_small", "sgd", 2 / 30, marks=pytest.mark.slow),
    ],
)
def test_the_start_of_a_recorded_run_can_be_run_again(name, optimizer, lr):
    """Up to the first evenly spaced probe. Float32 sums differ between processors in digit seven.

    With the sharpness below 2 / lr, a hundred steps hardly amplify that (another number of threads
    changes the losses by 1e-8), and Lanczos stops at a relative residual of 1e-3. Means over
    images are compared: a share of right answers would jump by an image.
    """
    (recorded,) = load_recorded(name).select(optimizer=optimizer, lr=lr, seed=0).runs
    steps = recorded.config.even_steps[1]
    try:
        load_dataset(recorded.config.dataset)
    except FileNotFoundError:
        pytest.skip(f"the images of {recorded.config.dataset} are not here")
    again = train(replace(recorded.config, steps=steps, even_probes=2, log_probes=5))
    then = {row["step"]: row for row in recorded.history.rows}
    common = [row for row in again.rows if row["step"] in then]
    assert len(common) >= 3 and common[-1]["step"] == steps
    for row in common:
        for column in ("train_loss", "train_confidence", "sharpness", "test_loss"):
            tolerance = 2e-3 if column == "sharpness" else 1e-4
            assert row[column] == pytest.approx(then[row["step"]][column], rel=tolerance)
