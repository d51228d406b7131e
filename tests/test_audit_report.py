"""The audit in words, to the letter: reports made by hand, as a reader meets them."""

import base64
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from calibcourse import plots
from calibcourse.audit import Audit, AuditComparison, audit, audit_figure
from calibcourse.audit.page import audit_page
from calibcourse.metrics import BrierDecomposition, ClassOverConfidence, Interval, NoiseFloor
from calibcourse.metrics.comparison import Comparison

FLOOR = NoiseFloor(
    mean=0.01, low=0.005, high=0.02, level=0.95, n_samples=12345, draws=torch.ones(3),
    edges=torch.tensor([0.0, 0.5, 1.0]), accuracy_low=torch.tensor([math.nan, 0.7]),
    accuracy_high=torch.tensor([math.nan, 0.8]),
)  # fmt: skip
# Five classes, one never predicted, four off: less sure and more sure, the worst is 4.
CLASSES = ClassOverConfidence(
    count=torch.tensor([12000, 0, 100, 45, 199, 1]),
    over_confidence=torch.tensor([0.011, math.nan, 0.1, -0.25, 0.3, 0.05], dtype=torch.float64),
    low=torch.tensor([0.001, math.nan, 0.05, -0.5, 0.2, -0.01], dtype=torch.float64),
    high=torch.tensor([0.021, math.nan, 0.15, -0.125, 0.4, 0.11], dtype=torch.float64),
    expected_by_chance=1.27,
    at_most_by_chance=3,
)
AUDIT = Audit(
    n_samples=12345,
    n_classes=6,
    accuracy=Interval(0.79, 0.8, 0.81, 0.95),
    over_confidence=Interval(0.04, 0.05, 0.06, 0.95),
    chance_accuracy=0.25,
    ece=Interval(0.055, 0.0625, 0.07, 0.95),
    floor=FLOOR,
    debiased_ece=0.06,
    classwise_ece=0.015,
    top_label_ece=0.07,
    kce=0.035,
    smooth_ece=0.045,
    negative_log_likelihood=0.675,
    brier=BrierDecomposition(0.125, 0.0075, 0.0425, 0.16125, -0.00125),
    classes=CLASSES,
    temperature=1.9876,
    capped=False,
    ece_rescaled=0.0123,
    rescaled_by_chance=0.0125,
    repaired=Interval(0.751, 0.803, 0.854, 0.95),
    smallest_margin=-12.34567,
    worst_percent_of_q=0.63,
)

REPORT = """\
12,345 samples, 6 classes, 95 % intervals
  accuracy                    0.8000 [0.7900, 0.8100]; by chance 0.2500
  mean confidence - accuracy  0.0500 [0.0400, 0.0600]
  ECE, 15 bins                0.0625 [0.0550, 0.0700]; debiased 0.0600
  ECE of a calibrated model   0.0100 [0.0050, 0.0200] by chance
  top-label, class-wise ECE   0.0700, 0.0150
  KCE, smECE                  0.0350, 0.0450
  negative log-likelihood     0.6750 nats
  Brier score of confidence   0.1250 = reliability 0.0075 - resolution 0.0425 + uncertainty 0.1613 \
-0.0013 within bins
  classes off                 4 of 5 predicted; by chance 1.3, at most 3
  temperature                 1.99
  ECE with a temperature      0.0123; repaired 80% [75%, 85%] of the ECE
  smallest margin             -12.35
  share of Q                  63% in the worst 1 % of the samples
- Miscalibrated: chance alone seldom gives a calibrated model so large an ECE.
- Too sure on the whole.
- Dividing the logits by 1.99 repairs what ECE can see: 80% [75%, 85%] of the ECE.
- 4 classes are off by more than chance explains (at most 3); most of all: \
4 (+0.300 [+0.200, +0.400]), 3 (-0.250 [-0.500, -0.125]), 2 (+0.100 [+0.050, +0.150]).
- The few worst samples hold most of Q: bounds through Q speak of them, not of the typical \
sample."""


def test_the_whole_report():
    assert repr(AUDIT) == REPORT


