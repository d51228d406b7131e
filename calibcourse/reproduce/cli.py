"""`calibcourse reproduce`: run the sweep behind a figure or table of the paper and report it."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .._devices import default_device
from .._files import check_writable
from ..data import DATASETS
from .configs import Config
from .plans import COMPARISONS, PROFILES, TRAJECTORIES, plan
from .records import Sweep
from .report import report_paths, write_report
from .runner import SweepError, executor_for, run_all
from .stacked import stacks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand to its parser."""
    parser.add_argument(
        "figure",
        choices=[*TRAJECTORIES, *COMPARISONS],
        help="of the paper; all: every trajectory; methods: tables 2 and A2; "
        "grid: CalMO's two weights; shift: shifted test images",
    )
    parser.add_argument(
        "--profile",
        choices=PROFILES,
        default=os.environ.get("CALIBCOURSE_PROFILE", "quick"),
        help="quick: an hour on two cores; full: the paper's size, for a GPU "
        "(default: $CALIBCOURSE_PROFILE, else quick)",
    )
    parser.add_argument("--dataset", choices=DATASETS, help="default: the profile's")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        metavar="SEED",
        help="one run of everything for each; intervals need two at least (default: 0 1 2)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("artefacts/reproduce"),
        metavar="DIR",
        help="runs and reports; the same folder again resumes (default: artefacts/reproduce)",
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes on this machine (1)"
    )
    parser.add_argument(
        "--stacked",
        action="store_true",
        help="train trajectories that differ in seed and learning rate only together, as one "
        "(not BulkSGD, not the comparison of methods): for a GPU; each such stack is one worker's "
        "job, and numbers agree with those of single runs within rounding",
    )
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="run on the Dask cluster at this address instead"
    )


def run(options: argparse.Namespace) -> int:
    """Run the sweep that the parsed arguments describe, write its report and print the table.

    Returns:
        0, or 1 if runs failed (the finished ones are kept).

    Raises:
        ValueError, OSError: bad arguments or an unwritable folder, named.
    """
    device = default_device().type if options.profile == "full" else "cpu"
    configs = plan(options.figure, options.profile, options.dataset, options.seeds, device)
    for path in report_paths(options.figure, options.out):
        check_writable(path)
    if options.stacked:
        print(_stacked(configs), file=sys.stderr)
    try:
        with executor_for(options.workers, options.scheduler) as executor:
            runs = run_all(configs, options.out, executor, stacked=options.stacked)
    except SweepError as error:
        print(f"calibcourse reproduce: {error}", file=sys.stderr)
        return 1
    sweep = Sweep(tuple(runs), _command(options))
    paths = write_report(sweep, options.figure, options.out)
    print(paths[1].read_text(encoding="utf-8"))
    print(*(f"wrote {path}" for path in paths), sep="\n")
    return 0


def _stacked(configs: Sequence[Config]) -> str:
    """What is trained together, and what is not."""
    sizes = [len(stack) for stack in stacks(configs)]
    together = [size for size in sizes if size > 1]
    text = f"{sum(together)} of {len(configs)} runs are trained in {len(together)} stacks"
    alone = len(configs) - sum(together)
    return text + (f", the other {alone} singly" if alone else "")


def _command(options: argparse.Namespace) -> str:
    """The command that makes the same runs, without what belongs to one machine."""
    dataset = f" --dataset {options.dataset}" if options.dataset else ""
    seeds = " ".join(map(str, options.seeds))
    stacked = " --stacked" if options.stacked else ""
    return (
        f"reproduce {options.figure} --profile {options.profile}{dataset} --seeds {seeds}{stacked}"
    )
