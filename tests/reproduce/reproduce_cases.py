"""What the tests of reproduce share."""

import argparse
from dataclasses import replace

from calibcourse.reproduce import (
    Run,
    TrajectoryConfig,
    cli,
)

TINY = TrajectoryConfig(
    dataset="fashion_mnist_small",
    optimizer="sgd",
    lr=0.1,
    steps=24,
    batch_size=16,
    train_samples=40,
    held_out_samples=30,
    hidden=(6,),
    even_probes=7,
    log_probes=3,
)


SIX = [
    replace(TINY, optimizer=optimizer, lr=lr)
    for optimizer in ("sgd", "adamw", "muon")
    for lr in (0.01, 0.1)
]


def histories(runs: list[Run]) -> dict[str, dict]:
    return {run.config.key: run.history.to_dict() for run in runs}


def parse(*words: str) -> argparse.Namespace:
    """The words after `calibcourse reproduce`, as the command reads them."""
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return parser.parse_args(words)
