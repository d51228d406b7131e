"""The paper's trajectory figures and Table 1: planned, run, resumed, recorded and reported."""

from .configs import FIGURES, PROFILES, RunConfig, plan
from .report import Sweep, correlation, load_recorded, table_1, table_1_text, trajectories
from .runner import Run, sweep

__all__ = [
    "FIGURES",
    "PROFILES",
    "Run",
    "RunConfig",
    "Sweep",
    "correlation",
    "load_recorded",
    "plan",
    "sweep",
    "table_1",
    "table_1_text",
    "trajectories",
]
