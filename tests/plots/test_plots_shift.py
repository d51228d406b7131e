"""Figures of a shift of the images, read back: logits, strengths, and the edges of the band."""

import numpy as np
import pytest
import torch
from plots_cases import FLIPS, IMAGES, bands, lines

from calibcourse import plots
from calibcourse.data import shifted
from calibcourse.data.shift import STRENGTHS
from calibcourse.metrics import expected_calibration_error

KINDS = list(STRENGTHS)


@pytest.fixture(scope="module")
def logits() -> dict[str, list[torch.Tensor]]:
    return {kind: plots.shift_logits(FLIPS, IMAGES, kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_images_as_they_are_and_of_each_strength(logits, kind):
    assert len(logits[kind]) == 1 + len(STRENGTHS[kind])
    with torch.no_grad():
        for found, strength in zip(logits[kind], (0.0, *STRENGTHS[kind]), strict=True):
            torch.testing.assert_close(found, FLIPS(shifted(IMAGES.inputs, kind, strength)))
            assert not found.requires_grad


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="kind must be one of"):
        plots.shift_logits(FLIPS, IMAGES, "zoom")


@pytest.mark.parametrize("kind", KINDS)
def test_the_band_reaches_from_the_difference_to_the_sum_of_doubt_and_error(logits, kind):
    ax = plots.shift_band(logits[kind], IMAGES.target, kind)
    x = [0.0, *STRENGTHS[kind]]
    error = np.array([(z.argmax(1) != IMAGES.target).double().mean() for z in logits[kind]])
    doubt = np.array([1 - z.double().softmax(1).amax(1).mean() for z in logits[kind]])
    ece = [expected_calibration_error(z, IMAGES.target).item() for z in logits[kind]]
    ((where, low, high),) = bands(ax)
    # float32 logits: seven digits.
    np.testing.assert_allclose(where, x)
    np.testing.assert_allclose(low, abs(doubt - error), atol=1e-6)
    np.testing.assert_allclose(high, doubt + error, atol=1e-6)
    (errors,) = lines(ax, color=plots.WRONG)
    (doubts,) = lines(ax, color=plots.TEST, linestyle="--")
    (eces,) = lines(ax, color=plots.TEST, linestyle="-")
    for (places, heights), wanted in ((errors, error), (doubts, doubt), (eces, ece)):
        np.testing.assert_allclose(places, x)
        np.testing.assert_allclose(heights, wanted, atol=1e-6)
    assert plots.shift_band(logits[kind], IMAGES.target, kind, legend=False).get_legend() is None


@pytest.mark.parametrize("grade", [0, 3, 5])
def test_the_panel_marks_the_grade_that_its_diagram_shows(logits, grade):
    _, axes = plots.figure(2)
    plots.shift_panel(axes, logits["blur"], IMAGES.target, "blur", grade)
    strength = (0.0, *STRENGTHS["blur"])[grade]
    ece = expected_calibration_error(logits["blur"][grade], IMAGES.target).item()
    assert axes[0].get_title() == f"blur {strength:g}: ECE {ece:.3f}"
    (mark,) = lines(axes[1], linestyle=":")
    assert mark[0].tolist() == [strength] * 2
    error = (logits["blur"][grade].argmax(1) != IMAGES.target).double().mean().item()
    assert axes[1].get_title().startswith(f"error {error:.2f}, doubt ")


def test_the_grid_has_a_column_per_kind_and_one_legend_per_row():
    fig = plots.shift_grid(FLIPS, IMAGES, grade=2)
    diagrams, below = fig.axes[: len(KINDS)], fig.axes[len(KINDS) :]
    for kind, ax in zip(KINDS, diagrams, strict=True):
        assert ax.get_title().startswith(f"{kind} {STRENGTHS[kind][1]:g}: ")
    for row in (diagrams, below):
        assert [ax.get_legend() is not None for ax in row] == [True, False, False, False]
