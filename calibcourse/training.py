"""One training loop for every optimizer, loss and probe of the course.

`fit` trains; probes look on at scheduled steps and give the rows of a `History`. Its columns are
tabled in `calibcourse.probes`.
"""

import os
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ._checks import (
    Once,
    are_finite,
    check_integer,
    check_numbers,
    check_seed,
    check_trainable,
)
from ._conduct import modes_restored, random_state, random_state_restored, restore_random_state
from ._files import check_writable, shortened
from ._given import (
    check_model,
    described,
    plain,
    resolve_batches,
    resolve_loss,
    resolve_optimizer,
    resolve_probes,
    resolve_scheduler,
    total_of,
)
from .checkpoint import (
    fingerprint,
    read_checkpoint,
    write_checkpoint,
)
from .history import History, even_steps
from .losses import CrossEntropy
from .probes import Probe

if TYPE_CHECKING:
    from .data import Dataset

# The numbers worth a glance while the bar moves; those a run does not measure are left out.
LIVE = {"train_loss": "loss", "train_accuracy": "acc", "train_ece": "ECE", "sharpness": "λ"}


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and torch, all devices included.

    Args:
        seed: an integer in 0..2**32 - 1 (NumPy's range).

    Raises:
        TypeError, ValueError: not an integer, or out of range.

    Example:
        >>> set_seed(0); first = torch.rand(1); set_seed(0); bool(torch.rand(1) == first)
        True
    """
    seed = check_seed(seed, below=2**32)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def fit(
    model: nn.Module,
    data: "Dataset | Iterable[tuple[Tensor, Tensor]]",
    loss: Callable | None = None,
    optimizer: Any = "sgd",
    *,
    lr: float | None = None,
    scheduler: Any = None,
    steps: int,
    batch_size: int | None = None,
    probes: Sequence[Probe] = (),
    probe_steps: int | Sequence[int] = 40,
    seed: int = 0,
    device: torch.device | str | None = None,
    checkpoint: str | os.PathLike | None = None,
    progress: bool = True,
) -> History:
    """Train a model in place and record what the probes see on the way.

    A run is decided by its arguments: the same seed, data and initial weights give the same
    history on the same machine with the same number of threads, whatever the probes and whether or
    not it was interrupted. The caller's random state and the model's train/eval mode come back
    unchanged.

    Args:
        model: maps images (N, C, H, W) in [0, 1] to logits (N, K); moved to `device`, trained.
        data: a Dataset; `data.train` is trained on, probes may look at every split. Instead of a
            Dataset, or as its `train`: a DataLoader, or what else yields batches (inputs, target)
            in every epoch anew. Its randomness is seeded here too.
        loss: called as loss(model, inputs, target) -> LossTerms; None is CrossEntropy(). What takes
            two arguments, as nn.CrossEntropyLoss() does, is called as loss(logits, target).
        optimizer: a name for `make_optimizer`, or any object with step(closure), where closure
            zeroes gradients, computes the loss, calls backward and returns the loss.
        lr: learning rate; needed with a name, refused with an object, which has its own.
        scheduler: of `torch.optim.lr_scheduler`, stepped after every update (so its own lengths
            count updates): a function that makes it from the optimizer, such as
            `lambda optimizer: CosineAnnealingLR(optimizer, 500)`, or one made of the object given.
        steps: number of updates.
        batch_size: samples per update: shuffled anew in every epoch, a ragged last batch kept;
            None, or at least the size of the training set, is the full batch. A DataLoader has
            its own.
        probes: callables probe(model, data) -> dict of floats, called in eval mode.
        probe_steps: when: a number of evenly spaced probes, or the steps themselves
            (`even_steps`, `log_steps`); step 0 and the last step are always probed.
        seed: decides the batches and everything random inside the model.
        device: where to train; None is where the model is.
        checkpoint: a file to which the whole state is saved at every probe. If it exists the run
            resumes there, on the CPU with results equal to the last bit. Start from the same
            initial model; a checkpoint of another configuration, or batches that do not come again,
            are refused.
        progress: show a bar with live numbers.

    Returns:
        The history. If the loss became NaN or infinite it ends early: `diverged_at` is set, a
        RuntimeWarning tells, and the model holds its parameters of the last good probe.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or range, named; an unknown optimizer;
            a checkpoint that is damaged or of another configuration.
        OSError: the checkpoint cannot be written, which shows before the training begins, or its
            disk is full; an older checkpoint is left as it was.

    Example:
        >>> from types import SimpleNamespace as Namespace
        >>> train = Namespace(inputs=torch.eye(4), target=torch.arange(4))
        >>> data = Namespace(name="toy", train=train, to=lambda device: data)
        >>> watch = lambda model, data: {"bias": float(model.bias.detach().norm())}
        >>> fit(nn.Linear(4, 4), data, lr=0.1, steps=6, probes=[watch], progress=False)
        History(7 rows, steps 0 to 6, columns: bias)
    """
    steps = check_integer(steps, "steps", 1)
    seed = check_seed(seed)
    loss = CrossEntropy() if loss is None else resolve_loss(loss)
    schedule = _schedule(probe_steps, steps)
    probes = resolve_probes(probes)
    check_trainable(model)
    check_numbers(model)
    if device is None:
        device = next(model.parameters()).device
    model.to(device)
    data = data.to(device) if hasattr(data, "to") else data
    batches = resolve_batches(data, batch_size, seed, device)
    check_model(model, batches)
    optimizer, name = resolve_optimizer(optimizer, model, lr, batches)
    scheduler = resolve_scheduler(scheduler, optimizer)
    metadata = _metadata(
        model,
        data,
        batches=batches,
        loss=loss,
        optimizer=(name, optimizer),
        scheduler=scheduler,
        steps=steps,
        seed=seed,
        device=device,
    )
    with _training(model, seed):
        parts = {"scheduler": scheduler, "batches": batches if batches.train is None else None}
        run = _Run(model, data, optimizer, probes, metadata, parts)
        if checkpoint is not None:
            run.keep(Path(checkpoint), schedule)
        _train(run, loss, batches, schedule, steps, progress)
    _warn_if_diverged(run, stacklevel=3)
    return run.history()


def _metadata(
    model, data, *, batches, loss, optimizer, steps, seed, device, scheduler=None
) -> dict[str, Any]:
    """What a history says of its run; optimizer is a pair of name and object."""
    name, optimizer = optimizer
    groups = [plain(group) for group in getattr(optimizer, "param_groups", [{}])]
    return {
        "optimizer": name,
        "optimizer_groups": groups,
        "lr": groups[0].get("lr"),
        "steps": steps,
        "batch_size": batches.size,
        "seed": seed,
        **({} if scheduler is None else {"scheduler": described(scheduler)}),
        "loss": described(getattr(loss, "criterion", loss)),
        "data": {"name": getattr(data, "name", type(data).__name__), **batches.described()},
        **({"n_classes": len(data.classes)} if hasattr(data, "classes") else {}),
        "parameters": sum(p.numel() for p in model.parameters()),
        "device": str(torch.device(device)),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def _warn_if_diverged(run, stacklevel: int) -> None:
    if run.diverged_at is None:
        return
    back = run.rows[-1]["step"] if run.rows else 0
    warnings.warn(
        f"training diverged: NaN or infinity at step {run.diverged_at}; the run stopped and "
        f"the model is back at its parameters of step {back}. A smaller lr than "
        f"{run.metadata['lr']} may help.",
        RuntimeWarning,
        stacklevel=stacklevel,
    )


def _train(run, loss, batches, schedule, steps: int, progress: bool) -> None:
    """Update from the run's step to the last one, probing on the way; stop at a divergence."""
    model, losses = run.model, []
    parameters = list(model.parameters())
    checks = Once(*batches.whole)

    def closure() -> Tensor:
        for parameter in parameters:
            parameter.grad = None
        with checks.on(inputs, target, later=True):
            total = total_of(loss(model, inputs, target))
        total.backward()
        losses.append(total.detach())
        return total

    with tqdm(total=steps, initial=run.step, disable=not progress, desc="training") as bar:
        if not run.rows:
            run.probe()
        # Without a refresh, which would draw the bar even where TQDM_DELAY holds it back.
        bar.set_postfix(run.live(), refresh=False)
        while run.step < steps and run.diverged_at is None:
            inputs, target = batches.at(run.step)
            losses.clear()
            run.optimizer.step(closure)
            if (scheduler := run.parts.get("scheduler")) is not None:
                scheduler.step()
            run.step += 1
            # Some optimizers call this several times; the first call is at the current parameters.
            if not checks.all_finite(losses[0]):
                run.diverge()
            elif run.step in schedule:
                run.probe()
                bar.set_postfix(run.live(), refresh=False)
            bar.update()


class _Run:
    """Everything that changes while a model trains, and what it takes to go on from there."""

    def __init__(self, model, data, optimizer, probes, metadata, parts=None):
        self.model, self.data, self.optimizer, self.probes = model, data, optimizer, probes
        self.metadata = metadata
        # What else changes, by name, with state_dict and load_state_dict.
        self.parts = {name: part for name, part in (parts or {}).items() if part is not None}
        self.step = 0
        self.rows: list[dict[str, float]] = []
        self.diverged_at: int | None = None
        self.path: Path | None = None
        self.last_good = _copy(model.state_dict())

    def history(self) -> History:
        return History(self.rows, self.metadata, self.diverged_at)

    def live(self) -> dict[str, str]:
        row = self.rows[-1] if self.rows else {}
        return {short: f"{row[name]:.3g}" for name, short in LIVE.items() if name in row}

    def probe(self) -> None:
        """Add a row for the present parameters and save the checkpoint."""
        row: dict[str, float] = {"step": self.step}
        present = _copy(self.model.state_dict())  # first: what is looked at next is in the cache
        try:
            _check_finite(self.model)
            with _looking(self.model) if self.probes else nullcontext():
                for probe in self.probes:
                    values = probe(self.model, self.data)
                    if not values.keys().isdisjoint(row):
                        twice = ", ".join(sorted(values.keys() & row.keys()))
                        raise ValueError(f"probes must give different columns, got twice: {twice}")
                    row |= {name: float(value) for name, value in values.items()}
        except FloatingPointError:
            self.diverge()
            return
        self.rows.append(row)
        self.last_good = present
        self.save()

    def diverge(self) -> None:
        """Stop for good: back to the last good parameters, with the history so far."""
        self.diverged_at = self.step
        self.model.load_state_dict(self.last_good)
        self.save()

    def keep(self, path: Path, schedule: set[int]) -> None:
        """Save to `path` from now on; if it holds this very run, take up its state first."""
        if not hasattr(self.optimizer, "load_state_dict"):
            raise TypeError(
                "optimizer must have state_dict and load_state_dict where a checkpoint is asked "
                f"for, {type(self.optimizer).__name__} has none"
            )
        self.path = path
        # The environment may change; the number of classes shows in the shape of the weights.
        left_out = ("device", "threads", "torch", "n_classes")
        self.configuration = {k: v for k, v in self.metadata.items() if k not in left_out} | {
            "probe_steps": sorted(schedule),
            "initial weights": fingerprint(self.model.state_dict()),
        }
        if "batches" not in self.parts:
            labels = fingerprint({"target": self.data.train.target})
            self.configuration["training labels"] = labels
        if path.exists():
            self._resume()
        if self.step < self.metadata["steps"] and self.diverged_at is None:
            check_writable(path)

    def save(self) -> None:
        if self.path is None:
            return
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "probes": [_state(probe) for probe in self.probes],
            "random": random_state(),
            "history": self.history().to_dict(),
        }
        write_checkpoint(self.path, self.configuration, state)

    def _resume(self) -> None:
        state = read_checkpoint(self.path, self.configuration)
        try:
            history = History.from_dict(state["history"], str(self.path))
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            for name, part in self.parts.items():
                part.load_state_dict(state["parts"][name])
            for probe, saved in zip(self.probes, state["probes"], strict=True):
                if saved is not None:
                    probe.load_state_dict(saved)
            restore_random_state(state["random"])
            check_integer(state["step"], "step", history.rows[-1]["step"] if history.rows else 0)
            check_integer(self.metadata["steps"] - state["step"], "steps left", 0)
        except Exception as error:  # content that does not fit raises errors of many types
            self.model.load_state_dict(self.last_good)
            raise ValueError(f"checkpoint {self.path} is damaged: {shortened(error)}") from error
        self.step = state["step"]
        self.rows, self.diverged_at = history.rows, history.diverged_at
        self.last_good = _copy(self.model.state_dict())


