"""`.holds` of every result in `bounds`: true just inside its tolerance, false just outside it.

Each result is built by hand, or taken from a small data set and one rung of it moved: the order
that a result must have stands here a second time, beside the one in the source.
"""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from calibcourse.bounds import (
    Chain,
    EceBounds,
    GapBounds,
    HessianBounds,
    Ladder,
    Rung,
    Sandwich,
    TailBounds,
    curvature_ladder,
    direct_sandwich,
    ece_bounds,
    mse_ladder,
)
from calibcourse.bounds.chain import log_of

EPS = torch.finfo(torch.float64).eps

# ---------------------------------------------------------------------------- one per sample

# Logarithms in a valid order, well apart, and the inequalities: (outer, inner, side of the outer).
SAMPLES = {
    TailBounds: (
        {"paper_lower": -5.0, "lower": -4.0, "value": -3.0, "upper": -2.0, "paper_upper": -1.0},
        [("paper_lower", "lower", -1), ("lower", "value", -1), ("upper", "value", 1),
         ("paper_upper", "upper", 1)],
    ),
    GapBounds: ({"value": -3.0, "upper": -2.0}, [("upper", "value", 1)]),
    HessianBounds: (
        {"trace_lower": -6.0, "lower": -5.0, "value": -4.0, "upper": -3.0, "trace_upper": -2.0,
         "paper_upper": -1.5},
        [("lower", "value", -1), ("trace_lower", "value", -1), ("upper", "value", 1),
         ("trace_upper", "value", 1), ("paper_upper", "upper", 1)],
    ),
}  # fmt: skip
PAIRS = [(kind, *pair) for kind, (_, pairs) in SAMPLES.items() for pair in pairs]


def of_samples(kind, scale, **moved):
    """A result of three samples, and on the second the given logarithms instead."""
    logarithms = {
        name: torch.full((3,), scale * value, dtype=torch.float64)
        for name, value in SAMPLES[kind][0].items()
    }
    for name, value in moved.items():
        logarithms[name][1] = value
    return kind(SimpleNamespace(**logarithms))


# Far below 1, where 8 units are of 1 itself; and far above, where they are of the logarithm.
@pytest.mark.parametrize("scale", [0.25, 100.0])
@pytest.mark.parametrize("kind, outer, inner, side", PAIRS, ids=lambda v: getattr(v, "__name__", v))
def test_one_violated_sample_is_seen_from_eight_last_places_on(kind, outer, inner, side, scale):
    if kind is HessianBounds and scale < 1:
        scale = 1.0  # its upper bound must stay below log 1/2 = -0.69
    value = scale * SAMPLES[kind][0][inner]
    ulp = EPS * max(1.0, abs(value))
    assert of_samples(kind, scale).holds
    # Seven and nine, since neighbouring numbers are up to one such unit apart.
    assert of_samples(kind, scale, **{outer: value - side * 7 * ulp}).holds
    assert not of_samples(kind, scale, **{outer: value - side * 9 * ulp}).holds
    assert not of_samples(kind, scale, **{outer: math.nan}).holds


def test_a_logit_hessian_above_one_half_is_seen():
    half = math.log(0.5)
    assert of_samples(HessianBounds, 1.0, upper=half + 7 * EPS, paper_upper=0, trace_upper=0).holds
    above = of_samples(HessianBounds, 1.0, upper=half + 9 * EPS, paper_upper=0, trace_upper=0)
    assert not above.holds
    assert "holds=False" in repr(above)


# ---------------------------------------------------------------------------- chains


def moved(chain, name, log_value):
    """The same chain with one rung elsewhere."""
    rungs = tuple(r._replace(log_value=log_value) if r.name == name else r for r in chain.rungs)
    return dataclasses.replace(chain, rungs=rungs)


def assert_seen(chain, name, inner, side, tolerance):
    """A rung on the wrong side of its neighbour is seen as soon as it is past the tolerance."""
    assert chain.holds
    allowed, nearer = math.log1p(tolerance), chain.log[inner]
    # 1e-13: rounding of a logarithm of size 100, below a tenth of every tolerance here.
    assert moved(chain, name, nearer - side * (0.9 * allowed - 1e-13)).holds
    assert not moved(chain, name, nearer - side * (1.1 * allowed + 1e-13)).holds


