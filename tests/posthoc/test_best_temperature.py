"""The temperature that fits best, against independent solvers, where it exists and where not."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from posthoc_cases import fitted, sample, scales
from scipy.optimize import brentq, minimize_scalar
from scipy.special import logsumexp, softmax

from calibcourse import _blocks, posthoc
from calibcourse.metrics import confidence_and_correct, negative_log_likelihood

# ---------------------------------------------------------------------------- where T exists


@pytest.mark.parametrize("accuracy", [0.51, 0.6, 0.8, 0.99])
@pytest.mark.parametrize("margin", [0.01, 4.0, 900.0])
def test_one_pair_of_logits(margin, accuracy):
    """All samples alike: the scaled confidence must equal the accuracy, T = margin / logit."""
    logits = torch.tensor([[margin, 0.0]], dtype=torch.float64).repeat(100, 1)
    target = (torch.arange(100) >= round(100 * accuracy)).long()
    expected = margin / math.log(accuracy / (1 - accuracy))
    scaling = fitted(logits, target)
    assert not scaling.capped
    assert scaling.temperature == pytest.approx(expected, rel=1e-10)
    confidence, _ = confidence_and_correct(scaling.transform(logits), target)
    assert confidence.tolist() == pytest.approx([accuracy] * 100)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("too_sure", [1e-3, 0.3, 1.0, 3.0, 300.0])
@pytest.mark.parametrize("n_classes", [2, 3, 40])
def test_scipy_finds_the_same_minimum(n_classes, too_sure, seed):
    logits, target = sample(200, n_classes, too_sure, seed)
    z, rows = logits.numpy(), range(200)

    def loss(log_beta):
        scaled = math.exp(log_beta) * z
        return (logsumexp(scaled, axis=1) - scaled[rows, target]).mean()

    start = -math.log(too_sure)
    theirs = minimize_scalar(loss, bounds=(start - 3, start + 3), options={"xatol": 1e-9})
    # A minimum is flat: scipy, which sees only values, places it to the root of 1e-16.
    got = fitted(logits, target).temperature
    assert got == pytest.approx(math.exp(-theirs.x), rel=1e-6)


def test_at_the_best_temperature_the_mean_logit_is_that_of_the_label():
    """The stationarity condition itself: mean E_p[z] = mean z_y."""
    logits, target = sample(1000)
    scaling = fitted(logits, target)
    p = scaling.transform(logits).softmax(1)
    model = (p * logits).sum(1).mean()
    label = logits.gather(1, target[:, None]).mean()
    assert float(model) == pytest.approx(float(label), rel=1e-10)


def test_an_overconfident_model_is_cooled_by_its_own_factor():
    """Logits 2.5 times too large: T = 2.5 up to the noise of 100,000 samples, about 1 %."""
    logits, target = sample(100_000, 5, 2.5)
    assert fitted(logits, target).temperature == pytest.approx(2.5, rel=0.02)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n_samples=st.integers(1, 12),
    n_classes=st.integers(2, 5),
    exponent=st.integers(-12, 12),
)
def test_no_other_temperature_is_better(seed, n_samples, n_classes, exponent):
    """Small integer logits give every case: ties, separable, hopeless, constant, one sample."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(-3, 4, (n_samples, n_classes), generator=generator).double()
    logits *= 10.0**exponent
    target = torch.randint(n_classes, (n_samples,), generator=generator)
    scaling = fitted(logits, target)
    best, found = scaling.temperature, scales(logits, target)
    assert 0 < best < math.inf
    if not found:
        assert best == 1 and not scaling.capped
        return
    low, high = min(found) / 1e4, max(found) * 1e4
    assert low * (1 - 1e-12) <= best <= high * (1 + 1e-12)
    loss = float(negative_log_likelihood(logits / best, target))
    for other in (low * (high / low) ** (k / 32) for k in range(33)):
        # Above by nothing but rounding, which grows with the largest scaled logit.
        rounding = 1e-14 * (1 + 6 * 10.0**exponent / other)
        assert loss <= float(negative_log_likelihood(logits / other, target)) + rounding
    if not scaling.capped:
        nudged = [float(negative_log_likelihood(logits / best / f, target)) for f in (0.99, 1.01)]
        assert loss <= min(nudged) + 1e-14


# ---------------------------------------------------------------------------- hard to scale


def independent(logits, target):
    """T by scipy's root finder on the slope of the float64 loss in log T; -inf is probability 0."""
    z = logits.double().numpy()
    z = z - z.max(1, keepdims=True)
    rows, y = np.arange(len(z)), target.numpy()

    def slope(log_t):
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.maximum(z / math.exp(log_t), -1e5)
        return (softmax(scaled, axis=1) * scaled).sum(1).sum() - (
            z[rows, y] / math.exp(log_t)
        ).sum()

    return math.exp(brentq(slope, -12, 12, xtol=1e-13))


