"""Ladders at margins where exp ends, and started from an eigenvector that has been overtaken."""

import math

import pytest
import torch
from bounds_cases import RUNGS
from torch import nn

from calibcourse.bounds import curvature_ladder, direct_sandwich, ece_bounds
from calibcourse.bounds.of_curvature import _top_eigenpair
from calibcourse.curvature import ConvergenceWarning, SymmetricOperator, top_eigenpair


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logarithms_of_the_ladder_go_on_where_exp_ends(dtype):
    """Three equal samples of margin m: every rung is e^-m times what it does not depend on."""
    inputs, target = torch.eye(3).to(dtype), torch.tensor([0, 1, 2])
    model = nn.Linear(3, 3).to(dtype)
    model.bias.data = torch.zeros(3).to(dtype)
    scaled = {}
    for margin in (50, 200, 700, 720, 740, 750, 3000):
        model.weight.data = margin * torch.eye(3).to(dtype)
        ladder = curvature_ladder(model, inputs, target, torch.full((3,), float(margin)).to(dtype))
        assert ladder.holds and ladder.eigenpair.converged and not ladder.missing
        # Near e^-745 float64 has few digits left.
        assert ladder.eigenpair.value == pytest.approx(ladder.u0, rel=1e-12, abs=1e-320)
        assert ladder.eigenpair.residual <= 1e-3 * ladder.u0 + 1e-320
        scaled[margin] = [ladder.log[name] + margin for name in RUNGS]
        bounds = ece_bounds(model(inputs).detach(), target)
        assert bounds.holds and bounds.log["ece"] == pytest.approx(math.log(2) - margin, abs=1e-12)
        assert direct_sandwich(model, inputs, target, ladder=ladder).holds
    for margin, logs in scaled.items():
        # u0 and l1 by Lanczos, in float32 to 1e-6; e^-50 is 1 + e^-50 away from its limit.
        assert logs == pytest.approx(scaled[50], abs=1e-5), margin


class Diagonal(SymmetricOperator):
    """A diagonal matrix as an operator."""

    def __init__(self, diagonal):
        self.diagonal, self.shape = diagonal, (len(diagonal), len(diagonal))
        self.dtype, self.device = diagonal.dtype, diagonal.device

    def matvec(self, vector):
        return self.diagonal * vector


def test_a_start_that_leads_below_a_lower_bound_is_given_up():
    """The old eigenvector is exact, and the noise on it too faint for the one that overtook it."""
    operator = Diagonal(torch.zeros(20_000))
    operator.diagonal[:2] = torch.tensor([1.0, 0.95])
    old = torch.zeros(20_000)
    old[1] = 1.0
    missed = _top_eigenpair(operator, old, 1e-3, 100, log_floor=math.nan)
    assert missed.value == pytest.approx(0.95, rel=1e-3)
    found = _top_eigenpair(operator, old, 1e-3, 100, log_floor=math.log(0.98))
    assert found.value == pytest.approx(1.0, rel=1e-3)
    cold = top_eigenpair(operator)
    assert found.matvecs == missed.matvecs + cold.matvecs
    budget = cold.matvecs - 1
    with pytest.warns(ConvergenceWarning, match=f"after {budget} products"):
        _top_eigenpair(operator, old, 1e-3, budget, log_floor=math.log(0.98))
    # A bound that the value meets up to the tolerance is none that it violates.
    kept = _top_eigenpair(operator, old, 1e-3, 100, log_floor=math.log(missed.value * 1.0009))
    assert kept == missed
