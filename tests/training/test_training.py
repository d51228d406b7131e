"""What a run does, its arguments and schedules, and what it records."""

import os
from itertools import chain

import pytest
import torch
from torch import nn
from training_cases import (
    DATA,
    SHAPE,
    noisy_model,
    norm_probe,
    quiet_fit,
    small_mlp,
    weights,
)

from calibcourse._files import read_json, write_atomically
from calibcourse.history import even_steps
from calibcourse.losses import CrossEntropy, LossTerms
from calibcourse.models import small_cnn
from calibcourse.optimizers import make_optimizer
from calibcourse.training import fit, set_seed


def test_full_batch_steps_are_gradient_descent_written_out():
    model, reference = small_mlp(), small_mlp()
    history = quiet_fit(model, optimizer="gd", batch_size=None, steps=3)
    for _ in range(3):
        loss = nn.functional.cross_entropy(reference(DATA.train.inputs), DATA.train.target)
        gradients = torch.autograd.grad(loss, list(reference.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(reference.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
    # The same float32 operations; the optimizer may fuse multiply and add: a few ulps.
    torch.testing.assert_close(weights(model), weights(reference), rtol=1e-6, atol=1e-7)
    assert history.metadata["lr"] == 0.1 and history.metadata["batch_size"] is None


class RecordingLoss(CrossEntropy):
    """Cross-entropy that notes which samples came in which step."""

    def __init__(self):
        super().__init__()
        self._seen: list[list[int]] = []

    def __call__(self, model, inputs, target) -> LossTerms:
        index = {tuple(x.flatten().tolist()): i for i, x in enumerate(DATA.train.inputs)}
        self._seen.append([index[tuple(x.flatten().tolist())] for x in inputs])
        return super().__call__(model, inputs, target)


def batches_of(seed: int, batch_size: int | None, steps: int = 8) -> list[list[int]]:
    loss = RecordingLoss()
    quiet_fit(small_mlp(), loss=loss, seed=seed, batch_size=batch_size, steps=steps, probes=())
    return loss._seen


def test_every_epoch_is_a_new_permutation_with_its_ragged_last_batch():
    batches = batches_of(seed=3, batch_size=16)
    assert [len(b) for b in batches] == [16, 16, 16, 2] * 2
    first, second = list(chain(*batches[:4])), list(chain(*batches[4:]))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second and first != list(range(50))


def test_batches_depend_on_the_seed_alone():
    assert batches_of(3, 16) == batches_of(3, 16) != batches_of(4, 16)


@pytest.mark.parametrize("batch_size", [None, 50, 1000])
def test_full_batch_keeps_the_order(batch_size):
    assert batches_of(0, batch_size, steps=2) == [list(range(50))] * 2


def test_same_seed_same_history_other_seed_another():
    first = quiet_fit(noisy_model(), seed=5)
    set_seed(99)  # what happened before does not matter
    assert quiet_fit(noisy_model(), seed=5) == first
    assert first.rows != quiet_fit(noisy_model(), seed=6).rows


def test_probes_change_nothing_they_look_at():
    class Meddler:
        """Draws random numbers, flips modes and leaves gradients behind."""

        def __call__(self, model, data):
            assert not any(module.training for module in model.modules())
            torch.rand(7)
            model(data.test.inputs).sum().backward()
            model.train()
            return {"meddled": 1.0}

    watched, alone = noisy_model(), noisy_model()
    quiet_fit(watched, probes=[Meddler()], probe_steps=6)
    quiet_fit(alone, probes=(), probe_steps=2)
    for name, value in alone.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name


def test_caller_keeps_random_state_modes_and_no_gradients():
    model = noisy_model()
    model[2].eval()  # a frozen BatchNorm in a training model
    modes = [module.training for module in model.modules()]
    set_seed(1)
    expected = torch.rand(3)
    set_seed(1)
    quiet_fit(model)
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_model_trains_in_train_mode_whatever_mode_it_came_in():
    came_in_eval = noisy_model().eval()
    assert quiet_fit(came_in_eval) == quiet_fit(noisy_model())
    assert not came_in_eval.training


def test_rows_stand_at_the_scheduled_steps_and_describe_those_parameters():
    seen = {}
    model = small_mlp()
    history = quiet_fit(
        model,
        probes=[lambda m, d: seen.setdefault(len(seen), weights(m)) is None or {"x": 1.0}],
        probe_steps=[3, 7],
    )
    assert history.column("step").tolist() == [0, 3, 7, 12]
    assert torch.equal(seen[0], weights(small_mlp()))
    assert torch.equal(seen[3], weights(model))
    halfway = small_mlp()
    quiet_fit(halfway, steps=3)
    assert torch.equal(seen[1], weights(halfway))


def test_a_run_is_probed_at_forty_even_steps_unless_told_otherwise():
    history = fit(small_mlp(), DATA, lr=0.1, steps=100, progress=False)
    assert history.column("step").tolist() == even_steps(100, 40)


def test_convolutional_network_trains_with_every_name():
    def loss_probe(model, data):
        return {"loss": CrossEntropy()(model, data.train.inputs, data.train.target).total.item()}

    for name in ("gd", "sgd", "adamw", "muon", "sam"):
        options = dict(optimizer=name, lr=0.01, batch_size=None, steps=30, probes=[loss_probe])
        losses = quiet_fit(small_cnn(SHAPE, (4, 8)), **options).column("loss")
        assert losses[-1] < losses[0], name


def two_columns(model, data):
    return {"mean": 0.0, "bias": 1.0}


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"steps": 0}, ValueError, r"^steps must be at least 1"),
        ({"steps": 2.0}, TypeError, r"^steps must be an int"),
        ({"batch_size": 0}, ValueError, r"^batch_size must be at least 1"),
        ({"lr": None}, ValueError, "lr must be given"),
        ({"lr": -1.0}, ValueError, "lr"),
        ({"optimizer": "sdg"}, ValueError, "adamw, .*sgd.*'sdg'"),
        ({"optimizer": "gd"}, ValueError, "batch_size must be None"),
        ({"optimizer": object()}, TypeError, "optimizer"),
        ({"probe_steps": [13]}, ValueError, r"probe_steps .* 0\.\.12, got \[13\]"),
        ({"probe_steps": 1}, ValueError, r"^probe_steps must be at least 2"),
        ({"probes": [norm_probe, norm_probe]}, ValueError, "got twice: norm$"),
        ({"probes": [two_columns, norm_probe, two_columns]}, ValueError, "got twice: bias, mean$"),
        ({"seed": -1}, ValueError, r"^seed must"),
    ],
)
def test_bad_arguments_are_named(changes, error, words):
    with pytest.raises(error, match=words):
        quiet_fit(small_mlp(), **changes)