CALIBRATION = "Miscalibrated: chance alone seldom gives a calibrated model so large an ECE."
CALM = (
    "No miscalibration seen{}: with 12,345 samples a calibrated model often shows as large an ECE. "
    "More samples could see a smaller one."
)
CANCEL = "; but errors of opposite sign cancel in that average: look at the diagram."
NEITHER = "Neither too sure nor too unsure on average"
REPAIRED = "80% [75%, 85%] of the ECE"
USELESS = (
    "The confidence hardly tells right from wrong predictions (resolution near 0): calibrated or "
    "not, it is of little use to choose by."
)
# What is changed, the place of the sentence, and the sentence; just inside and just outside.
FINDINGS = {
    "an ECE at the end of the band": ({"ece": Interval(0, 0.02, 1, 0.95)}, 0,
        CALM.format(" in the average over classes")),
    "an ECE above the band": ({"ece": Interval(0, 0.0201, 1, 0.95)}, 0, CALIBRATION),
    "no class off": ({"ece": Interval(0, 0.02, 1, 0.95),
                      "classes": replace(CLASSES, at_most_by_chance=4)}, 0, CALM.format("")),
    "not sure enough": ({"over_confidence": Interval(-0.06, -0.05, -0.001, 0.95)}, 1,
        "Not sure enough on the whole."),
    "up to 0": ({"over_confidence": Interval(-0.1, -0.05, 0.0, 0.95)}, 1, f"{NEITHER}."),
    "from 0": ({"over_confidence": Interval(0.0, 0.05, 0.1, 0.95)}, 1, f"{NEITHER}."),
    "an ECE twice the average": ({"over_confidence": Interval(0.01, 0.03125, 0.05, 0.95)}, 1,
        "Too sure on the whole."),
    "an ECE above twice the average": ({"over_confidence": Interval(0.01, 0.03, 0.05, 0.95)}, 1,
        f"Too sure on the whole{CANCEL}"),
    "above twice the average, not sure enough": (
        {"over_confidence": Interval(-0.05, -0.03, -0.01, 0.95)}, 1,
        f"Not sure enough on the whole{CANCEL}"),
    "errors that cancel, in the noise": ({"over_confidence": Interval(-0.01, 0.0, 0.01, 0.95),
        "floor": replace(FLOOR, high=0.0625)}, 1, f"{NEITHER}."),
    "repaired to the noise": ({"ece_rescaled": 0.0125}, 2,
        f"Dividing the logits by 1.99 repairs what ECE can see: {REPAIRED}."),
    "repaired by half": ({"ece_rescaled": 0.0625 / 2}, 2,
        f"Dividing the logits by 1.99 halves the ECE or better: {REPAIRED}."),
    "not repaired by half": ({"ece_rescaled": 0.0313}, 2,
        f"One temperature does not repair it ({REPAIRED}): the error is not one of scale alone."),
    "no temperature is best": ({"capped": True, "temperature": 0.05}, 2,
        "No temperature is best: every label has the largest logit, or the labels' logits are "
        "below average on the whole. The number given is where the search ended, no repair."),
    "a confidence that tells nothing": (
        {"brier": BrierDecomposition(0.2, 0.0, 0.00249, 0.25, 0.0)}, 4, USELESS),
}  # fmt: skip


@pytest.mark.parametrize("name", FINDINGS)
def test_each_finding_where_it_holds(name):
    changes, place, sentence = FINDINGS[name]
    assert replace(AUDIT, **changes).findings()[place] == sentence


def test_a_finding_is_silent_where_it_does_not_hold():
    calm = replace(
        AUDIT,
        ece=Interval(0.01, 0.02, 0.03, 0.95),
        classes=replace(CLASSES, at_most_by_chance=4),
        brier=BrierDecomposition(0.2, 0.0, 0.00251, 0.25, 0.0),
        worst_percent_of_q=0.5,
    )
    assert calm.findings() == [CALM.format(""), "Too sure on the whole."]
    # Nothing is wrong, so that nothing can be told from it.
    perfect = replace(calm, brier=BrierDecomposition(0.0, 0.0, 0.0, 0.0, 0.0))
    assert perfect.findings() == calm.findings()


def test_an_accuracy_by_chance_silences_all_else():
    assert replace(AUDIT, chance_accuracy=0.79).findings() == [
        "Accuracy 0.800 is no better than labels dealt out at random (0.790): are labels and rows "
        "in one order, and are classes numbered alike? Until that is settled the other numbers say "
        "nothing of the model."
    ]
    assert not replace(AUDIT, chance_accuracy=0.789).near_chance
    one = replace(CLASSES, count=torch.tensor([0, 0, 12345, 0, 0, 0]))
    assert not replace(AUDIT, chance_accuracy=0.79, classes=one).near_chance


def test_a_temperature_that_the_search_did_not_find_is_marked():
    line = "  temperature                 0.05, capped: no temperature is best\n"
    assert line in repr(replace(AUDIT, capped=True, temperature=0.05))


