"""What a caller gives to `fit`, in one of several forms, made into the one that its loop needs."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._checks import check_inputs, check_logits
from ._conduct import modes_restored, usable, writes_into
from .batches import LoadedBatches, SplitBatches, check_smallest_batch
from .losses import WRITES, LossTerms, _called, _plain_terms, _widened
from .optimizers import make_optimizer


class LossOfLogits:
    """A loss of the logits alone, called as loss(logits, target), such as nn.CrossEntropyLoss().

    Args:
        criterion: gives a scalar; a module is moved to the device of the logits.

    Raises:
        ValueError, TypeError: when called: logits that are no finite tensor, a loss that is no
            scalar.

    Example:
        >>> loss = LossOfLogits(nn.CrossEntropyLoss(label_smoothing=0.1))
        >>> loss(nn.Flatten(), torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])).total
        tensor(1.0986)
    """

    def __init__(self, criterion: Callable[[Tensor, Tensor], Tensor]):
        self.criterion = criterion

    def __call__(self, model: nn.Module, inputs: Tensor, target: Tensor) -> LossTerms:
        """The loss of a batch; `cross_entropy` is NaN where the target is no label of each."""
        check_inputs(inputs, integers=True)
        inputs, target = usable(inputs), usable(target)
        logits = _called(model, inputs)
        check_logits(logits, "model(inputs)")
        logits = _widened(logits)
        if isinstance(self.criterion, nn.Module):
            self.criterion.to(logits.device)
        total = self.criterion(logits, target)
        if not isinstance(total, Tensor) or total.ndim:
            raise ValueError(
                "loss(logits, target) must be a scalar torch.Tensor, got "
                f"{tuple(total.shape) if isinstance(total, Tensor) else type(total).__name__}: "
                "let it take the mean over the samples"
            )
        labels = target.dtype == torch.int64 and target.shape == logits.shape[:1]
        plain_one = F.cross_entropy(logits, target) if labels else total.new_tensor(torch.nan)
        return _plain_terms(total, logits, target, plain_one)


def resolve_loss(loss: Callable) -> Callable:
    """A loss called as loss(model, inputs, target); one of two arguments is a `LossOfLogits`.

    Args:
        loss: asks for (model, inputs, target), or for (logits, target).

    Raises:
        TypeError: not callable.
    """
    if not callable(loss):
        raise TypeError(
            "loss must be called as loss(model, inputs, target) or loss(logits, target), got "
            f"{type(loss).__name__}"
        )
    try:
        arguments = inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss)
    except (TypeError, ValueError):  # some of those written in C tell nothing
        return loss
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in arguments.parameters.values() if p.default is p.empty]
    return LossOfLogits(loss) if [p.kind in by_place for p in needed] == [True] * 2 else loss


def total_of(terms: Any) -> Tensor:
    """The total of a loss, which can be differentiated."""
    total = getattr(terms, "total", None)
    if not isinstance(total, Tensor):
        raise TypeError(
            "loss(model, inputs, target) must return LossTerms, or what has a scalar tensor as its "
            f"total, got {type(terms).__name__}; a loss of the logits takes (logits, target)"
        )
    if not total.requires_grad:
        raise ValueError(
            "loss must depend on a trainable parameter, and has no graph: torch.no_grad(), "
            "torch.inference_mode() or detach() in the model's forward, or in the loss?"
        )
    return total


def resolve_probes(probes: Any) -> list[Callable]:
    """A list of the probes, from what can be gone through."""
    if callable(probes) or not all(map(callable, probes := list(probes))):
        raise TypeError(
            "probes must be a list of callables probe(model, data) -> dict of floats, got "
            + (type(probes).__name__ if callable(probes) else f"{probes}")
        )
    return probes


def resolve_optimizer(optimizer, model, lr, batches) -> tuple[Any, str]:
    """An optimizer object and its name, from either."""
    if isinstance(optimizer, str):
        if lr is None:
            raise ValueError(f"lr must be given with the optimizer name {optimizer!r}")
        if optimizer == "gd" and (batches.size is not None or batches.train is None):
            raise ValueError("batch_size must be None for 'gd'; with batches it is 'sgd'")
        # BulkSGD measures the curvature of the training loss, so it has to see the images.
        sees = optimizer == "bulk_sgd" and batches.train is not None
        options = {"inputs": batches.train.inputs} if sees else {}
        return make_optimizer(optimizer, model, lr, **options), optimizer
    if isinstance(optimizer, type | torch.amp.GradScaler) or not callable(
        getattr(optimizer, "step", None)
    ):
        what = getattr(optimizer, "__name__", None)
        raise TypeError(
            "optimizer must be a name or have step(closure), got "
            + (f"the class {what}: make one of it" if what else type(optimizer).__name__)
        )
    if lr is not None:
        raise ValueError("lr must be None with an optimizer object, which has its own")
    groups = getattr(optimizer, "param_groups", [])
    held = {id(parameter) for group in groups for parameter in group["params"]}
    if held and held.isdisjoint(map(id, model.parameters())):
        raise ValueError(
            "optimizer must hold parameters of this model, got one that holds none of them (of "
            "another model, or of a copy): it would train nothing here"
        )
    _follow(optimizer)
    return optimizer, type(optimizer).__name__.lower()


def _follow(optimizer: Any) -> None:
    """Bring what an optimizer remembers to where its parameters are by now."""
    remembered = getattr(optimizer, "state", {})
    if any(
        isinstance(value, Tensor) and value.ndim and value.device != parameter.device
        for parameter, state in remembered.items()
        if isinstance(parameter, Tensor)
        for value in state.values()
    ):
        optimizer.load_state_dict(optimizer.state_dict())  # as torch itself does it


def resolve_scheduler(scheduler: Any, optimizer: Any) -> Any:
    """A scheduler of this optimizer, from one or from a function that makes it; None stays None."""
    if scheduler is None:
        return None
    if isinstance(scheduler, type) or (callable(scheduler) and not hasattr(scheduler, "step")):
        scheduler = scheduler(optimizer)
    if not all(hasattr(scheduler, name) for name in ("step", "state_dict", "load_state_dict")):
        raise TypeError(
            "scheduler must be one of torch.optim.lr_scheduler, or a function that makes one from "
            f"the optimizer, got {type(scheduler).__name__}"
        )
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise TypeError(
            "scheduler must step without a value, which ReduceLROnPlateau asks for: take another"
        )
    if getattr(scheduler, "optimizer", optimizer) is not optimizer:
        raise ValueError(
            "scheduler must belong to the optimizer of this run, got one of another optimizer; "
            "with an optimizer's name give a function, such as lambda optimizer: StepLR(optimizer, "
            "100)"
        )
    return scheduler


def resolve_batches(
    data, batch_size: int | None, seed: int, device
) -> SplitBatches | LoadedBatches:
    train = getattr(data, "train", data)
    if hasattr(train, "inputs") and hasattr(train, "target"):
        return SplitBatches(train, batch_size, seed)
    batches = LoadedBatches(train, seed, device)
    if batch_size is not None:
        raise ValueError("batch_size must be None where data yields batches of its own")
    return batches


def check_model(model: nn.Module, batches: SplitBatches | LoadedBatches) -> None:
    """Require a model that can train on these batches, and leaves inputs that come again alone."""
    with modes_restored(model):
        try:
            model.train()
        except NotImplementedError as error:
            raise ValueError(
                "model must know train and eval mode, and what torch.export has made does not "
                f"({error}): train the module that it was made of"
            ) from error
        check_smallest_batch(model, batches)
        model.eval()
        try:
            writes = batches.train is not None and writes_into(model, batches.train.inputs)
        except Exception:  # of the model's own: it comes again where it can be understood
            return
    if writes:
        raise ValueError(WRITES)


def described(part: Any) -> dict[str, Any]:
    """Name and settings of a loss or scheduler, a loss's class weights among them."""
    settings = {name: value for name, value in vars(part).items() if name != "training"}
    if isinstance(part, nn.Module):
        settings |= {name: tuple(value.tolist()) for name, value in part.named_buffers()}
    return {"name": getattr(part, "__name__", type(part).__name__), **plain(settings)}


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Those of the values that say something and that JSON can keep: numbers, words, tuples."""
    values = {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}
    said = {name: value for name, value in values.items() if value is not False}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in said.items()
        if isinstance(value, int | float | str | tuple) and not name.startswith("_")
    }
