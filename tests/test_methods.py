"""The comparison of training methods: planned, trained, read by two rules, tabled."""

import dataclasses
import math
import time
from dataclasses import replace

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

from calibcourse.data import load_dataset
from calibcourse.metrics import expected_calibration_error
from calibcourse.posthoc import TemperatureScaling
from calibcourse.reproduce import (
    GRID,
    METHODS,
    ComparisonConfig,
    Run,
    load_recorded,
    one_run,
    plan,
    run_all,
)

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


# --- plans


def test_plans_hold_the_comparison_that_the_paper_describes():
    runs = plan("table2")
    assert len({run.key for run in runs}) == len(runs) == 4 * 4 * 3
    assert {run.label for run in runs} == {"CE", "Flat", "Rob", "CalMO"}
    assert {run.key for run in plan("tableA1")} < {run.key for run in runs}
    union = {run.key for run in runs} | {run.key for run in plan("tableA2")}
    assert {run.key for run in plan("methods")} == union
    full = plan("table2", "full")
    assert {(run.optimizer, run.lr) for run in full} == {
        ("sgd", 0.01), ("adamw", 0.001), ("muon", 0.01), ("sam", 0.01)
    }  # fmt: skip
    assert {(run.model, run.steps, run.batch_size) for run in full} == {("resnet20", 10_000, 128)}


def test_the_grid_shares_its_edges_with_the_named_methods():
    cells = plan("grid", seeds=[0])
    named = {run.key: run.label for run in plan("methods", seeds=[0])}
    assert len(cells) == math.prod(len(weights) for weights in GRID.values())
    assert {named[run.key] for run in cells if run.key in named} == {"CE", "Flat", "Rob", "CalMO"}


# --- one run


@pytest.fixture(scope="module")
def history():
    return one_run.train(TINY)


def test_test_images_are_read_at_the_best_and_the_last_step_only(history):
    best = history.best("validation_loss")["step"]
    read = [row["step"] for row in history.rows if "test_ece" in row]
    assert best < TINY.steps, "this test needs a run whose best step is not its last"
    assert read == [best, TINY.steps]
    assert len(history) == TINY.probes
    assert all("validation_ece" in row and "train_ece" in row for row in history.rows)


def test_the_best_row_describes_the_parameters_of_its_step(history):
    best = history.best("validation_loss")
    # The same run ended there: its last row must be that row, to the last bit.
    short = one_run.train(replace(TINY, steps=best["step"], probes=2))
    assert short.rows[-1] == best


def test_test_labels_decide_nothing_but_the_test_columns(history, monkeypatch):
    data = one_run._dataset(TINY.dataset)
    turned = dataclasses.replace(data.test, target=(data.test.target + 1) % 10)
    monkeypatch.setattr(one_run, "_dataset", lambda name: dataclasses.replace(data, test=turned))
    other = one_run.train(TINY)
    changed = {
        name
        for ours, theirs in zip(history.rows, other.rows, strict=True)
        for name in ours.keys() | theirs.keys()
        if ours.get(name) != theirs.get(name)
    }
    assert changed and all(name.startswith("test_") for name in changed)
    assert {"test_accuracy", "test_ece", "test_robust_margin", "test_scaled_ece"} <= changed


def test_the_temperature_is_fitted_on_validation_logits(history):
    model = one_run._model(TINY)
    evaluated = []

    def keep(model, data, attacked):
        evaluated.append(({n: v.clone() for n, v in model.state_dict().items()}, data))
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_run, "evaluation", keep)
        one_run.train(TINY)
    state, data = evaluated[0]  # the last step is evaluated first
    model.load_state_dict(state)
    with torch.no_grad():
        validation, test = model(data.validation.inputs), model(data.test.inputs)
    scaling = TemperatureScaling().fit(validation, data.validation.target)
    row = history.rows[-1]
    assert row["temperature"] == pytest.approx(scaling.temperature, rel=1e-9)
    ece = float(expected_calibration_error(test / scaling.temperature, data.test.target))
    # float32 logits, whose chunks differ from those of the run: 1e-6 of a probability.
    assert row["test_scaled_ece"] == pytest.approx(ece, abs=1e-6)


