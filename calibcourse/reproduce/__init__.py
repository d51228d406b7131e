"""The paper's figures and tables: planned, run, resumed, recorded and reported."""

from .configs import LABELS, METHODS, ComparisonConfig, TrajectoryConfig
from .correlations import at_even_steps, correlation, correlations, probes_within, table_1
from .figures import (
    MATCHED,
    comparison_figure,
    grid_figure,
    learning_rate_grid,
    matched_loss_grid,
    matched_loss_plane,
    phase_chart,
    recorded_sharpness,
    remedies_figure,
    trajectories_figure,
    weights_panel,
)
from .hypotheses import (
    PairedComparison,
    at_matched_loss,
    by_label,
    compare,
    decay_table,
    peak,
    settling_step,
    verdict_table,
)
from .methods_report import (
    accuracy_and_ece_text,
    every_quantity_text,
    remedies_text,
    verdict_text,
)
from .outcomes import (
    REMEDIES,
    Difference,
    Verdict,
    as_good,
    difference,
    grid_values,
    outcomes,
    step_costs,
    verdicts,
)
from .paper import published
from .phases import Phases, phases
from .plans import COMPARISONS, FOUR, GRID, PROFILES, TRAJECTORIES, plan
from .records import Run, Sweep, load_recorded
from .report import table_1_text
from .runner import run_all
from .slack import median_slack, slack_summary, slack_table, slack_table_text

__all__ = [
    "COMPARISONS",
    "FOUR",
    "GRID",
    "LABELS",
    "MATCHED",
    "METHODS",
    "PROFILES",
    "REMEDIES",
    "TRAJECTORIES",
    "ComparisonConfig",
    "Difference",
    "PairedComparison",
    "Phases",
    "Run",
    "Sweep",
    "TrajectoryConfig",
    "Verdict",
    "accuracy_and_ece_text",
    "as_good",
    "at_even_steps",
    "at_matched_loss",
    "by_label",
    "compare",
    "comparison_figure",
    "correlation",
    "correlations",
    "decay_table",
    "difference",
    "every_quantity_text",
    "grid_figure",
    "grid_values",
    "learning_rate_grid",
    "load_recorded",
    "matched_loss_grid",
    "matched_loss_plane",
    "median_slack",
    "outcomes",
    "peak",
    "phase_chart",
    "phases",
    "plan",
    "probes_within",
    "published",
    "recorded_sharpness",
    "remedies_figure",
    "remedies_text",
    "run_all",
    "settling_step",
    "slack_summary",
    "slack_table",
    "slack_table_text",
    "step_costs",
    "table_1",
    "table_1_text",
    "trajectories_figure",
    "verdict_table",
    "verdict_text",
    "verdicts",
    "weights_panel",
]
