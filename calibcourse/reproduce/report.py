"""What a figure or table consists of: picture, record, and a text with the paper's numbers."""

import os
from pathlib import Path
from typing import Any

from .._checks import check_choice
from .._files import write_atomically
from ..plots import png_bytes
from .configs import LABELS, TrajectoryConfig
from .correlations import table_1
from .figures import QUANTITIES, comparison_figure, grid_figure, trajectories_figure
from .markdown import markdown_table, with_spread
from .methods_report import comparison_text
from .paper import TABLE_1
from .plans import COMPARISONS, FIVE, TRAJECTORIES
from .records import Sweep
from .shift import shift_figure
from .sign import WINDOWS


def table_1_text(sweep: Sweep[TrajectoryConfig], window: str = "whole run") -> str:
    """Table 1 in Markdown: ours by Pearson and Spearman, the paper's row beneath.

    Args:
        sweep: the runs.
        window: one of `WINDOWS`: "whole run", or "up to the peak", as if every run had been stopped
            where its sharpness is largest.

    Returns:
        Markdown with one column per optimizer.

    Raises:
        ValueError: an unknown window.
    """
    check_choice(window, "window", WINDOWS)
    optimizers = [optimizer for optimizer in FIVE if optimizer in sweep.optimizers]
    rows = []
    cells = {
        method: {(e.column, e.optimizer): str(e) for e in table_1(sweep, method, WINDOWS[window])}
        for method in ("pearson", "spearman")
    }
    for column, paper in TABLE_1.items():
        name = QUANTITIES[column][0]
        for method, entries in cells.items():
            rows.append([f"{name}, {method}", *(entries[column, o] for o in optimizers)])
        published = (with_spread(*paper[optimizer], 2) for optimizer in optimizers)
        rows.append([f"*{name}, the paper's (Pearson, CIFAR-10)*", *published])
    return markdown_table(["correlation with sharpness", *(LABELS[o] for o in optimizers)], rows)


def write_report(sweep: Sweep[Any], name: str, folder: str | os.PathLike[str]) -> list[Path]:
    """Write what a figure or table consists of: picture, text and record.

    Args:
        sweep: the runs that `plan(name)` asked for.
        name: one of `TRAJECTORIES` or `COMPARISONS`.
        folder: where NAME.png, NAME.md and NAME.json go.

    Returns:
        The paths written.

    Raises:
        ValueError: an unknown name, or a run that is missing.
        OSError: a file cannot be written; it is named.
    """
    check_choice(name, "name", [*TRAJECTORIES, *COMPARISONS])
    if name in TRAJECTORIES:
        title = TRAJECTORIES[name].title
        fig = trajectories_figure(sweep, TRAJECTORIES[name].columns)
        text = _trajectories_text(sweep)
    else:
        title = COMPARISONS[name].title
        draw = {"grid": grid_figure, "shift": shift_figure}.get(name, comparison_figure)
        fig = draw(sweep)
        text = comparison_text(sweep, name)
    fig.suptitle(title)
    picture, page, record = report_paths(name, folder)
    write_atomically(picture, png_bytes(fig))
    write_atomically(page, f"# {name}: {title}\n\n{made_by(sweep)}\n{text}".encode())
    sweep.save(record)
    return [picture, page, record]


def report_paths(name: str, folder: str | os.PathLike[str]) -> list[Path]:
    """The files of a report: picture, text and record."""
    return [Path(folder) / f"{name}.{suffix}" for suffix in ("png", "md", "json")]


def made_by(sweep: Sweep[Any]) -> str:
    """How a sweep was made, in Markdown: command, size, cost, machines, and which runs diverged."""
    seconds = sum(run.provenance["seconds"] for run in sweep.runs)
    processors, torches, dates = (
        ", ".join(dict.fromkeys(run.provenance[name] for run in sweep.runs))
        for name in ("processor", "torch", "date")
    )
    text = f"`calibcourse {sweep.command}`: {len(sweep)} runs, {seconds / 3600:.1f} hours of "
    text += f"computing on {processors} with torch {torches}, {dates}.\n\n"
    for run in sweep.runs:
        if run.history.diverged_at is not None:
            text += f"- {run.config.key} diverged at step {run.history.diverged_at}.\n"
    return text


def _trajectories_text(sweep: Sweep[TrajectoryConfig]) -> str:
    if not set(sweep.optimizers) & set(FIVE):
        return ""
    return "\n".join(
        f"## {window.capitalize()}\n\n{table_1_text(sweep, window)}" for window in WINDOWS
    )
