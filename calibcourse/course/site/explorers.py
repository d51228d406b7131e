"""Explorers that move without a kernel: every picture drawn beforehand, behind plain sliders."""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from html.parser import HTMLParser
from itertools import product

import ipywidgets

from ... import widgets
from ...reproduce import load_recorded

# Those that need no trained network, each with the one or two controls that move; the others keep
# the value they begin with. An explorer that is not here is shown by its static twin.
MOVING: dict[str, tuple[Callable[[], widgets.Explorer], tuple[str, ...]]] = {
    "learning_rate_explorer": (
        lambda: widgets.learning_rate_explorer(load_recorded("edge_of_stability")),
        ("rate",),
    ),
    "window_explorer": (
        lambda: widgets.window_explorer(load_recorded("cifar10_small")),
        ("percent",),
    ),
    "logits_explorer": (widgets.logits_explorer, ("label",)),
    "weights_explorer": (
        lambda: widgets.weights_explorer(load_recorded("grid")),
        ("robust_weight", "smooth_weight"),
    ),
}


@dataclass(frozen=True)
class Picture:
    """What an explorer shows at one setting.

    Attributes:
        alt: the text.
        panels: PNGs, left to right.
        styles: CSS of each panel.
    """

    alt: str
    panels: tuple[bytes, ...]
    styles: tuple[str, ...]


@dataclass(frozen=True)
class Control:
    """A slider.

    Attributes:
        label: of it.
        values: as they are shown, from left to right.
        start: index of the value that it begins with.
    """

    label: str
    values: tuple[str, ...]
    start: int


def film(explorer: widgets.Explorer, moved: Sequence[str]) -> tuple[list[Control], list[Picture]]:
    """Every picture that some controls of an explorer lead to.

    Args:
        explorer: is left at its last picture.
        moved: names of the controls; the others keep their values.

    Returns:
        The controls, and a picture for each setting; the last control moves fastest.
    """
    moving = [explorer.controls[name] for name in moved]
    choices = [_values(control) for control in moving]
    controls = [
        Control(control.description, tuple(map(_shown, values)), _index(values, control.value))
        for control, values in zip(moving, choices, strict=True)
    ]
    pictures = []
    for setting in product(*choices):
        for control, value in zip(moving, setting, strict=True):
            control.value = value
        pictures.append(_Parsed(explorer.children[-1].value).picture())
    return controls, pictures


def moving_html(
    controls: Sequence[Control], pictures: Sequence[Picture], folder: str
) -> tuple[str, dict[str, bytes]]:
    """Sliders and a picture, which `site.js` moves.

    Args:
        controls, pictures: of `film`.
        folder: where the page finds the pictures.

    Returns:
        The HTML, and the PNGs by file name.
    """
    files: dict[str, bytes] = {}
    frames = []
    for picture in pictures:
        names = [f"{sha256(panel).hexdigest()[:16]}.png" for panel in picture.panels]
        files |= dict(zip(names, picture.panels, strict=True))
        frames.append({"alt": picture.alt, "panels": [f"{folder}/{name}" for name in names]})
    start = 0
    for control in controls:
        start = start * len(control.values) + control.start
    panels = "".join(
        f'<img class="calibcourse-drawing" src="{source}" alt="" style="{escape(style)}">'
        for source, style in zip(frames[start]["panels"], pictures[start].styles, strict=True)
    )
    values = [control.values for control in controls]
    script = json.dumps({"values": values, "frames": frames}).replace("</", "<\\/")
    return (
        '<div class="explorer">'
        + "".join(map(_slider, controls))
        + f'<div class="picture" role="img" aria-label="{escape(frames[start]["alt"])}">'
        + f'{panels}</div><script type="application/json">{script}</script></div>',
        files,
    )


def _slider(control: Control) -> str:
    shown = escape(control.values[control.start])
    return (
        f"<label><span>{escape(control.label)}</span>"
        f'<input type="range" min="0" max="{len(control.values) - 1}" value="{control.start}" '
        f'aria-valuetext="{shown}" autocomplete="off"><output>{shown}</output></label>'
    )


def _values(control: ipywidgets.Widget) -> list:
    if hasattr(control, "options"):
        return list(control.options)
    steps = round((control.max - control.min) / control.step)
    return [round(control.min + i * control.step, 9) for i in range(steps + 1)]


def _index(values: list, value: object) -> int:
    return values.index(value)


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


class _Parsed(HTMLParser):
    """An explorer's picture, read back from its HTML."""

    def __init__(self, html: str):
        super().__init__()
        self.alt, self.panels, self.styles = "", [], []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        found = dict(attributes)
        if found.get("role") == "img":
            self.alt = found["aria-label"]
        elif tag == "img":
            self.panels.append(base64.b64decode(found["src"].partition("base64,")[2]))
            self.styles.append(found["style"])

    def picture(self) -> Picture:
        return Picture(self.alt, tuple(self.panels), tuple(self.styles))
