"""The audit's figure, and the report as one self-contained page."""

import base64
import html

from matplotlib.figure import Figure
from torch import Tensor

from .. import plots
from ..margins import true_margin
from ..metrics import NoiseFloor, confidence_and_correct, noise_floor, reliability_curve
from .measure import Audit
from .report import findings, rows

_ALT = (
    "Left: accuracy against confidence in 15 bins, with the gap of each bin to its confidence. "
    f"{plots.NOISE_BAND_ALT} Right: a histogram of the true margins; left of 0 are the errors."
)
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:#222}th{text-align:left;font-weight:normal;padding-right:2rem}td,th{padding-block:.15rem;"
    "vertical-align:top}img{max-width:100%}"
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


def page(name: str, found: Audit, figure: Figure) -> str:
    """The report as HTML that loads nothing: style and figure are inside it.

    Args:
        name: of the audited file, for the title.
        found: the audit.
        figure: from `audit_figure`; it is closed.
    """
    table = "".join(
        f'<tr><th scope="row">{html.escape(quantity)}</th><td>{html.escape(value)}</td></tr>'
        for quantity, value in rows(found).items()
    )
    said = "".join(f"<li>{html.escape(finding)}</li>" for finding in findings(found))
    picture = base64.b64encode(plots.png_bytes(figure)).decode()
    title = f"Audit of {html.escape(name)}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1>"
        f"<p>{found.n_samples:,} samples, {found.n_classes} classes, 95 % intervals</p>"
        f"<ul>{said}</ul><table>{table}</table>"
        f'<img src="data:image/png;base64,{picture}" alt="{html.escape(_ALT)}"></html>\n'
    )
