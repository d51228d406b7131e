"""Shifted images and wrong labels: what each kind does, as much as asked for, repeatably."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calibcourse.data import noisy_labels, shifted
from calibcourse.data.shift import STRENGTHS, UNITS


def images(n: int = 4, channels: int = 1, size: int = 12, dtype=torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, channels, size, size, generator=generator, dtype=dtype)


EVERY = [(kind, strength) for kind in STRENGTHS for strength in STRENGTHS[kind]]


def test_every_kind_has_a_unit_and_five_growing_strengths():
    assert STRENGTHS.keys() == UNITS.keys()
    for strengths in STRENGTHS.values():
        assert len(strengths) == 5 and strengths[0] > 0
        assert list(strengths) == sorted(set(strengths))


@pytest.mark.parametrize("kind", STRENGTHS)
@pytest.mark.parametrize("strength", [0, 0.0])
def test_strength_0_is_the_identity_in_memory_of_its_own(kind, strength):
    inputs = images()
    found = shifted(inputs, kind, strength)
    assert torch.equal(found, inputs) and found.data_ptr() != inputs.data_ptr()


@pytest.mark.parametrize(("kind", "strength"), EVERY)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_dtype_and_range_stay_and_nothing_is_mutated(kind, strength, channels, dtype):
    inputs = images(channels=channels, dtype=dtype)
    before = inputs.clone()
    found = shifted(inputs, kind, strength)
    assert torch.equal(inputs, before) and not torch.equal(found, inputs)
    assert found.shape == inputs.shape and found.dtype == dtype
    assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("kind", STRENGTHS)
def test_the_stronger_the_farther_from_the_image(kind):
    # Pixels that differ at random would not tell 30 from 60 degrees: one bright half does.
    inputs = torch.zeros(1, 1, 28, 28)
    inputs[..., :14] = 1.0
    inputs[..., 10:18, 20:] = 0.7
    far = [(shifted(inputs, kind, s) - inputs).abs().mean().item() for s in STRENGTHS[kind]]
    assert far == sorted(far) and far[0] > 0


@pytest.mark.parametrize("kind", STRENGTHS)
def test_an_image_is_shifted_alike_alone_and_in_a_batch(kind):
    """Noise is drawn in the order of the images, so the first one's is the same."""
    inputs, strength = images(), STRENGTHS[kind][2]
    torch.testing.assert_close(
        shifted(inputs[:1], kind, strength), shifted(inputs, kind, strength)[:1]
    )


def test_a_quarter_turn_is_exact_and_anticlockwise():
    # Bilinear weights at whole pixels are 0 and 1 up to the rounding of the angle's sine.
    inputs = images()
    found = shifted(inputs, "rotation", 90.0)
    torch.testing.assert_close(found, inputs.rot90(1, (2, 3)), atol=1e-5, rtol=0)


def test_corners_that_come_from_outside_are_black():
    assert shifted(torch.ones(1, 1, 12, 12), "rotation", 45.0)[0, 0, 0, 0] == 0


def test_noise_has_the_standard_deviation_asked_for():
    inputs = torch.full((20, 1, 28, 28), 0.5)
    noise = shifted(inputs, "noise", 0.05) - inputs  # ten standard deviations from any clipping
    # 15,680 draws place a standard deviation to 0.6 % (one standard error).
    assert noise.std().item() == pytest.approx(0.05, rel=0.03)
    assert abs(noise.mean().item()) < 0.002


def test_noise_is_clipped_where_pixels_end():
    found = shifted(torch.zeros(1, 1, 28, 28), "noise", 0.2)
    assert found.min() == 0 and 0.3 < (found == 0).double().mean() < 0.7


def test_the_seed_decides_the_noise_and_nothing_else():
    inputs = images()
    for kind, strength in EVERY:
        again = torch.equal(shifted(inputs, kind, strength, 3), shifted(inputs, kind, strength, 3))
        other = torch.equal(shifted(inputs, kind, strength, 3), shifted(inputs, kind, strength, 4))
        assert again and other == (kind != "noise")


def test_the_callers_random_state_is_left_alone():
    torch.manual_seed(7)
    state = torch.get_rng_state()
    shifted(images(), "noise", 0.1)
    noisy_labels(torch.arange(5), 0.4, 5)
    assert torch.equal(torch.get_rng_state(), state)


def test_blur_keeps_a_flat_image_and_spreads_a_point_by_its_sigma():
    # The weights of the kernel sum to 1 up to float32.
    torch.testing.assert_close(
        shifted(torch.full((1, 1, 9, 9), 0.3), "blur", 2.0), torch.full((1, 1, 9, 9), 0.3)
    )
    point = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    point[0, 0, 20, 20] = 1
    along = shifted(point, "blur", 2.0)[0, 0].sum(0)
    places = torch.arange(41, dtype=torch.float64) - 20
    # Cut off after 3 σ: that takes 3 % of a Gaussian's variance away.
    assert ((along * places**2).sum() / along.sum()).item() == pytest.approx(4.0, rel=0.04)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_blur_reaches_as_far_as_a_small_image_goes(size):
    found = shifted(images(size=size), "blur", 3.0)
    assert found.shape == (4, 1, size, size)


