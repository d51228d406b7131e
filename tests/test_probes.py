"""LadderProbe and bound_quantities: the numbers of the functions, along a run and after saving."""

import math

import numpy as np
import pytest
import torch

from calibcourse import LadderProbe, LogitProbe, bound_quantities, curvature_ladder, ece_bounds, fit
from calibcourse.data import load_dataset
from calibcourse.history import History
from calibcourse.models import mlp
from calibcourse.reproduce import Run, Sweep, TrajectoryConfig

RUNGS = ("l4", "l3", "l2", "l1", "u0", "u1", "u2", "u3", "u4", "u5", "u6")


@pytest.fixture(scope="module")
def data():
    return load_dataset("fashion_mnist_small")


@pytest.fixture
def model():
    return mlp(hidden=(12,), seed=3)


def test_bound_quantities_are_those_of_ece_bounds():
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(80, 6, generator=generator)
    for target in (logits.argmax(1), torch.randint(6, (80,), generator=generator)):
        bounds, row = ece_bounds(logits, target), bound_quantities(logits, target)
        assert row.pop("gamma") == bounds.gamma
        np.testing.assert_array_equal(  # the very numbers; NaN where γ <= 0
            list(row.values()), [bounds.log[name.removeprefix("log_")] for name in row]
        )
    assert math.isnan(row["log_lower"])


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_ladder_probe_writes_the_ladder_of_its_split(data, model, split):
    row = LadderProbe(split, samples=40)(model, data)
    images = getattr(data, split)
    ladder = curvature_ladder(model, images.inputs[:40], images.target[:40])
    assert tuple(row) == tuple(f"{split}_log_{rung}" for rung in RUNGS)
    for rung in RUNGS:  # same start vector, same arithmetic: equal to the last bit
        assert row[f"{split}_log_{rung}"] == ladder.log[rung]


def test_ladder_probe_uses_all_images_unless_told(data, model):
    small = data.__class__(data.name, data.classes, data.train.head(30), data.validation, data.test)
    expected = curvature_ladder(model, small.train.inputs, small.train.target).log["u6"]
    assert LadderProbe()(model, small)["train_log_u6"] == expected


def test_missing_rungs_are_left_out(data):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10, bias=False))
    row = LadderProbe("train", 20)(model, data)
    assert list(row) == [f"train_log_{rung}" for rung in RUNGS if rung.startswith("u")]


def test_ladder_probe_starts_warm_and_its_state_goes_round(data, model):
    probe = LadderProbe("train", samples=50)
    assert probe.state_dict() == {"vector": None}
    probe(model, data)
    state = {name: value.clone() for name, value in probe.state_dict().items()}
    other = LadderProbe("train", samples=50)
    other.load_state_dict(state)
    with torch.no_grad():
        model[-1].weight.mul_(1.1)
    warm = probe(model, data)
    assert other(model, data) == warm  # equal numbers, not only close ones
    cold = LadderProbe("train", samples=50)(model, data)
    # Each is known to 1e-3; had the first eigenvector not been used, they would be equal.
    assert warm["train_log_u0"] == pytest.approx(cold["train_log_u0"], abs=2e-3)
    assert warm["train_log_u0"] != cold["train_log_u0"]


class Killed(Exception):
    pass


def test_a_checkpoint_resumes_with_equal_numbers(data, tmp_path):
    def run(dies_at=None, checkpoint=None):
        calls = []

        def killer(model, data):
            calls.append(None)
            if len(calls) == dies_at:
                raise Killed
            return {}

        return fit(
            mlp(hidden=(6,), seed=0),
            data,
            optimizer="sgd",
            lr=0.1,
            steps=4,
            batch_size=32,
            probes=[LadderProbe("train", samples=30), killer],
            probe_steps=[0, 2, 4],
            checkpoint=checkpoint,
            progress=False,
        ).rows

    path = tmp_path / "run.pt"
    with pytest.raises(Killed):
        run(dies_at=3, checkpoint=path)
    assert path.exists()
    assert run(checkpoint=path) == run()


def test_missing_lower_bound_survives_saving(data, model, tmp_path):
    probe = LogitProbe(bound_quantities, splits=("train",))
    history = fit(
        model, data, optimizer="sgd", lr=0.1, steps=1, batch_size=20, probes=[probe],
        probe_steps=[0, 1], progress=False,
    )  # fmt: skip
    lower = history.column("train_log_lower")
    assert np.isnan(lower).all()  # an untrained network is wrong somewhere: γ < 0
    history.save(tmp_path / "history.json")
    loaded = History.load(tmp_path / "history.json")
    assert np.isnan(loaded.column("train_log_lower")).all()
    np.testing.assert_array_equal(loaded.column("train_gamma"), history.column("train_gamma"))

    config = TrajectoryConfig(
        dataset="fashion_mnist_small",
        optimizer="sgd",
        lr=0.1,
        steps=1,
        batch_size=20,
        train_samples=4500,
        held_out_samples=5000,
    )
    Sweep((Run(config, history, {}),)).save(tmp_path / "sweep.json")
    (run,) = Sweep.load(tmp_path / "sweep.json").runs
    assert np.isnan(run.history.column("train_log_lower")).all()
    # A sweep keeps five significant digits.
    np.testing.assert_allclose(
        run.history.column("train_log_upper"), history.column("train_log_upper"), rtol=1e-5
    )


@pytest.mark.parametrize("probe", [LadderProbe, lambda split: LogitProbe(splits=(split,))])
def test_unknown_split_is_named(probe):
    with pytest.raises(ValueError, match=r"split.*tests"):
        probe("tests")


def test_samples_must_be_a_positive_integer():
    with pytest.raises(ValueError, match="samples"):
        LadderProbe("train", 0)
    with pytest.raises(TypeError, match="samples"):
        LadderProbe("train", 2.5)
