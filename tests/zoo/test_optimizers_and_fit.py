"""Optimizers that are copied, scheduled or interrupted, and `fit` with what does not fit."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import calibcourse as cc

INPUTS = torch.rand(12, 4, generator=torch.Generator().manual_seed(0))
TARGET = torch.arange(12) % 3
OPTIONS = {
    "gd": {},
    "sgd": {"momentum": 0.9},
    "adamw": {},
    "muon": {},
    "sam": {"momentum": 0.9},
    "bulk_sgd": {"inputs": INPUTS, "refresh": 2},
}


def network(*extra: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), *extra, nn.Tanh(), nn.Linear(5, 3))


def train(model: nn.Module, optimizer, steps: int = 3) -> Tensor:
    def closure() -> Tensor:
        model.zero_grad()
        loss = F.cross_entropy(model(INPUTS), TARGET)
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))]
)
@pytest.mark.parametrize("name", OPTIONS)
def test_a_copy_goes_on_as_the_original_does(name: str, duplicate):
    model = network()
    optimizer = cc.make_optimizer(name, model, 0.1, **OPTIONS[name])
    train(model, optimizer)
    twin, twins_optimizer = duplicate((model, optimizer))
    moved = train(twin, twins_optimizer)
    assert not torch.equal(moved, nn.utils.parameters_to_vector(model.parameters()))
    assert torch.equal(train(model, optimizer), moved)


@pytest.mark.parametrize("name", OPTIONS)
def test_schedulers_reach_the_step(name: str):
    model = network()
    optimizer = cc.make_optimizer(name, model, 0.1, **OPTIONS[name])
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9, cycle_momentum=False)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
        [0.004] * len(optimizer.param_groups)  # its start: a 25th of the highest
    )
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    if name != "muon":  # whose biases have a rate of their own
        before = nn.utils.parameters_to_vector(model.parameters()).detach()
        assert torch.equal(train(model, optimizer), before)


def test_sam_gives_the_weights_back_when_it_is_interrupted():
    model = network()
    optimizer = cc.make_optimizer("sam", model, 0.1)
    before, calls = nn.utils.parameters_to_vector(model.parameters()).detach(), []

    def closure() -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        loss = F.cross_entropy(model(INPUTS), TARGET)
        loss.backward()
        return loss

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert torch.equal(nn.utils.parameters_to_vector(model.parameters()), before)


def test_sams_second_pass_leaves_the_statistics_of_instance_norm_alone():
    norm = nn.InstanceNorm1d(2, track_running_stats=True, momentum=0.5)
    model = nn.Sequential(nn.Unflatten(1, (2, 2)), norm, nn.Flatten(), nn.Linear(4, 3))
    train(model, cc.make_optimizer("sam", model, 0.1), steps=1)
    expected = 0.5 * INPUTS.unflatten(1, (2, 2)).mean((0, 2))  # one pass
    assert torch.allclose(norm.running_mean, expected) and norm.momentum == 0.5


@pytest.mark.parametrize("extra", [nn.BatchNorm1d(5), nn.Dropout(0.3)])
def test_bulk_sgd_measures_in_eval_mode(extra: nn.Module):
    model = network(extra).train()
    train(model, cc.make_optimizer("bulk_sgd", model, 0.1, inputs=INPUTS))
    assert extra.training


def test_bulk_sgd_with_parameters_unused_or_frozen_meanwhile():
    model = network()
    model.register_parameter("spare", nn.Parameter(torch.ones(2)))
    optimizer = cc.make_optimizer("bulk_sgd", model, 0.1, inputs=INPUTS, refresh=5)
    train(model, optimizer, steps=2)
    frozen = model[0].weight.detach().clone()
    model[0].weight.requires_grad_(False)
    head = model[2].weight.detach().clone()
    train(model, optimizer, steps=1)
    assert torch.equal(model[0].weight, frozen) and torch.equal(model.spare, torch.ones(2))
    assert not torch.equal(model[2].weight, head)
    with pytest.raises(ValueError, match="one group of parameters"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})


def data() -> SimpleNamespace:
    split = SimpleNamespace(inputs=INPUTS.clone(), target=TARGET)
    whole = SimpleNamespace(name="toy", train=split)
    whole.to = lambda device: whole
    return whole


def test_fit_refuses_an_optimizer_that_would_train_nothing():
    model = network()
    other = torch.optim.SGD(copy.deepcopy(model).parameters(), 0.1)
    with pytest.raises(ValueError, match="must hold parameters of this model"):
        cc.fit(model, data(), optimizer=other, steps=1, progress=False)


def test_fit_refuses_a_model_that_overwrites_the_data_before_it_does():
    class Centring(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.5))

    whole = data()
    with pytest.raises(ValueError, match=r"must not write into its inputs.*clone\(\)"):
        cc.fit(Centring(4, 3), whole, lr=0.1, steps=1, progress=False)
    assert torch.equal(whole.train.inputs, INPUTS)


def test_fit_trains_with_bulk_sgd_and_batch_norm():
    model = network(nn.BatchNorm1d(5))
    history = cc.fit(model, data(), optimizer="bulk_sgd", lr=0.1, steps=3, progress=False)
    assert history.diverged_at is None
