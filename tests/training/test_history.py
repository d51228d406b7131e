"""The record of a run: which steps are probed, columns, rows, and files that are no such record."""

import json
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibcourse.history import History, even_steps, log_steps


@given(steps=st.integers(1, 10**6), n=st.integers(2, 80))
@settings(deadline=None, max_examples=60)
def test_schedules_increase_from_start_to_end_with_at_most_n_steps(steps, n):
    for chosen in (even_steps(steps, n), log_steps(steps, n)):
        assert chosen[0] == 0 and chosen == sorted(set(chosen))
        assert len(chosen) <= n and chosen[-1] <= steps
    assert even_steps(steps, n)[-1] == steps
    assert n == 2 or log_steps(steps, n)[-1] == steps


def test_even_steps_are_all_steps_where_there_are_fewer():
    assert even_steps(3, 40) == [0, 1, 2, 3]
    assert even_steps(0, 40) == [0]


def test_log_steps_are_a_constant_factor_apart_and_as_many_as_asked_for():
    assert log_steps(10**6, 5) == [0, 1, 100, 10_000, 10**6]


@pytest.mark.parametrize("chosen", [even_steps, log_steps])
def test_a_schedule_names_what_it_cannot_use(chosen):
    with pytest.raises(ValueError, match=r"^steps must be at least"):
        chosen(-1, 5)
    with pytest.raises(ValueError, match=r"^n must be at least 2, got 1"):
        chosen(10, 1)


numbers = st.floats(allow_infinity=False, width=64)


histories = st.builds(
    lambda values, diverged: History(
        [{"step": 3 * i, "a": value} for i, value in enumerate(values)],
        {"seed": 0, "lr": 0.1},
        diverged,
    ),
    st.lists(numbers, max_size=6),
    st.none() | st.integers(0, 100),
)


@given(history=histories)
@settings(deadline=None, max_examples=60)
def test_saved_history_comes_back_bit_for_bit(tmp_path_factory, history):
    path = tmp_path_factory.getbasetemp() / "history.json"
    history.save(path)
    loaded = History.load(path)
    assert loaded.metadata == history.metadata and loaded.diverged_at == history.diverged_at
    assert len(loaded) == len(history)
    if len(history):
        np.testing.assert_array_equal(loaded.column("a"), history.column("a"))


def test_what_is_not_finite_is_null_in_the_record_and_nan_in_the_history():
    record = History([{"step": 0, "a": math.nan, "b": -math.inf, "c": 1.0}]).to_dict()
    assert record["rows"] == [{"step": 0, "a": None, "b": None, "c": 1.0}]
    (row,) = History.from_dict(record).rows
    assert math.isnan(row["a"]) and math.isnan(row["b"]) and row["c"] == 1.0


def test_the_largest_numbers_of_a_file_are_taken():
    rows = [{"step": 2**63 - 1, "a": -sys.float_info.max, "b": sys.float_info.max}]
    assert History.from_dict(rows_with(rows=rows)).rows == rows


def test_a_record_that_is_no_file_is_called_a_record():
    with pytest.raises(ValueError, match=r"^record: row 0 must name its columns by text$"):
        History.from_dict(rows_with(rows=[{"step": 0, 5: 1.0}]))


def test_a_column_of_older_records_has_its_name_of_today():
    record = History([{"step": 0, "test_log_misconfidence": -1.0}]).to_dict()
    assert History.from_dict(record).columns == ("step", "test_log_error_probability")


def rows_with(**changes):
    return {**History([{"step": 0, "a": 1.0}]).to_dict(), **changes}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "JSON"),
        ("[" * 100_000, "JSON"),
        ("{", "JSON"),
        ("[1]", "must hold an object, got list"),
        ('{"rows": NaN}', "JSON"),
        (json.dumps(rows_with(version=2)), "version 1, got .*version 2"),
        (json.dumps(rows_with(format="other")), "format 'other'"),
        (json.dumps(rows_with(rows={})), "rows must be an array, got dict"),
        (json.dumps(rows_with(rows=[{"a": 1.0}])), "row 0 must have an integer step above -1"),
        (json.dumps(rows_with(rows=[3])), "row 0"),
        (json.dumps(rows_with(rows=[{"step": 1}, {"step": 1}])), "row 1"),
        (json.dumps(rows_with(rows=[{"step": True}])), "row 0"),
        (json.dumps(rows_with(rows=[{"step": 0, "a": "x"}])), "'a'"),
        (json.dumps(rows_with(rows=[{"step": 0, "a": 10**400}])), "'a'"),
        (json.dumps(rows_with(rows=[{"step": 0, "a": [1]}])), "'a'"),
        (json.dumps(rows_with(metadata=[])), "metadata"),
        (json.dumps(rows_with(diverged_at="now")), "diverged_at must be a step or null, got 'now'"),
        (b"\xff\xfe", "JSON"),
    ],
)
def test_hostile_history_files_are_refused_by_name(tmp_path, content, words):
    path = tmp_path / "theirs.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"(?s)theirs\.json.*{words}"):
        History.load(path)


def test_columns_tell_what_is_missing():
    history = History([{"step": 0, "a": 1.0}, {"step": 2, "a": 0.5, "b": 3.0}])
    assert history.columns == ("step", "a", "b")
    np.testing.assert_array_equal(history.column("b"), [math.nan, 3.0])
    with pytest.raises(ValueError, match=r"^name must be one of a, b, step; got 'c'"):
        history.column("c")


def test_a_column_is_of_one_dtype_whatever_numbers_it_holds():
    """No rows, whole numbers and rows without a value are where NumPy's own choice differs."""
    for rows in ([{"step": 0, "a": 1}], [{"step": 0, "a": 1.0}, {"step": 1}]):
        assert History(rows).column("step").dtype == np.int64
        assert History(rows).column("a").dtype == np.float64


@pytest.mark.parametrize(
    ("history", "text"),
    [
        (History([]), "History(0 rows)"),
        (History([{"step": 4}]), "History(1 rows, steps 4 to 4)"),
        (
            History([{"step": 0, "a": 1.0}, {"step": 9, "b": 2.0}], diverged_at=12),
            "History(2 rows, steps 0 to 9, columns: a, b, diverged at step 12)",
        ),
    ],
)
def test_a_history_says_in_a_line_what_it_holds(history, text):
    assert repr(history) == text


def test_best_row_is_the_earliest_extremum_and_skips_what_is_missing():
    values = [math.nan, 2.0, 1.0, 1.0, 3.0]
    history = History([{"step": i, "v": v} for i, v in enumerate(values)])
    assert history.best("v")["step"] == 2
    assert history.best("v", largest=True)["step"] == 4
    with pytest.raises(ValueError, match="'w' has none"):
        History([{"step": 0, "w": math.nan}]).best("w")