def test_every_number_as_plain_data():
    infinite = replace(AUDIT, negative_log_likelihood=math.inf)
    plain = json.loads(json.dumps(infinite.to_dict(), allow_nan=False))
    interval = {"low": 0.79, "estimate": 0.8, "high": 0.81, "level": 0.95}
    assert plain.pop("accuracy") == interval
    assert plain.pop("floor") == {
        "mean": 0.01, "low": 0.005, "high": 0.02, "level": 0.95, "n_samples": 12345,
        "edges": [0.0, 0.5, 1.0],
        "accuracy_low": [None, pytest.approx(0.7)], "accuracy_high": [None, pytest.approx(0.8)],
    }  # fmt: skip
    assert plain.pop("classes") == {
        "count": [12000, 0, 100, 45, 199, 1],
        "over_confidence": [0.011, None, 0.1, -0.25, 0.3, 0.05],
        "low": [0.001, None, 0.05, -0.5, 0.2, -0.01],
        "high": [0.021, None, 0.15, -0.125, 0.4, 0.11],
        "expected_by_chance": 1.27,
        "at_most_by_chance": 3,
        "outside": [4, 3, 2, 0],
    }
    assert plain.pop("negative_log_likelihood") is None
    verdicts = [plain.pop(name) for name in ("near_chance", "miscalibrated", "uneven")]
    assert verdicts == [False, True, True] and plain.pop("findings") == AUDIT.findings()
    assert plain["temperature"] == 1.9876 and plain["capped"] is False and plain["n_classes"] == 6
    # The rest stands there under its own name.
    assert {"ece", "kce", "brier", "repaired", "worst_percent_of_q"} < set(plain)


def test_the_page_holds_the_report_and_the_figure():
    page = audit_page("a<b>.npz", AUDIT, b"picture")
    assert page.count("<title>Audit of a&lt;b&gt;.npz</title>") == 1
    body = page.split("<h1>Audit of a&lt;b&gt;.npz</h1>\n")[1]
    head, *lines = REPORT.split("\n")
    cells = [(line[2:30].rstrip(), line[30:]) for line in lines if line.startswith("  ")]
    said = [line[2:] for line in lines if line.startswith("- ")]
    items = "".join(f"<li>{finding}</li>" for finding in said)
    table = "".join(f"<tr><td>{quantity}</td><td>{value}</td></tr>" for quantity, value in cells)
    text, drawing = body.split("<img ")
    assert text == (
        f"<p>{head}</p>\n<ul>{items}</ul>\n"
        '<table><thead><tr><th scope="col">quantity</th><th scope="col">value</th></tr></thead>'
        f"<tbody>{table}</tbody></table>\n"
    )
    encoded = base64.b64encode(b"picture").decode()
    assert drawing.startswith(f'src="data:image/png;base64,{encoded}" alt="Left: accuracy against')
    # The class lets a dark page turn the light of the drawing into dark.
    assert 'errors." class="calibcourse-drawing">' in drawing


def band(fig) -> np.ndarray:
    """Lower and upper end of the noise band in each bar of the reliability diagram."""
    bars = [p for p in fig.axes[0].patches if p.get_facecolor()[:3] == to_rgb(plots.NOISE)]
    return np.array([(bar.get_y(), bar.get_y() + bar.get_height()) for bar in bars])


def test_the_figure_shows_the_band_that_was_measured():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(300, 3, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    found = audit(logits, target).floor
    filled = ~found.accuracy_low.isnan()
    expected = torch.stack([found.accuracy_low, found.accuracy_high], 1)[filled]
    np.testing.assert_allclose(band(audit_figure(logits, target)), expected, atol=1e-12)
    wide = replace(found, accuracy_low=0 * found.accuracy_low, accuracy_high=found.accuracy_low**0)
    np.testing.assert_allclose(band(audit_figure(logits, target, wide))[:, 1], 1, atol=1e-12)


COMPARED = AuditComparison(
    {
        "accuracy": Comparison(Interval(-0.01, 0.01234, 0.03, 0.95), 12345, "samples"),
        "confidence - accuracy": Comparison(Interval(-0.03, -0.02, -0.01, 0.95), 12345, "samples"),
        "debiased ECE": Comparison(Interval(0.01, 0.02, 0.03, 0.95), 12345, "samples"),
    },
    both_in_noise=False,
)


def test_the_whole_comparison():
    report = """\
first - second on the same 12,345 samples, 95 % intervals
  accuracy                    +0.0123 [-0.0100, +0.0300]  tie
  confidence - accuracy       -0.0200 [-0.0300, -0.0100]  second is larger
  debiased ECE                +0.0200 [+0.0100, +0.0300]  first is larger"""
    assert repr(COMPARED) == report and COMPARED.differ
    noise = replace(COMPARED, both_in_noise=True)
    tie = report.replace("first is larger", "tie")
    band = "- Both ECEs lie in the band of a calibrated model: a tie, at this size."
    assert repr(noise) == f"{tie}\n{band}"
    assert noise.differ  # by confidence - accuracy, which no band excuses
    only_ece = replace(noise, differences={"debiased ECE": noise.differences["debiased ECE"]})
    assert not only_ece.differ
