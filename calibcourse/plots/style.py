"""Colours with one meaning each, the style of all figures, and how a figure is shown."""

import base64
import inspect
import io
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

# Okabe and Ito's palette, orange and sky blue darkened: on white every colour has 3 : 1.
TRAIN = "#0072B2"  # blue: measured on the training images
TEST = "#D55E00"  # vermilion: measured on held-out images
CURVATURE = "#009E73"  # green: sharpness, eigenvalues
MARGIN = "#CC79A7"  # purple: margins and their moment Q
BOUND = "#B87A00"  # orange: bounds, gaps, what a statement allows
RIGHT = "#3A8FC4"  # sky blue: images the network gets right
WRONG = "#000000"  # black: images it gets wrong
IDEAL = "#555555"  # grey: the reference, what perfection would be
STYLE = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",  # a dark page turns drawings over: `is_drawing`
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
}
_PHOTOGRAPH = "photograph"


def contrast(color: str) -> float:
    """Contrast of a colour with white, by WCAG 2: from 1, white, to 21, black.

    Args:
        color: as matplotlib takes it.

    Returns:
        The ratio of their luminances; marks need 3, small text 4.5.

    Example:
        >>> print(f"{contrast('white'):.1f} {contrast('black'):.1f}")
        1.0 21.0
    """
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return 1.05 / (float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)


def readable(color: str) -> str:
    """The colour, darkened as far as text on white needs it.

    Args:
        color: of the marks that the text names.

    Returns:
        A colour of the same hue with a contrast of at least 4.5.

    Example:
        >>> readable("black"), contrast(readable("orange")) >= 4.5
        ('#000000', True)
    """
    while contrast(color) < 4.5:
        color = to_hex(0.97 * np.array(to_rgb(color)))
    return to_hex(to_rgb(color))


