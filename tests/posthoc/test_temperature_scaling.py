"""What changes a fitted temperature and what does not, and the object that holds it."""

import math

import pytest
import torch
from posthoc_cases import fitted, sample

from calibcourse import _blocks, posthoc
from calibcourse.metrics import confidence_and_correct
from calibcourse.posthoc import TemperatureScaling

# ---------------------------------------------------------------------------- invariances


@pytest.mark.parametrize("factor", [1e-200, 1e-20, 0.01, 7.0, 1e20, 1e200])
def test_temperature_scales_with_the_logits(factor):
    for target_of in (lambda z, y: y, lambda z, y: z.argmax(1), lambda z, y: z.argmin(1)):
        logits, target = sample(100)
        target = target_of(logits, target)
        expected = factor * fitted(logits, target).temperature
        assert fitted(factor * logits, target).temperature == pytest.approx(expected, rel=1e-9)


def test_a_shift_of_each_row_and_the_order_of_samples_change_nothing():
    logits, target = sample(100)
    expected = fitted(logits, target).temperature
    shifted = logits + torch.linspace(-50, 50, 100, dtype=torch.float64)[:, None]
    # The shift rounds logits of 1 to 1e-14.
    assert fitted(shifted, target).temperature == pytest.approx(expected, rel=1e-11)
    back = torch.arange(99, -1, -1)
    assert fitted(logits[back], target[back]).temperature == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_dtype_is_fitted_in_float64(dtype):
    logits, target = sample(dtype=dtype)
    assert fitted(logits, target).temperature == fitted(logits.double(), target).temperature
    assert fitted(logits, target).transform(logits).dtype == dtype


def test_blocks_leave_no_trace(monkeypatch):
    logits, target = sample(83)
    expected = fitted(logits, target).temperature
    monkeypatch.setitem(_blocks.BLOCK_SIZE, "cpu", 35)
    assert fitted(logits, target).temperature == pytest.approx(expected, rel=1e-11)


def test_a_first_guess_from_some_samples_changes_nothing(monkeypatch):
    logits, target = sample(2000)
    expected = fitted(logits, target).temperature
    monkeypatch.setattr(posthoc, "_GUESS_FROM", 1000)
    assert fitted(logits, target).temperature == pytest.approx(expected, rel=1e-11)
    # Every tenth sample separable, so that the guess is capped and left aside.
    target[::10] = logits[::10].argmax(1)
    assert not fitted(logits, target).capped


def test_predictions_stay_and_inputs_too():
    logits, target = sample(200, too_sure=5.0)
    kept = logits.clone()
    scaling = fitted(logits.requires_grad_(), target)
    scaled = scaling.transform(logits.detach())
    assert torch.equal(logits.detach(), kept)
    assert torch.equal(scaled, kept / scaling.temperature)
    assert torch.equal(
        confidence_and_correct(scaled, target)[1], confidence_and_correct(kept, target)[1]
    )


# ---------------------------------------------------------------------------- the object


def test_a_second_fit_replaces_the_first():
    logits, target = sample()
    scaling = fitted(logits, logits.argmax(1))
    assert scaling.capped
    scaling.fit(logits, target)
    assert not scaling.capped
    assert scaling.temperature == fitted(logits, target).temperature


def test_before_fit():
    scaling = TemperatureScaling()
    assert repr(scaling) == "TemperatureScaling(not fitted)" and scaling.capped is False
    with pytest.raises(RuntimeError, match="fit"):
        _ = scaling.temperature
    with pytest.raises(RuntimeError, match="fit"):
        scaling.transform(torch.zeros(1, 2))


def test_repr_tells_a_cap():
    scaling = fitted(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert repr(scaling) == "TemperatureScaling(temperature=0.0001, capped)"


def test_bad_input_is_named_and_leaves_the_fit_alone():
    logits, target = sample()
    scaling = fitted(logits, target)
    before = scaling.temperature
    with pytest.raises(ValueError, match="logits"):
        scaling.fit(logits * math.nan, target)
    with pytest.raises(ValueError, match="target"):
        scaling.fit(logits, target + 5)
    with pytest.raises(TypeError, match="target"):
        scaling.fit(logits, target.float())
    with pytest.raises(ValueError, match="logits"):
        scaling.transform(logits[0])
    assert scaling.temperature == before


@pytest.mark.cuda
def test_cuda_agrees_with_cpu():
    logits, target = sample()
    scaling = fitted(logits.cuda(), target.cuda())
    assert scaling.temperature == pytest.approx(fitted(logits, target).temperature, rel=1e-10)
    assert scaling.transform(logits.cuda()).is_cuda
