"""How values are read, compared and shown; claims."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calibcourse.exercises import ClaimFailed, claim
from calibcourse.exercises._values import Unreadable, agree, difference, number, parts, show
from calibcourse.exercises.framework import (
    Exercise,
    Outcome,
    WrongSolution,
    value_case,
)

# --- Values --------------------------------------------------------------------------------------

_JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.complex_numbers()
    | st.just(...)
    | st.sampled_from([torch.zeros(0), torch.ones(2, 2), np.array("x"), np.float16(3), object()]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers(), inner, max_size=2)
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=100)
@given(value=_JUNK)
def test_nothing_a_learner_returns_escapes(value):
    case = value_case("one", "x = 1", (1.0,), 2.0, "Twice x.")
    wrong = WrongSolution("same", lambda x: x, "The same.")
    exercise = Exercise(
        "99", "twice", "Twice", 1, 1, 1, lambda x: 2 * x, (case,), (wrong,), ("a", "b"), ((1.0,),)
    )
    feedback = exercise.evaluate(lambda x: value)
    assert feedback.outcome in Outcome
    if isinstance(value, int | float) and abs(value) > 3:
        assert feedback.outcome is Outcome.INCORRECT
    assert repr(feedback) and feedback.card._repr_html_()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=5), st.integers(0, 4))
def test_agreement_has_the_stated_tolerance(values, index):
    index %= len(values)
    tensor = torch.tensor(values, dtype=torch.float64)
    moved = tensor.clone()
    # Just inside and outside of atol + rtol |b|, with room for the rounding of the sum.
    step = 1e-4 * (1 + abs(values[index]))
    moved[index] += 0.99 * step
    assert agree(moved, tensor, 1e-4) and difference(moved, tensor, 1e-4) is None
    moved[index] += 0.02 * step
    assert not agree(moved, tensor, 1e-4)
    assert f"[{index}]" in difference(moved, tensor, 1e-4)


def test_rows_in_a_list_are_a_matrix_and_a_value_in_a_tuple_is_not_the_value():
    matrix = torch.tensor([[1.0, 2.0]])
    assert difference([[1.0, 2.0]], matrix, 1e-4) is None
    assert difference([matrix[0]], matrix, 1e-4) is None
    assert difference(torch.eye(3).tolist(), torch.eye(3), 1e-4) is None
    for value, expected in ((matrix, matrix), (0.5, 0.5)):
        with pytest.raises(Unreadable, match="a tuple with one value in it"):
            difference((value,), expected, 1e-4)
    with pytest.raises(Unreadable, match="a tuple with one value in it"):
        number((2.0,))
    assert difference([matrix], [matrix], 1e-4) is None  # one value, in a list as is expected
    assert difference(([1, 2], [3]), matrix, 1e-4) == "1 value is expected, not 2."


def test_values_are_read_and_shown():
    assert [p.tolist() for p in parts(torch.eye(2), 2)] == [[1, 0], [0, 1]]
    assert len(parts(torch.eye(2))) == 1
    assert number(np.float32(0.5)) == 0.5 and number([2]) == 2 and number(10**30) == 1e30
    with pytest.raises(Unreadable, match=r"a tensor of shape \(2,\) where a single number"):
        number([1, 2])
    assert show(torch.arange(20)) == "[0, 1, 2, 3, 4, 5, 6, 7, …] (20 entries)"
    assert show(torch.eye(3)) == "a tensor of shape (3, 3), first row [1, 0, 0]"
    assert show(-0.0) == "0" and show(float("nan")) == "nan" and show(1 / 3) == "0.3333"
    assert show("x") == "a str"


# --- Claims --------------------------------------------------------------------------------------


@pytest.mark.parametrize("holds", [True, np.True_, torch.tensor(True), torch.tensor([2.0]) > 1])
def test_claim_that_holds_prints_the_text_and_no_numbers(holds, capsys):
    claim("CalMO lowers ECE", holds, before=0.123, after=0.1)
    assert capsys.readouterr().out == "✓ CalMO lowers ECE\n"


def test_claim_that_fails_stops_with_rounded_numbers(capsys):
    with pytest.raises(ClaimFailed) as caught:
        claim("it is so", False, a=1 / 3, b=torch.tensor([0.5, 2]), c="text")
    assert str(caught.value) == "✗ it is so (a = 0.3333, b = [0.5, 2], c = a str)"
    with pytest.raises(ClaimFailed, match=r"^✗ it is so$"):
        claim("it is so", torch.tensor(1.0) > 2)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("holds", [0.3, 1, None, "yes", torch.tensor(0.3)])
def test_claim_refuses_what_is_not_a_truth_value(holds):
    with pytest.raises(TypeError, match="holds must be a bool"):
        claim("a number is no truth", holds)
