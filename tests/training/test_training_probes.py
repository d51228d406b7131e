"""Probes look on and change nothing; a run that diverges says when."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from tqdm.auto import tqdm
from training_cases import (
    DATA,
    Countdown,
    Data,
    Killed,
    Split,
    explode_at,
    quiet_fit,
    small_mlp,
    weights,
)

from calibcourse import probes
from calibcourse.losses import CalMO, CrossEntropy, FocalLoss, LossTerms, MeanSquaredError
from calibcourse.probes import LogitProbe, SharpnessProbe
from calibcourse.training import fit


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

    with pytest.warns(RuntimeWarning, match=r"at step 0;.*parameters of step 0\. A sm") as warned:
        history = quiet_fit(small_mlp(), probes=[overflow, LogitProbe(splits=("test",))])
    assert history.diverged_at == 0 and len(history) == 0
    # Where `fit` was called, inside `quiet_fit`; under the mutation tool, its wrapper of `fit`.
    assert Path(warned[0].filename).name in ("training_cases.py", "trampoline.py")


def test_nan_loss_stops_at_once_and_goes_back_to_the_last_probe(tmp_path):
    model, good = small_mlp(), small_mlp()
    with pytest.warns(RuntimeWarning, match="NaN or infinity at step 8.*step 6.*lr than 0.1"):
        history = quiet_fit(model, loss=explode_at(8), probe_steps=[3, 6, 9])
    assert history.diverged_at == 8
    assert history.column("step").tolist() == [0, 3, 6]
    quiet_fit(good, steps=6)
    assert torch.equal(weights(model), weights(good))
    assert all(parameter.grad is None for parameter in model.parameters())


class Jump(torch.optim.SGD):
    """Goes far away in its second step: the weights stay finite, the logits do not."""

    def step(self, closure):
        loss = super().step(closure)
        self.seen = getattr(self, "seen", 0) + 1
        if self.seen == 2:
            for parameter in self.param_groups[0]["params"]:
                parameter.data.fill_(1e38)
        return loss


@pytest.mark.parametrize("loss", [CrossEntropy(), CalMO(), FocalLoss(), MeanSquaredError()])
def test_infinite_logits_of_a_training_step_are_a_divergence(loss):
    model = small_mlp()
    with pytest.warns(RuntimeWarning, match="diverged"):
        history = quiet_fit(
            model, loss=loss, optimizer=Jump(model.parameters(), 0.1), lr=None, probe_steps=[0, 9]
        )
    assert history.diverged_at == 3 and torch.equal(weights(model), weights(small_mlp()))


@pytest.mark.parametrize("place", [0, -1])  # in the first batch, or not
@pytest.mark.parametrize("batch_size", [None, 10])
@pytest.mark.parametrize(
    ("inputs", "label", "message"),
    [(math.nan, 0, "inputs must be finite"), (math.inf, 0, "inputs"), (0.5, 10, "target"),
     (0.5, -1, "target")],
)  # fmt: skip
def test_bad_samples_are_named_before_the_first_update(place, batch_size, inputs, label, message):
    train = Split(DATA.train.inputs.clone(), DATA.train.target.clone())
    train.inputs[place, 0, 3, 3], train.target[place] = inputs, label
    model = small_mlp()
    with pytest.raises(ValueError, match=message):
        quiet_fit(model, Data("bad", train, DATA.test), batch_size=batch_size)
    assert torch.equal(weights(model), weights(small_mlp()))


def test_inputs_beyond_the_attacks_range_are_named():
    train = Split(DATA.train.inputs.clone(), DATA.train.target)
    train.inputs[-1, 0, 0, 0] = 1.5
    with pytest.raises(ValueError, match="clip"):
        quiet_fit(small_mlp(), Data("bad", train, DATA.test), loss=CalMO(), batch_size=10)


def test_a_loss_that_changes_its_batch_is_checked_on_what_it_made():
    def loss(model, inputs, target):
        return CrossEntropy()(model, inputs, target + 1)

    with pytest.raises(ValueError, match=r"target must lie in 0\.\.9"):
        quiet_fit(small_mlp(), loss=loss)


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


@pytest.fixture
def bars(monkeypatch) -> list[SimpleNamespace]:
    """What becomes of every bar: its settings, its end, and what it showed."""
    made = []

    class Bar(tqdm):
        def __init__(self, **settings):
            super().__init__(**settings)
            self.record = SimpleNamespace(**settings, shown=[])
            made.append(self.record)

        def set_postfix(self, values, refresh):
            self.record.shown.append(values)
            assert refresh is False

        def close(self):
            self.record.end = self.n
            super().close()

    monkeypatch.setattr("calibcourse.training.tqdm", Bar)
    return made


def live(model, data):
    return {"train_loss": 1.23456, "sharpness": 5.0, "of its own": 2.0}


def test_the_bar_shows_what_was_last_probed(bars):
    options = dict(lr=0.1, steps=4, probe_steps=[2])
    fit(small_mlp(), DATA, **options, probes=[live])
    fit(small_mlp(), DATA, **options)
    fit(small_mlp(), DATA, **options, progress=False)
    first, bare, _ = bars
    assert (first.total, first.initial, first.desc, first.end) == (4, 0, "training", 4)
    assert first.shown == [{"loss": "1.23", "λ": "5"}] * 3 and bare.shown == [{}] * 3
    assert [bar.disable for bar in bars] == [False, False, True]


def test_the_bar_of_a_resumed_run_begins_where_it_was_left(bars, tmp_path):
    options = dict(lr=0.1, steps=8, probe_steps=[4], checkpoint=tmp_path / "run.pt")
    with pytest.raises(Killed):
        fit(small_mlp(), DATA, **options, probes=[live, Countdown(2)])
    fit(small_mlp(), DATA, **options, probes=[live, Countdown()])
    assert [(bar.total, bar.initial, bar.end) for bar in bars] == [(8, 0, 7), (8, 4, 8)]
    assert bars[1].shown == [{"loss": "1.23", "λ": "5"}] * 2
