"""What the tests of plots share."""

import math
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import same_color, to_hex
from torch import nn

from calibcourse.bounds import TailBounds
from calibcourse.data import Split
from calibcourse.history import History
from calibcourse.metrics import ReliabilityCurve


def lines(ax: Axes, **properties) -> list[np.ndarray]:
    """(2, n) data of the axes' lines with these properties, such as color or linestyle."""
    return [
        np.asarray(line.get_data(), dtype=float)
        for line in ax.lines
        if all(_agrees(name, getattr(line, f"get_{name}")(), v) for name, v in properties.items())
    ]


def _agrees(name: str, found, wanted) -> bool:
    return same_color(found, wanted) if "color" in name else found == wanted


def bars(ax: Axes, color: str) -> np.ndarray:
    """(n, 4) of the rectangles in a colour: left, bottom, width, height."""
    found = [
        patch.get_bbox().bounds
        for patch in ax.patches
        if isinstance(patch, mpl.patches.Rectangle) and same_color(patch.get_facecolor()[:3], color)
    ]
    return np.array(found)


def outline(ax: Axes, color: str) -> np.ndarray:
    """Heights of a histogram drawn as an outline."""
    (patch,) = (p for p in ax.patches if isinstance(p, mpl.patches.Polygon))
    assert same_color(patch.get_edgecolor()[:3], color)
    return patch.get_xy()[1:-1:2, 1]


def bands(ax: Axes) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(x, lower edge, upper edge) of every area between two curves."""
    found = []
    for band in ax.collections:
        if isinstance(band, mpl.collections.PolyCollection):
            points = band.get_paths()[0].vertices
            x = np.unique(points[:, 0])
            edges = [points[points[:, 0] == place, 1] for place in x]
            found.append(
                (x, np.array([e.min() for e in edges]), np.array([e.max() for e in edges]))
            )
    return found


def segments(ax: Axes, color: str) -> np.ndarray:
    """(n, 2, 2) ends of the straight segments in a colour."""
    found = [
        np.array(c.get_segments())
        for c in ax.collections
        if isinstance(c, mpl.collections.LineCollection) and same_color(c.get_color()[0][:3], color)
    ]
    return np.concatenate(found)


def words(ax: Axes) -> list[str]:
    """The texts that stand in an axes."""
    return [text.get_text() for text in ax.texts]


def legend(ax: Axes) -> dict[str, str]:
    """Label -> colour of the legend's entries."""
    box = ax.get_legend()
    colors = [
        h.get_facecolor()[:3] if isinstance(h, mpl.patches.Patch) else h.get_color()
        for h in box.legend_handles
        if hasattr(h, "get_color") or isinstance(h, mpl.patches.Patch)
    ]
    labels = [text.get_text() for text in box.get_texts()]
    return dict(zip(labels, map(to_hex, colors), strict=False))


STEPS = np.array([0, 10, 20])


CURVE = ReliabilityCurve(
    edges=torch.tensor([0, 0.25, 0.5, 0.75, 1.0]).double(),
    count=torch.tensor([0, 5, 20, 75]),
    confidence=torch.tensor([math.nan, 0.4, 0.6, 0.9]).double(),
    accuracy=torch.tensor([math.nan, 0.2, 0.7, 0.8]).double(),
    over_confidence=torch.tensor([math.nan, 0.2, -0.1, 0.1]).double(),
)


MARGINS = torch.tensor([-30.0, -1.2, 0.6, 0.7, 40.0])  # two of them beyond the fixed axis


LOGITS = torch.tensor([[math.log(9.0), 0.0]] * 4, dtype=torch.float64)  # confidence 0.9


TARGET = torch.tensor([0, 0, 0, 1])  # accuracy 3/4


TAIL = TailBounds(
    SimpleNamespace(
        lower=torch.tensor([0.02, 0.2, 0.5]).log(),
        value=torch.tensor([0.03, 0.3, 0.6]).log(),
        upper=torch.tensor([0.04, 0.4, 0.7]).log(),
        paper_lower=torch.tensor([0.01, 0.1, 0.4]).log(),
        paper_upper=torch.tensor([0.05, 0.9, 20.0]).log(),
    )
)


def history(**columns) -> History:
    """A run probed at STEPS."""
    return History(
        [
            {"step": int(step)} | {name: float(values[i]) for name, values in columns.items()}
            for i, step in enumerate(STEPS)
        ]
    )


SANDWICH = {
    "log_u0": np.log([2.0, 4.0, 0.5]),
    "log_u4": np.log([4.0, 40.0, 2.0]),
    "accuracy": [0.5, 0.9, 1.0],
    "confidence": [0.2, 0.95, 0.98],
    "ece": [0.35, 0.08, 0.02],
}


RUN = history(
    sharpness=[2.0, 8.0, 4.0],
    train_ece=[0.1, 0.4, 0.2],
    test_ece=[0.1, 0.2, 0.3],
    **{f"{split}_{name}": v for split in ("train", "validation", "test")
       for name, v in SANDWICH.items() if name != "ece" or split == "validation"},
)  # fmt: skip


TOTALS = {
    case: {rung: scale * lost for rung, lost in zip(
        ("l1", "l2", "l3", "l4", "u1", "u2", "u3", "u4", "u5", "u6"),
        (0.5, 0.51, 1.0, 2.0, 0.25, 0.75, 1.25, 2.0, 2.01, 4.0), strict=True)}
    for case, scale in (("early", 1), ("late", 2))
}  # fmt: skip


DOTS = {
    "train ECE": {"SGD": {0.1: [0.5, 0.6], 0.2: [0.7]}, "Muon": {0.01: [0.1], 0.02: [-0.2]}},
    "test ECE": {"SGD": {0.1: [-0.5], 0.2: [-0.7]}, "Muon": {0.01: [0.3], 0.02: [0.4]}},
}


PUBLISHED = {"SGD": (0.9, 0.05), "Muon": (0.8, 0.1)}


FLIPS = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
with torch.no_grad():
    FLIPS[1].weight.copy_(torch.tensor([[8.0, 0, 0, 0], [0, 8.0, 0, 0], [0, 0, 8.0, 0]]))


# Two images of class 0 (margins 0.4 and 3.2) and one of class 1 that is taken for class 2.
IMAGES = Split(
    torch.tensor([[0.55, 0.5, 0, 0], [0.9, 0.5, 0, 0], [0, 0.4, 0.5, 0]]).reshape(3, 1, 2, 2),
    torch.tensor([0, 0, 1]),
)


CLASSES = ("coat", "shirt", "bag")


WINDOWS = {"all": ([0, 10, 20], {"train_ece": 0.9}), "early": ([0, 10], {"train_ece": 1.0})}


def content(ax: Axes) -> str:
    """Everything that an axes shows, as text: equal for equal pictures."""
    shown = [(*line.get_data(), line.get_color(), line.get_marker()) for line in ax.lines]
    shown += [
        (c.get_offsets(), [p.vertices for p in c.get_paths()], c.get_facecolor(), c.get_edgecolor())
        for c in ax.collections
    ]
    shown += [(patch.get_path().vertices, patch.get_extents().bounds) for patch in ax.patches]
    shown += [image.get_array() for image in ax.images]
    shown += [(text.get_text(), text.get_position()) for text in ax.texts]
    shown += [ax.get_title(), ax.get_xlabel(), ax.get_ylabel(), ax.get_xlim(), ax.get_ylim()]
    return repr(shown)