def figure(n_panels: int = 1, width: float = 4.2, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """A row of panels in the style of the course.

    Args:
        n_panels: number of axes side by side.
        width, height: inches per panel.

    Returns:
        The figure and the list of its axes.

    Example:
        >>> fig, (left, right) = figure(2)
        >>> plt.close(fig)
    """
    fig, axes = panels(1, n_panels, (width * n_panels, height))
    return fig, list(axes[0])


def panels(
    rows: int, columns: int, size: tuple[float, float], **options: Any
) -> tuple[Figure, np.ndarray]:
    """Rows and columns of panels in the style of the course.

    Args:
        rows, columns: how many.
        size: width and height of the whole figure in inches.
        **options: of `matplotlib.pyplot.subplots`, such as sharex.

    Returns:
        The figure and the (rows, columns) array of its axes.

    Example:
        >>> fig, axes = panels(2, 3, (6, 4), sharey="row")
        >>> axes.shape
        (2, 3)
        >>> plt.close(fig)
    """
    with plt.rc_context(STYLE):
        return plt.subplots(rows, columns, figsize=size, squeeze=False, **options)


Arguments = ParamSpec("Arguments")


def on_axes(
    width: float = 4.2, height: float = 3.2
) -> Callable[[Callable[Arguments, Axes]], Callable[Arguments, Axes]]:
    """Decorator: called without its argument `ax`, a function draws on a figure of its own.

    Args:
        width, height: inches of that figure.

    Example:
        >>> @on_axes(width=3.0)
        ... def dot(x: float, ax: Axes | None = None) -> Axes:
        ...     ax.plot(x, x, "o")
        ...     return ax
        >>> fig = dot(0.5).get_figure()
        >>> print(fig.get_figwidth())
        3.0
        >>> plt.close(fig)
    """

    def decorate(draw: Callable[Arguments, Axes]) -> Callable[Arguments, Axes]:
        signature = inspect.signature(draw)

        @wraps(draw)
        def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Axes:
            call = signature.bind(*args, **kwargs)
            if call.arguments.get("ax") is None:
                call.arguments["ax"] = figure(1, width, height)[1][0]
            return draw(*call.args, **call.kwargs)

        return drawn

    return decorate


def mosaic(layout: str, width: float, height: float, **options) -> Figure:
    """A figure whose panels are laid out by letters, as in `matplotlib.pyplot.subplot_mosaic`.

    Args:
        layout: rows separated by semicolons, one letter per cell.
        width, height: inches of the whole figure.
        **options: passed on, such as height_ratios.

    Returns:
        The figure; its axes stand in the order in which their letters appear.
    """
    with plt.rc_context(STYLE):
        return plt.subplot_mosaic(layout, figsize=(width, height), **options)[0]


def png_bytes(fig: Figure) -> bytes:
    """The figure as PNG bytes; the figure is closed, so that no notebook shows it twice.

    A palette of 256 colours makes it a third as large, and looks the same.
    """
    drawn, small = io.BytesIO(), io.BytesIO()
    with plt.rc_context(STYLE):
        fig.savefig(drawn, format="png")
    plt.close(fig)
    image = Image.open(drawn).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return small.getvalue()


def is_drawing(fig: Figure) -> bool:
    """Whether a figure is lines, words and areas alone: a dark page may turn its light into dark.

    Args:
        fig: a figure.

    Returns:
        False where it holds one of the data's images (`draw_image`).
    """
    return not any(image.get_gid() == _PHOTOGRAPH for ax in fig.axes for image in ax.images)


def show(fig: Figure | Axes, alt: str, display_id: str | None = None, update: bool = False) -> None:
    """Display a figure with alternative text, which is also the cell's plain-text output.

    Args:
        fig: a figure or one of its axes.
        alt: what a reader who cannot see the picture should know; the same in every run, so no
            trained numbers.
        display_id: a name under which a later call with update=True replaces the picture.
        update: replace the picture of that name instead of adding one.

    Raises:
        ValueError: alt is empty.
    """
    if not alt.strip():
        raise ValueError("alt must describe the figure, got an empty text")
    fig = fig if isinstance(fig, Figure) else fig.get_figure()
    width = int(fig.get_figwidth() * STYLE["figure.dpi"])
    metadata = {"image/png": {"alt": alt, "width": width, "drawing": is_drawing(fig)}}
    data = {"image/png": base64.b64encode(png_bytes(fig)).decode(), "text/plain": alt}
    display(data, metadata=metadata, raw=True, display_id=display_id, update=update)


def spread_apart(heights: Sequence[float], gap: float) -> list[float]:
    """Positions of labels for ascending heights, at least `gap` apart, moved least in squares."""
    pools: list[tuple[float, int]] = []  # labels that would collide share their mean displacement
    for place, height in enumerate(heights):
        pool = (height - place * gap, 1)
        while pools and pools[-1][0] > pool[0]:
            (before, m), (after, n) = pools.pop(), pool
            pool = ((m * before + n * after) / (m + n), m + n)
        pools.append(pool)
    levels = [level for level, count in pools for _ in range(count)]
    return [level + place * gap for place, level in enumerate(levels)]


def image_grid(
    images: Tensor, titles: Sequence[str], columns: int = 5, axes_size: float = 1.5
) -> Figure:
    """Small images with a caption above each.

    Args:
        images: (n, C, H, W) in [0, 1], C = 1 or 3.
        titles: n captions; a newline starts a second line.
        columns: images per row.
        axes_size: inches per image.

    Returns:
        The figure.

    Raises:
        ValueError: images and titles differ in number.
    """
    if len(images) != len(titles):
        raise ValueError(f"titles must have one entry per image ({len(images)}), got {len(titles)}")
    rows = -(-len(images) // columns)
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            rows,
            columns,
            figsize=(axes_size * columns, (axes_size + 0.45) * rows),
            squeeze=False,
        )
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        draw_image(image, ax)
        ax.set_title(title, fontsize=8, loc="center")
    return fig


def array(values: Tensor | Sequence[float]) -> np.ndarray:
    """Numbers to draw, from wherever they lie: Matplotlib reads the CPU's memory alone."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def draw_image(image: Tensor, ax: Axes) -> None:
    """One image (C, H, W) in [0, 1]; a single channel is drawn as ink on paper."""
    pixels = array(image.permute(1, 2, 0).squeeze(-1))
    ax.imshow(pixels, cmap="gray_r", vmin=0, vmax=1).set_gid(_PHOTOGRAPH)


@on_axes()
def trajectory(
    steps: np.ndarray,
    values: Mapping[str, np.ndarray],
    colors: Mapping[str, str],
    ax: Axes | None = None,
    ylabel: str = "",
    log: bool = False,
) -> Axes:
    """Curves over training steps, each labelled at its end.

    Args:
        steps: (T,) step numbers.
        values: label -> (T,) values.
        colors: label -> colour, one of this module's constants.
        ax: where to draw.
        ylabel: quantity and unit.
        log: logarithmic vertical axis.

    Returns:
        The axes.
    """
    for label, series in values.items():
        ax.plot(steps, series, color=colors[label], lw=1.8)
        ax.annotate(f" {label}", (steps[-1], series[-1]), va="center", fontsize=9,
                    color=readable(colors[label]), annotation_clip=False)  # fmt: skip
    if log:
        ax.set_yscale("log")
    ax.set(xlabel="training step", ylabel=ylabel)
    return ax


class LiveFigure:
    """One picture in a notebook that is redrawn while something runs.

    Args:
        draw: called as draw(*args) and returns a figure.
        alt: alternative text.
        name: display id, unique in the notebook.
    """

    def __init__(self, draw: Callable[..., Figure], alt: str, name: str):
        self.draw, self.alt, self.name = draw, alt, name
        self._shown = False

    def update(self, *args) -> None:
        """Draw again and replace the picture."""
        show(self.draw(*args), self.alt, display_id=self.name, update=self._shown)
        self._shown = True


MARKERS = "osD^vPX*"  # one per optimizer where all share a panel


def from_step_zero(ax: Axes) -> Axes:
    """Training steps on a logarithmic axis that still has room for step 0."""
    ax.set_xscale("symlog", linthresh=1)
    ax.set(xlabel="training step", xlim=(0, None))
    return ax
