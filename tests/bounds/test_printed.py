"""How a result of `bounds` prints: every word and column, since lessons show it as it is.

The network is a linear layer of zeros with a bias: every class has probability 1/4, and all values
can be had by hand.
"""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from calibcourse.bounds import (
    Chain,
    HessianBounds,
    Ladder,
    Rung,
    Sandwich,
    TailBounds,
    curvature_ladder,
    mse_ladder,
)

INPUTS = torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)  # ‖J_i‖² = ‖x_i‖² + 1
TARGET = torch.tensor([0, 1])


@pytest.fixture
def zeros() -> nn.Module:
    model = nn.Linear(2, 4).double()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def printed(ladder: Ladder) -> str:
    """The last layer is all there is: whether l1 lies above or below u0 is rounding."""
    return repr(ladder).replace("10^-0.00", "10^+0.00")


def test_a_ladder(zeros):
    ladder = curvature_ladder(zeros, INPUTS, TARGET, tol=1e-8)
    assert printed(ladder) == "\n".join(
        [
            "Ladder(C_J=4.123, holds=True)",
            "  u7  2 C_J² (K-1) Q_att         not available: needs robust_margins",
            "  u6  2 C_J² (K-1) Q                   102  × 10^+1.68  [paper] Thm 4.1",
            "  u5  2 C_J² mean 1 - p_y             25.5  × 10^+1.08  [here] 4.1",
            "  u4  2 C_J² u                        25.5  × 10^+1.08  [here] 4.2",
            "  u3  C_J² mean λ_max(H_i)            4.25  × 10^+0.30  [here] 4.1",
            "  u2  mean ‖J_i‖² λ_max(H_i)         3.375  × 10^+0.20  [here] 4.1",
            "  u1  mean λ_max(J_iᵀ H_i J_i)       3.375  × 10^+0.20  [here] 4.1",
            "  u0  λ_max(G)                       2.143",
            "  l1  λ_max(last layer's block)      2.143  × 10^+0.00  [here] 4.1",
            "  l2  λ_max(mean H_i)                 0.25  × 10^-0.93  [here] 4.1",
            "  l3  tr(mean H_i)/(K-1)              0.25  × 10^-0.93  [here] 4.1",
            "  l4  u/(K-1)                         0.25  × 10^-0.93  [here] 4.2",
        ]
    )
    attacked = curvature_ladder(zeros, INPUTS, TARGET, torch.full((2,), -1.0), tol=1e-8)
    assert repr(attacked).splitlines()[1] == (
        "  u7  2 C_J² (K-1) Q_att             277.3  × 10^+2.11  [paper] Thm 4.1"
    )
    rough = dataclasses.replace(
        ladder, eigenpair=dataclasses.replace(ladder.eigenpair, converged=False)
    )
    assert repr(rough).startswith("Ladder(λ_max NOT converged, C_J=4.123, holds=True)\n")


def test_a_ladder_of_mean_squared_error(zeros):
    assert printed(mse_ladder(zeros, INPUTS, tol=1e-8)) == "\n".join(
        [
            "Ladder(C_J=4.123, holds=True)",
            "  u3  (2/K) C_J²                    8.5  × 10^+0.30  [here] 4.1",
            "  u1  (2/K) mean ‖J_i‖²            6.75  × 10^+0.20  [here] 4.1",
            "  u0  λ_max(G)                    4.285",
            "  l1  (2/K) λ_max(mean a aᵀ)      4.285  × 10^+0.00  [here] 4.1",
            "  l2  2/K                           0.5  × 10^-0.93  [paper] App. E",
        ]
    )


def test_a_chain_shows_decades_where_exp_nears_its_end():
    rungs = [
        Rung("up", 690.0, "x", 1, "f", ""),
        Rung("x", 689.9, "x", 0, "", ""),
        Rung("down", -690.0, "x", -1, "", "s"),
    ]
    assert repr(Chain(tuple(rungs[::-1]), 0.0)) == "\n".join(
        [
            "Chain(holds=True)",
            "  up    f   10^299.7  × 10^+0.04",
            f"  x        {math.exp(689.9):9.4g}",
            "  down     10^-299.7  × 10^-599.28  s",
        ]
    )


def test_bounds_of_samples_are_sorted_by_their_means_and_completed_by_tab():
    log = {"lower": 0.1, "trace_lower": 0.2, "value": 0.25, "upper": 0.5, "trace_upper": 0.4}
    bounds = HessianBounds(
        SimpleNamespace(
            **{name: torch.full((2,), value).double().log() for name, value in log.items()},
            paper_upper=torch.zeros(2, dtype=torch.float64),
        )
    )
    assert repr(bounds) == "\n".join(
        [
            "HessianBounds(n=2, holds=True), mean:",
            "  paper_upper  1",
            "  upper        0.5",
            "  trace_upper  0.4",
            "  value        0.25",
            "  trace_lower  0.2",
            "  lower        0.1",
        ]
    )
    assert {*log, "holds", "slack"} <= set(dir(bounds))
    assert "value" not in bounds.slack() and set(bounds.slack()) == {*log, "paper_upper"} - {
        "value"
    }
    with pytest.raises(AttributeError, match=r"^HessianBounds has no bound or attribute 'uper'$"):
        bounds.uper  # noqa: B018
    with pytest.raises(AttributeError, match="TailBounds has no bound"):  # before __init__: copy
        TailBounds.__new__(TailBounds).upper  # noqa: B018


def test_a_sandwich():
    whole = Sandwich(-0.1, 0.2, 0.5, 0.1, 0.3, 0.15, 0.25, 0.2)
    assert repr(whole) == ("Sandwich(-0.1 <= 0.15 <= ECE = 0.2 <= 0.25 <= 0.5, holds=True)")
    open_end = dataclasses.replace(whole, upper=math.nan, missing="no bias")
    assert repr(open_end) == (
        "Sandwich(-0.1 <= 0.15 <= ECE = 0.2 <= 0.25 <= not available: no bias, holds=True)"
    )
