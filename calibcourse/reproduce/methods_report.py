"""What comes out of the comparison of methods, in Markdown: the paper's tables beside ours."""

from collections.abc import Sequence

import numpy as np

from .._checks import check_choice
from . import paper
from .configs import LABELS, ComparisonConfig
from .markdown import markdown_table, over_seeds, with_spread
from .outcomes import (
    ALL_METHODS,
    REMEDIES,
    RULES,
    TEMPERATURE,
    Verdict,
    as_good,
    is_recorded,
    outcomes,
    step_costs,
    verdicts,
)
from .plans import COMPARISONS
from .records import Sweep
from .shift import shift_text

# Name of every column that a table shows, and its digits behind the point.
REPORTED = {
    "test_accuracy": ("accuracy", 3),
    "test_ece": ("ECE", 3),
    "test_kce": ("KCE", 3),
    "test_loss": ("NLL", 3),
    "test_brier": ("Brier", 3),
    "test_robust_margin": ("mean robust margin", 2),
    "test_robust_log_q": ("robust log Q", 2),
    "test_robust_accuracy": ("robust accuracy", 3),
}


def accuracy_and_ece_text(sweep: Sweep[ComparisonConfig], table: str) -> str:
    """Accuracy and ECE in Markdown: ours by both rules, the paper's beneath.

    Args:
        sweep: the runs that `plan(table)` asked for.
        table: "table2", "tableA1", "tableA2", "methods" or "shift".

    Returns:
        Markdown, one column per method, mean ± standard deviation (n - 1) over seeds.

    Raises:
        ValueError: an unknown table, or a missing run.
    """
    check_choice(table, "table", [name for name in COMPARISONS if name != "grid"])
    split = "train" if table == "tableA1" else "test"
    published = paper.TRAIN if table == "tableA1" else paper.TEST
    methods = COMPARISONS[table].methods
    columns = (*methods, TEMPERATURE) if "CE" in methods and split == "test" else methods
    rows = []
    for optimizer in COMPARISONS[table].optimizers:
        for rule, name in RULES.items():
            cells = [
                over_seeds(100 * outcomes(sweep, f"{split}_accuracy", optimizer, method, rule), 1)
                + ", "
                + over_seeds(outcomes(sweep, f"{split}_ece", optimizer, method, rule), 3)
                for method in columns
            ]
            rows.append([f"{LABELS[optimizer]}, {name}", *cells])
        cells = [_paper_cell(published.get((optimizer, method))) for method in columns]
        rows.append([f"*{LABELS[optimizer]}, the paper's*", *cells])
    return markdown_table([f"{split}: accuracy, ECE", *columns], rows)


def verdict_text(found: Sequence[Verdict]) -> str:
    """Verdicts in Markdown, a row per claim and a column per optimizer, failing ones included.

    Args:
        found: from `verdicts`.

    Returns:
        Markdown: in each cell whether it holds, for how many seeds, and the mean difference with
        its 95 % interval.
    """
    optimizers = list(dict.fromkeys(verdict.optimizer for verdict in found))
    cells = {(verdict.claim, verdict.optimizer): repr(verdict) for verdict in found}
    rows = [
        [claim, *(cells[claim, optimizer] for optimizer in optimizers)]
        for claim in dict.fromkeys(verdict.claim for verdict in found)
    ]
    return markdown_table(["claim", *(LABELS[o] for o in optimizers)], rows)


def remedies_text(sweep: Sweep[ComparisonConfig], column: str) -> str:
    """One quantity under every remedy in Markdown, and for how many seeds it does as well as CalMO.

    Args:
        sweep: runs of the comparison.
        column: as for `outcomes`.

    Returns:
        Markdown: mean ± standard deviation over seeds, then the number of seeds in which the remedy
        is at least as good as CalMO; bold where these are most of them.
    """
    optimizers = sweep.optimizers
    name, digits = REPORTED[column]
    rows = []
    for remedy, (method, rule) in REMEDIES.items():
        cells = []
        for optimizer in optimizers:
            if not is_recorded(sweep, method, column):
                cells.append("not recorded")
                continue
            values = outcomes(sweep, column, optimizer, method, rule)
            cell = over_seeds(values, digits)
            if remedy != "CalMO":
                good = as_good(sweep, column, optimizer, remedy)
                cell += f" ({good.sum()} of {len(good)})"
                cell = f"**{cell}**" if 2 * good.sum() > len(good) else cell
            cells.append(cell)
        rows.append([remedy, *cells])
    return markdown_table([name, *(LABELS[o] for o in optimizers)], rows)


def every_quantity_text(sweep: Sweep[ComparisonConfig], optimizer: str, rule: str = "final") -> str:
    """All test quantities of one optimizer in Markdown, one row per method, with the cost.

    Args:
        sweep: runs of the comparison.
        optimizer: one that it holds.
        rule: "final" or "best".

    Returns:
        Markdown; ms/step is the median over seeds of processor milliseconds per training step.
    """
    reported = {c: REPORTED[c] for c in REPORTED if is_recorded(sweep, "CE", c)}
    rows = []
    for method in ALL_METHODS:
        cells = []
        for column, (_, digits) in reported.items():
            if not is_recorded(sweep, method, column):
                cells.append("not recorded")
                continue
            values = outcomes(sweep, column, optimizer, method, rule)
            cells.append(over_seeds(values, digits))
        cost = 1000 * np.median(step_costs(sweep, optimizer, method))
        rows.append([method, *cells, f"{cost:.1f}"])
    names = [name for name, _ in reported.values()]
    return markdown_table([f"{LABELS[optimizer]}, {RULES[rule]}", *names, "ms/step"], rows)


def comparison_text(sweep: Sweep[ComparisonConfig], table: str) -> str:
    """Everything in words that a table of the comparison consists of.

    Args:
        sweep: the runs that `plan(table)` asked for.
        table: one of `COMPARISONS`.

    Returns:
        Markdown; the verdicts need two seeds and say so where there is one.

    Raises:
        ValueError: an unknown table, or a missing run.
    """
    check_choice(table, "table", COMPARISONS)
    if table == "grid":
        return ""
    text = accuracy_and_ece_text(sweep, table)
    if table == "shift":
        quantities = ("ece", "error", "doubt", "loss")
        text += "".join("\n" + shift_text(sweep, quantity) for quantity in quantities)
    if table == "methods":
        text += "\nCalMO against CE: does the claim hold, for how many seeds, and the mean "
        text += "difference with its 95 % interval.\n\n" + _verdict_part(sweep)
        shown = ("test_ece", "test_robust_margin", "test_robust_log_q", "test_robust_accuracy")
        for column in (c for c in shown if is_recorded(sweep, "CE", c)):
            text += "\n" + remedies_text(sweep, column)
        for optimizer in COMPARISONS[table].optimizers:
            for rule in RULES:
                text += "\n" + every_quantity_text(sweep, optimizer, rule)
    return text


def _verdict_part(sweep: Sweep[ComparisonConfig]) -> str:
    if len({run.config.seed for run in sweep.runs}) < 2:
        return "No interval can be told from a single seed.\n"
    return verdict_text(verdicts(sweep))


def _paper_cell(numbers: tuple[float, float, float, float] | None) -> str:
    if numbers is None:
        return ""
    accuracy, accuracy_std, ece, ece_std = numbers
    return f"{with_spread(accuracy, accuracy_std, 1)}, {with_spread(ece, ece_std, 3)}"