def hard():
    """Name -> (logits, target), each with a temperature of its own that exists."""
    cases = {}
    for n_classes in (2, 10, 1000):
        cases[f"K {n_classes}"] = sample(300, n_classes)
    logits, target = sample(500, 10, 1.7)
    cases["float16"] = logits.half(), target
    cases["bfloat16"] = logits.bfloat16(), target
    cases["shifted"] = logits + torch.linspace(-1e4, 1e4, 500).double()[:, None], target
    cases["imbalanced"] = logits[order := target.argsort()[:150]], target[order]
    cases["tiny"], cases["large"] = (logits / 500, target), (logits * 500, target)
    for name, value, dtype in (
        ("-inf", -math.inf, torch.float64),
        ("-1e4", -1e4, torch.float32),
        ("-1e9", -1e9, torch.float64),
        ("-1e30", -1e30, torch.float32),
        ("lowest float16", torch.finfo(torch.float16).min, torch.float16),
        ("lowest bfloat16", torch.finfo(torch.bfloat16).min, torch.bfloat16),
        ("lowest float32", torch.finfo(torch.float32).min, torch.float32),
        ("lowest float64", torch.finfo(torch.float64).min, torch.float64),
    ):
        masked = torch.cat([logits, torch.full((500, 3), value, dtype=torch.float64)], 1)
        cases[f"3 masked by {name}"] = masked.to(dtype), target
        most = torch.cat([logits, torch.full((500, 90), value, dtype=torch.float64)], 1)
        cases[f"90 masked by {name}"] = most.to(dtype), target
    for value in (1e4, 1e8, 1e300):
        loud = logits.clone()
        loud[0] = 0
        loud[0, target[0]] = value
        cases[f"one right row of {value:g}"] = loud, target
    few = logits.clone()
    few[torch.rand(500, 10, generator=torch.Generator().manual_seed(5)) < 0.4] = -math.inf
    few[torch.arange(500), target] = logits[torch.arange(500), target]
    cases["masked sample by sample"] = few, target
    right = logits.argmax(1)
    nearly = right.clone()
    nearly[:3] = logits[:3].argsort(1)[:, -2]
    cases["nearly separable"] = logits, nearly
    return cases


HARD = hard()


@pytest.mark.parametrize("name", HARD)
def test_an_independent_solver_agrees(name):
    logits, target = HARD[name]
    scaling = fitted(logits, target)
    assert not scaling.capped
    assert scaling.temperature == pytest.approx(independent(logits, target), rel=1e-6)
    assert scaling.transform(logits).shape == logits.shape


@pytest.mark.parametrize("value", [-math.inf, -1e9, -1e300])
@pytest.mark.parametrize("hopeless", [False, True])
def test_where_no_temperature_is_best_a_mask_does_not_hide_it(value, hopeless):
    """Separable or anti-correlated, with and without masked classes: the same cap."""
    logits, _ = sample(200, 5)
    target = logits.argmin(1) if hopeless else logits.argmax(1)
    masked = torch.cat([logits, torch.full((200, 20), value, dtype=torch.float64)], 1)
    plain, found = fitted(logits, target), fitted(masked, target)
    assert plain.capped and found.capped
    assert found.temperature == pytest.approx(plain.temperature, rel=1e-12)


@pytest.mark.parametrize("label", [0, 1])
def test_one_sample_with_a_mask(label):
    scaling = fitted(torch.tensor([[3.0, 1.0, -math.inf]]), torch.tensor([label]))
    assert scaling.capped and scaling.temperature == pytest.approx(2e-4 if label == 0 else 2e4)


def test_what_no_mask_explains_is_refused():
    logits, target = sample(5)
    for bad in (math.nan, math.inf):
        broken = logits.clone()
        broken[3, 1] = bad
        with pytest.raises(ValueError, match=r"logits must be finite, or -inf.*sample 3"):
            fitted(broken, target)
    with pytest.raises(ValueError, match="nothing else in sample 0"):
        fitted(torch.full((1, 3), -math.inf), torch.tensor([0]))
    masked = logits.clone()
    masked[2, target[2]] = -math.inf
    with pytest.raises(ValueError, match=f"label {target[2]} of sample 2, whose logit is -inf"):
        fitted(masked, target)


# ---------------------------------------------------------------------------- where it does not


def test_separable_data_go_to_the_lower_cap():
    logits, _ = sample()
    scaling = fitted(logits, logits.argmax(1))
    assert scaling.capped
    expected = min(scales(logits, logits.argmax(1))) / 1e4
    assert scaling.temperature == pytest.approx(expected, rel=1e-12)


def test_ties_at_the_top_count_as_separable():
    """The label shares the largest logit: the loss falls to log 2 and never turns."""
    scaling = fitted(torch.tensor([[3.0, 3.0, 0.0], [0.0, 1.0, 1.0]]), torch.tensor([1, 2]))
    assert scaling.capped and scaling.temperature == pytest.approx(1e-4)


