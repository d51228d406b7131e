"""The attack inside CalMO: by hand, inside its ball, and what it climbs."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from losses_cases import (
    CALMO,
    batch,
    batchnorm_cnn,
    linear,
    passes,
    tanh_mlp,
)
from torch import nn

from calibcourse.losses import CalMO


def attack_by_hand(model: nn.Sequential, x: np.ndarray, y: int, loss: CalMO) -> np.ndarray:
    """Projected gradient ascent on one sample of `tanh_mlp`, with the backward pass by hand."""
    w1, b1, w2, b2 = (p.detach().numpy() for p in model.parameters())
    point = x.copy()
    for _ in range(loss.steps):
        hidden = np.tanh(w1 @ point + b1)
        z = w2 @ hidden + b2
        p = np.exp(z - z.max())
        p /= p.sum()
        p[y] -= 1
        gradient = w1.T @ ((w2.T @ p) * (1 - hidden**2))
        if loss.norm == "linf":
            point = point + loss.step_size * np.sign(gradient)
            point = np.minimum(np.maximum(point, x - loss.epsilon), x + loss.epsilon)
        else:
            blocked = ((point <= 0) & (gradient < 0)) | ((point >= 1) & (gradient > 0))
            gradient[blocked] = 0
            point = point + loss.step_size * gradient / np.sqrt((gradient**2).sum())
            length = np.sqrt(((point - x) ** 2).sum())
            if length > loss.epsilon:
                point = x + (point - x) * loss.epsilon / length
        point = np.clip(point, 0, 1)
    return point


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("smooth_weight", [0.0, 0.1])
def test_attack_against_one_written_by_hand(steps, norm, smooth_weight):
    model, (inputs, target) = tanh_mlp(), batch(20)
    loss = CalMO(0.5, smooth_weight, epsilon=0.1, steps=steps, step_size=0.04, norm=norm)
    _, seen = passes(loss, model, inputs, target)
    by_hand = [
        attack_by_hand(model, x.numpy().ravel(), int(y), loss)
        for x, y in zip(inputs, target, strict=True)
    ]
    np.testing.assert_allclose(seen[-1].flatten(1).numpy(), by_hand, rtol=0, atol=1e-12)


def test_attack_of_a_network_in_train_mode_sees_the_statistics_of_the_batch():
    """It climbs the batch's summed cross-entropy with BatchNorm as the clean pass has it."""
    model, (inputs, target) = batchnorm_cnn().train(), batch()
    _, seen = passes(CALMO, model, inputs, target)
    twin, point = copy.deepcopy(model), inputs.clone()
    for _ in range(CALMO.steps):
        point.requires_grad_()
        total = F.cross_entropy(twin(point), target, reduction="sum")
        step = CALMO.step_size * torch.autograd.grad(total, point)[0].sign()
        point = (point.detach() + step).clamp(inputs - CALMO.epsilon, inputs + CALMO.epsilon)
        point = point.clamp(0, 1)
    torch.testing.assert_close(seen[-1], point, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype, scale", [(torch.float32, 1.0), (torch.bfloat16, 1.0)])
def test_attack_keeps_its_direction_where_the_network_is_sure(dtype, scale):
    # Margin about 60: p_y is 1 in float32, and softmax minus one-hot has lost the label's row,
    # which here is the only one that says what to do with the second pixel.
    model = linear([[60.0, 60.0], [0.0, 0.0], [0.0, 0.0]]).to(dtype)
    inputs = torch.full((1, 2), 0.5, dtype=dtype)
    _, seen = passes(CalMO(epsilon=0.1, step_size=0.1), model, inputs, torch.tensor([0]))
    assert (seen[-1] < 0.45).all()


@settings(max_examples=30)
@given(
    epsilon=st.floats(0, 0.5),
    step_size=st.floats(1e-3, 0.5),
    steps=st.integers(1, 4),
    norm=st.sampled_from(["linf", "l2"]),
    seed=st.integers(0, 1000),
)
def test_adversarial_inputs_stay_in_the_ball_and_terms_are_not_negative(
    epsilon, step_size, steps, norm, seed
):
    model, (inputs, target) = tanh_mlp(seed), batch(5, seed=seed)
    loss = CalMO(epsilon=epsilon, steps=steps, step_size=step_size, norm=norm)
    terms, seen = passes(loss, model, inputs, target)
    offset = (seen[-1] - inputs).flatten(1)
    length = offset.norm(dim=1) if norm == "l2" else offset.abs().amax(1)
    assert (length <= epsilon + 1e-12).all()  # the rounding of x + δ, below 1e-15
    assert seen[-1].min() >= 0 and seen[-1].max() <= 1
    assert terms.smooth >= 0
    assert terms.robust >= -1e-15  # a KL of nearly equal distributions rounds around 0
    if epsilon == 0:
        assert terms.robust == 0
