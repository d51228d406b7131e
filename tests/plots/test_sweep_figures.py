"""Figures of sweeps: every run where it belongs, on the axes that were given."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import same_color
from plots_cases import STEPS, bands, content, history, lines, words

from calibcourse import plots, reproduce
from calibcourse.history import History
from calibcourse.reproduce import Run, Sweep, TrajectoryConfig, figures


def gradient_descent(optimizers=("gd",), rates=(0.1, 0.2), seeds=(0, 1)) -> Sweep:
    """Made-up runs that tell optimizer, learning rate and seed by their sharpness."""
    runs = []
    for place, optimizer in enumerate(optimizers):
        for rate in rates:
            for seed in seeds:
                config = TrajectoryConfig(
                    dataset="fashion_mnist_small",
                    optimizer=optimizer,
                    lr=rate,
                    steps=20,
                    batch_size=None,
                    train_samples=40,
                    held_out_samples=30,
                    seed=seed,
                )
                top = 100 * place + 10 * rate + seed + 1
                runs.append(
                    Run(config, history(
                        sharpness=[top, 2 * top, top / 2], train_loss=[2.3, 1.0, 0.1],
                        train_ece=[0.1, top / 1000, 0.01], test_ece=[0.2, top / 900, 0.02],
                    ), {})
                )  # fmt: skip
    return Sweep(tuple(runs), "made up")


SWEEP = gradient_descent(("sgd", "muon"))


@pytest.mark.parametrize(
    ("draw", "given"),
    [
        (reproduce.recorded_sharpness, (gradient_descent(), 0.2)),
        (reproduce.matched_loss_plane, (SWEEP, "Muon")),
    ],
)
def test_a_figure_is_drawn_on_the_given_axes_or_on_its_own(draw, given):
    _, (first, second) = plots.figure(2)
    empty = content(second)
    plt.sca(second)  # nothing may land on whatever axes is current
    assert draw(*given, ax=first) is first
    assert content(second) == empty and len(plt.get_fignums()) == 1
    own = draw(*given)
    assert len(plt.get_fignums()) == 2 and content(own) == content(first)
    assert own.figure.axes == [own]
    assert own.figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0) and own.figure.dpi == 110


def test_a_grid_may_have_one_column():
    (ax,) = reproduce.matched_loss_grid(SWEEP, ["Muon"], ["sharpness"]).axes
    assert ax.get_title() == "Muon, SGD in grey"


def test_recorded_sharpness_draws_every_seed_of_one_learning_rate():
    made = gradient_descent(rates=(0.1, 0.25), seeds=(0, 1, 2))
    ax = reproduce.recorded_sharpness(made, 0.25)
    wanted = [[STEPS, [top, 2 * top, top / 2]] for top in (3.5, 4.5, 5.5)]
    np.testing.assert_array_equal(lines(ax, color=plots.CURVATURE), wanted)
    assert ax.get_title() == "η = 0.25, 3 seeds" and words(ax) == ["2/η = 8"]
    with pytest.raises(ValueError, match=r"0\.3"):
        reproduce.recorded_sharpness(made, 0.3)
    fig = reproduce.learning_rate_grid(made)
    assert [ax.get_title() for ax in fig.axes] == ["η = 0.1, 3 seeds", "η = 0.25, 3 seeds"]
    np.testing.assert_array_equal(lines(fig.axes[1], color=plots.CURVATURE), wanted)


@pytest.mark.parametrize("column", reproduce.MATCHED)
@pytest.mark.parametrize("rate", [None, 0.2])
def test_matched_loss_plane_draws_one_optimizer_before_sgd(column, rate):
    ax = reproduce.matched_loss_plane(SWEEP, "Muon", rate, column)
    _, color, limits = reproduce.MATCHED[column]

    def curves(label: str, only: float | None) -> list:
        return [
            [run.history.column(name)[1:] for name in ("train_loss", column)]
            for run in SWEEP.select(label=label).runs
            if only in (None, run.config.lr)
        ]

    found = [line for line in ax.lines if same_color(line.get_color(), color)]
    assert len(found) == (4 if rate is None else 2)
    np.testing.assert_array_equal([line.get_data() for line in found], curves("Muon", rate))
    np.testing.assert_array_equal(lines(ax, color="#BBBBBB"), curves("SGD", None))
    shades = [line.get_alpha() for line in found]
    assert shades[-1] == 1 and (rate is not None or shades[0] == shades[1] < 1)
    # Time runs right: the loss falls. Only the training ECE is bounded by it.
    assert ax.xaxis_inverted() and ax.get_ylim() == limits
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert ax.get_xlim()[0] > np.log(10) and ax.get_xlim()[1] < 1e-3  # from chance to the end
    bound = lines(ax, color=plots.BOUND, linestyle="--")
    assert len(bound) == (column == "train_ece")
    assert words(ax) == ["ECE = loss "] * len(bound)
    assert all(text.xy[0] == text.xy[1] for text in ax.texts)  # it stands at its line
    labels = ("training loss (nats)", reproduce.MATCHED[column][0])
    assert (ax.get_xlabel(), ax.get_ylabel()) == labels
    assert all((x == y).all() for x, y in bound)
    assert ax.get_title() == "Muon, SGD in grey"


def test_matched_loss_grid_has_rows_of_quantities_and_columns_of_optimizers():
    fig = reproduce.matched_loss_grid(SWEEP, ["Muon", "SGD"], ["test_ece", "sharpness"])
    titles = [ax.get_title() for ax in fig.axes]
    assert titles == ["Muon, SGD in grey", "SGD, SGD in grey", "", ""]
    assert [ax.get_ylabel() for ax in fig.axes] == [
        "test ECE",
        "",
        "sharpness $\\lambda_{\\max}$",
        "",
    ]
    for ax, color in zip(fig.axes, [plots.TEST] * 2 + [plots.CURVATURE] * 2, strict=True):
        assert len(lines(ax, color=color)) == 4


def test_matched_colours_are_those_of_their_quantities():
    colors = {name: color for name, (_, color, _) in reproduce.MATCHED.items()}
    assert colors == {
        "train_ece": plots.TRAIN, "test_ece": plots.TEST, "sharpness": plots.CURVATURE,
    }  # fmt: skip


def test_stops_figure_draws_medians_and_where_they_pass_the_papers_values(monkeypatch):
    steps, sharpness = [0, 10, 20, 30, 40], [1.0, 2.0, 4.0, 2.0, 1.0]
    made = Sweep(
        tuple(
            Run(
                TrajectoryConfig(dataset="fashion_mnist_small", optimizer="gd", lr=0.1, steps=40,
                                 batch_size=None, seed=seed,
                                 even_probes=5, log_probes=2, train_samples=10,
                                 held_out_samples=10),
                History([
                    dict(step=t, sharpness=s, train_ece=s, test_ece=e)
                    for t, s, e in zip(steps, sharpness, [0.1, 0.2, 0.4, 0.5, 0.6], strict=True)
                ]),
                {},
            )
            for seed in (0, 1)
        ),
        "made up",
    )  # fmt: skip
    fig = reproduce.stops_figure({"Made up": made})
    train, test = fig.axes
    assert [ax.get_title() for ax in fig.axes] == ["Made up: train ECE", "Made up: test ECE"]
    (line,) = [line for line in test.lines if line.get_label() == "GD"]
    x, y = line.get_data()
    assert x[0] >= 1 and x[-1] <= 2  # the peak is at step 20, the third probe; the run ends at 40
    np.testing.assert_allclose(y[0], 1, atol=0.02)  # both grow up to the peak
    assert np.all(np.diff(y) < 0)
    (flat,) = [line for line in train.lines if line.get_label() == "GD"]
    np.testing.assert_allclose(flat.get_ydata(), 1)
    paper = reproduce.published("test_ece")["GD"][0]
    (dots,) = [line for line in test.lines if line.get_marker() == "o"]
    assert len(dots.get_xdata()) == 1 and abs(dots.get_ydata()[0] - paper) < 0.1


# Of four seeds: their correlation beside the median, and the last stop that each of them reaches.
APART = (-0.15, -0.05, 0.05, 0.15)
LAST = {"gd": (16, 2, 8, 2), "muon": (16, 4, 16, 4)}


def test_stops_figure_has_a_line_per_optimizer_as_far_as_half_of_its_runs_go(monkeypatch):
    """A line falls by 0.15 whenever the stop doubles (GD), the other is level (Muon).

    Where two seeds are left, the median is 0.05 lower; where one is left, there is none.
    """
    doublings = np.linspace(-2, 4, 49)

    def curve(run, column):
        sign, seed, name = 1 if column == "train_ece" else -1, run.config.seed, run.config.optimizer
        r = sign * (0.5 - 0.15 * doublings if name == "gd" else np.full(49, 0.2)) + APART[seed]
        return np.where(doublings <= np.log2(LAST[name][seed]), r, np.nan)

    muon = {1: 0.17, -1: -0.22}

    def published(column):
        sign = 1 if column == "train_ece" else -1
        return {"SAM": (0.0, 0.0), "GD": (sign * 0.49, 0.0), "Muon": (muon[sign], 0.0)}

    monkeypatch.setattr(figures, "correlation_by_stop_over_peak", curve)
    monkeypatch.setattr(figures, "published", published)
    made = gradient_descent(("gd", "muon"), (0.1,), range(4))
    fig = reproduce.stops_figure({"A": made, "B": made.select(label="GD")})
    titles = ["A: train ECE", "B: train ECE", "A: test ECE", "B: test ECE"]
    assert [ax.get_title() for ax in fig.axes] == titles
    for ax, sign in zip(fig.axes[::2], (1, -1), strict=True):
        shown = {line.get_label(): line for line in ax.lines}
        # The paper's values stand at the right edge. That of GD, 0.49, is passed after the stop 1,
        # where the median is 0.5; that of Muon where its median changes, after the stop 4.
        for wedge, (label, left, end, level, paper, passed, median) in zip(
            ax.texts,
            (
                ("GD", 2, 8, sign * (0.5 - 0.15 * doublings), sign * 0.49, 1, sign * 0.5),
                ("Muon", 4, 16, np.full(49, sign * 0.2), muon[sign], 4, sign * 0.2),
            ),
            strict=True,
        ):
            wanted = level - 0.05 * (doublings > np.log2(left))
            there = doublings <= np.log2(end)
            x, y = shown[label].get_data()
            np.testing.assert_allclose(np.log2(x), doublings[there], atol=1e-9)
            np.testing.assert_allclose(y, wanted[there], atol=1e-12)
            color = shown[label].get_color()
            assert (wedge.get_text(), wedge.xy) == ("◂", (1, paper))
            assert wedge.xycoords == ("axes fraction", "data")
            assert same_color(wedge.get_color(), color) and plots.readable(color) == color
            (dot,) = lines(ax, marker="o", color=color)
            np.testing.assert_allclose(dot, [[passed], [median]])
        assert not same_color(shown["GD"].get_color(), shown["Muon"].get_color())
        # 0.65 to 0.95 and 0.05 to 0.35 at first: seven tenths of the way from the first to the
        # second, three tenths from the seventh to the eighth. From 8 on three runs of eight go on.
        ((x, low, high),) = bands(ax)
        np.testing.assert_allclose(np.log2(x), doublings[doublings <= 3], atol=1e-9)
        edges = (0.12, 0.88) if sign > 0 else (-0.88, -0.12)
        np.testing.assert_allclose((low[0], high[0]), edges)
        straight = [line.tolist() for line in lines(ax) if line.shape == (2, 2)]
        assert straight == [[[0, 1], [0, 0]], [[1, 1], [0, 1]]]  # no correlation; at the peak
        assert ax.get_xscale() == "log" and ax.get_ylim() == (-1.05, 1.05)
        names = [text.get_text() for text in ax.get_xticklabels()]
        assert list(ax.get_xticks()) == [0.25, 0.5, 1, 2, 4, 8, 16]
        assert names == ([] if sign > 0 else ["¼", "½", "1", "2", "4", "8", "16"])
    # One scale for all of them, though B's line ends before A's.
    assert len({ax.get_xlim() for ax in fig.axes}) == len({ax.get_ylim() for ax in fig.axes}) == 1
    assert [ax.get_ylabel() for ax in fig.axes] == ["correlation with sharpness", ""] * 2
    words = "run stopped at … times the step of its sharpness peak"
    assert [ax.get_xlabel() for ax in fig.axes] == ["", "", words, words]
    (box,) = [ax.get_legend() for ax in fig.axes if ax.get_legend()]
    assert [text.get_text() for text in box.get_texts()] == ["GD", "Muon"]
