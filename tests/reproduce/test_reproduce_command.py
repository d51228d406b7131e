"""`calibcourse reproduce`: what it asks of a plan and of the runner, and what it prints."""

import re
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reproduce_cases import TINY, parse

from calibcourse.history import History
from calibcourse.reproduce import Run, Sweep, cli, plan
from calibcourse.reproduce.runner import SweepError

CONFIGS = [replace(TINY, seed=seed) for seed in (0, 1)]
RUNS = [Run(config, History([{"step": 0}]), {"seconds": 1.0}) for config in CONFIGS]


class Page(type(Path())):
    """A file on a system whose own encoding is Latin-1."""

    def read_text(self, encoding=None):
        return super().read_text(encoding or "latin-1")


@pytest.fixture
def asked(monkeypatch):
    """What the command asks of the pieces that it puts together; nothing is trained or drawn."""
    seen = {}

    def planned(*arguments):
        seen["plan"] = arguments
        return CONFIGS

    @contextmanager
    def executor_for(*arguments):
        seen["executor"] = arguments
        yield "the executor"
        seen["left"] = True

    def run_all(*arguments, **options):
        seen["run"] = arguments, options
        return RUNS

    def write_report(sweep, name, folder):
        seen["report"] = sweep, name, folder
        page = Page(folder) / "page"
        page.write_text("η 0.1 ± 0.2\n", encoding="utf-8")
        return [folder / "picture", page, folder / "record"]

    for name, stand_in in {
        "plan": planned, "executor_for": executor_for, "run_all": run_all,
        "write_report": write_report,
    }.items():  # fmt: skip
        monkeypatch.setattr(cli, name, stand_in)
    monkeypatch.setattr(cli, "default_device", lambda: torch.device("cuda", 0))
    return seen


def test_arguments_by_default_are_those_that_the_help_tells(monkeypatch, capsys):
    monkeypatch.delenv("CALIBCOURSE_PROFILE", raising=False)
    assert vars(parse("figure1")) == {
        "figure": "figure1",
        "profile": "quick",
        "dataset": None,
        "seeds": [0, 1, 2],
        "out": Path("artefacts/reproduce"),
        "workers": 1,
        "stacked": False,
        "scheduler": None,
    }
    with pytest.raises(SystemExit, match="0"):
        parse("--help")
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    for words in (
        "of the paper; all: every trajectory; methods: tables 2 and A2; grid: CalMO's two "
        "weights; shift: shifted test images",
        r"--dataset {[^}]*} default: the profile's",
        r"--profile {quick,full} quick: [^()]*\(default: \$CALIBCOURSE_PROFILE, else quick\)",
        r"--seeds SEED \[SEED \.\.\.\] [^()]*\(default: 0 1 2\)",
        r"--out DIR [^()]*\(default: artefacts/reproduce\)",
        r"--workers N [^()]*\(1\)",
        r"--stacked train trajectories that differ in seed and learning rate only together",
        r"--scheduler ADDRESS run on the Dask cluster at this address",
    ):
        assert re.search(words, text), words


@pytest.mark.parametrize(
    "words", [("figure9",), ("table1", "--profile", "x"), ("table1", "--dataset", "x")]
)
def test_command_lists_the_choices(words, capsys):
    with pytest.raises(SystemExit):
        parse(*words)
    assert "choose from" in capsys.readouterr().err


def test_profile_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("CALIBCOURSE_PROFILE", "full")
    assert parse("table1").profile == "full"


def test_a_quick_sweep_is_planned_run_and_reported(asked, tmp_path, capsys):
    assert cli.run(parse("figure1", "--profile", "quick", "--out", str(tmp_path))) == 0
    assert asked == {
        "plan": ("figure1", "quick", None, [0, 1, 2], "cpu"),
        "executor": (1, None),
        "left": True,
        "run": ((CONFIGS, tmp_path, "the executor"), {"stacked": False}),
        "report": (
            Sweep(tuple(RUNS), "reproduce figure1 --profile quick --seeds 0 1 2"),
            "figure1",
            tmp_path,
        ),
    }
    out, err = capsys.readouterr()
    written = [f"wrote {tmp_path / name}\n" for name in ("picture", "page", "record")]
    assert out == "η 0.1 ± 0.2\n\n" + "".join(written) and err == ""


def test_a_full_sweep_goes_to_the_device_and_says_what_it_trains_together(asked, tmp_path, capsys):
    what = ["table1", "--profile", "full", "--dataset", "mnist", "--seeds", "3", "4", "--stacked"]
    where = ["--workers", "2", "--scheduler", "tcp://x:1", "--out", str(tmp_path)]
    assert cli.run(parse(*what, *where)) == 0
    assert asked["plan"] == ("table1", "full", "mnist", [3, 4], "cuda")
    assert asked["executor"] == (2, "tcp://x:1") and asked["run"][1] == {"stacked": True}
    # Workers and scheduler are one machine's: the record names neither.
    assert asked["report"][0].command == (
        "reproduce table1 --profile full --dataset mnist --seeds 3 4 --stacked"
    )
    assert capsys.readouterr().err == "2 of 2 runs are trained in 1 stacks\n"


def test_what_is_trained_together_is_counted():
    two = [replace(TINY, optimizer="adamw", seed=seed) for seed in (0, 1)]
    alone = [replace(TINY, optimizer="bulk_sgd", options={"directions": k}) for k in (1, 3)]
    assert cli._stacked([*CONFIGS, *two, replace(TINY, seed=2), *alone]) == (
        "5 of 7 runs are trained in 2 stacks, the other 2 singly"
    )
    assert cli._stacked(plan("table2", seeds=[0])[:1]) == (
        "0 of 1 runs are trained in 0 stacks, the other 1 singly"
    )


def test_runs_that_failed_are_told_and_nothing_is_reported(asked, tmp_path, monkeypatch, capsys):
    def run_all(*_, **__):
        raise SweepError("1 of 2 runs failed")

    monkeypatch.setattr(cli, "run_all", run_all)
    assert cli.run(parse("figure1", "--out", str(tmp_path))) == 1
    assert capsys.readouterr() == ("", "calibcourse reproduce: 1 of 2 runs failed\n")
    assert "report" not in asked
