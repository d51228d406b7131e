"""What the bounds refuse, and how results are shown."""

import math

import pytest
import torch
from bounds_cases import (
    RUNGS,
    network,
)

from calibcourse.bounds import (
    confidence_gap_bounds,
    curvature_ladder,
    direct_sandwich,
    ece_bounds,
    logit_hessian_bounds,
    softmax_tail_bounds,
)

Z, Y = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize("function", [softmax_tail_bounds, confidence_gap_bounds, ece_bounds])
@pytest.mark.parametrize(
    "logits, target, error, message",
    [
        (Z[0], Y, ValueError, "logits must have shape"),
        (Z[:, :1], Y, ValueError, "logits must have K >= 2"),
        (Z[:0], Y[:0], ValueError, "logits must hold at least one sample"),
        (Z / 0, Y, ValueError, "logits must be finite"),
        (Z.long(), Y, TypeError, "logits must have a floating dtype"),
        (Z, Y + 4, ValueError, r"target must lie in 0\.\.3"),
        (Z, Y[:2], ValueError, "target must have shape"),
        (Z, Y.int(), TypeError, "target must have dtype"),
    ],
)
def test_bad_arguments_are_named(function, logits, target, error, message):
    with pytest.raises(error, match=message):
        function(logits, target)


def test_other_bad_arguments_are_named():
    with pytest.raises(ValueError, match="logits must be finite"):
        logit_hessian_bounds(Z * math.nan)
    with pytest.raises(ValueError, match="n_bins must be at least 1"):
        ece_bounds(Z, Y, n_bins=0)
    model, inputs, target = network("mlp", 4, 0, torch.float32)
    with pytest.raises(ValueError, match=r"target must lie in 0\.\.3"):
        curvature_ladder(model, inputs, target + 4)
    with pytest.raises(ValueError, match="inputs must be finite"):
        curvature_ladder(model, inputs / 0, target)
    with pytest.raises(ValueError, match="n_bins must be at least 1"):
        direct_sandwich(model, inputs, target, n_bins=0)


@pytest.mark.cuda
def test_bounds_agree_on_a_gpu():
    model, inputs, target = network("mlp", 5, 20, torch.float64)
    here = curvature_ladder(model, inputs, target)
    there = curvature_ladder(model.cuda(), inputs.cuda(), target.cuda())
    for name in RUNGS[:-1]:
        assert there.log[name] == pytest.approx(here.log[name], abs=1e-6)
    z, y = model(inputs.cuda()).detach(), target.cuda()
    assert softmax_tail_bounds(z, y).value.is_cuda and ece_bounds(z, y).holds
    assert logit_hessian_bounds(z).holds and confidence_gap_bounds(z, y).holds
