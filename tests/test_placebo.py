"""The placebo beside a claim of coupling: which runs are paired, and what is correlated."""

from dataclasses import replace

import numpy as np
import pytest

from calibcourse.history import History
from calibcourse.reproduce import PLACEBOS, Sweep, load_recorded, pairings, placebo_kinds
from calibcourse.reproduce.correlations import at_even_steps, correlation

SWEEP = load_recorded().select(seed=0)
GD = load_recorded().select(optimizer="gd")


def test_the_diagonal_is_every_run_with_itself():
    found = np.diag(pairings(GD, "test_ece"))
    own = [correlation(r.history, "test_ece", steps=r.config.even_steps) for r in GD.runs]
    np.testing.assert_allclose(found, own, atol=1e-10)  # one formula, two orders of summation


@pytest.mark.parametrize(("i", "j"), [(0, 5), (5, 0), (2, 7)])
def test_a_row_is_a_sharpness_and_a_column_an_error(i, j):
    sharpness = at_even_steps(GD.runs[i], "sharpness")
    ece = at_even_steps(GD.runs[j], "train_ece")
    assert pairings(GD)[i, j] == pytest.approx(np.corrcoef(sharpness, ece)[0, 1])
    moves = [np.diff(np.log(values))[2:] for values in (sharpness, ece)]  # the first two jump
    assert pairings(GD, changes=True)[i, j] == pytest.approx(np.corrcoef(*moves)[0, 1])


def test_a_run_that_diverged_is_refused_in_words():
    whole, cut = GD.runs[:2]
    rows = [row for row in cut.history.rows if row["step"] < whole.config.even_steps[-2]]
    words = r"^sweep must hold runs with equally many .* probes, got \[39, 41\]; leave out the runs"
    with pytest.raises(ValueError, match=words):
        pairings(Sweep((whole, replace(cut, history=History(rows)))))


def test_what_runs_share_by_shape_alone_is_gone_in_their_changes():
    """GD with another learning rate: most of what correlates as measured is one shape, later."""
    measured, changes = (pairings(GD, changes=c)[placebo_kinds(GD) == 2] for c in (False, True))
    assert np.median(measured) > np.median(changes) + 0.3


def test_kinds_name_the_first_thing_that_differs():
    kinds = placebo_kinds(SWEEP)
    for i, one in enumerate(SWEEP.runs):
        for j, other in enumerate(SWEEP.runs):
            a, b = one.config, other.config
            expected = (
                "other optimizer" if a.label != b.label
                else "other rate" if a.lr != b.lr
                else "other seed" if a.seed != b.seed
                else "own"
            )  # fmt: skip
            assert PLACEBOS[kinds[i, j]] == expected
    assert (placebo_kinds(GD) == 1).sum() == 4 * 3 * 2  # four rates, pairs of three seeds