def test_optimizer_object_brings_its_own_learning_rate():
    model = small_mlp()
    with pytest.raises(ValueError, match="lr must be None"):
        quiet_fit(model, optimizer=make_optimizer("sgd", model, 0.1))
    by_object = quiet_fit(model, optimizer=torch.optim.SGD(model.parameters(), 0.1), lr=None)
    by_name = quiet_fit(small_mlp())
    assert by_object.rows == by_name.rows
    assert by_object.metadata["optimizer"] == "sgd" and by_object.metadata["lr"] == 0.1


def test_huge_files_are_refused_unread(tmp_path):
    path = tmp_path / "huge.json"
    path.write_text("[]" + " " * 100)
    with pytest.raises(ValueError, match="at most 50 bytes"):
        read_json(path, max_bytes=50)


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    write_atomically(path, b"old")

    def full_disk(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match=r"cannot write .*record\.json: No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["record.json"]
    with pytest.raises(OSError, match="cannot write"):
        write_atomically(path / "below" / "a-file", b"x")


def test_a_history_says_what_was_trained_how():
    """Keys that readers of a saved history look up."""

    class Anonymous:
        train, classes = DATA.train, list("0123456789")

    history = fit(
        small_mlp(), Anonymous(), optimizer="sgd", lr=0.1, steps=2, batch_size=16, seed=3,
        progress=False,
    )  # fmt: skip
    metadata = history.metadata
    assert set(metadata) == {
        "optimizer", "optimizer_groups", "lr", "steps", "batch_size", "seed", "loss", "data",
        "n_classes", "parameters", "device", "threads", "torch",
    }  # fmt: skip
    assert (metadata["seed"], metadata["n_classes"], metadata["steps"]) == (3, 10, 2)
    assert (metadata["device"], metadata["torch"]) == ("cpu", torch.__version__)
    assert metadata["data"]["train_samples"] == len(DATA.train)
    assert metadata["data"]["name"] == "Anonymous" and metadata["optimizer_groups"][0]["lr"] == 0.1
    assert "n_classes" not in quiet_fit(small_mlp()).metadata
