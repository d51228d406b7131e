"""Runs trained together: equal to single runs, one by one, whatever becomes of the others."""

import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from pretend_device import pretend_device
from reproduce_cases import TINY, histories, parse
from torch import nn

from calibcourse.data import load_dataset
from calibcourse.history import History
from calibcourse.models import mlp
from calibcourse.optimizers import make_optimizer
from calibcourse.probes import LogitProbe, SharpnessProbe
from calibcourse.reproduce import Run, plan, run_all
from calibcourse.reproduce import cli as reproduce_cli
from calibcourse.reproduce.one_run import train
from calibcourse.reproduce.runner import SweepError, record_path
from calibcourse.reproduce.stacked import _Stack, _start, fit_stacked, stacks, train_stacked
from calibcourse.reproduce.stacked_updates import lanes, orthogonal
from calibcourse.training import fit

OPTIMIZERS = {
    "gd": ("gd", {}),
    "sgd": ("sgd", {}),
    "sgd, nesterov, decay": ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adamw": ("adamw", {}),
    "adamw, decay": ("adamw", {"weight_decay": 0.1, "betas": (0.8, 0.9)}),
    "muon": ("muon", {}),
    "muon, decay": ("muon", {"weight_decay": 0.1, "nesterov": False}),
    "sam": ("sam", {}),
    "sam, momentum": ("sam", {"momentum": 0.9, "rho": 0.2}),
}
RUNS = [(seed, lr) for seed in (0, 1, 2) for lr in (0.01, 0.05)]
STEPS = 20


def small_data(dtype=torch.float32):
    """Forty training images: batches of 16 leave a ragged one of 8."""
    data = load_dataset("fashion_mnist_small")
    parts = {name: getattr(data, name).head(40) for name in ("train", "validation", "test")}
    parts = {n: replace(part, inputs=part.inputs.to(dtype)) for n, part in parts.items()}
    return replace(data, **parts)


def probes():
    return [LogitProbe(splits=("train", "test")), SharpnessProbe(batch_size=20)]


def together(name, options, runs=RUNS, dtype=torch.float64, **arguments):
    """Models, optimizers and the arguments of `fit_stacked`."""
    models = [mlp(hidden=(7, 6), seed=seed).to(dtype) for seed, _ in runs]
    optimizers = [
        make_optimizer(name, model, lr, **options)
        for model, (_, lr) in zip(models, runs, strict=True)
    ]
    settings = {
        "steps": STEPS,
        "batch_size": None if name == "gd" else 16,
        "probe_steps": [0, 6, STEPS],
    }
    stacked = {"probes": [probes() for _ in runs], "seeds": [seed for seed, _ in runs]}
    return models, optimizers, settings | arguments, stacked


def singly(models, data, optimizers, settings, stacked):
    """The same runs one after another; the models are trained."""
    return [
        fit(model, data, None, optimizer, **settings, probes=probes(), seed=seed, progress=False)
        for model, optimizer, seed in zip(models, optimizers, stacked["seeds"], strict=True)
    ]


def assert_rows_equal(ours: History, theirs: History, **tolerance):
    assert ours.columns == theirs.columns and len(ours) == len(theirs)
    for column in ours.columns:
        np.testing.assert_allclose(
            ours.column(column), theirs.column(column), err_msg=column, **tolerance
        )


