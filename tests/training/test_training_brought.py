"""Training with what a researcher brings: a DataLoader, torch's losses and schedulers."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from training_cases import (
    DATA,
    Countdown,
    Killed,
    noisy_model,
    norm_probe,
    quiet_fit,
    small_mlp,
    weights,
)

from calibcourse.batches import LoadedBatches
from calibcourse.losses import CrossEntropy
from calibcourse.optimizers import make_optimizer
from calibcourse.probes import LadderProbe, LogitProbe, SharpnessProbe, calibration_probe
from calibcourse.training import fit


class Augmented(Dataset):
    """Noise on every image, drawn where the batch is made."""

    def __len__(self):
        return len(DATA.train)

    def __getitem__(self, index):
        image = DATA.train.inputs[index]
        return image + 0.1 * torch.randn_like(image), DATA.train.target[index]


class Streamed(IterableDataset):
    def __iter__(self):
        order = torch.randperm(len(DATA.train))
        return ((DATA.train.inputs[i], DATA.train.target[i]) for i in order)


def plain_loader(**options) -> DataLoader:
    options = {"batch_size": 16, "shuffle": True, **options}
    return DataLoader(TensorDataset(DATA.train.inputs, DATA.train.target), **options)


BATCHES = [(DATA.train.inputs[i : i + 10], DATA.train.target[i : i + 10]) for i in (0, 10, 20)]
SOURCES = {
    "shuffled": plain_loader,
    "augmented": lambda: DataLoader(Augmented(), batch_size=16, shuffle=True),
    "two workers": lambda: DataLoader(Augmented(), batch_size=16, shuffle=True, num_workers=2),
    "streamed": lambda: DataLoader(Streamed(), batch_size=16),
    "list": lambda: BATCHES,
}
SCHEDULERS = {
    "step": lambda o: lr_scheduler.StepLR(o, 3, 0.5),
    "milestones": lambda o: lr_scheduler.MultiStepLR(o, [2, 7], 0.3),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 12),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.2, 12, cycle_momentum=False),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "warm-up": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, 1.0, 4), lr_scheduler.ExponentialLR(o, 0.9)], [4]
    ),
}


def resumed(tmp_path, run, patience: int):
    """The model of a run that was killed at a probe and started again."""
    path = tmp_path / "run.pt"
    with pytest.raises(Killed):
        run(patience, path)
    assert path.exists()
    return run(10**9, path)


# Processes take long to start: for them one interruption, within an epoch.
INTERRUPTED = [
    (name, at) for name in SOURCES for at in (1, 2, 3) if name != "two workers" or at > 2
]


@pytest.mark.parametrize("source, patience", INTERRUPTED)
def test_a_run_on_loaded_batches_resumes_to_the_last_bit(tmp_path, source, patience):
    def run(patience, checkpoint):
        model = noisy_model()  # whose dropout draws from the same generator as the loaders
        options = dict(lr=0.05, steps=9, probes=[Countdown(patience)], probe_steps=4)
        history = fit(
            model, SOURCES[source](), checkpoint=checkpoint, progress=False, seed=3, **options
        )
        return weights(model), history

    torch.manual_seed(1)  # the caller's chance decides nothing
    expected, history = run(10**9, None)
    torch.manual_seed(2)
    again, resumed_history = resumed(tmp_path, run, patience)
    assert torch.equal(again, expected)
    assert resumed_history.rows == history.rows


def test_batches_that_do_not_come_again_are_refused(tmp_path):
    generator = torch.Generator().manual_seed(0)  # goes on where the killed run left it

    def run(patience, checkpoint):
        loader = plain_loader(generator=generator)
        probes = [Countdown(patience)]
        options = dict(lr=0.05, steps=9, probes=probes, probe_steps=4, checkpoint=checkpoint)
        return fit(noisy_model(), loader, progress=False, **options)

    with pytest.raises(ValueError) as refused:
        resumed(tmp_path, run, 2)
    assert str(refused.value) == (
        "data must yield the batches of the interrupted run again, and yields others: let their "
        "order and augmentation draw from torch's global random state alone, which fit seeds (a "
        "DataLoader without generator=), or start afresh with another checkpoint path"
    )


def test_a_place_among_batches_that_cannot_be_is_refused_by_name():
    batches = LoadedBatches(BATCHES, 0, "cpu")
    with pytest.raises(ValueError, match=r"^epoch must be at least -1, got -2"):
        batches.load_state_dict({"epoch": -2, "taken": 0, "last": None})
    with pytest.raises(ValueError, match=r"^taken must be at least 0, got -1"):
        batches.load_state_dict({"epoch": 0, "taken": -1, "last": None})


def test_a_source_that_runs_dry_after_an_epoch_is_refused():
    class RunsDry:
        passes = 0

        def __iter__(self):
            self.passes += 1
            return iter(BATCHES if self.passes < 2 else [])

    with pytest.raises(ValueError, match="data must yield batches in epoch 1, got none"):
        fit(small_mlp(), RunsDry(), lr=0.1, steps=9, progress=False)


def test_every_epoch_of_a_loader_shows_every_sample_once_in_a_new_order():
    seen = []

    def loss(model, inputs, target):
        seen.append(inputs)
        return CrossEntropy()(model, inputs, target)

    fit(small_mlp(), plain_loader(), loss, lr=0.1, steps=8, progress=False)
    epochs = [torch.cat(seen[:4]), torch.cat(seen[4:])]
    assert [len(batch) for batch in seen] == [16, 16, 16, 2] * 2
    assert not torch.equal(*epochs)
    sums = [epoch.double().sum(0) for epoch in epochs]
    assert torch.allclose(sums[0], sums[1], rtol=1e-12)  # another order of float64 additions


def test_a_list_of_one_batch_is_gradient_descent_on_it():
    model, twin = small_mlp(), small_mlp()
    fit(model, [(DATA.train.inputs, DATA.train.target)], lr=0.1, steps=4, progress=False)
    fit(twin, DATA, lr=0.1, steps=4, progress=False)
    assert torch.equal(weights(model), weights(twin))


def test_a_loader_as_the_training_part_leaves_the_other_parts_to_the_probes():
    data = SimpleNamespace(name="mine", train=plain_loader(), test=DATA.test)
    probes = [LogitProbe(splits=("test",)), norm_probe]
    history = fit(small_mlp(), data, lr=0.1, steps=2, probes=probes, progress=False)
    assert "test_ece" in history.rows[0]
    assert history.metadata["data"] == {"name": "mine", "train_samples": 50}


@pytest.mark.parametrize("probe", [calibration_probe, SharpnessProbe(), LadderProbe()])
def test_a_probe_that_needs_images_in_memory_says_so(probe):
    with pytest.raises(TypeError, match="data must have a part 'train' with inputs and target"):
        fit(small_mlp(), plain_loader(), lr=0.1, steps=1, probes=[probe], progress=False)


@pytest.mark.parametrize(
    "data, error, message",
    [
        (iter(BATCHES), TypeError, "in every pass anew, as a DataLoader.*got list_iterator"),
        (7, TypeError, "data must be a Dataset.*got int"),
        ([], ValueError, "must yield batches in epoch 0, got none"),
        ([{"x": BATCHES[0][0]}], TypeError, r"or yield pairs.*yields dict; let a collate_fn"),
        ([(1, 2)], TypeError, "or yield pairs"),
    ],
)
def test_what_is_no_source_of_batches_is_refused(data, error, message):
    with pytest.raises(error, match=message):
        fit(small_mlp(), data, lr=0.1, steps=1, progress=False)


def test_settings_that_a_loader_has_itself_are_refused():
    def run(**options):
        fit(small_mlp(), plain_loader(), **{"lr": 0.1, "steps": 1, "progress": False, **options})

    with pytest.raises(ValueError, match="batch_size must be None where data yields batches"):
        run(batch_size=16)
    with pytest.raises(ValueError, match="with batches it is 'sgd'"):
        run(optimizer="gd")
    with pytest.raises(ValueError, match="inputs must be given to 'bulk_sgd'"):
        run(optimizer="bulk_sgd")


@pytest.mark.parametrize(
    "criterion, ours",
    [
        (nn.CrossEntropyLoss(), CrossEntropy()),
        (nn.CrossEntropyLoss(label_smoothing=0.2), CrossEntropy(label_smoothing=0.2)),
        (F.cross_entropy, CrossEntropy()),
        (lambda logits, target: F.cross_entropy(logits, target), CrossEntropy()),
    ],
)
def test_a_loss_of_logits_is_called_with_logits(criterion, ours):
    model, twin = noisy_model(), noisy_model()
    quiet_fit(model, loss=criterion)
    quiet_fit(twin, loss=ours)
    assert torch.equal(weights(model), weights(twin))


def test_weights_and_ignored_labels_of_torchs_loss_count():
    criterion = nn.CrossEntropyLoss(weight=torch.arange(1.0, 11), ignore_index=3)
    model, twin = small_mlp(), small_mlp()
    history = quiet_fit(model, loss=criterion, steps=1, batch_size=None)
    twin_loss = criterion(twin(DATA.train.inputs), DATA.train.target)
    twin_loss.backward()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter -= 0.1 * parameter.grad
    assert torch.allclose(weights(model), weights(twin), rtol=1e-6)  # float32 rounding
    described = history.metadata["loss"]
    assert described["name"] == "CrossEntropyLoss" and described["ignore_index"] == 3
    assert described["weight"] == list(range(1, 11))


def test_soft_targets_reach_torchs_loss():
    soft = [(DATA.train.inputs, torch.full((50, 10), 0.1))]
    model = small_mlp()
    fit(model, soft, nn.CrossEntropyLoss(), lr=0.5, steps=20, progress=False)
    confidence = model(DATA.train.inputs).softmax(1).amax(1)
    assert confidence.max() < 0.2  # towards the uniform distribution it was given


def test_a_loss_without_a_mean_or_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"must be a scalar.*got \(16,\)"):
        quiet_fit(small_mlp(), loss=nn.CrossEntropyLoss(reduction="none"))
    with pytest.raises(TypeError, match=r"loss must be called as loss\(model, inputs, target\) or"):
        quiet_fit(small_mlp(), loss="cross_entropy")


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon", "sam"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_scheduled_run_resumes_to_the_last_bit(tmp_path, scheduler, name):
    def run(patience, checkpoint):
        model, rates = noisy_model(), []
        optimizer = make_optimizer(name, model, 0.05)
        made = SCHEDULERS[scheduler](optimizer)
        quiet_fit(
            model,
            optimizer=optimizer,
            lr=None,
            scheduler=made,
            probes=[Countdown(patience)],
            checkpoint=checkpoint,
        )
        rates += [group["lr"] for group in optimizer.param_groups]
        return weights(model), rates

    expected, rates = run(10**9, None)
    again, resumed_rates = resumed(tmp_path, run, 2)
    assert torch.equal(again, expected) and rates == resumed_rates


def test_the_rate_is_the_schedulers_from_the_first_update_on():
    rates = []

    def loss(model, inputs, target):
        rates.append(optimizers[0].param_groups[0]["lr"])
        return CrossEntropy()(model, inputs, target)

    optimizers = []

    def halved(optimizer):
        optimizers.append(optimizer)
        return lr_scheduler.StepLR(optimizer, 2, 0.5)

    history = quiet_fit(small_mlp(), loss=loss, scheduler=halved, lr=0.4, steps=5)
    assert rates == pytest.approx([0.4, 0.4, 0.2, 0.2, 0.1])
    assert history.metadata["scheduler"]["name"] == "StepLR" and history.metadata["lr"] == 0.4


def test_another_scheduler_is_another_run(tmp_path):
    path = tmp_path / "run.pt"
    quiet_fit(small_mlp(), scheduler=SCHEDULERS["step"], checkpoint=path)
    with pytest.raises(ValueError, match="differs in scheduler"):
        quiet_fit(small_mlp(), scheduler=SCHEDULERS["cosine"], checkpoint=path)
    with pytest.raises(ValueError, match=r"another configuration.*scheduler"):
        quiet_fit(small_mlp(), checkpoint=path)


def test_schedulers_that_cannot_be_stepped_here_are_refused():
    other = torch.optim.SGD(small_mlp().parameters(), 0.1)
    with pytest.raises(ValueError, match="belong to the optimizer of this run"):
        quiet_fit(small_mlp(), scheduler=lr_scheduler.StepLR(other, 3))
    with pytest.raises(TypeError, match="ReduceLROnPlateau asks for"):
        quiet_fit(small_mlp(), scheduler=lr_scheduler.ReduceLROnPlateau)
    with pytest.raises(TypeError, match=r"one of torch.optim.lr_scheduler.*got float"):
        quiet_fit(small_mlp(), scheduler=0.5)


def test_a_batch_of_one_sample_that_batch_norm_cannot_take_is_named_before_training():
    calls = []

    def loss(model, inputs, target):
        calls.append(1)
        return CrossEntropy()(model, inputs, target)

    message = (
        "batch_size must leave no batch of one sample, which has no variance for BatchNorm1d in "
        "train mode; the last batch of an epoch is one here: take another batch_size, or "
        "drop_last=True in a DataLoader"
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        quiet_fit(noisy_model(), loss=loss, batch_size=7)  # 50 = 7 · 7 + 1
    with pytest.raises(ValueError, match=f"^{message}$"):
        fit(noisy_model(), plain_loader(batch_size=7), loss, lr=0.1, steps=9, progress=False)
    assert not calls
    for loader in (plain_loader(batch_size=7, drop_last=True), plain_loader(batch_size=8)):
        fit(noisy_model(), loader, lr=0.1, steps=9, progress=False)


def test_one_image_is_enough_where_batch_norm_averages_over_its_pixels():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 10))
    norm, before = model[1], torch.get_rng_state()
    fit(model, DATA, lr=0.1, steps=8, batch_size=7, progress=False)
    assert norm.num_batches_tracked == 8  # the trial counted for nothing
    assert torch.equal(torch.get_rng_state(), before)


def test_what_a_loader_yields_is_checked_in_every_step():
    good, bad = (DATA.train.inputs, DATA.train.target), DATA.train.inputs.clone()
    bad[3] = torch.nan
    with pytest.raises(ValueError, match="inputs must be finite, got 64 NaN"):
        fit(small_mlp(), [good, (bad, good[1])], lr=0.1, steps=2, progress=False)
    with pytest.raises(ValueError, match=r"target must lie in 0\.\.9"):
        fit(small_mlp(), [good, (good[0], good[1] + 9)], lr=0.1, steps=2, progress=False)
