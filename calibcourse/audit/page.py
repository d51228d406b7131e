"""The audit's figure, and the report as one self-contained page."""

import base64

from matplotlib.figure import Figure
from torch import Tensor

from .. import plots
from .._page import page, table, tag
from ..margins import true_margin
from ..metrics import NoiseFloor, confidence_and_correct, noise_floor, reliability_curve
from .measure import Audit
from .report import findings, rows

_ALT = (
    "Left: accuracy against confidence in 15 bins, with the gap of each bin to its confidence. "
    f"{plots.NOISE_BAND_ALT} Right: a histogram of the true margins; left of 0 are the errors."
)


def audit_figure(logits: Tensor, target: Tensor, floor: NoiseFloor | None = None) -> Figure:
    """Reliability diagram with the noise floor, and true margins, side by side.

    Args:
        logits: (N, K), any floating dtype.
        target: (N,) int64 labels.
        floor: of these confidences; None draws one.
    """
    floor = floor or noise_floor(confidence_and_correct(logits, target)[0], n_draws=200)
    fig, (left, right) = plots.figure(2)
    plots.reliability_diagram(reliability_curve(logits, target), ax=left, floor=floor)
    plots.margin_histogram({f"{len(target):,} samples": true_margin(logits, target)}, ax=right)
    return fig


def audit_page(name: str, found: Audit, picture: bytes) -> str:
    """The report as HTML that loads nothing: style and figure are inside it.

    Args:
        name: of the audited file, for the title.
        found: the audit.
        picture: PNG of `audit_figure`.
    """
    size = f"{found.n_samples:,} samples, {found.n_classes} classes, 95 % intervals"
    encoded = base64.b64encode(picture).decode()
    said = [tag("li", finding) for finding in findings(found)]
    return page(
        f"Audit of {name}",
        [
            tag("p", size),
            tag("ul", *said),
            table(("quantity", "value"), rows(found).items()),
            tag(
                "img",
                src=f"data:image/png;base64,{encoded}",
                alt=_ALT,
                class_="calibcourse-drawing",
            ),
        ],
    )