def by_hand(tolerance=1e-3, **values):
    """Two lower bounds, the value, and two upper bounds, as logarithms."""
    logs = {"b": -4.0, "a": -3.0, "value": -2.0, "c": -1.0, "d": 0.0} | values
    inner = {"b": "a", "a": "value", "value": "value", "c": "value", "d": "c"}
    side = {"b": -1, "a": -1, "value": 0, "c": 1, "d": 1}
    return Chain(tuple(Rung(n, logs[n], inner[n], side[n], "", "") for n in logs), tolerance)


@pytest.mark.parametrize("tolerance", [1e-3, 0.5])
@pytest.mark.parametrize(
    "name, inner, side", [("b", "a", -1), ("a", "value", -1), ("c", "value", 1), ("d", "c", 1)]
)
def test_one_violated_rung_is_seen(name, inner, side, tolerance):
    assert_seen(by_hand(tolerance), name, inner, side, tolerance)


def test_a_rung_that_is_missing_is_not_judged():
    chain = by_hand(d=-9.0)
    assert not chain.holds
    last = chain.rungs[-1]
    assert dataclasses.replace(chain, rungs=(*chain.rungs[:-1], last._replace(missing="why"))).holds
    # But nan without a reason is not "holds", and equal is, also at the ends of the numbers.
    assert not by_hand(d=math.nan).holds
    equal = by_hand(0.0, c=-2.0, a=-2.0, b=-2.0)
    assert equal.holds and equal.slack()["c"] == equal.slack()["a"] == (0.0, 0.0)
    assert by_hand(0.0, value=-math.inf, a=-math.inf, b=-math.inf, c=math.inf, d=math.inf).holds


def test_a_chain_shows_values_while_exp_reaches_them_and_decades_beyond():
    chain = by_hand(b=-1000.0, d=1000.0)
    chain = dataclasses.replace(
        chain, rungs=(*chain.rungs, Rung("e", math.nan, "d", 1, "", "", "why"))
    )
    assert [line.split() for line in repr(chain).splitlines()] == [
        ["Chain(holds=True)"],
        ["e", "not", "available:", "why"],
        ["d", "10^434.3", "×", "10^+435.16"],
        ["c", "0.3679", "×", "10^+0.43"],
        ["value", "0.1353"],
        ["a", "0.04979", "×", "10^-0.43"],
        ["b", "10^-434.3", "×", "10^-433.43"],
    ]
    assert (chain.b, chain.d) == (0.0, math.inf) and math.isnan(chain.e)
    assert chain.c == pytest.approx(math.exp(-1))
    # The largest double is e^709.78; a little below it no digit is worth an error.
    assert by_hand(d=708.9).d > 1e307 and by_hand(d=709.9).d == math.inf
    assert log_of(0.0) == -math.inf and log_of(math.e) == 1.0


LOGITS = torch.tensor([[3.0, 0.0, 0.0, 1.0], [2.0, 0.0, -1.0, 0.0]])
LABELS = torch.tensor([0, 0])


@pytest.mark.parametrize(
    "name, inner, side",
    [
        ("paper_lower", "lower", -1),
        ("lower", "ece", -1),
        ("gap", "ece", 1),
        ("error_probability", "gap", 1),
        ("upper", "error_probability", 1),
        ("paper_upper", "upper", 1),
        ("gamma_upper", "paper_upper", 1),
        ("robust_upper", "upper", 1),
        ("paper_robust_upper", "paper_upper", 1),
    ],
)
def test_every_bound_of_ece_is_judged_against_its_neighbour(name, inner, side):
    bounds = ece_bounds(LOGITS, LABELS, robust_margins=torch.tensor([1.0, 1.5]))
    assert isinstance(bounds, EceBounds) and not bounds.missing
    assert bounds.tolerance == 1e-12
    # At 0.1 relative to what follows: with 1e-12 itself, float64 has no room for the 0.9 and 1.1.
    assert_seen(dataclasses.replace(bounds, tolerance=0.1), name, inner, side, 0.1)
    nearer = bounds.log[inner]
    assert not moved(bounds, name, nearer - side * 1e-11).holds
    assert moved(bounds, name, nearer - side * 1e-14).holds


