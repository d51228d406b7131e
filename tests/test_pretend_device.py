"""The pretend device behaves as a real one where tests rely on it, and leaves nothing behind."""

import copy

import numpy as np
import pytest
import torch
from pretend_device import pretend_device
from torch import nn


@pytest.fixture
def device():
    with pretend_device() as made:
        yield made


def test_tensors_say_where_they_are(device):
    there = torch.ones(3, device="cuda")
    assert there.device == torch.device("cuda:0") and there.is_cuda and not there.is_cpu
    assert (2 * there + there.sum()).is_cuda and torch.zeros_like(there).is_cuda
    assert not there.cpu().is_cuda and not there.to("cpu").is_cuda
    assert torch.tensor([1.0]).cuda().is_cuda and torch.tensor([1.0], device="cuda").is_cuda


def test_mixing_is_refused_but_for_numbers(device):
    there, here = torch.ones(3).cuda(), torch.ones(3)
    with pytest.raises(RuntimeError, match="same device"):
        there + here
    with pytest.raises(RuntimeError, match="same device"):
        there @ here
    assert (there + torch.tensor(2.0)).is_cuda


def test_numpy_cannot_read_it(device):
    with pytest.raises(TypeError, match="numpy"):
        torch.ones(3).cuda().numpy()
    with pytest.raises(TypeError, match="numpy"):
        np.asarray(torch.ones(3).cuda())


@pytest.mark.parametrize(
    ("wait", "what"),
    [
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: bool(x.any()), "_local_scalar_dense"),
        (lambda x: float(x[0]), "_local_scalar_dense"),
        (lambda x: x.cpu(), "from"),
        (lambda x: x.tolist(), "from"),
        (lambda x: x.copy_(torch.zeros(4)), "to"),
        (lambda x: torch.ones(4).cuda(), "to"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 0], "index"),
        (lambda x: torch.equal(x, x), "equal"),
    ],
)
def test_a_wait_is_counted_once(device, wait, what):
    x = torch.arange(4.0).cuda()
    device.clear()
    wait(x)
    assert device.waits[what] == 1 and sum(device.waits.values()) <= 2  # a read may copy a number


def test_work_alone_is_no_wait(device):
    x, model = torch.rand(4, 3, device="cuda"), nn.Linear(3, 2).cuda()
    device.clear()
    model(x).logsumexp(1).sum().backward()
    x[x > 0.5] = 0.0
    torch.where(x > 0, x, 1.0).clamp(min=0)
    assert not device.waits


def test_a_module_moves_and_keeps_its_parameters(device):
    model = nn.Linear(3, 2)
    parameter, optimizer = model.weight, torch.optim.SGD(model.parameters(), 0.1)
    model.cuda()
    assert model.weight is parameter and parameter.is_cuda
    model(torch.ones(1, 3).cuda()).sum().backward()
    optimizer.step()
    assert parameter.grad.is_cuda and copy.deepcopy(model).weight.is_cuda
    assert not model.cpu().weight.is_cuda


def test_chance_is_its_own(device):
    torch.manual_seed(1)
    here = torch.rand(2)
    torch.manual_seed(1)
    there = torch.rand(2, device="cuda")
    assert torch.equal(torch.rand(2), here)  # drawing there has not moved the CPU's state
    torch.manual_seed(1)
    assert torch.equal(torch.rand(2, device="cuda"), there)
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(2, device="cuda", generator=torch.Generator())


def test_float64_can_be_refused():
    with pretend_device("mps", float64=False):
        there = torch.ones(2, device="mps")
        assert there.device.type == "mps"
        for wide in (there.double, lambda: torch.ones(2, dtype=torch.float64).to("mps")):
            with pytest.raises(TypeError, match="float64"):
                wide()
        with pytest.raises(TypeError, match="float64"):
            there.sum(dtype=torch.float64)


def test_nothing_is_left_behind():
    before = torch.Generator, nn.Module._apply, torch.cuda.is_available()
    state = torch.get_rng_state()
    with pretend_device(), pytest.raises(ZeroDivisionError):
        raise ZeroDivisionError
    assert (torch.Generator, nn.Module._apply, torch.cuda.is_available()) == before
    assert torch.equal(torch.get_rng_state(), state)
