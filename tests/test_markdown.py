"""What every report is made of: a table to the letter, and numbers with their spread."""

import math
import warnings

import numpy as np
import pytest

from calibcourse.reproduce.markdown import markdown_table, over_seeds, with_spread


def test_a_table_has_one_rule_for_each_column_and_one_line_for_each_row():
    rows = [["SGD", "0.1", "**2**"], ["", "–", "3"]]
    assert markdown_table(["optimizer", "ECE", "step"], iter(rows)) == (
        "| optimizer | ECE | step |\n|---|---|---|\n| SGD | 0.1 | **2** |\n| | – | 3 |\n"
    )
    assert markdown_table(["", "ECE"], []) == "| | ECE |\n|---|---|\n"


def test_a_spread_that_is_not_known_is_left_out():
    assert with_spread(-0.1251, 0.0349, 2) == "-0.13 ± 0.03"
    assert with_spread(12.34, 0.0, 1) == "12.3 ± 0.0"
    assert with_spread(12.34, math.nan, 1) == "12.3"


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.5], "0.50"),
        ([1.0, 3.0], "2.00 ± 1.41"),  # the root of 2
        ([1.0, 2.0, 6.0], "3.00 ± 2.65"),  # (4 + 1 + 9) / 2 = 7, its root
    ],
)
def test_a_single_seed_has_no_spread_and_no_warning(values, shown):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy warns of the spread of one number
        assert over_seeds(np.array(values), 2) == shown
