"""Every public function that takes a seed refuses the same ones, in words of ours."""

import inspect
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import calibcourse as cc
from calibcourse.curvature import MatrixOperator

LOGITS, TARGET = torch.eye(4), torch.arange(4)
IMAGES = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
OPERATOR = MatrixOperator(torch.diag(torch.arange(1.0, 9.0)))
DATA = SimpleNamespace(name="toy", train=SimpleNamespace(inputs=LOGITS, target=TARGET))
CALLS = {
    "bootstrap_interval": lambda seed: cc.bootstrap_interval(
        cc.accuracy, LOGITS, TARGET, n_resamples=5, seed=seed
    ),
    "bottom_eigenpairs": lambda seed: cc.bottom_eigenpairs(OPERATOR, seed=seed),
    "class_over_confidence": lambda seed: cc.class_over_confidence(LOGITS, TARGET, seed=seed),
    "compare_models": lambda seed: cc.compare_models(
        cc.accuracy, LOGITS, LOGITS, TARGET, n_resamples=5, seed=seed
    ),
    "fit": lambda seed: cc.fit(
        nn.Linear(4, 4), DATA, lr=0.1, steps=2, batch_size=2, seed=seed, progress=False
    ),
    "gauss_newton_sharpness": lambda seed: cc.gauss_newton_sharpness(
        nn.Linear(4, 4), LOGITS, seed=seed
    ),
    "mlp": lambda seed: cc.mlp((1, 4, 4), (4,), seed=seed),
    "noise_floor": lambda seed: cc.noise_floor(torch.full((4,), 0.5), n_draws=5, seed=seed),
    "noisy_labels": lambda seed: cc.noisy_labels(TARGET, 0.5, 4, seed=seed),
    "resnet20": lambda seed: cc.resnet20(seed=seed),
    "shifted": lambda seed: cc.shifted(IMAGES, "noise", 0.1, seed=seed),
    "set_seed": cc.set_seed,
    "small_cnn": lambda seed: cc.small_cnn((1, 8, 8), (2, 2), seed=seed),
    "spectral_density": lambda seed: cc.spectral_density(OPERATOR, 3, 2, seed=seed),
    "top_eigenpair": lambda seed: cc.top_eigenpair(OPERATOR, seed=seed),
    "top_eigenpairs": lambda seed: cc.top_eigenpairs(OPERATOR, 2, seed=seed),
    "top_eigenvalue": lambda seed: cc.top_eigenvalue(OPERATOR, seed=seed),
    "trace": lambda seed: cc.trace(OPERATOR, 4, exact=False, seed=seed),
}


def test_every_function_with_a_seed_is_here():
    functions = {name: getattr(cc, name) for name in cc.__all__}
    seeded = {
        name
        for name, value in functions.items()
        if inspect.isfunction(value) and "seed" in inspect.signature(value).parameters
    }
    assert seeded == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_seeds_out_of_range_are_refused_and_the_largest_is_taken(name):
    bits = 32 if name == "set_seed" else 63
    call = CALLS[name]
    call(2**bits - 1)
    call(0)
    for seed, error, message in [
        (2**bits, ValueError, rf"^seed must be below 2\*\*{bits}, got {2**bits}$"),
        (-1, ValueError, "^seed must be at least 0, got -1$"),
        (0.0, TypeError, "^seed must be an int, got float$"),
    ]:
        with pytest.raises(error, match=message):
            call(seed)


def test_set_seed_reaches_all_three_generators():
    def drawn():
        return random.random(), float(np.random.random()), float(torch.rand(1))

    cc.set_seed(1)
    first = drawn()
    others = drawn()
    cc.set_seed(1)
    again = drawn()
    cc.set_seed(2)
    assert again == first
    assert all(a != b for other in (others, drawn()) for a, b in zip(first, other, strict=True))
