"""What every report is made of: tables in Markdown, and numbers with their spread."""

import math
from collections.abc import Iterable, Sequence

import numpy as np


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    Args:
        headings: of the columns; the first may be empty.
        rows: as many cells each.

    Returns:
        One line per row, a newline at the end.

    Example:
        >>> print(markdown_table(["", "ECE"], [["SGD", "0.1"]]), end="")
        | | ECE |
        |---|---|
        | SGD | 0.1 |
    """
    lines = [" | ".join(cells).lstrip() for cells in (headings, *rows)]
    head, *body = (f"| {line} |" for line in lines)
    return "\n".join([head, "|---|" + "---|" * (len(headings) - 1), *body]) + "\n"


def with_spread(mean: float, std: float, digits: int) -> str:
    """A number and its standard deviation, which is left out where there is none (NaN).

    Args:
        mean, std: in one unit.
        digits: behind the point.

    Returns:
        Such as "0.12 ± 0.03".

    Example:
        >>> with_spread(0.123, 0.0321, 2), with_spread(0.123, math.nan, 2)
        ('0.12 ± 0.03', '0.12')
    """
    return f"{mean:.{digits}f}" + ("" if math.isnan(std) else f" ± {std:.{digits}f}")


def over_seeds(values: np.ndarray, digits: int) -> str:
    """Mean and standard deviation (n - 1) over seeds; a single seed has no spread.

    Args:
        values: (seeds,).
        digits: behind the point.

    Returns:
        As `with_spread`.

    Example:
        >>> over_seeds(np.array([0.1, 0.3]), 2), over_seeds(np.array([0.1]), 2)
        ('0.20 ± 0.14', '0.10')
    """
    std = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return with_spread(float(values.mean()), std, digits)
