"""Figures of classes, read back."""

import numpy as np
import torch
from plots_cases import lines

from calibcourse import plots
from calibcourse.metrics import class_over_confidence

# Three classes, each said 100 times with confidence 0.8: right 50, 80 and 95 times.
SAID = torch.arange(3).repeat_interleave(100)
LOGITS = torch.full((300, 3), 0.1).log().scatter(1, SAID[:, None], np.log(0.8))
RIGHT = torch.cat([torch.arange(100) < n for n in (50, 80, 95)])
TARGET = torch.where(RIGHT, SAID, (SAID + 1) % 3)


def test_classes_that_leave_out_0_are_coloured_and_counted():
    found = class_over_confidence(LOGITS, TARGET)
    ax = plots.class_gaps(found, ("coat", "shirt", "bag"))
    # float32 confidences of 0.8.
    (off,) = lines(ax, color=plots.BOUND, marker="o")
    np.testing.assert_allclose(off, [[0.3, -0.15], [0, 2]], atol=1e-6)
    (calm,) = lines(ax, color=plots.IDEAL, marker="o")
    np.testing.assert_allclose(calm, [[0.0], [1]], atol=1e-6)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["coat", "shirt", "bag"]
    assert ax.get_title() == f"2 classes off, by chance at most {found.at_most_by_chance}"


def test_one_class_is_one_class():
    found = class_over_confidence(LOGITS[:200], TARGET[:200])
    assert plots.class_gaps(found, ("coat", "shirt", "bag")).get_title().startswith("1 class off")


def test_a_title_says_whether_the_error_lies_in_the_noise():
    # All confidences are 0.8: 225 of 300 are right, an ECE of 0.05 where chance gives up to 0.045;
    # of the shirts alone as many are right as they say.
    assert plots.case_title("a", LOGITS, TARGET, 1.0) == "a, T = 1.00\nECE 0.050, above the noise"
    shirts = plots.case_title("a", LOGITS[100:200], TARGET[100:200], 1.0)
    assert shirts == "a, T = 1.00\nECE 0.000, in the noise"


def test_the_grid_has_a_panel_for_each_case_and_temperature():
    cases = {"a": LOGITS, "b": 2 * LOGITS, "c": LOGITS}
    figure = plots.case_grid(cases, TARGET, ("coat", "shirt", "bag"), (1.0, 2.0))
    titles = [ax.get_title() for ax in figure.axes]
    assert [title.split("\n")[0] for title in titles] == [
        f"{name}, T = {temperature:.2f}" for temperature in (1.0, 2.0) for name in "abc"
    ]
    assert "ECE 0.050" in titles[0] and "ECE 0.050" in titles[4]  # half of twice