def _schedule(probe_steps: int | Sequence[int], steps: int) -> set[int]:
    if isinstance(probe_steps, int | np.integer):
        probe_steps = check_integer(probe_steps, "probe_steps", 2)
        probe_steps = even_steps(steps, probe_steps)
    schedule = {int(step) for step in probe_steps}
    outside = sorted(step for step in schedule if not 0 <= step <= steps)
    if outside:
        raise ValueError(f"probe_steps must lie in 0..{steps}, got {outside}")
    return schedule | {0, steps}


@contextmanager
def _training(model: nn.Module, seed: int) -> Iterator[None]:
    """Train mode, gradients and a seeded random state inside; the caller's after."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        modes_restored(model),
        random_state_restored(),
    ):
        torch.manual_seed(seed)
        model.train()
        yield
    model.zero_grad(set_to_none=True)


@contextmanager
def _looking(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; nothing that a probe does to modes, gradients or chance outlives it."""
    with modes_restored(model), random_state_restored():
        model.eval()
        yield
    model.zero_grad(set_to_none=True)


def _check_finite(model: nn.Module) -> None:
    if not are_finite(list(model.parameters())):
        raise FloatingPointError("a parameter is NaN or infinite")


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _state(probe: Probe) -> dict | None:
    return probe.state_dict() if hasattr(probe, "state_dict") else None
