"""How the cases are made: three networks, trained on the 4,500 training images of the package.

Each recipe is a function of the data and a seed that returns logits of all test images. The seeds
were chosen, which is why the record keeps what the others gave: a specimen shows that something
happens, not how often.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .. import __version__
from .._files import write_atomically
from ..audit import audit
from ..data import Dataset, Split, load_dataset
from ..models import small_cnn
from ..posthoc import TemperatureScaling
from ..probes import BestValidation, logits_of
from ..reproduce.runner import provenance
from ..training import fit

N_IMAGES = 2_500  # of the test part: the cases'; a recipe may learn from the other half
SEEDS = (0, 1, 2, 3)
SHIRT = 6
_SHARE_OF_SHIRTS = 0.4


def deceptive(data: Dataset, seed: int) -> Tensor:
    """Trained where shirts were rare: 40 % of them kept. Then one temperature, on validation data.

    The temperature makes confidence right on average. Where the network says "shirt" it was too
    rarely told so, and doubts; where it says what a shirt resembles, it is too sure.
    """
    model = _trained(_with_few_shirts(data), seed, steps=600)
    return _on_average_right(model, data).transform(logits_of(model, data.test.inputs))


def over_confident(data: Dataset, seed: int) -> Tensor:
    """Trained for 3,000 steps, far beyond the point where every training image was right."""
    return logits_of(_trained(data, seed, steps=3000), data.test.inputs)


def sound(data: Dataset, seed: int) -> Tensor:
    """Stopped at the lowest validation loss; then a slope and a shift for each class.

    The twenty numbers (vector scaling, Guo et al. 2017) are fitted on the half of the test part
    that is in no case.
    """
    best = BestValidation()
    model = _trained(data, seed, steps=400, probes=[best])
    model.load_state_dict(best.parameters)
    logits = logits_of(model, data.test.inputs)
    slope, shift = vector_scaling(logits[N_IMAGES:], data.test.target[N_IMAGES:])
    return logits.double() * slope + shift


@dataclass(frozen=True)
class Recipe:
    """What stands behind a case, and the seed of the one that is in the package."""

    kind: str
    make: Callable[[Dataset, int], Tensor]
    seed: int


RECIPES = {
    "case_a": Recipe("deceptive", deceptive, 0),
    "case_b": Recipe("over-confident", over_confident, 0),
    "case_c": Recipe("sound", sound, 0),
}


def vector_scaling(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The slopes and shifts of each class that minimise the negative log-likelihood.

    Args:
        logits: (N, K).
        target: (N,) int64.

    Returns:
        Slopes (K,) and shifts (K,), float64, for logits · slope + shift.
    """
    slope = torch.ones(logits.shape[1], dtype=torch.float64, requires_grad=True)
    shift = torch.zeros(logits.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([slope, shift], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(logits.double() * slope + shift, target)
        loss.backward()
        return loss

    optimizer.step(closure)
    return slope.detach(), shift.detach()


def arrays(logits: Tensor, target: Tensor) -> dict[str, np.ndarray]:
    """What a case's file holds: the first half of the images, in the small types files come in."""
    return {
        "logits": logits[:N_IMAGES].half().numpy(),
        "target": target[:N_IMAGES].to(torch.uint8).numpy(),
    }


def digest(content: dict[str, np.ndarray]) -> str:
    """SHA-256 of the numbers of a file."""
    return hashlib.sha256(content["logits"].tobytes() + content["target"].tobytes()).hexdigest()


def make(folder: Path) -> None:
    """Train all twelve networks, minutes on one core, and write the files and the record."""
    data = load_dataset("fashion_mnist_small")
    found = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, recipe in RECIPES.items():
        by_seed = {seed: arrays(recipe.make(data, seed), data.test.target) for seed in SEEDS}
        np.savez_compressed(folder / f"{name}.npz", **by_seed[recipe.seed])
        found[name] = {
            "kind": recipe.kind,
            "how": " ".join((recipe.make.__doc__ or "").split()),
            "seed": recipe.seed,
            "sha256": digest(by_seed[recipe.seed]),
            "seeds": [{"seed": seed} | _measured(content) for seed, content in by_seed.items()],
        }
    about = {
        "command": "python -m calibcourse.cases",
        "data": f"{data.name}, the first {N_IMAGES:,} test images",
        "calibcourse": __version__,
        **provenance(),
        "cases": found,
    }
    text = json.dumps(about, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / "record.json", text.encode())


def _measured(content: dict[str, np.ndarray]) -> dict[str, float]:
    logits, target = (torch.from_numpy(content[name]) for name in ("logits", "target"))
    seen = audit(logits.float(), target.long())
    return {
        "accuracy": seen.accuracy.estimate,
        "over_confidence": seen.over_confidence.estimate,
        "ece": seen.ece.estimate,
        "floor_low": seen.floor.low,
        "floor_high": seen.floor.high,
        "classes_off": len(seen.classes.outside),
        "classes_off_by_chance": seen.classes.at_most_by_chance,
        "temperature": seen.temperature,
    }


def _trained(data: Dataset, seed: int, steps: int, probes: list | None = None) -> nn.Module:
    model = small_cnn(seed=seed)
    fit(model, data, None, "adamw", lr=1e-3, steps=steps, batch_size=128, probes=probes or (),
        probe_steps=20, seed=seed, progress=False)  # fmt: skip
    return model.eval()


def _on_average_right(model: nn.Module, data: Dataset) -> TemperatureScaling:
    held_out = data.validation
    return TemperatureScaling().fit(logits_of(model, held_out.inputs), held_out.target)


def _with_few_shirts(data: Dataset) -> Dataset:
    """The data set with the first 40 % of its training images of shirts, and all others."""
    target = data.train.target
    shirts = (target == SHIRT).nonzero()[:, 0]
    kept = torch.ones(len(target), dtype=torch.bool)
    kept[shirts[int(_SHARE_OF_SHIRTS * len(shirts)) :]] = False
    return replace(data, train=Split(data.train.inputs[kept], target[kept]))
