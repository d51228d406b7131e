"""A run goes on from its checkpoint as if it had never stopped."""

import os
import pickle
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from training_cases import (
    DATA,
    Countdown,
    Killed,
    explode_at,
    make_split,
    noisy_model,
    quiet_fit,
    small_mlp,
    weights,
)

from calibcourse.history import History
from calibcourse.losses import CrossEntropy
from calibcourse.optimizers import make_optimizer
from calibcourse.probes import LogitProbe, SharpnessProbe
from calibcourse.training import fit


@pytest.mark.parametrize("name", ["gd", "sgd", "adamw", "muon", "sam"])
def test_resumed_run_equals_the_undisturbed_one_to_the_last_bit(tmp_path, name):
    def run(patience=10**9, checkpoint=None):
        model, probe = noisy_model(), Countdown(patience)
        options = {} if name == "gd" else {"momentum": 0.9} if name in ("sgd", "sam") else {}
        optimizer = make_optimizer(name, model, 0.05, **options)
        history = quiet_fit(
            model, optimizer=optimizer, lr=None, probes=[probe], checkpoint=checkpoint
        )
        return history, model

    expected, expected_model = run()
    for patience in (1, 3, 4):
        path = tmp_path / f"{patience}.pt"
        with pytest.raises(Killed):
            run(patience, path)
        resumed, model = run(checkpoint=path)
        assert resumed == expected
        for key, value in expected_model.state_dict().items():
            assert torch.equal(model.state_dict()[key], value), key
        finished, model = run(patience=0, checkpoint=path)  # nothing is left to do
        assert finished == expected and torch.equal(weights(model), weights(expected_model))


def test_warm_sharpness_and_bulk_subspace_survive_a_kill(tmp_path):
    def run(checkpoint=None, patience=10**9):
        probes = [Countdown(patience), LogitProbe(splits=("train", "test")), SharpnessProbe()]
        options = dict(optimizer="bulk_sgd", lr=0.5, steps=25, probe_steps=6)
        return quiet_fit(small_mlp(), probes=probes, checkpoint=checkpoint, **options)

    with pytest.raises(Killed):
        run(tmp_path / "run.pt", patience=3)
    assert run(tmp_path / "run.pt") == run()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"steps": 13, "batch_size": 8}, "steps, batch_size"),
        ({"lr": 0.2}, "lr"),
        ({"seed": 1}, "seed"),
        ({"steps": 13}, "steps"),
        ({"batch_size": 8}, "batch_size"),
        ({"optimizer": "adamw"}, "optimizer"),
        ({"loss": CrossEntropy(label_smoothing=0.1)}, "loss"),
        ({"probe_steps": [5]}, "probe_steps"),
    ],
)
def test_checkpoint_of_another_configuration_is_refused(tmp_path, changes, named):
    path = tmp_path / "run.pt"
    quiet_fit(small_mlp(), checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=rf"another configuration \(it differs in ([a-z_]+, )*{named}\b"
    ):
        quiet_fit(small_mlp(), checkpoint=path, **changes)
    assert path.read_bytes() == before


def test_checkpoint_of_another_model_or_data_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    quiet_fit(small_mlp(), checkpoint=path)
    with pytest.raises(ValueError, match="initial weights"):
        quiet_fit(small_mlp(seed=1), checkpoint=path)
    other = replace(DATA, train=make_split(50, 7))
    with pytest.raises(ValueError, match="training labels"):
        fit(small_mlp(), other, lr=0.1, steps=12, batch_size=16, checkpoint=path, progress=False)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_damaged_and_malicious_checkpoints_are_refused_and_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.pt"
    quiet_fit(small_mlp(), checkpoint=path)
    good = torch.load(path, weights_only=True)
    whole = path.read_bytes()

    def contents():
        none = "is damaged or no checkpoint of a run"
        yield b"", none
        yield whole[: len(whole) // 2], none
        yield pickle.dumps(Bomb(), protocol=2), none
        for damage, words in (
            ({"version": 99}, "must be of version 1"),
            ({"history": {"format": "other"}}, r"is damaged: .*run\.pt"),
            ({"model": {}}, "is damaged: .*Missing key"),
            ({"optimizer": 3}, "is damaged: "),
            ({"probes": []}, "is damaged: zip"),
            ({"step": "x"}, "is damaged: step must be an int, got str"),
            ({"step": 11}, "is damaged: step must be at least 12, got 11"),
            ({"step": 13}, "is damaged: steps left must be at least 0, got -1"),
            (
                {"step": -1, "history": History([]).to_dict()},
                "is damaged: step must be at least 0, got -1",
            ),
            ({"random": [torch.zeros(3)]}, "is damaged: "),
        ):
            torch.save({**good, **damage}, tmp_path / "damaged")
            yield (tmp_path / "damaged").read_bytes(), words
        torch.save([1, 2], tmp_path / "damaged")
        yield (tmp_path / "damaged").read_bytes(), none

    for content, words in contents():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"(?s)checkpoint .*run\.pt {words}"):
            quiet_fit(small_mlp(), checkpoint=path)
        assert path.read_bytes() == content
    assert not (tmp_path / "exploded").exists()


def test_checkpoint_needs_an_optimizer_with_state(tmp_path):
    class Bare:
        def step(self, closure):
            return closure()

    with pytest.raises(
        TypeError, match=r"^optimizer must have state_dict.* asked for, Bare has none$"
    ):
        quiet_fit(small_mlp(), optimizer=Bare(), lr=None, checkpoint=tmp_path / "run.pt")


def test_what_decides_a_run_is_in_its_checkpoint_and_the_machine_is_not(tmp_path):
    """These words are read where a checkpoint "differs in"; a resume may be on another machine."""
    path = tmp_path / "run.pt"
    data = SimpleNamespace(name="toy", train=DATA.train, classes=list("0123456789"))
    fit(small_mlp(), data, lr=0.1, steps=4, probe_steps=[2], checkpoint=path, progress=False)
    configuration = torch.load(path, weights_only=True)["configuration"]
    assert set(configuration) == {
        "optimizer", "optimizer_groups", "lr", "steps", "batch_size", "seed", "loss", "data",
        "parameters", "probe_steps", "initial weights", "training labels",
    }  # fmt: skip
    assert configuration["probe_steps"] == [0, 2, 4]


def test_a_run_resumes_with_another_number_of_threads_and_another_torch(tmp_path, monkeypatch):
    path, threads = tmp_path / "run.pt", torch.get_num_threads()
    with pytest.raises(Killed):
        quiet_fit(small_mlp(), probes=[Countdown(2)], checkpoint=path)
    monkeypatch.setattr(torch, "__version__", "99.0")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    history = quiet_fit(small_mlp(), probes=[Countdown()], checkpoint=path)
    assert history.rows[-1]["step"] == 12


def test_whether_a_checkpoint_can_be_written_is_tried_before_a_run_that_goes_on(
    tmp_path, monkeypatch
):
    tried = []
    monkeypatch.setattr("calibcourse.training.check_writable", tried.append)
    path, other = tmp_path / "run.pt", tmp_path / "diverged.pt"
    quiet_fit(small_mlp(), checkpoint=path)
    assert tried == [path]
    quiet_fit(small_mlp(), checkpoint=path)  # finished: nothing more is written
    assert tried == [path]
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="diverged"):
            quiet_fit(small_mlp(), loss=explode_at(1), checkpoint=other)
    assert tried == [path, other]
