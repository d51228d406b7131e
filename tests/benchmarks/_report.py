"""What is made of the records: text on the terminal, the page with its table.

All of it comes from the records alone, so the results file can be shown again without measuring.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from calibcourse.reproduce.markdown import markdown_table

Record = dict[str, Any]

HOW = (
    "`python tests/benchmarks/run.py` measures and records; what the peers need is in "
    "`tests/benchmarks/requirements.txt`. With `--write-page` it writes this page."
)
ALT = (
    "Two panels with logarithmic axes, seconds per call. Left, over the number of samples from a "
    "thousand to ten million: ours for ECE and KCE rise about in proportion to it; the "
    "peers for ECE lie above ours at the right end, the peers for KCE rise with its square and "
    "stop early. Right, over the number of parameters: products and largest eigenvalues, ours the "
    "lowest line of each colour."
)
DISAGREEMENT = (
    "Disagreement of the results: absolute for ECE, KCE and losses; relative for eigenvalues, "
    "norms, products and gradients; for an attack, the part of our drop of the margin that the "
    "peer does not reach; empty where the other work has no result in common."
)


def disagreement_text(value: float | None) -> str:
    return "" if value is None else "0" if value == 0 else f"{value:.0e}"


# --- the terminal ---------------------------------------------------------------------------------


def text_of(record: Record) -> str:
    """A record as a table of plain text."""
    return {"comparison": _comparison, "growth": _growth, "table": _table}[record["kind"]](record)


def _comparison(record: Record) -> str:
    rows = [
        [
            peer["name"],
            f"{peer['ms']:.2f}",
            f"{record['ours_ms']:.2f}",
            ratio_text(peer),
            disagreement_text(peer["disagreement"]),
        ]
        for peer in record["peers"]
    ]
    head = f"{record['name']}: {record['what']}, {record['size']}"
    table = aligned(["peer", "peer ms", "ours ms", "times faster", "disagreement"], rows)
    measure = f"disagreement: {record['measure']}; median of {record['rounds']} rounds, quartiles"
    return _lines(head, table, measure, *record["notes"], *_left_out(record))


def _growth(record: Record) -> str:
    sizes = sorted({size for curve in record["curves"] for size in curve["sizes"]})
    rows = [
        [curve["name"], *(_at(curve, size) for size in sizes), curve["stopped"] or ""]
        for curve in record["curves"]
    ]
    headings = ["seconds", *(f"{size:,}" for size in sizes), "stopped before"]
    head = f"{record['name']}: {record['what']} by {record['along']}"
    return _lines(head, aligned(headings, rows), *_left_out(record))


def _at(curve: Record, size: int) -> str:
    if size not in curve["sizes"]:
        return ""
    return f"{curve['seconds'][curve['sizes'].index(size)]:.2g}"


def _table(record: Record) -> str:
    rows = [
        [cell if isinstance(cell, str) else _number(cell) for cell in row.values()]
        for row in record["rows"]
    ]
    return _lines(f"{record['name']}: {record['title']}", aligned(list(record["rows"][0]), rows))


def _number(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.4g}"


def _left_out(record: Record) -> Iterator[str]:
    return (f"left out: {name} ({why})" for name, why in record["left_out"].items())


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"


def aligned(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of plain text: the first to the left, the others to the right.

    Example:
        >>> print(aligned(["peer", "ms"], [["a", "1.25"]]))
        peer    ms
        a     1.25
    """
    table = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )


# --- the page -------------------------------------------------------------------------------------


def ratio_text(peer: Record) -> str:
    """How many times faster ours is than a peer, or how many of a unit it costs; with the target.

    Example:
        >>> peer = dict(ratio=1.25, quartiles=[1.2, 1.3], target=1.3, unit=False)
        >>> ratio_text(peer)
        '1.25 [1.20, 1.30], short of the target 1.3'
        >>> ratio_text(peer | dict(ratio=0.2, quartiles=[0.16, 0.25], target=0.25, unit=True))
        'costs 5.00 [4.00, 6.25], more than the target 4'
    """
    low, middle, high = peer["quartiles"][0], peer["ratio"], peer["quartiles"][1]
    target, missed = peer["target"], peer["target"] is not None and middle < peer["target"]
    if peer["unit"]:
        text = f"costs {_three(1 / middle)} [{_three(1 / high)}, {_three(1 / low)}]"
        return text + (f", more than the target {1 / target:.3g}" if missed else "")
    text = f"{_three(middle)} [{_three(low)}, {_three(high)}]"
    if missed:
        return text + f", short of the target {target:g}"
    return text + (", slower" if middle < 1 else "")


def _three(value: float) -> str:
    """Three digits, and no exponent.

    Example:
        >>> [_three(value) for value in (0.5, 2.345, 14.26, 1234.5)]
        ['0.50', '2.35', '14.3', '1,234']
    """
    return f"{value:,.{max(0, min(2, 2 - math.floor(math.log10(value))))}f}"


def benchmarks_page(results: Record) -> str:
    """The page of the comparisons, in Markdown.

    Args:
        results: the content of a results file.

    Returns:
        A title, the conditions, a table of every comparison, what is slower, versions, the figure
        of growth; ends with a newline.
    """
    headings = ["name", "what", "size", "beside", "times faster [quartiles]", "disagreement"]
    rows = [_row(record, peer) for record, peer in ratios(results)]
    made, peers = results["made"], [peer for _, peer in ratios(results) if not peer["unit"]]
    slower = sum(peer["ratio"] < 1 for peer in peers)
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    place = made.get("gpu") or f"{made['processor']}, threads: {made['threads']}"
    paragraphs = [
        "# Beside other libraries",
        HOW,
        f"Measured {made['date']} on {place}, load {made['load'][0]:.1f} before the run; the "
        "same inputs in one process, in turns; a ratio is the median of the rounds' ratios. Of "
        f"{len(peers)} ratios to a peer, {slower} are below 1.",
        markdown_table(headings, rows).rstrip(),
        "“costs n”: ours takes n times as long as that smaller piece of work.",
        DISAGREEMENT,
        f"Versions: {versions}.",
        f"![{ALT}](../tests/benchmarks/results/growth.png)",
    ]
    return "\n\n".join(paragraphs) + "\n"


def ratios(results: Record) -> Iterator[tuple[Record, Record]]:
    """Every comparison of the results with each of its peers."""
    for record in results["parts"]:
        if record["kind"] == "comparison":
            yield from ((record, peer) for peer in record["peers"])


def _row(record: Record, peer: Record) -> list[str]:
    cells = (f"`{record['name']}`", record["what"], record["size"], peer["name"], ratio_text(peer))
    return [*cells, disagreement_text(peer["disagreement"])]
