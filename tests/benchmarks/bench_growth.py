"""How the time grows: the metrics with the number of samples, curvature with the parameters.

A peer ends where one more call would take about 20 seconds or 4 GB.
"""

from _harness import Growth, Setting, script
from _subjects import count_parameters, images
from bench_curvature import (
    LAMBDA_MAX,
    PRODUCT,
    Point,
    Trajectory,
    fewest_steps,
)
from bench_metrics import ECE, KCE, Scores, logits_and_target
from torch import nn

from calibcourse.curvature import gauss_newton_sharpness
from calibcourse.models import mlp

SAMPLES = [round(10 ** (power / 2)) for power in range(6, 15)]  # 1e3 to 1e7
WIDTHS = (12, 38, 110, 290, 690, 1430, 2790)  # 784-w-w-10: some 1e4 to 1e7 parameters
N_IMAGES = 200


def scores(setting: Setting, n_samples: int) -> tuple[Scores, int]:
    return logits_and_target(n_samples, 10, setting), n_samples


def network(setting: Setting, width: int) -> nn.Module:
    return mlp(hidden=(width, width)).to(setting.device)


def point(setting: Setting, width: int) -> tuple[Point, int]:
    model = network(setting, width)
    return Point(model, images(setting, N_IMAGES)), count_parameters(model)


def one_checkpoint(setting: Setting, width: int) -> tuple[Trajectory, int]:
    model, data = network(setting, width), images(setting, N_IMAGES)
    # Two Lanczos runs need about equally many steps: look for eigenthings' from ours on.
    start = max(4, gauss_newton_sharpness(model, data.inputs).matvecs - 2)
    steps = fewest_steps([model], data, start)
    return Trajectory([model], data, steps), count_parameters(model)


TRIAL_SAMPLES, TRIAL_WIDTHS = (100, 200), (4, 6)

PARTS = (
    Growth("growth_ece", "ECE", ECE, "samples", SAMPLES, TRIAL_SAMPLES, scores),
    Growth("growth_kce", "KCE", KCE, "samples", SAMPLES, TRIAL_SAMPLES, scores),
    Growth("growth_product", "G·v", PRODUCT, "parameters", WIDTHS, TRIAL_WIDTHS, point, 5),
    Growth(
        "growth_lambda_max", "λ_max", LAMBDA_MAX, "parameters", WIDTHS, TRIAL_WIDTHS, one_checkpoint
    ),
)

if __name__ == "__main__":
    script(__doc__, PARTS)
