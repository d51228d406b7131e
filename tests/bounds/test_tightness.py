"""How much each bound gives away."""

import math

import pytest
import torch
import torch.nn.functional as F
from bounds_cases import (
    STYLES,
    below,
    interpolating,
    make_logits,
    rivals,
)

from calibcourse.bounds import (
    logit_hessian_bounds,
    softmax_tail_bounds,
)
from calibcourse.margins import predicted_margin, true_margin


def bank():
    """A fixed collection that holds every corner: for the tests of tightness."""
    for k in (2, 3, 10, 100):
        for style in STYLES:
            for scale in (1e-3, 1.0, 5.0, 30.0):
                yield make_logits(9, k, style, scale, seed=k)


def tail_half(z, y, c):
    keep = true_margin(z, y) >= 0
    return below((math.log(c) - true_margin(z, y))[keep], softmax_tail_bounds(z, y).log.value[keep])


def log_rest(z):
    return softmax_tail_bounds(z, z.argmax(1)).log.value


def ece_lower(z, c):
    found = interpolating(z)
    if found is None:
        return True
    bounds, log_q = found
    return below(math.log(c) + log_q - math.log1p(math.exp(-bounds.gamma)), bounds.log["ece"])


def ece_lower_in_k(z, c):
    found = interpolating(z)
    return found is None or below(found[1] - math.log(c * z.shape[1]), found[0].log["ece"])


def ece_upper(z, missing):
    found = interpolating(z)
    return found is None or below(found[0].log["ece"], rivals(z, missing) + found[1])


def log_p(z):
    return F.logsigmoid(-log_rest(z) + torch.log1p(-log_rest(z).exp()))


TIGHT = {
    # name: (holds(z, y, constant), the constant of the theorem, a smaller slack)
    "B.3⁺: e^{-m}/2": (tail_half, 0.5, 0.6),
    "B.3: (K-1)e^{-m}": (
        lambda z, y, d: below(
            softmax_tail_bounds(z, y).log.value, rivals(z, d) - true_margin(z, y)
        ),
        0,
        1,
    ),
    "B.3⁺: σ(log(K-1) - m)": (
        lambda z, y, d: below(
            softmax_tail_bounds(z, y).log.value, F.logsigmoid(rivals(z, d) - true_margin(z, y))
        ),
        0,
        1,
    ),
    "B.6: (K-1)e^{-m̂}": (
        lambda z, y, d: below(log_rest(z), rivals(z, d) - predicted_margin(z)),
        0,
        1,
    ),
    "B.4: 2(1 - p_max)": (
        lambda z, y, c: below(logit_hessian_bounds(z).log.value, math.log(c) + log_rest(z)),
        2.0,
        1.9,
    ),
    "B.4⁺: 2 max p(1 - p)": (
        lambda z, y, c: below(
            logit_hessian_bounds(z).log.value,
            math.log(c / 2) + logit_hessian_bounds(z).log.upper,
        ),
        2.0,
        1.9,
    ),
    "B.4⁺: 1/2": (
        lambda z, y, c: below(logit_hessian_bounds(z).log.value, math.log(c)),
        0.5,
        0.45,
    ),
    "B.4⁺: tr/(K-1)": (
        lambda z, y, d: below(
            logit_hessian_bounds(z).log.trace_upper - rivals(z, d),
            logit_hessian_bounds(z).log.value,
        ),
        0,
        1,
    ),
    "B.4⁺: tr": (
        lambda z, y, c: below(
            logit_hessian_bounds(z).log.value, math.log(c) + logit_hessian_bounds(z).log.trace_upper
        ),
        1.0,
        0.95,
    ),
    "B.4⁺: p_max(1 - p_max)": (
        lambda z, y, c: below(
            math.log(c) + logit_hessian_bounds(z).log.lower, logit_hessian_bounds(z).log.value
        ),
        1.0,
        1.1,
    ),
    "4.4: Q/(1 + e^{-γ})": (lambda z, y, c: ece_lower(z, c), 1.0, 1.1),
    "4.2: Q/K": (lambda z, y, c: ece_lower_in_k(z, c), 1.0, 0.9),
    "4.1: (K-1)Q": (lambda z, y, d: ece_upper(z, d), 0, 1),
}


@pytest.mark.parametrize("name", TIGHT)
def test_no_constant_can_be_smaller(name):
    holds, constant, smaller = TIGHT[name]
    inputs = list(bank())
    assert all(holds(z, y, constant) for z, y in inputs)
    assert not all(holds(z, y, smaller) for z, y in inputs)
