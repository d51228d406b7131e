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
from .report import (
    Phases,
    Sweep,
    at_even_steps,
    correlation,
    correlations,
    load_recorded,
    phases,
    table_1,
    table_1_text,
    trajectories,
)
from .runner import Run, sweep
from .slack import median_slack, slack_table, slack_table_text

__all__ = [
    "FIGURES",
    "PROFILES",
    "Comparison",
    "Phases",
    "Run",
    "RunConfig",
    "Sweep",
    "at_even_steps",
    "at_matched_loss",
    "by_label",
    "compare",
    "correlation",
    "correlations",
    "decay_table",
    "load_recorded",
    "median_slack",
    "peak",
    "phases",
    "plan",
    "settling_step",
    "slack_table",
    "slack_table_text",
    "sweep",
    "table_1",
    "table_1_text",
    "trajectories",
]
