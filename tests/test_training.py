"""The training loop: what a run depends on, what it leaves alone, and how it survives."""

import json
import math
import os
import pickle
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from calibcourse import probes
from calibcourse._files import read_json, write_atomically
from calibcourse.history import History, even_steps, log_steps
from calibcourse.losses import CrossEntropy, LossTerms
from calibcourse.models import mlp, small_cnn
from calibcourse.optimizers import make_optimizer
from calibcourse.probes import LogitProbe, SharpnessProbe
from calibcourse.training import fit, set_seed

SHAPE = (1, 8, 8)


@dataclass(frozen=True)
class Split:
    inputs: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class Data:
    name: str
    train: Split
    test: Split

    def to(self, device):
        return self


def make_split(count: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(count, *SHAPE, generator=generator)
    return Split(inputs, torch.randint(0, 10, (count,), generator=generator))


DATA = Data("toy", make_split(50, 0), make_split(30, 1))


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def norm_probe(model, data):
    return {"norm": float(weights(model).double().norm())}


def small_mlp(seed: int = 0) -> nn.Module:
    return mlp(SHAPE, (12,), seed=seed)


def noisy_model() -> nn.Module:
    """BatchNorm buffers and dropout: the parts of a state that are easily forgotten."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 12),
            nn.BatchNorm1d(12),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(12, 10),
        )


def quiet_fit(model, **changes) -> History:
    options = dict(lr=0.1, steps=12, batch_size=16, probes=[norm_probe], probe_steps=5)
    return fit(model, DATA, **{**options, **changes}, progress=False)


# --- what a run does


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


def test_convolutional_network_trains_with_every_name():
    def loss_probe(model, data):
        return {"loss": CrossEntropy()(model, data.train.inputs, data.train.target).total.item()}

    for name in ("gd", "sgd", "adamw", "muon", "sam"):
        options = dict(optimizer=name, lr=0.01, batch_size=None, steps=30, probes=[loss_probe])
        losses = quiet_fit(small_cnn(SHAPE, (4, 8)), **options).column("loss")
        assert losses[-1] < losses[0], name


# --- arguments


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"steps": 0}, ValueError, "steps"),
        ({"steps": 2.0}, TypeError, "steps"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"lr": None}, ValueError, "lr must be given"),
        ({"lr": -1.0}, ValueError, "lr"),
        ({"optimizer": "sdg"}, ValueError, "adamw, .*sgd.*'sdg'"),
        ({"optimizer": "gd"}, ValueError, "batch_size must be None"),
        ({"optimizer": object()}, TypeError, "optimizer"),
        ({"probe_steps": [13]}, ValueError, r"probe_steps .* 0\.\.12, got \[13\]"),
        ({"probe_steps": 1}, ValueError, "probe_steps"),
        ({"probes": [norm_probe, norm_probe]}, ValueError, "got twice: norm"),
        ({"seed": -1}, ValueError, "seed"),
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


# --- schedules


@given(steps=st.integers(1, 10**6), n=st.integers(2, 80))
@settings(deadline=None, max_examples=60)
def test_schedules_increase_from_start_to_end_with_at_most_n_steps(steps, n):
    for chosen in (even_steps(steps, n), log_steps(steps, n)):
        assert chosen[0] == 0 and chosen == sorted(set(chosen))
        assert len(chosen) <= n and chosen[-1] <= steps
    assert even_steps(steps, n)[-1] == steps
    assert n == 2 or log_steps(steps, n)[-1] == steps


def test_even_steps_are_all_steps_where_there_are_fewer():
    assert even_steps(3, 40) == [0, 1, 2, 3]


# --- probes


def test_table_of_columns_is_what_the_probes_write():
    table = probes.__doc__
    history = quiet_fit(
        small_mlp(),
        probes=[LogitProbe(splits=("train", "test")), SharpnessProbe(batch_size=20)],
        probe_steps=2,
    )
    assert len(history.columns) == 1 + 2 * 9 + 2
    for name in history.columns:
        split, _, rest = name.partition("_")
        assert ("SPLIT_" + rest if split in ("train", "test") else name) in table, name


def test_probe_numbers_are_those_of_their_definitions():
    model = small_mlp().double().eval()
    data = Data("toy", double(DATA.train), double(DATA.test))
    row = LogitProbe(splits=("train", "test"))(model, data)
    row |= SharpnessProbe(samples=40, batch_size=15)(model, data)
    logits, target = model(data.test.inputs).detach(), data.test.target
    probability = logits.softmax(1)
    own = logits.gather(1, target[:, None])[:, 0]
    rival = logits.scatter(1, target[:, None], -math.inf).amax(1)
    expected = {
        "test_loss": -probability.log()[range(30), target].mean(),
        "test_accuracy": (logits.argmax(1) == target).double().mean(),
        "test_confidence": probability.amax(1).mean(),
        "test_margin_q05": np.quantile(own - rival, 0.05),
        "test_margin_q50": np.quantile(own - rival, 0.5),
        "test_margin_q95": np.quantile(own - rival, 0.95),
        "test_log_q": (rival - own).exp().mean().log(),
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(float(value), rel=1e-10), name

    names, values = zip(*model.named_parameters(), strict=True)
    flat = torch.cat([v.detach().flatten() for v in values])

    def loss_of(batch):
        def loss(vector):
            parts = vector.split([v.numel() for v in values])
            named = {n: p.view_as(v) for n, p, v in zip(names, parts, values, strict=True)}
            logits = torch.func.functional_call(model, named, (data.train.inputs[batch],))
            return nn.functional.cross_entropy(logits, data.train.target[batch])

        return loss

    quotients = []
    for batch in (slice(0, 15), slice(15, 30), slice(30, 40)):
        gradient = torch.func.grad(loss_of(batch))(flat)
        product = torch.func.jvp(torch.func.grad(loss_of(batch)), (flat,), (gradient,))[1]
        quotients.append(float(gradient @ product / (gradient @ gradient)))
    assert row["batch_sharpness"] == pytest.approx(np.mean(quotients), rel=1e-8)


def double(split: Split) -> Split:
    return Split(split.inputs.double(), split.target)


def test_unfit_probes_are_named():
    with pytest.raises(ValueError, match="splits must be one of test, train, validation"):
        LogitProbe(splits=("dev",))
    with pytest.raises(ValueError, match="samples"):
        SharpnessProbe(samples=0)
    with pytest.raises(TypeError, match="batch_size"):
        SharpnessProbe(batch_size=None)


def test_infinite_logits_count_as_divergence():
    def overflow(model, data):
        for parameter in model.parameters():  # finite weights, logits beyond float32
            parameter.data.fill_(1e38)
        return {}

    with pytest.warns(RuntimeWarning, match="diverged"):
        history = quiet_fit(small_mlp(), probes=[overflow, LogitProbe(splits=("test",))])
    assert history.diverged_at == 0 and len(history) == 0


# --- divergence


def explode_at(step: int):
    """A loss that is NaN from the given update (1-based) on."""
    calls = [0]

    def loss(model, inputs, target):
        calls[0] += 1
        terms = CrossEntropy()(model, inputs, target)
        return replace(terms, total=terms.total * math.nan) if calls[0] >= step else terms

    return loss


def test_nan_loss_stops_at_once_and_goes_back_to_the_last_probe(tmp_path):
    model, good = small_mlp(), small_mlp()
    with pytest.warns(RuntimeWarning, match="NaN or infinity at step 8.*step 6.*lr than 0.1"):
        history = quiet_fit(model, loss=explode_at(8), probe_steps=[3, 6, 9])
    assert history.diverged_at == 8
    assert history.column("step").tolist() == [0, 3, 6]
    quiet_fit(good, steps=6)
    assert torch.equal(weights(model), weights(good))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_last_update_that_breaks_the_weights_is_seen():
    class Breaker(torch.optim.SGD):
        def step(self, closure):
            loss = super().step(closure)
            self.param_groups[0]["params"][0].data[0] = math.inf
            return loss

    model = small_mlp()
    with pytest.warns(RuntimeWarning, match="diverged"):
        history = quiet_fit(model, optimizer=Breaker(model.parameters(), 0.1), lr=None, steps=1)
    assert history.diverged_at == 1 and torch.equal(weights(model), weights(small_mlp()))


class CountingLoss(CrossEntropy):
    """Cross-entropy that counts its calls and may end in NaN or in an exception at one of them."""

    def __init__(self, nan_at: int = 10**9, killed_at: int = 10**9):
        super().__init__()
        self._calls, self._nan_at, self._killed_at = 0, nan_at, killed_at

    def __call__(self, model, inputs, target) -> LossTerms:
        self._calls += 1
        if self._calls == self._killed_at:
            raise Killed
        terms = super().__call__(model, inputs, target)
        factor = math.nan if self._calls == self._nan_at else 1.0
        return replace(terms, total=factor * terms.total)


def test_diverged_run_is_not_run_again(tmp_path):
    path = tmp_path / "run.pt"
    options = dict(probe_steps=[3, 6, 9], checkpoint=path)
    with pytest.warns(RuntimeWarning):
        first = quiet_fit(small_mlp(), loss=CountingLoss(nan_at=8), **options)
    model, loss = small_mlp(), CountingLoss()
    with pytest.warns(RuntimeWarning, match="step 8"):
        again = quiet_fit(model, loss=loss, **options)
    assert loss._calls == 0
    assert again == first and again.diverged_at == 8
    good = small_mlp()
    quiet_fit(good, steps=6)
    assert torch.equal(weights(model), weights(good))


def test_a_resumed_run_that_diverges_goes_back_to_its_last_probe(tmp_path):
    options = dict(probe_steps=[3, 6, 9], checkpoint=tmp_path / "run.pt")
    with pytest.raises(Killed):
        quiet_fit(small_mlp(), loss=CountingLoss(killed_at=8), **options)
    model, good, loss = small_mlp(), small_mlp(), CountingLoss(nan_at=2)
    with pytest.warns(RuntimeWarning, match="at step 8.*parameters of step 6"):
        history = quiet_fit(model, loss=loss, **options)
    assert loss._calls == 2  # the updates 7 and 8: it went on from the checkpoint of step 6
    assert history.diverged_at == 8 and history.column("step").tolist() == [0, 3, 6]
    quiet_fit(good, steps=6)
    assert torch.equal(weights(model), weights(good))


# --- checkpoints


class Killed(Exception):
    pass


class Countdown:
    """A probe with a state of its own, which kills the run when its patience is over."""

    def __init__(self, patience: int = 10**9):
        self.patience, self.total = patience, 0.0

    def __call__(self, model, data):
        self.patience -= 1
        if self.patience < 0:
            raise Killed
        self.total += float(weights(model).double().sum())
        return {"total": self.total}

    def state_dict(self):
        return {"total": self.total}

    def load_state_dict(self, state):
        self.total = state["total"]


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
    with pytest.raises(ValueError, match=f"another configuration .*{named}"):
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
        yield b""
        yield whole[: len(whole) // 2]
        yield pickle.dumps(Bomb(), protocol=2)
        for damage in (
            {"version": 99},
            {"history": {"format": "other"}},
            {"model": {}},
            {"optimizer": 3},
            {"probes": []},
            {"step": "x"},
            {"step": 13},
            {"random": [torch.zeros(3)]},
        ):
            torch.save({**good, **damage}, tmp_path / "damaged")
            yield (tmp_path / "damaged").read_bytes()
        torch.save([1, 2], tmp_path / "damaged")
        yield (tmp_path / "damaged").read_bytes()

    for content in contents():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"checkpoint .*run\.pt"):
            quiet_fit(small_mlp(), checkpoint=path)
        assert path.read_bytes() == content
    assert not (tmp_path / "exploded").exists()


def test_checkpoint_needs_an_optimizer_with_state(tmp_path):
    class Bare:
        def step(self, closure):
            return closure()

    with pytest.raises(TypeError, match="optimizer must have state_dict"):
        quiet_fit(small_mlp(), optimizer=Bare(), lr=None, checkpoint=tmp_path / "run.pt")


# --- the record

numbers = st.floats(allow_infinity=False, width=64)
histories = st.builds(
    lambda values, diverged: History(
        [{"step": 3 * i, "a": value} for i, value in enumerate(values)],
        {"seed": 0, "lr": 0.1},
        diverged,
    ),
    st.lists(numbers, max_size=6),
    st.none() | st.integers(0, 100),
)


@given(history=histories)
@settings(deadline=None, max_examples=60)
def test_saved_history_comes_back_bit_for_bit(tmp_path_factory, history):
    path = tmp_path_factory.getbasetemp() / "history.json"
    history.save(path)
    loaded = History.load(path)
    assert loaded.metadata == history.metadata and loaded.diverged_at == history.diverged_at
    assert len(loaded) == len(history)
    if len(history):
        np.testing.assert_array_equal(loaded.column("a"), history.column("a"))


def test_a_column_of_older_records_has_its_name_of_today():
    record = History([{"step": 0, "test_log_misconfidence": -1.0}]).to_dict()
    assert History.from_dict(record).columns == ("step", "test_log_error_probability")


def rows_with(**changes):
    return {**History([{"step": 0, "a": 1.0}]).to_dict(), **changes}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "JSON"),
        ("[" * 100_000, "JSON"),
        ("{", "JSON"),
        ("[1]", "object"),
        ('{"rows": NaN}', "JSON"),
        (json.dumps(rows_with(version=2)), "version 1, got .*version 2"),
        (json.dumps(rows_with(format="other")), "format 'other'"),
        (json.dumps(rows_with(rows={})), "rows"),
        (json.dumps(rows_with(rows=[{"a": 1.0}])), "row 0"),
        (json.dumps(rows_with(rows=[3])), "row 0"),
        (json.dumps(rows_with(rows=[{"step": 1}, {"step": 1}])), "row 1"),
        (json.dumps(rows_with(rows=[{"step": True}])), "row 0"),
        (json.dumps(rows_with(rows=[{"step": 0, "a": "x"}])), "'a'"),
        (json.dumps(rows_with(rows=[{"step": 0, "a": 10**400}])), "'a'"),
        (json.dumps(rows_with(rows=[{"step": 0, "a": [1]}])), "'a'"),
        (json.dumps(rows_with(metadata=[])), "metadata"),
        (json.dumps(rows_with(diverged_at="now")), "diverged_at"),
        (b"\xff\xfe", "JSON"),
    ],
)
def test_hostile_history_files_are_refused_by_name(tmp_path, content, words):
    path = tmp_path / "theirs.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"(?s)theirs\.json.*{words}"):
        History.load(path)


def test_huge_files_are_refused_unread(tmp_path):
    path = tmp_path / "huge.json"
    path.write_text("[]" + " " * 100)
    with pytest.raises(ValueError, match="at most 50 bytes"):
        read_json(path, max_bytes=50)


def test_columns_tell_what_is_missing():
    history = History([{"step": 0, "a": 1.0}, {"step": 2, "a": 0.5, "b": 3.0}])
    assert history.columns == ("step", "a", "b")
    np.testing.assert_array_equal(history.column("b"), [math.nan, 3.0])
    assert history.column("step").dtype == np.int64
    with pytest.raises(ValueError, match="a, b, step; got 'c'"):
        history.column("c")


def test_best_row_is_the_earliest_extremum_and_skips_what_is_missing():
    values = [math.nan, 2.0, 1.0, 1.0, 3.0]
    history = History([{"step": i, "v": v} for i, v in enumerate(values)])
    assert history.best("v")["step"] == 2
    assert history.best("v", largest=True)["step"] == 4
    with pytest.raises(ValueError, match="'w' has none"):
        History([{"step": 0, "w": math.nan}]).best("w")


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
