"""`calibcourse reproduce`: run the sweep behind a figure or table of the paper and report it."""

import argparse
import os
import sys
from pathlib import Path

from ..data import DATASETS
from ..training import default_device
from .configs import FIGURES, PROFILES, plan
from .methods import TABLES, plan_methods
from .methods_report import write_methods_report
from .report import Sweep, write_report
from .runner import SweepError, executor_for, sweep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand to its parser."""
    parser.add_argument(
        "figure",
        choices=[*FIGURES, *TABLES],
        help="of the paper; all: every trajectory; methods: tables 2 and A2; "
        "grid: CalMO's two weights",
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
        "--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED", help="default: 0 1 2"
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
    compared = options.figure in TABLES
    make_plan = plan_methods if compared else plan
    configs = make_plan(options.figure, options.profile, options.dataset, options.seeds, device)
    try:
        with executor_for(options.workers, options.scheduler) as executor:
            runs = sweep(configs, options.out, executor)
    except SweepError as error:
        print(f"calibcourse reproduce: {error}", file=sys.stderr)
        return 1
    write = write_methods_report if compared else write_report
    paths = write(Sweep(tuple(runs), _command(options)), options.figure, options.out)
    print(paths[1].read_text())
    print(*(f"wrote {path}" for path in paths), sep="\n")
    return 0


def _command(options: argparse.Namespace) -> str:
    """The command that makes the same runs, without what belongs to one machine."""
    dataset = f" --dataset {options.dataset}" if options.dataset else ""
    seeds = " ".join(map(str, options.seeds))
    return f"reproduce {options.figure} --profile {options.profile}{dataset} --seeds {seeds}"