def test_contrast_draws_pixels_towards_the_mean_of_their_own_image():
    inputs = images()
    mean = inputs.mean((1, 2, 3), keepdim=True)
    # torchvision and this line round differently in float32.
    torch.testing.assert_close(shifted(inputs, "contrast", 0.6), mean + 0.4 * (inputs - mean))
    torch.testing.assert_close(shifted(inputs, "contrast", 1.0), mean.expand_as(inputs))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.zeros(1, 28, 28), "blur", 1.0), r"inputs must be images of shape \(N, 1, H, W\)"),
        ((torch.zeros(1, 2, 4, 4), "blur", 1.0), "inputs must be images"),
        ((torch.zeros(0, 1, 4, 4), "blur", 1.0), "inputs must have shape"),
        ((torch.zeros(1, 1, 4, 4, dtype=torch.int64), "blur", 1.0), "inputs must have a floating"),
        ((2 * torch.ones(1, 1, 4, 4), "blur", 1.0), r"inputs must be pixels in \[0, 1\]"),
        ((torch.full((1, 1, 4, 4), math.nan), "blur", 1.0), "inputs must be finite"),
        ((torch.zeros(1, 1, 4, 4), "zoom", 1.0), "kind must be one of blur, contrast, noise"),
        ((torch.zeros(1, 1, 4, 4), "contrast", 1.5), "strength of contrast, in part taken away"),
        ((torch.zeros(1, 1, 4, 4), "rotation", -5.0), "strength of rotation, in degrees"),
        ((torch.zeros(1, 1, 4, 4), "noise", math.nan), "strength of noise"),
        ((torch.zeros(1, 1, 4, 4), "noise", "0.1"), "strength of noise.*must be a real number"),
        ((torch.zeros(1, 1, 4, 4), "noise", 0.1, -1), "seed must be at least 0"),
    ],
)
def test_bad_shifts_are_named(arguments, words):
    with pytest.raises((ValueError, TypeError), match=words):
        shifted(*arguments)


# --- wrong labels


@given(
    n=st.integers(1, 200),
    rate=st.floats(0, 1),
    n_classes=st.integers(2, 12),
    kind=st.sampled_from(["symmetric", "one_sided"]),
    seed=st.integers(0, 5),
)
def test_exactly_the_share_asked_for_is_wrong_and_every_label_is_a_class(
    n, rate, n_classes, kind, seed
):
    target = torch.arange(n) % n_classes
    before = target.clone()
    found = noisy_labels(target, rate, n_classes, kind, seed)
    assert torch.equal(target, before) and found.dtype == torch.int64
    assert (found != target).sum() == round(rate * n)
    assert found.min() >= 0 and found.max() < n_classes
    assert torch.equal(found, noisy_labels(target, rate, n_classes, kind, seed))


def test_rate_0_changes_nothing_in_memory_of_its_own():
    target = torch.arange(5)
    found = noisy_labels(target, 0.0, 5)
    assert torch.equal(found, target) and found.data_ptr() != target.data_ptr()


def test_one_sided_noise_takes_the_next_class():
    found = noisy_labels(torch.tensor([0, 1, 2]), 1.0, 3, "one_sided")
    assert found.tolist() == [1, 2, 0]


def test_symmetric_noise_takes_every_other_class_alike():
    found = noisy_labels(torch.zeros(9000, dtype=torch.int64), 1.0, 10)
    counts = found.bincount(minlength=10)
    assert counts[0] == 0
    # 1,000 of each, give or take four standard deviations of a binomial count.
    assert (counts[1:] - 1000).abs().max() < 4 * math.sqrt(1000 * 8 / 9)


@pytest.mark.parametrize("kind", ["symmetric", "one_sided"])
def test_what_is_wrong_at_a_smaller_rate_stays_wrong_in_the_same_way(kind):
    target = torch.arange(300) % 10
    few, many = (noisy_labels(target, rate, 10, kind, seed=2) for rate in (0.1, 0.4))
    assert torch.equal(few[few != target], many[few != target])


def test_another_seed_changes_other_labels():
    target = torch.arange(300) % 10
    assert not torch.equal(noisy_labels(target, 0.2, 10), noisy_labels(target, 0.2, 10, seed=1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.arange(3), 1.2, 3), "rate must lie in"),
        ((torch.arange(3), 0.2, 2), r"target must lie in 0\.\.1"),
        ((torch.arange(3), 0.2, 1), "n_classes must be at least 2"),
        ((torch.arange(3).float(), 0.2, 3), "target must have dtype torch.int64"),
        ((torch.tensor([], dtype=torch.int64), 0.2, 3), "target must hold at least one label"),
        ((torch.zeros(2, 2, dtype=torch.int64), 0.2, 3), "target must have shape"),
        (([0, 1], 0.2, 3), "target must be a torch.Tensor"),
        ((torch.arange(3), 0.2, 3, "uniform"), "kind must be one of one_sided, symmetric"),
        ((torch.arange(3), 0.2, 3, "symmetric", 1.5), "seed must be an int"),
    ],
)
def test_bad_noise_is_named(arguments, words):
    with pytest.raises((ValueError, TypeError), match=words):
        noisy_labels(*arguments)