def linear():
    """A linear network on unit vectors: its last layer is all of it."""
    torch.manual_seed(0)
    return nn.Linear(4, 3).double(), torch.eye(4, dtype=torch.float64), torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
@pytest.mark.parametrize(
    "name, inner, side",
    [("l4", "l3", -1), ("l3", "l2", -1), ("l2", "l1", -1), ("l1", "u0", -1), ("u1", "u0", 1),
     ("u2", "u1", 1), ("u3", "u2", 1), ("u4", "u3", 1), ("u5", "u4", 1), ("u6", "u5", 1),
     ("u7", "u6", 1)],
)  # fmt: skip
def test_every_rung_of_the_ladder_is_judged_against_its_neighbour(name, inner, side, tolerance):
    model, inputs, target = linear()
    robust = torch.full((4,), -5.0, dtype=torch.float64)
    ladder = curvature_ladder(model, inputs, target, robust, tol=tolerance)
    assert isinstance(ladder, Ladder) and not ladder.missing
    assert_seen(ladder, name, inner, side, tolerance)


@pytest.mark.parametrize(
    "name, inner, side", [("l2", "l1", -1), ("l1", "u0", -1), ("u1", "u0", 1), ("u3", "u1", 1)]
)
def test_every_rung_under_mean_squared_error_is_judged_against_its_neighbour(name, inner, side):
    model, inputs, _ = linear()
    assert_seen(mse_ladder(model, inputs, tol=1e-4), name, inner, side, 1e-4)


# ---------------------------------------------------------------------------- the sandwich


def sandwich(**changes):
    """lower <= inner_lower <= ECE <= inner_upper <= upper, a tenth apart."""
    values = {"lower": 0.1, "inner_lower": 0.2, "ece": 0.3, "inner_upper": 0.4, "upper": 0.5}
    rest = {"error_rate": 0.1, "lambda_max": 0.2, "misconfidence": 0.3, "tolerance": 1e-3}
    return Sandwich(**(values | rest | changes))


@pytest.mark.parametrize(
    "low, high, value",
    [("lower", "inner_lower", 0.2), ("inner_lower", "ece", 0.3), ("ece", "inner_upper", 0.4),
     ("upper", "inner_upper", 0.4)],
)  # fmt: skip
def test_a_sandwich_in_disorder_is_seen(low, high, value):
    """Each layer in turn past its neighbour; the tolerance is a share of u + err, here 0.4."""
    out = -1 if low == "upper" else 1
    assert sandwich().holds
    assert sandwich(**{low: value + out * 0.4 * 0.9e-3}).holds
    assert not sandwich(**{low: value + out * 0.4 * 1.1e-3}).holds
    assert "holds=False" in repr(sandwich(**{low: value + out * 0.1}))


def test_an_upper_bound_that_is_missing_is_not_judged():
    assert sandwich(upper=math.nan, missing="no bias").holds
    assert not sandwich(upper=math.nan).holds
    assert not sandwich(upper=math.nan, missing="no bias", ece=0.5).holds


def test_numbers_too_small_for_digits_are_not_told_apart():
    """At margins beyond 708: two ways of rounding 1e-323 differ by half of it."""
    layers = dict.fromkeys(("lower", "inner_lower", "ece", "inner_upper", "upper"), 1e-323)
    assert sandwich(**(layers | {"ece": 5e-324}), error_rate=0.0).holds
    assert not sandwich(**(layers | {"inner_lower": 3e-308}), error_rate=0.0).holds


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
def test_a_sandwich_is_as_strict_as_its_ladder(tolerance):
    model, inputs, target = linear()
    ladder = curvature_ladder(model, inputs, target, tol=tolerance)
    assert direct_sandwich(model, inputs, target, ladder=ladder).tolerance == tolerance
    assert direct_sandwich(model, inputs, target).tolerance == 1e-3
