"""One HTML page that needs nothing else, and one table for a spreadsheet: what reports are made of.

Text from files of other people is made harmless here, in one place: a fragment is `Html`, and
whatever is not becomes text; no cell of a table is a formula.
"""

import csv
import html
import io
from collections.abc import Iterable

_STYLE = """\
:root { color-scheme: light dark; --line: #8886; --heat: 202, 81, 0; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.25rem; margin-top: 2.2rem }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: left;
  vertical-align: top }
th { font-weight: 600 } td.number { text-align: right; font-variant-numeric: tabular-nums }
.heat { background: rgba(var(--heat), var(--share)); border-radius: .3rem; padding: .1rem .4rem;
  margin: .1rem; display: inline-block }
img { max-width: 100%; background: #fff }
@media (prefers-color-scheme: dark) {
  img.calibcourse-drawing { filter: invert(0.93) hue-rotate(180deg) }
}
.slide { break-before: page; margin-top: 3rem; border-top: 1px solid var(--line) }
.muted { opacity: .75 } code { font-family: ui-monospace, monospace }
"""
_VOID = {"br", "img"}  # elements without content, which are not closed


class Html(str):
    """Text that is HTML already."""


def page(title: str, body: Iterable[object]) -> str:
    """A whole page.

    Args:
        title: of the page, and its heading.
        body: fragments below the heading.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'  # no browser asks for one
        f"<title>{escaped(title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n"
        f"<main>\n<h1>{escaped(title)}</h1>\n"
        + "\n".join(map(escaped, body))
        + "\n</main>\n</body>\n</html>\n"
    )


def escaped(value: object) -> str:
    """A value as HTML; `Html` stays as it is.

    Example:
        >>> escaped("a < b"), escaped(Html("<b>"))
        ('a &lt; b', '<b>')
    """
    return value if isinstance(value, Html) else html.escape(str(value))


def tag(name: str, *content: object, **attributes: object) -> Html:
    """An element; an attribute `class_` is `class`.

    Example:
        >>> tag("td", "1 < 2", class_="number")
        '<td class="number">1 &lt; 2</td>'
    """
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
    )
    if name in _VOID:
        return Html(f"<{name}{pairs}>")
    return Html(f"<{name}{pairs}>{''.join(map(escaped, content))}</{name}>")


def table(header: Iterable[object], rows: Iterable[Iterable[object]]) -> Html:
    """A table; numbers stand at the right of their column."""
    head = tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in header)))
    return tag("table", head, tag("tbody", *(tag("tr", *map(_cell, row)) for row in rows)))


def heat(text: object, share: float) -> Html:
    """Text on a ground that is the stronger, the larger a share in [0, 1] is."""
    return tag("span", text, class_="heat", style=f"--share: {0.08 + 0.5 * share:.2f}")


def csv_table(header: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Comma-separated values with a header, for a spreadsheet."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(map(csv_text, row) for row in rows)
    return stream.getvalue()


def csv_text(value: object) -> str:
    """A value for a table that somebody opens in a spreadsheet: never a formula.

    Example:
        >>> csv_text("=HYPERLINK(1)"), csv_text(3)
        ("'=HYPERLINK(1)", '3')
    """
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _cell(value: object) -> Html:
    return tag("td", value, class_="number") if isinstance(value, int) else tag("td", value)