def test_all_wrong_goes_to_the_upper_cap():
    logits, _ = sample()
    scaling = fitted(logits, logits.argmin(1))
    assert scaling.capped
    expected = max(scales(logits, logits.argmin(1))) * 1e4
    assert scaling.temperature == pytest.approx(expected, rel=1e-12)


def test_worse_than_chance_on_the_whole_goes_to_the_upper_cap():
    """Optimum at negative 1/T: mostly the runner-up is right, T stays positive."""
    logits = torch.tensor([[1.0, 0.0]]).repeat(10, 1)
    scaling = fitted(logits, torch.tensor([1] * 6 + [0] * 4))
    assert scaling.capped and scaling.temperature == pytest.approx(1e4)


def test_optimum_exactly_at_infinity():
    """Half right: the loss is lowest at 1/T = 0."""
    scaling = fitted(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    assert scaling.capped and scaling.temperature == pytest.approx(1e4)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_one_sample(label):
    scaling = fitted(torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([label]))
    # Above the sample's mean logit of 4/3: more certainty is better; below: less.
    assert scaling.capped
    assert scaling.temperature == pytest.approx({0: 2e-4, 1: 2e4, 2: 3e4}[label])


def test_constant_logits_leave_one():
    for value in (0.0, -7.0, 1e30):
        scaling = fitted(torch.full((5, 3), value), torch.tensor([0, 1, 2, 0, 0]))
        assert scaling.temperature == 1 and not scaling.capped


@pytest.mark.parametrize(("value", "dtype"), [(6e4, torch.float16), (3e38, torch.float32)])
def test_the_ends_of_the_number_range(value, dtype):
    """Differences twice the largest number of the dtype, and differences of one unit of nothing."""
    logits = torch.tensor([[value, -value], [-value, value], [value, -value]], dtype=dtype)
    for target in (torch.tensor([0, 1, 0]), torch.tensor([0, 1, 1]), torch.tensor([1, 0, 1])):
        assert 0 < fitted(logits, target).temperature < math.inf
    smallest = torch.tensor([[5e-324, 0.0], [0.0, 0.0]], dtype=torch.float64)
    assert fitted(smallest, torch.tensor([1, 0])).temperature == 1
    words = r"^logits must have differences within the range of float64, got infinite$"
    with pytest.raises(ValueError, match=words):
        fitted(torch.tensor([[1.5e308, -1.5e308]], dtype=torch.float64), torch.tensor([1]))


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """The number of samples of every pass that a fit makes over them."""
    sizes = []
    derivatives = posthoc._slope_and_curvature
    monkeypatch.setattr(
        posthoc, "_slope_and_curvature", lambda *a: sizes.append(len(a[0])) or derivatives(*a)
    )
    return sizes


def test_the_curvature_is_the_derivative_of_the_slope():
    logits, target = sample(50)
    low, high = (posthoc._slope_and_curvature(logits, target, 0.7 + h)[0] for h in (-1e-5, 1e-5))
    curvature = posthoc._slope_and_curvature(logits, target, 0.7)[1]
    assert curvature == pytest.approx((high - low) / 2e-5, rel=1e-8)  # h² and rounding / h


def test_newton_needs_few_passes(passes):
    """Bisection between the caps would take some forty; a wrong curvature leaves only that."""
    fitted(*sample(1000, too_sure=3.0))
    assert len(passes) <= 12


def test_a_guess_from_some_samples_saves_passes_over_all(monkeypatch, passes):
    logits, target = sample(10_000, 5)
    fitted(logits, target)
    cold = len(passes)
    passes.clear()
    monkeypatch.setattr(posthoc, "_GUESS_FROM", 5000)
    fitted(logits, target)
    assert passes.count(10_000) < cold and passes.count(1000) > 2


def test_in_blocks_the_curvature_is_summed_too(monkeypatch):
    logits, target = sample(83)
    whole = posthoc._slope_and_curvature(logits, target, 0.7)
    monkeypatch.setitem(_blocks.BLOCK_SIZE, "cpu", 35)
    assert posthoc._slope_and_curvature(logits, target, 0.7) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("n_right", [10**2, 10**4])
@pytest.mark.parametrize("small", [1e-100, 1e-3, 1e-1])
def test_nearly_separable_data_converge_fast(passes, n_right, small):
    """One slightly wrong sample among many right ones: Newton alone would crawl by 1/margin.

    At 1e-100 it would take 240 steps, and the bracket spans a hundred powers of ten.
    """
    logits = torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(n_right + 1, 1)
    logits[0] = torch.tensor([0.0, small], dtype=torch.float64)
    scaling = fitted(logits, torch.zeros(n_right + 1, dtype=torch.int64))
    assert len(passes) < 40
    beta = 1 / scaling.temperature
    # small · σ(β small) = n_right · σ(-β): the two sides of a zero slope.
    pull = n_right / (1 + math.exp(beta))
    push = small / (1 + math.exp(-beta * small))
    assert not scaling.capped and pull == pytest.approx(push, rel=1e-9)