def test_a_run_stopped_half_way_goes_on_to_the_same_numbers(history, tmp_path, monkeypatch):
    checkpoint = tmp_path / "run.pt"
    look = one_run.BestValidation.__call__
    seen = []

    def stop_at_the_fifth(self, model, data):
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(1)
        return look(self, model, data)

    monkeypatch.setattr(one_run.BestValidation, "__call__", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        one_run.train(TINY, checkpoint)
    monkeypatch.setattr(one_run.BestValidation, "__call__", look)
    assert one_run.train(TINY, checkpoint).rows == history.rows


def test_every_method_and_optimizer_trains():
    for config in plan("methods", seeds=[0]):
        small = replace(
            config, steps=2, train_samples=30, held_out_samples=20, attacked_samples=5, probes=2
        )
        assert math.isfinite(one_run.train(small).rows[-1]["test_ece"])


@pytest.mark.slow
def test_resnet20_trains_and_is_evaluated_in_eval_mode():
    config = replace(
        TINY, model="resnet20", steps=2, train_samples=20, held_out_samples=8, probes=2
    )
    rows = one_run.train(config).rows
    assert math.isfinite(rows[-1]["test_robust_margin"])


def test_a_sweep_runs_both_kinds_and_times_the_methods(tmp_path):
    small = replace(TINY, steps=2, probes=2)
    (run,) = run_all([small], tmp_path, progress=False)
    assert Run.load(tmp_path / "runs" / f"{small.key}.json").config == small
    assert run.provenance["seconds_per_step"] > 0


def test_steps_of_calmo_cost_more_than_those_of_cross_entropy(monkeypatch):
    loss, options = METHODS["CalMO"]
    passes = []  # through a layer: a clock that no other program disturbs
    with register_module_forward_hook(lambda *_: passes.append(None)):
        monkeypatch.setattr(time, "process_time", lambda: float(len(passes)))
        ce = one_run.step_seconds(TINY)
        assert 0 < ce < one_run.step_seconds(replace(TINY, loss=loss, loss_options=options))


# --- the recorded sweep

# Measured on fewer images here.
ROBUST = {"train_robust_margin", "train_robust_log_q", "train_robust_accuracy"}


def same_columns(ours: dict, recorded: dict, names: set[str], **tolerance: float) -> None:
    for name in names:
        assert ours[name] == pytest.approx(recorded[name], **tolerance), name


@pytest.mark.parametrize(
    "name", ["methods", pytest.param("methods_cifar10_small", marks=pytest.mark.slow)]
)
def test_the_start_of_a_recorded_calmo_run_can_be_run_again(name):
    recorded = load_recorded(name).select(optimizer="adamw", label="CalMO", seed=0).runs[0]
    try:
        load_dataset(recorded.config.dataset)
    except FileNotFoundError:
        pytest.skip(f"the images of {recorded.config.dataset} are not here")
    rows = {row["step"]: row for row in recorded.history.rows}
    config = replace(recorded.config, steps=100, probes=3, attacked_samples=1)
    again = one_run.train(config)
    assert [row["step"] for row in again.rows] == [0, 50, 100]
    for row in again.rows:
        seen = {n for n in rows[row["step"]] if n.startswith(("train_", "validation_"))} - ROBUST
        # Another processor sums in another order; 100 steps let 1e-7 grow, by far not to 1e-3.
        # Accuracy and ECE jump where an image crosses an edge: two of 500 validation images, one
        # of 400.
        smooth = {n for n in seen if n.endswith(("loss", "confidence", "brier"))}
        same_columns(row, rows[row["step"]], smooth, rel=1e-3, abs=1e-4)
        same_columns(row, rows[row["step"]], seen - smooth, rel=2e-2, abs=4e-3)


@pytest.mark.slow
def test_a_recorded_cell_comes_out_again_on_test_images():
    recorded = load_recorded("methods").select(optimizer="adamw", label="CE", seed=0).runs[0]
    best = recorded.history.best("validation_loss")
    (row,) = one_run.train(replace(recorded.config, steps=best["step"], probes=2)).rows[1:]
    # Hundreds of AdamW steps amplify the last bit of another processor: what is compared is the
    # statement, to a fraction of the spread between seeds (about 0.005 in accuracy and ECE).
    same_columns(row, best, {"test_accuracy", "test_ece", "test_scaled_ece"}, abs=0.01)
    same_columns(row, best, {"test_loss", "temperature", "test_robust_log_q"}, rel=0.1)
