"""What a check shows: one card, as text and as HTML that follows the light or dark theme."""

import html
import re
import textwrap
from dataclasses import dataclass

_WIDTH = 88
# JupyterLab's own colours where they exist; the fallbacks keep contrast on white and on black.
_COLOURS = {
    "good": "var(--jp-success-color1, #2e9e44)",
    "bad": "var(--jp-error-color1, #e0453a)",
    "warn": "var(--jp-warn-color1, #d9822b)",
    "calm": "var(--jp-info-color1, #3f8fd2)",
}


@dataclass(frozen=True, repr=False)
class Card:
    """A heading, rows of (label, text) and perhaps code; the same words as text and as HTML.

    But for `progress`, which the HTML alone has: a cell's text is the same for every learner, so
    that a notebook with answers can be tested. `tests/nbval_sanitize.cfg` passes over that row.

    Attributes:
        icon: one character, so that colour never carries meaning alone.
        word: what happened, such as "correct".
        title: what it happened to.
        tone: "good", "bad", "warn" or "calm".
        rows: (label, text); `backticks` mark code.
        code: shown verbatim below the rows.
        progress: how far the learner is, "" where that is not known.

    Example:
        >>> Card("✓", "correct", "ECE", "good", (("Checks", "all 4 passed"),))
        ✓ correct · ECE
          Checks  all 4 passed
    """

    icon: str
    word: str
    title: str
    tone: str
    rows: tuple[tuple[str, str], ...] = ()
    code: str = ""
    progress: str = ""

    def __repr__(self) -> str:
        width = max((len(label) for label, _ in self.rows), default=0)
        lines = [f"{self.icon} {self.word} · {self.title}"]
        for label, text in self.rows:
            first, rest = f"  {label:<{width}}  ", " " * (width + 4)
            for line in text.splitlines() or [""]:
                lines += _wrapped(line, first, rest)
                first = rest
        if self.code:
            lines += ["", textwrap.indent(self.code, "  ")]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        colour = _COLOURS[self.tone]
        rows = "".join(
            f'<dt style="{_CELL};font-weight:normal;opacity:.75">{html.escape(label)}</dt>'
            f'<dd style="{_CELL};white-space:pre-wrap">{_marked(text)}</dd>'
            for label, text in (*self.rows, *self._last_row())
        )
        body = f'<dl style="{_GRID}">{rows}</dl>' if rows else ""
        code = f'<pre style="{_CODE}">{html.escape(self.code)}</pre>' if self.code else ""
        return (
            f'<div style="border-left:4px solid {colour};padding:4px 12px;margin:4px 0;'
            'color:inherit">'
            f'<div><span style="color:{colour};font-weight:bold" aria-hidden="true">{self.icon}'
            f"</span> <strong>{html.escape(self.word)}</strong> · {html.escape(self.title)}</div>"
            f"{body}{code}</div>"
        )

    def _last_row(self) -> tuple[tuple[str, str], ...]:
        return (("Progress", self.progress),) if self.progress else ()


_GRID = (
    "display:grid;grid-template-columns:max-content minmax(0, 1fr);gap:2px 14px;margin:6px 0 0;"
    "max-width:52em;line-height:1.45"
)
_CELL = "margin:0;padding:0;float:none;width:auto"  # notebook pages give dt 20 % of the width
_CODE = (
    "margin:8px 0 0;padding:8px 10px;border:1px solid var(--jp-border-color2, #88888866);"
    "background:transparent;color:inherit;overflow-x:auto"
)


def _wrapped(line: str, first: str, rest: str) -> list[str]:
    whole = re.sub(r"`[^`]+`", lambda code: code[0].replace(" ", "\0"), line)  # never break code
    wrapped = textwrap.wrap(whole, _WIDTH, initial_indent=first, subsequent_indent=rest)
    return [part.replace("\0", " ") for part in wrapped] or [first.rstrip()]


def _marked(text: str) -> str:
    return re.sub(r"`([^`\n]+)`", r"<code>\1</code>", html.escape(text, quote=False))
