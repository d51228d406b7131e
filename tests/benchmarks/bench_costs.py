"""What ours costs at all, in seconds and memory, beside what was promised.

Every line is one first call; small ones come first, while the process holds no freed memory that a
later one could use again unseen.
"""

import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from functools import partial

import torch
from _harness import Setting, Table, alternate, measured, script, warm_up
from _subjects import images, plain_mlp
from bench_curvature import trained_point
from bench_metrics import logits_and_target, size_of
from bench_training import few_images

from calibcourse.bounds import curvature_ladder
from calibcourse.curvature import ConvergenceWarning, gauss_newton_sharpness
from calibcourse.metrics import (
    expected_calibration_error,
    kernel_calibration_error,
    smooth_calibration_error,
)
from calibcourse.models import resnet20
from calibcourse.probes import LogitProbe, SharpnessProbe
from calibcourse.training import fit


def row(call: str, size: str, found: tuple[float, float | None], promised: str) -> dict:
    seconds, megabytes = found
    return {"call": call, "size": size, "s": seconds, "extra MB": megabytes, "promised": promised}


def costs(setting: Setting) -> Iterator[dict]:
    scores = logits_and_target(setting.pick(1_000_000, 1000), 10, setting)
    head = [tensor[:100] for tensor in scores]
    for metric, promise in (
        (expected_calibration_error, "less than the 40 MB of all probabilities"),
        (smooth_calibration_error, ""),
        (kernel_calibration_error, "1 s, 200 MB"),
    ):
        metric(*head)  # loads what the first call loads
        found = measured(lambda metric=metric: metric(*scores), setting)
        yield row(metric.__name__, size_of(scores), found, promise)

    point = trained_point(setting)
    call = lambda: curvature_ladder(point.model, point.data.inputs, point.data.target)  # noqa: E731
    yield row("curvature_ladder, cold", str(point), measured(call, setting), "1 s, 1 GB")

    model = resnet20().to(setting.device).eval()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(setting.pick(1000, 4), 3, 32, 32, generator=generator).to(setting.device)
    # Memory is the same for any number of products; nobody needs the eigenvalue here.
    warnings.simplefilter("ignore", ConvergenceWarning)
    found = measured(lambda: gauss_newton_sharpness(model, inputs, max_matvecs=2), setting)
    size = f"ResNet-20, {len(inputs):,} images of 32 × 32"
    yield row("gauss_newton_sharpness, 2 products", size, found, "2 GB")

    data, steps = few_images(setting), setting.pick(4000, 4)
    options = dict(optimizer="gd", lr=0.2, probes=[LogitProbe(), SharpnessProbe()], probe_steps=60)
    run = lambda: fit(  # noqa: E731
        plain_mlp(setting), data, steps=steps, device=setting.device, progress=False, **options
    )
    size = f"{steps:,} steps of GD on {len(images(setting, 1000)):,} images"
    yield row("fit with 60 probes", size, measured(run, setting), "90 s")


def imports(setting: Setting) -> Iterator[dict]:
    """A process that imports the package beside one that imports torch alone, in turns."""

    def start(name: str) -> None:
        subprocess.run([sys.executable, "-c", f"import {name}"], check=True)

    calls = {name: partial(start, name) for name in ("torch", "calibcourse")}
    warm_up(calls, ())
    times = alternate(calls, setting.pick(7, 1), time.perf_counter)
    for name, seconds in times.items():
        ratios = [mine / theirs for mine, theirs in zip(seconds, times["torch"], strict=True)]
        median = statistics.median
        yield {"import": name, "s": median(seconds), "of torch's": median(ratios)}


PARTS = (
    Table(
        name="costs",
        title="what ours costs at all, beside what was promised",
        rows=costs,
    ),
    Table(name="import", title="what an import costs, Python's start included", rows=imports),
)

if __name__ == "__main__":
    script(__doc__, PARTS)
