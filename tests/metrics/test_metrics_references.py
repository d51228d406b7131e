"""The metrics against dense float64 references written by other means, and other libraries."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from calibcourse.data._torchvision import import_torchvision
from calibcourse.metrics import (
    brier_score,
    confidence_and_correct,
    expected_calibration_error,
    kernel,
    kernel_calibration_error,
    maximum_calibration_error,
    mean_confidence,
    mean_misconfidence,
    negative_log_likelihood,
    reliability_curve,
    smooth,
    smooth_calibration_error,
)

CASES = [
    pytest.param(n_samples, n_classes, scale, id=f"{n_samples}x{n_classes}, scale {scale}")
    for n_samples, n_classes, scale in (
        (1, 2, 1.0),
        (17, 2, 0.1),
        (200, 3, 2.0),
        (200, 10, 1.0),
        (200, 10, 8.0),
        (99, 300, 4.0),
        (50, 10, 100.0),
    )
]


def sample(n_samples, n_classes=10, scale=3.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n_samples, n_classes, generator=generator, dtype=torch.float64)
    target = torch.multinomial((logits / 1.5).softmax(1), 1, generator=generator)[:, 0]
    return logits.to(dtype), target


def confidence_and_residual(logits, target):
    """By scipy, in float64: c and 1{ŷ=y} - c."""
    p = softmax(logits.double().numpy(), axis=1)
    correct = p.argmax(1) == target.numpy()
    return p.max(1), correct - p.max(1)


# ---------------------------------------------------------------------------- dense references


@pytest.mark.parametrize(("n_samples", "n_classes", "scale"), CASES)
def test_means(n_samples, n_classes, scale):
    logits, target = sample(n_samples, n_classes, scale)
    p = softmax(logits.numpy(), axis=1)
    others = np.sort(p, axis=1)[:, :-1].sum(1)
    one_hot = np.eye(n_classes)[target.numpy()]
    log_p = log_softmax(logits.numpy(), axis=1)[np.arange(n_samples), target.numpy()]
    for value, expected in (
        (mean_confidence(logits), p.max(1).mean()),
        (mean_misconfidence(logits), others.mean()),
        (negative_log_likelihood(logits, target), -log_p.mean()),
        (brier_score(logits, target), ((p - one_hot) ** 2).sum(1).mean()),
    ):
        # The reference squares 1 - p_y after cancellation, hence the absolute part.
        assert float(value) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("n_bins", [1, 2, 10, 15, 100])
@pytest.mark.parametrize(("n_samples", "n_classes", "scale"), CASES)
def test_binned_errors(n_samples, n_classes, scale, n_bins):
    logits, target = sample(n_samples, n_classes, scale)
    c, residual = confidence_and_residual(logits, target)
    count, gap = np.zeros(n_bins, int), np.full(n_bins, np.nan)
    for b in range(n_bins):
        inside = (c > b / n_bins) & (c <= (b + 1) / n_bins)
        count[b] = inside.sum()
        gap[b] = residual[inside].mean() if count[b] else math.nan
    curve = reliability_curve(logits, target, n_bins)
    assert curve.count.tolist() == count.tolist()
    np.testing.assert_allclose(-curve.over_confidence.numpy(), gap, rtol=0, atol=1e-14)
    ece = np.nansum(count * np.abs(gap)) / n_samples
    assert float(expected_calibration_error(logits, target, n_bins)) == pytest.approx(
        ece, abs=1e-14
    )
    mce = np.nanmax(np.abs(gap))
    assert float(maximum_calibration_error(logits, target, n_bins)) == pytest.approx(mce, abs=1e-14)


@pytest.mark.parametrize("n_bins", [1, 2, 7, 15])
def test_equal_mass_bins_are_slices_of_the_sorted_samples(n_bins):
    """Without ties, bin b holds the samples of rank ⌈bN/M⌉ + 1 to ⌈(b+1)N/M⌉."""
    logits, target = sample(100)
    c, residual = confidence_and_residual(logits, target)
    residual = residual[c.argsort()]
    cuts = [math.ceil(b * 100 / n_bins) for b in range(n_bins + 1)]
    sums = [abs(residual[low:high].sum()) for low, high in itertools.pairwise(cuts)]
    got = expected_calibration_error(logits, target, n_bins, "equal_mass")
    assert float(got) == pytest.approx(sum(sums) / 100, abs=1e-14)


def dense_kernel_error(c, residual, bandwidth):
    kernel = np.exp(-np.abs(c[:, None] - c) / bandwidth)
    pairs = kernel * residual[:, None] * residual
    return math.sqrt(max(math.fsum(pairs.ravel()), 0)) / len(c)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 10**6),
    n_samples=st.integers(1, 130),
    n_classes=st.integers(2, 12),
    scale=st.sampled_from([0.01, 1.0, 5.0, 30.0]),
    bandwidth=st.sampled_from([1e-9, 1e-4, 1e-3, 0.03, 0.4, 10.0, 1e6]),
    repeats=st.integers(1, 3),
)
def test_kernel_error_is_its_definition(seed, n_samples, n_classes, scale, bandwidth, repeats):
    """All N² pairs, 1e-10: the O(N log N) form is exact, with ties and at any bandwidth."""
    logits, target = sample(n_samples, n_classes, scale, seed)
    logits, target = logits.repeat(repeats, 1), target.repeat(repeats)
    target[::3] = 0
    # Our c: scipy's is off by 1e-16, which a bandwidth of 1e-9 would turn into 1e-7.
    confidence, correct = (x.numpy() for x in confidence_and_correct(logits, target))
    expected = dense_kernel_error(confidence, correct - confidence, bandwidth)
    got = float(kernel_calibration_error(logits, target, bandwidth))
    assert got == pytest.approx(expected, rel=0, abs=1e-10)


def test_kernel_error_where_everything_cancels():
    """Equal confidences: |accuracy - c|, right to 1e-16 where N² addends would leave 1e-9."""
    for n_wrong in (1, 3, 9):
        logits = torch.zeros(100, 10, dtype=torch.float64)
        target = torch.tensor(([0] * (10 - n_wrong) + [1] * n_wrong) * 10)
        expected = abs((10 - n_wrong) / 10 - 0.1)
        assert float(kernel_calibration_error(logits, target)) == pytest.approx(expected, abs=1e-15)


def test_kernel_error_of_two_samples():
    """r₁² + r₂² + 2 r₁ r₂ e^{-d/h} over 4."""
    p, q = 0.9, 0.6
    logits = torch.tensor([[math.log(p / (1 - p)), 0], [math.log(q / (1 - q)), 0]]).double()
    for bandwidth in (0.1, 0.4, 3.0):
        got = float(kernel_calibration_error(logits, torch.tensor([0, 1]), bandwidth))
        kernel = math.exp(-0.3 / bandwidth)
        expected = math.sqrt(0.1**2 + 0.6**2 - 2 * 0.1 * 0.6 * kernel) / 2
        assert got == pytest.approx(expected, rel=1e-6)  # the logits passed through float32


def test_kernel_error_limits_in_the_bandwidth():
    """h → 0: only i = j is left; h → ∞: |accuracy - mean confidence|."""
    logits, target = sample(300)
    _, residual = confidence_and_residual(logits, target)
    narrow = kernel_calibration_error(logits, target, 1e-12)
    assert float(narrow) == pytest.approx(math.sqrt((residual**2).sum()) / 300, rel=1e-9)
    wide = kernel_calibration_error(logits, target, 1e12)
    assert float(wide) == pytest.approx(abs(residual.mean()), rel=1e-9)


def test_discounted_sums_follow_the_recursion():
    generator = torch.Generator().manual_seed(0)
    for length in (1, 2, 3, 7, 64, 65, 1000):
        values = torch.randn(length, generator=generator, dtype=torch.float64)
        discount = torch.rand(length - 1, generator=generator, dtype=torch.float64)
        discount[::5] = 0
        discount[3::7] = 1
        expected, last = [], 0.0
        for value, factor in zip(values.tolist(), [0.0, *discount.tolist()], strict=True):
            expected.append(last := value + factor * last)
        torch.testing.assert_close(
            kernel._discounted_sums(values, discount),
            torch.tensor(expected, dtype=torch.float64),
            rtol=1e-12,
            atol=1e-13,
        )


# ---------------------------------------------------------------------------- smooth ECE


def reflected_gaussian_error(c, residual, sigma, n_points):
    """∫ |mean_i r_i K(t, c_i)| dt by the midpoint rule; K sums Gaussians over mirror images."""
    t = (np.arange(n_points) + 0.5) / n_points
    smoothed = np.zeros(n_points)
    reach = math.ceil(8 * sigma / 2) + 1
    for image in range(-reach, reach + 1):
        for mirrored in (2 * image + c, 2 * image - c):
            near = np.exp(-((t[:, None] - mirrored) ** 2) / (2 * sigma**2))
            smoothed += near @ residual / (sigma * math.sqrt(2 * math.pi))
    return np.abs(smoothed / len(c)).mean()


@pytest.mark.parametrize(
    ("n_samples", "n_classes", "scale"), [(4, 2, 2.0), (40, 2, 2.0), (40, 10, 6.0), (200, 2, 1.0)]
)
def test_smooth_error_is_its_definition(n_samples, n_classes, scale):
    """The error σ at which smECE_σ = σ, with the reflected kernel as a sum over mirror images.

    smECE_σ falls as σ grows, so σ is at most as far from the fixed point as smECE_σ is from σ.
    """
    logits, target = sample(n_samples, n_classes, scale, seed=n_samples)
    sigma = float(smooth_calibration_error(logits, target))
    expected = reflected_gaussian_error(*confidence_and_residual(logits, target), sigma, 20_000)
    # Here σ >= 0.03, some 500 cells: a relative error of (1/500)² from the second-order grid.
    assert sigma == pytest.approx(expected, rel=4e-6)


def test_smooth_error_at_a_small_bandwidth():
    """Residuals of alternating sign, 0.001 apart, so that σ is near 0.001, 16 cells."""
    position = torch.linspace(0.6, 0.8, 201, dtype=torch.float64)
    mass = 0.001 + 0.01 * (-1.0) ** torch.arange(201, dtype=torch.float64)
    cells = torch.zeros(smooth._N_CELLS, dtype=torch.float64)
    smooth._share_between_cells(cells, position, mass)
    sigma = float(smooth._smooth_fixed_point(cells / 201))
    expected = reflected_gaussian_error(position.numpy(), mass.numpy(), sigma, 20_000)
    assert 0.9e-3 < sigma < 2e-3
    assert sigma == pytest.approx(expected, rel=1e-3)  # what the docstring promises


def test_smooth_error_of_one_sided_residuals_is_their_mean():
    """Smoothing moves mass and loses none: all over-confident gives c̄ - accuracy, whatever σ."""
    logits, _ = sample(300)
    target = logits.argmin(1)
    assert float(smooth_calibration_error(logits, target)) == pytest.approx(
        float(mean_confidence(logits)), rel=1e-12
    )


def test_smooth_error_is_continuous_where_binned_error_jumps():
    """Two samples that move across the edge 0.6 by 1e-6: ECE jumps, smECE follows by as much."""

    def logits_at(*confidences):
        return torch.tensor([[math.log(c / (1 - c)), 0] for c in confidences], dtype=torch.float64)

    target = torch.tensor([0, 1])
    apart, together = logits_at(0.5999995, 0.6000005), logits_at(0.6000001, 0.6000005)
    jump, step = (
        abs(float(metric(apart, target)) - float(metric(together, target)))
        for metric in (lambda z, y: expected_calibration_error(z, y, 10), smooth_calibration_error)
    )
    assert jump > 0.1
    assert step < 1e-5


def test_sharing_between_cells_keeps_mass_and_centre():
    generator = torch.Generator().manual_seed(0)
    position = torch.rand(50, generator=generator, dtype=torch.float64)
    position[:3] = torch.tensor([0.0, 1.0, 0.5])
    cells = torch.zeros(10, dtype=torch.float64)
    smooth._share_between_cells(cells, position, torch.ones(50, dtype=torch.float64))
    centres = (torch.arange(10, dtype=torch.float64) + 0.5) / 10
    assert float(cells.sum()) == pytest.approx(50, rel=1e-14)
    # Only what lies beyond the outermost centres moves, to them.
    expected = position.clamp(centres[0], centres[-1]).sum()
    assert float(cells @ centres) == pytest.approx(float(expected), rel=1e-13)


# ---------------------------------------------------------------------------- other libraries


@pytest.mark.parametrize("n_bins", [1, 10, 15, 40])
@pytest.mark.parametrize(("n_samples", "n_classes", "scale"), CASES[2:6])
def test_torchmetrics_agrees_off_the_edges(n_samples, n_classes, scale, n_bins):
    """Its bins are [a, b), ours (a, b]; random confidences lie on no edge, and below 1."""
    import_torchvision()  # torchmetrics imports it, with any build of torchvision
    from torchmetrics.functional.classification import multiclass_calibration_error

    logits, target = sample(n_samples, n_classes, scale / 2)
    for norm, ours in (("l1", expected_calibration_error), ("max", maximum_calibration_error)):
        theirs = multiclass_calibration_error(
            logits.softmax(1), target, n_classes, n_bins=n_bins, norm=norm
        )
        # It works in float32 inside.
        assert float(ours(logits, target, n_bins)) == pytest.approx(float(theirs), abs=2e-6)


@pytest.mark.parametrize("n_bins", [1, 2, 10, 15, 40])
@pytest.mark.parametrize(("n_samples", "n_classes", "scale"), CASES)
def test_uncertainty_calibration_agrees_with_certainty(n_samples, n_classes, scale, n_bins):
    """Its bins are (a, b] as ours, with certain predictions in the last."""
    calibration = pytest.importorskip("calibration")
    logits, target = sample(n_samples, n_classes, scale)
    if n_samples > 1:
        logits[0] = torch.arange(n_classes) * 2000.0  # confidence 1
    theirs = calibration.get_ece(
        softmax(logits.numpy(), axis=1), target.numpy(), num_bins=n_bins, debias=False
    )
    ours = expected_calibration_error(logits, target, n_bins)
    assert float(ours) == pytest.approx(theirs, abs=1e-14)


@pytest.mark.parametrize("n_tied", [2, 4, 5, 8])
def test_uncertainty_calibration_agrees_on_the_edges(n_tied):
    """m tied classes put c on the edge 1/m of m bins; some mass below it shows which bin it is."""
    calibration = pytest.importorskip("calibration")
    logits = torch.full((6, 10), -1000.0, dtype=torch.float64)
    logits[:3, :n_tied] = 0
    logits[3:] = torch.linspace(0, 0.5, 10, dtype=torch.float64)
    target = torch.tensor([0, 1, 2, 9, 9, 0])
    theirs = calibration.get_ece(
        softmax(logits.numpy(), axis=1), target.numpy(), num_bins=n_tied, debias=False
    )
    ours = expected_calibration_error(logits, target, n_tied)
    assert float(ours) == pytest.approx(theirs, abs=1e-14)


@pytest.mark.parametrize("bandwidth", [0.05, 0.4, 2.0])
@pytest.mark.parametrize("scale", [0.5, 2.0, 8.0])
def test_probcal_agrees_on_the_kernel_error(scale, bandwidth):
    """Its biased SKCE has the kernel twice and no root (Widmann et al. 2019, Table 1)."""
    skce = pytest.importorskip("probcal.metrics.kernel").skce
    logits, target = sample(150, 5, scale)
    confidence, correct = confidence_and_correct(logits, target)
    theirs = skce(
        correct.numpy().astype(float),
        confidence.numpy(),
        estimator="biased",
        kernel="laplace",
        bandwidth=bandwidth,
    )
    ours = kernel_calibration_error(logits, target, bandwidth)
    assert float(ours) == pytest.approx(math.sqrt(theirs / 2), rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_agrees_on_the_likelihood(dtype):
    logits, target = sample(500, dtype=dtype)
    theirs = torch.nn.functional.cross_entropy(logits.double(), target)
    # z - z_max is rounded once in float32.
    tolerance = 1e-6 if dtype == torch.float32 else 1e-13
    assert float(negative_log_likelihood(logits, target)) == pytest.approx(
        float(theirs), rel=tolerance
    )
