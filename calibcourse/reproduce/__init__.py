"""The paper's trajectory figures and Table 1: planned, run, resumed, recorded and reported."""

from .configs import FIGURES, PROFILES, RunConfig, plan
from .hypotheses import (
    Comparison,
    at_matched_loss,
    by_label,
    compare,
    decay_table,
    peak,
    settling_step,
)
from .report import Sweep, correlation, load_recorded, table_1, table_1_text, trajectories
from .runner import Run, sweep

__all__ = [
    "FIGURES",
    "PROFILES",
    "Comparison",
    "Run",
    "RunConfig",
    "Sweep",
    "at_matched_loss",
    "by_label",
    "compare",
    "correlation",
    "decay_table",
    "load_recorded",
    "peak",
    "plan",
    "settling_step",
    "sweep",
    "table_1",
    "table_1_text",
    "trajectories",
]
