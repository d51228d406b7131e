"""The measures of the two hypotheses on hand-made runs whose answers are known in closed form."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibcourse.history import History
from calibcourse.reproduce import (
    Run,
    Sweep,
    TrajectoryConfig,
    at_matched_loss,
    by_label,
    compare,
    decay_table,
    peak,
    settling_step,
    verdict_table,
)

SGD = TrajectoryConfig(
    dataset="fashion_mnist_small",
    optimizer="sgd",
    lr=0.1,
    steps=100,
    batch_size=10,
    train_samples=20,
    held_out_samples=20,
)


def history(steps, **columns):
    rows = [
        {"step": int(step)} | {name: float(series[i]) for name, series in columns.items()}
        for i, step in enumerate(steps)
    ]
    return History(rows)


def run(ece, optimizer="sgd", lr=0.1, seed=0, **options):
    """A run whose training ECE takes these values at steps 0, 10, 20, ..."""
    config = replace(SGD, optimizer=optimizer, lr=lr, seed=seed, options=options)
    return Run(config, history(10 * np.arange(len(ece)), train_ece=ece), {})


# --- Peak and settling ----------------------------------------------------------------------------


def test_peak_ignores_what_was_not_measured():
    assert peak(history(range(4), train_ece=[math.nan, 0.2, 0.3, 0.1])) == 0.3


@pytest.mark.parametrize(
    ("level", "step"),
    [
        (0.3, 15.0),  # half way from 0.4 to 0.2
        (0.4, 10.0),  # at the level counts as not yet below
        (0.5, 0.0),  # never there
        (0.1, math.inf),  # there at the end
        (0.05, math.inf),
    ],
)
def test_settling_step_of_a_broken_line(level, step):
    broken = history([0, 10, 20, 40], train_ece=[0.0, 0.4, 0.2, 0.1])
    assert settling_step(broken, level) == pytest.approx(step, rel=1e-12)


def test_settling_counts_from_the_last_return():
    bumpy = history([0, 10, 20, 30, 40], train_ece=[0.4, 0.1, 0.3, 0.1, 0.1])
    assert settling_step(bumpy, 0.2) == pytest.approx(25.0)


def test_settling_skips_rows_without_a_value():
    holed = history([0, 10, 20, 30], train_ece=[0.4, math.nan, 0.2, 0.1])
    assert settling_step(holed, 0.3) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("level", "words"),
    [
        (math.nan, r"^level must lie in \(-inf, inf\), got nan$"),
        (math.inf, r"^level must lie in \(-inf, inf\), got inf$"),
        ("0.1", r"^level must be a real number, got str$"),
    ],
)
def test_a_level_is_a_finite_number(level, words):
    with pytest.raises((TypeError, ValueError), match=words):
        settling_step(history(range(2), train_ece=[0.4, 0.1]), level)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(0.01, 1), min_size=2, max_size=12),
    st.floats(0.02, 0.9),
    st.floats(0.02, 0.9),
)
def test_a_lower_level_is_never_settled_earlier(values, one, two):
    series = history(range(len(values)), train_ece=values)
    low, high = sorted((one, two))
    assert settling_step(series, low) >= settling_step(series, high)


# --- Matched loss ---------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("loss", [1.0, 0.2, 0.01])
def test_a_power_of_the_loss_is_interpolated_exactly(power, loss):
    losses = np.array([2.0, 0.7, 0.05, 0.001])
    run_ = history([0, 3, 50, 400], train_loss=losses, train_ece=0.3 * losses**power)
    # Logarithms and an exponential in float64: some 1e-15 relative.
    assert at_matched_loss(run_, "train_ece", loss) == pytest.approx(0.3 * loss**power, rel=1e-12)


def test_matched_loss_does_not_depend_on_when_it_happened():
    losses, ece = [2.0, 0.5, 0.1], [0.4, 0.2, 0.06]
    fast = history([0, 1, 2], train_loss=losses, train_ece=ece)
    slow = history([0, 70, 900], train_loss=losses, train_ece=ece)
    assert at_matched_loss(fast, "train_ece", 0.3) == at_matched_loss(slow, "train_ece", 0.3)


def test_matched_loss_takes_the_first_passage():
    again = history(range(4), train_loss=[1.0, 0.1, 1.0, 0.1], train_ece=[0.5, 0.05, 0.4, 0.01])
    assert at_matched_loss(again, "train_ece", 0.1) == pytest.approx(0.05)


def test_matched_loss_of_another_loss_column():
    both = history(range(2), train_loss=[1, 0.1], test_loss=[1, 0.5], train_ece=[0.5, 0.25])
    assert at_matched_loss(both, "train_ece", 0.5, against="test_loss") == pytest.approx(0.25)


def test_matched_loss_that_cannot_be_told_is_nan():
    short = history(range(3), train_loss=[1.0, 0.5, 0.1], train_ece=[0.5, 0.2, 0.0])
    assert math.isnan(at_matched_loss(short, "train_ece", 0.01))  # never reached
    assert math.isnan(at_matched_loss(short, "train_ece", 1.0))  # it starts there
    assert math.isnan(at_matched_loss(short, "train_ece", 0.2))  # an ECE of 0 has no logarithm
    with pytest.raises(ValueError, match="loss must lie in"):
        at_matched_loss(short, "train_ece", 0.0)
    with pytest.raises(ValueError, match="train_log_q must not be negative"):
        at_matched_loss(history([0, 1], train_loss=[1, 0.1], train_log_q=[0, -3]), "train_log_q", 1)


# --- Many runs ------------------------------------------------------------------------------------


def test_values_are_in_order_of_learning_rate_and_seed():
    sweep = Sweep(
        (
            run([0.4], lr=0.2, seed=1),
            run([0.1], lr=0.1, seed=0),
            run([0.3], lr=0.2, seed=0),
            run([0.9], optimizer="bulk_sgd", directions=3),
        )
    )
    values = by_label(sweep, peak)
    np.testing.assert_array_equal(values["SGD"], [[0.1, math.nan], [0.3, 0.4]])
    np.testing.assert_array_equal(values["BulkSGD 3"], [[0.9]])


def test_comparison_pairs_equal_learning_rates_where_they_are_shared():
    sweep = Sweep(
        (
            run([0.2], lr=0.1, seed=0),
            run([0.2], lr=0.1, seed=1),
            run([0.8], lr=0.2, seed=0),
            run([0.1], "sam", lr=0.1, seed=0),  # half of SGD's 0.2
            run([0.3], "sam", lr=0.1, seed=1),  # one and a half times
            run([0.2], "sam", lr=0.2, seed=0),  # a quarter
        )
    )
    found = compare(sweep, "SAM", "SGD", peak)
    assert (found.wins, found.pairs) == (2, 3)
    assert (found.ratio, found.low, found.high) == pytest.approx((0.5, 0.25, 1.5))
    assert repr(found) == "SAM below SGD in 2 of 3 pairs, ratio 0.50 (0.25 to 1.50)"
    # Read from the other side it is the same finding; that there is no tie is why it adds up.
    back = compare(sweep, "SGD", "SAM", peak)
    assert (back.wins, back.losses, back.ratio) == (1, 2, pytest.approx(2.0))


def test_comparison_crosses_learning_rates_that_mean_different_things():
    sgd = [run([value], lr=lr) for lr, value in ((0.1, 0.1), (0.2, 0.3))]
    muon = [run([value], "muon", lr=lr) for lr, value in ((0.1, 0.2), (0.001, 0.4))]
    found = compare(Sweep((*sgd, *muon)), "SGD", "Muon", peak)
    assert (found.wins, found.pairs) == (3, 4)


def test_comparison_skips_what_was_not_measured_and_lets_never_lose():
    sgd = [run([0.4, 0.1], lr=lr) for lr in (0.1, 0.2, 0.4)]
    sam = [run(ece, "sam", lr=lr) for lr, ece in ((0.1, [0.4, 0.4]), (0.2, [0.4, 0.0]))]
    found = compare(Sweep((*sgd, *sam)), "SAM", "SGD", lambda h: settling_step(h, 0.2))
    assert (found.wins, found.pairs) == (1, 2)  # at rate 0.1 SAM never settles: inf is no win
    assert found.low == found.high == pytest.approx(0.75)  # 5 steps against 20/3
    nothing = compare(Sweep((*sgd, *sam)), "SAM", "SGD", lambda h: math.nan)
    assert (nothing.wins, nothing.pairs) == (0, 0) and math.isnan(nothing.ratio)


def test_a_reference_of_zero_has_no_ratio_but_is_compared():
    values = {0.1: (0.5, 0.0), 0.2: (0.5, 1.0), 0.4: (0.5, 0.25)}  # rate -> SAM's, SGD's
    runs = [
        run([ece], optimizer, lr)
        for lr, pair in values.items()
        for optimizer, ece in zip(("sam", "sgd"), pair, strict=True)
    ]
    found = compare(Sweep(tuple(runs)), "SAM", "SGD", peak)
    assert (found.wins, found.losses, found.pairs) == (1, 2, 3)
    assert (found.low, found.ratio, found.high) == (0.5, 1.25, 2.0)  # of 0.5 and 2


def test_a_tie_is_no_win_for_either():
    tied = Sweep((run([0.2]), run([0.2], "sam")))
    found = compare(tied, "SAM", "SGD", peak)
    assert (found.wins, found.losses, found.verdict) == (0, 0, "undecided")


def test_comparison_names_the_optimizers_there_are():
    with pytest.raises(ValueError, match="SGD"):
        compare(Sweep((run([0.1]),)), "SAM", "SGD", peak)


def test_table_shows_median_and_range():
    runs = [run([0.4, e], lr=lr) for lr, e in ((0.1, 0.1), (0.2, 0.0), (0.4, 0.3))]
    # From 0.4 to 0.2: a share 2/3, 1/2, never. From 0.4 to 0.05: never, 7/8, never.
    assert decay_table(Sweep(tuple(runs))) == (
        "| | peak of training ECE | below half its peak from step | below 0.05 from step |\n"
        "|---|---|---|---|\n"
        "| SGD | 0.4 (0.4 to 0.4) | 6.7 (5 to never) | never (8.8 to never) |\n"
    )


def test_table_of_other_measures():
    sweep = Sweep((run([0.4]), run([1234.5], "sam")))
    table = decay_table(sweep, {"peak": peak, "nothing": lambda h: math.nan})
    assert table.split("\n")[2:4] == ["| SGD | 0.4 (0.4 to 0.4) | – |",
                                      "| SAM | 1,234 (1,234 to 1,234) | – |"]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (45.67, 3, "45.7"),
        (45.67, 2, "46"),
        (99.4, 2, "99"),
        (99.6, 2, "100"),  # rounded to two digits it needs a third place: not 1e+02
        (100.0, 2, "100"),
        (1100.0, 3, "1,100"),
        (0.00123, 2, "0.0012"),
    ],
)
def test_numbers_in_tables_have_no_power_of_ten_above_one(value, digits, shown):
    table = decay_table(Sweep((run([value]),)), {"peak": peak}, digits)
    assert table.split("\n")[2] == f"| SGD | {shown} ({shown} to {shown}) |"


def test_ratios_are_shown_by_the_same_rule():
    sweep = Sweep((run([0.003]), run([0.41], "sam")))  # 136.7, and the other way round 0.00732
    table = verdict_table(sweep, {"peak": peak}, [("SAM", "SGD"), ("SGD", "SAM")])
    assert "| peak | higher, 0 of 1, ratio 137 | lower, 1 of 1, ratio 0.0073 |" in table


@pytest.mark.parametrize(
    ("wins", "pairs", "verdict"),
    [
        (0, 4, "higher"),
        (1, 4, "higher"),
        (2, 4, "undecided"),
        (3, 4, "lower"),
        # More than half, less than three in four, both ways; and just enough.
        (2, 3, "undecided"),
        (2, 5, "undecided"),
        (3, 5, "undecided"),
        (4, 5, "lower"),
        (5, 7, "undecided"),
        (6, 8, "lower"),
        (2, 8, "higher"),
    ],
)
def test_three_pairs_in_four_decide(wins, pairs, verdict):
    sam = [run([0.1 if lr < wins else 0.3], "sam", lr=lr + 1) for lr in range(pairs)]
    sgd = [run([0.2], lr=lr + 1) for lr in range(pairs)]
    assert compare(Sweep((*sam, *sgd)), "SAM", "SGD", peak).verdict == verdict


def test_verdict_table_and_a_verdict_without_pairs():
    sweep = Sweep((run([0.4]), run([0.2], "sam")))
    table = verdict_table(
        sweep, {"peak": peak, "nothing": lambda h: math.nan}, [("SAM", "SGD"), ("SGD", "SAM")]
    )
    assert table == (
        "| | SAM against SGD | SGD against SAM |\n|---|---|---|\n"
        "| peak | lower, 1 of 1, ratio 0.5 | higher, 0 of 1, ratio 2 |\n"
        "| nothing | undecided, 0 of 0 | undecided, 0 of 0 |\n"
    )