@pytest.fixture
def no_bfloat16(monkeypatch):
    """Muon's matrices made orthogonal in float64, by torch's own code and by ours."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.double().clone())


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_stacked_runs_are_single_runs_in_float64(case, no_bfloat16):
    name, options = OPTIMIZERS[case]
    data = small_data(torch.float64)
    models, optimizers, settings, stacked = together(name, options)
    starts = copy.deepcopy(models)
    ours = fit_stacked(models, data, optimizers, **settings, **stacked)
    singles, optimizers, settings, stacked = together(name, options)
    theirs = singly(singles, data, optimizers, settings, stacked)
    for place, (model, single) in enumerate(zip(models, singles, strict=True)):
        moved = 0.0
        for a, b, start in zip(
            model.parameters(), single.parameters(), starts[place].parameters(), strict=True
        ):
            # Twenty steps of 1e-16, amplified a little by what the loss's curvature does to them.
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
            moved += float((a - start).detach().norm())
        assert moved > 1e-3  # they were trained
        assert_rows_equal(ours[place], theirs[place], rtol=1e-10, atol=1e-10)
        assert ours[place].metadata == theirs[place].metadata
        assert ours[place].diverged_at is None
    assert len({repr(history.rows[-1]) for history in ours}) == len(RUNS)  # each its own


@pytest.mark.parametrize(
    "optimizer", ["sgd", *(pytest.param(n, marks=pytest.mark.slow) for n in ("gd", "adamw", "sam"))]
)
def test_a_sweeps_runs_agree_within_the_rounding_of_float32(optimizer):
    configs = [replace(SHORT, optimizer=optimizer, seed=seed, lr=lr) for seed, lr in RUNS[1:4]]
    configs = [replace(c, batch_size=None) for c in configs] if optimizer == "gd" else configs
    for config, ours in zip(configs, train_stacked(configs), strict=True):
        theirs = train(config)
        assert ours.metadata == theirs.metadata and ours.diverged_at is None
        # Sums of 1e-7 in another order; Lanczos stops at a residual of 1e-3 and multiplies that.
        # No image lies so near to the edge of a bin that it would change it.
        assert_rows_equal(ours, theirs, rtol=1e-3, atol=1e-5)


def test_muon_in_bfloat16_is_the_same_step_but_for_bfloat16():
    """Where a last digit tips a rounding to bfloat16, an entry of the direction changes by 2^-8.

    So runs agree to what is left of that after the few entries it happens to: two percent of the
    way that they went. That everything else is equal is what float64 shows above.
    """
    data = small_data()
    models, optimizers, settings, stacked = together("muon", {}, dtype=torch.float32)
    starts = copy.deepcopy(models)
    fit_stacked(models, data, optimizers, **settings, **stacked)
    singles, optimizers, settings, stacked = together("muon", {}, dtype=torch.float32)
    singly(singles, data, optimizers, settings, stacked)
    for model, single, start in zip(models, singles, starts, strict=True):
        ours, theirs, before = (nn.utils.parameters_to_vector(m.parameters()).detach()
                                for m in (model, single, start))  # fmt: skip
        assert (ours - theirs).norm() < 0.02 * (theirs - before).norm()


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (4, 4)])
def test_matrices_become_orthogonal_as_in_torch(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    ours = orthogonal(matrices)
    for matrix, made in zip(matrices, ours, strict=True):
        parameter = nn.Parameter(torch.zeros(shape))
        parameter.grad = matrix
        torch.optim.Muon([parameter], lr=1.0, momentum=0.0, weight_decay=0.0).step()
        theirs = -parameter.detach() / max(1, shape[0] / shape[1]) ** 0.5
        # bfloat16 has 8 binary digits; five iterations of two products round ten times.
        torch.testing.assert_close(made.float(), theirs, rtol=0, atol=2**-5)


def test_a_value_per_run_meets_parameters_in_their_own_precision():
    """A float64 rate would make every product on a device float64."""
    values = lanes(torch.tensor([1.0, 2.0], dtype=torch.float64), torch.zeros(2, 3, 4))
    assert values.dtype == torch.float32
    assert values.tolist() == [[[1.0]], [[2.0]]]


@pytest.mark.parametrize("optimizer", ["sgd", "sam", "adamw"])
@pytest.mark.filterwarnings("ignore:training diverged:RuntimeWarning")
def test_a_run_that_diverges_ends_as_a_single_one_and_costs_no_other(optimizer):
    data, runs = small_data(torch.float64), [(0, 1.7e308), (1, 0.05), (2, 1.7e308)]
    arguments = {"runs": runs, "steps": 12, "probe_steps": [0, 4, 8, 12]}
    models, optimizers, settings, stacked = together(optimizer, {}, **arguments)
    ours = fit_stacked(models, data, optimizers, **settings, **stacked)
    singles, optimizers, settings, stacked = together(optimizer, {}, **arguments)
    theirs = singly(singles, data, optimizers, settings, stacked)
    assert [h.diverged_at is None for h in theirs] == [False, True, False]
    for a, b, model, single in zip(ours, theirs, models, singles, strict=True):
        assert a.diverged_at == b.diverged_at
        assert_rows_equal(a, b, rtol=1e-10, atol=1e-10)
        for ours_now, theirs_now in zip(model.parameters(), single.parameters(), strict=True):
            # Of the one that diverged: those of its last good probe.
            torch.testing.assert_close(ours_now, theirs_now, rtol=0, atol=1e-10)


def test_a_divergence_is_told_once():
    arguments = {"runs": [(0, 0.05), (1, 1.7e308), (2, 0.01)], "steps": 3, "probe_steps": 2}
    models, optimizers, settings, stacked = together("sgd", {}, **arguments)
    stacked["probes"] = [[], [], []]
    words = (
        r"^training diverged: NaN or infinity at step \d; .* of step 0\. A smaller lr than 1\.7e"
    )
    with pytest.warns(RuntimeWarning, match=words) as told:
        fit_stacked(models, small_data(torch.float64), optimizers, **settings, **stacked)
    assert len(told) == 1


class Stops:
    """A probe that ends the program at one step of one run, as a kill would."""

    def __init__(self, calls):
        self.calls = calls

    def __call__(self, model, data):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return {}


@pytest.mark.parametrize(
    "name", ["sgd", "adamw", "muon", pytest.param("sam", marks=pytest.mark.slow)]
)
def test_a_killed_stack_goes_on_stacked_or_singly(name, tmp_path, no_bfloat16):
    data, runs = small_data(torch.float64), [(0, 0.01), (1, 0.05), (2, 0.05)]
    options = {} if name == "adamw" else {"momentum": 0.9}
    models, optimizers, settings, stacked = together(name, options, runs)
    whole = fit_stacked(models, data, optimizers, **settings, **stacked)
    paths = [tmp_path / f"{place}.pt" for place in range(3)]

    def again(watch=None):
        models, optimizers, settings, stacked = together(name, options, runs)
        stacked["probes"] = [[*probes(), *extra] for extra in watch or [[], [], []]]
        return models, optimizers, settings, stacked | {"checkpoints": paths}

    # The first run is saved at step 6, the second is stopped there: it and the third are at 0.
    watch = [[Stops(9)], [Stops(1)], [Stops(9)]]
    models, optimizers, settings, stacked = again(watch)
    with pytest.raises(KeyboardInterrupt):
        fit_stacked(models, data, optimizers, **settings, **stacked)
    saved = [torch.load(path, weights_only=True)["step"] for path in paths]
    assert saved == [6, 0, 0]
    # A copy of one run's parameters is what its file holds, not all runs' of the stack.
    assert paths[0].stat().st_size < 3 * paths[1].stat().st_size
    assert all(path.exists() for path in paths)
    # All stacked: two of them catch up with the first, and the three go on together.
    models, optimizers, settings, stacked = again([[Stops(99)] for _ in runs])
    stacked["checkpoints"] = [shutil.copy(path, f"{path}.copy") for path in paths]
    for ours, theirs in zip(
        fit_stacked(models, data, optimizers, **settings, **stacked), whole, strict=True
    ):
        assert_rows_equal(ours, theirs, rtol=1e-10, atol=1e-10)
    # One of them singly, then all stacked: the others catch up with what is finished.
    models, optimizers, settings, stacked = again([[Stops(99)] for _ in runs])
    alone = fit(
        models[0], data, None, optimizers[0], **settings, probes=stacked["probes"][0],
        seed=0, progress=False, checkpoint=paths[0],
    )  # fmt: skip
    assert_rows_equal(alone, whole[0], rtol=1e-10, atol=1e-10)
    models, optimizers, settings, stacked = again([[Stops(99)] for _ in runs])
    for ours, theirs in zip(
        fit_stacked(models, data, optimizers, **settings, **stacked), whole, strict=True
    ):
        assert_rows_equal(ours, theirs, rtol=1e-10, atol=1e-10)


# --- sweeps


SHORT = replace(TINY, even_probes=2, log_probes=2)
RAGGED = [
    *(replace(SHORT, seed=seed, lr=lr) for seed, lr in [(0, 0.1), (1, 0.1), (0, 0.01)]),
    replace(SHORT, steps=20),
    replace(SHORT, optimizer="adamw", lr=0.01),
    replace(SHORT, optimizer="adamw", lr=0.02),
    replace(SHORT, optimizer="bulk_sgd", options={"directions": 1}),
    replace(SHORT, optimizer="bulk_sgd", options={"directions": 1}, seed=1),
]


def test_stacks_hold_what_differs_in_seed_and_learning_rate_only():
    sizes = [len(stack) for stack in stacks(RAGGED)]
    assert sizes == [3, 1, 2, 1, 1]
    assert [config for stack in stacks(RAGGED) for config in stack] == RAGGED
    assert [len(stack) for stack in stacks(plan("table1"))] == [12] * 5
    comparison = plan("table2", seeds=[0, 1])
    assert [len(stack) for stack in stacks(comparison)] == [1] * len(comparison)


@pytest.mark.slow
def test_a_stacked_sweep_leaves_records_as_a_plain_one(tmp_path):
    stacked = run_all(RAGGED, tmp_path / "stacked", progress=False, stacked=True)
    plain = run_all(RAGGED, tmp_path / "plain", progress=False)
    for ours, theirs in zip(stacked, plain, strict=True):
        assert ours.config == theirs.config
        assert ours.history.metadata == theirs.history.metadata
        # As above: the rounding of float32, and Lanczos' residual.
        assert_rows_equal(ours.history, theirs.history, rtol=1e-3, atol=1e-5)
        assert set(ours.provenance) - {"stacked"} == set(theirs.provenance)
    assert [run.provenance.get("stacked") for run in stacked] == [3, 3, 3, None, 2, 2, None, None]
    assert not list((tmp_path / "stacked" / "checkpoints").iterdir())


def test_finished_runs_are_not_run_again_and_a_damaged_one_costs_no_other(tmp_path):
    configs = RAGGED[:3]
    first = run_all(configs[:1], tmp_path, progress=False)
    broken = tmp_path / "checkpoints" / f"{configs[1].key}.pt"
    broken.write_bytes(b"no checkpoint")
    words = rf"1 of 3 runs failed.*\n  {configs[1].key}: ValueError: checkpoint .* is damaged"
    with pytest.raises(SweepError, match=words):
        run_all(configs, tmp_path, progress=False, stacked=True)
    assert record_path(tmp_path, configs[2]).exists()
    assert not record_path(tmp_path, configs[1]).exists()
    broken.unlink()
    runs = run_all(configs, tmp_path, progress=False, stacked=True)
    assert histories(runs[:1]) == histories(first)
    assert Run.load(record_path(tmp_path, configs[1])) == runs[1]


@pytest.mark.slow
def test_the_command_trains_stacks_and_says_what_it_does(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reproduce_cli, "plan", lambda *a: [*RAGGED[:3], RAGGED[4]])
    options = parse("figure1", "--out", str(tmp_path), "--seeds", "0", "1", "--stacked")
    assert reproduce_cli.run(options) == 0
    printed = capsys.readouterr()
    assert "3 of 4 runs are trained in 1 stacks, the other 1 singly" in printed.err
    record = json.loads((tmp_path / "figure1.json").read_text())
    assert record["command"].endswith("--seeds 0 1 --stacked")
    assert [run["provenance"].get("stacked") for run in record["runs"]] == [3, 3, 3, None]


def test_what_cannot_be_stacked_is_refused():
    data = small_data()
    normal = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784), nn.Linear(784, 10))
    random = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(784, 10))
    plain, bulk = mlp(hidden=(3,)), {"inputs": data.train.inputs}
    remembers = "models must not draw or remember, got one with {}: train its runs singly"
    for model, name, options, settings, error, words in [
        (normal, "sgd", {}, {}, ValueError, remembers.format("BatchNorm1d")),
        (random, "sgd", {}, {}, ValueError, remembers.format("Dropout")),
        (plain, "bulk_sgd", bulk, {}, TypeError, "optimizers must be GD, SGD, AdamW, Muon or SAM, "
         "got BulkSGD: train its runs singly"),
        (plain, "sgd", {}, {"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        (plain, "sgd", {}, {"probe_steps": [2]}, ValueError, "probe_steps must "),
        (plain, "sgd", {}, {"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        (plain, "sgd", {}, {"seeds": [-1]}, ValueError, "seed must "),
    ]:  # fmt: skip
        optimizer = make_optimizer(name, model, 0.1, **options)
        arguments = {"steps": 1, "probe_steps": 2, "probes": [[]], "seeds": [0]} | settings
        with pytest.raises(error, match=f"^{words}"):
            fit_stacked([model], data, [optimizer], **arguments)


@pytest.mark.filterwarnings("ignore:training diverged:RuntimeWarning")
def test_a_run_that_cannot_start_or_has_diverged_before_is_told_again(tmp_path):
    data = small_data(torch.float64)
    arguments = {"runs": [(0, 0.05), (1, 1.7e308), (2, 0.01)], "steps": 8, "probe_steps": [0, 4, 8]}
    paths = [tmp_path / f"{place}.pt" for place in range(3)]

    def outcomes():
        models, optimizers, settings, stacked = together("sgd", {}, **arguments)
        return fit_stacked(models, data, optimizers, **settings, **stacked, checkpoints=paths)

    first = outcomes()
    assert [outcome.diverged_at is None for outcome in first] == [True, False, True]
    assert outcomes() == first
    paths[0].write_bytes(b"no checkpoint")
    paths[2] = paths[1] / "in a file.pt"
    damaged, diverged, nowhere = outcomes()
    assert isinstance(damaged, ValueError) and isinstance(nowhere, OSError)
    assert diverged == first[1]
    paths[1] = paths[0]
    assert [type(outcome) for outcome in outcomes()] == [ValueError, ValueError, type(nowhere)]


# --- on a device


def stack_of(name, data, device):
    models, _, settings, _ = together(name, {}, RUNS[:3], torch.float32)
    members = []
    for model, (seed, lr) in zip(models, RUNS[:3], strict=True):
        optimizer = make_optimizer(name, model.to(device), lr)
        members.append(_start(model, data, optimizer, [], STEPS, settings["batch_size"], seed))
    return _Stack(members, 0)


@pytest.mark.parametrize("name", ["gd", "sgd", "adamw", "muon", "sam"])
def test_an_update_never_waits_for_the_device(name):
    with pretend_device() as device:
        stack = stack_of(name, small_data().to("cuda"), "cuda")
        assert stack.count.device.type == stack.diverged_at.device.type == "cuda"
        stack.advance(1)
        device.clear()
        stack.advance(2)  # of an epoch's three
        assert sum(device.waits.values()) == 0


@pytest.mark.cuda("real")  # a pretend one has no graphs
@pytest.mark.parametrize("name", ["gd", "sgd", "adamw", "muon", "sam"])
def test_an_update_can_be_captured_in_a_cuda_graph(name):
    data = small_data().to("cuda")
    plainly, captured = stack_of(name, data, "cuda"), stack_of(name, data, "cuda")
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        captured.advance(3)  # an epoch, to warm up
    torch.cuda.current_stream().wait_stream(side)
    captured._turn_to(3)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.update()
    for _ in range(3):
        graph.replay()
    plainly.advance(6)
    for parameter, value in plainly.parameters.items():
        torch.testing.assert_close(captured.parameters[parameter], value)
