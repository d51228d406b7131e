"""Runs that differ only in seed and learning rate, trained together as one.

Small networks leave a device idle between launches. Stacked, the parameters of R runs are one
tensor with the runs as its first axis, and one launch serves them all (`torch.func`). Each run
draws its own samples, is probed as its own module, and keeps a checkpoint as a single run's: either
way of training can go on where the other was stopped. Numbers agree within rounding.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from .._checks import check_integer, check_seed
from ..batches import SplitBatches
from ..data import Dataset
from ..history import History
from ..losses import CrossEntropy
from ..optimizers import SAM
from ..probes import Probe
from ..training import _metadata, _Run, _schedule, _training, _warn_if_diverged
from .configs import Config, TrajectoryConfig
from .one_run import data_of, threads, trajectory_probes, trajectory_start
from .stacked_updates import StackedGroup, lanes

STACKED = ("gd", "sgd", "adamw", "muon", "sam")
IGNORED = -100  # the label that torch's cross-entropy leaves out of its mean


def stacks(configs: Sequence[Config]) -> list[list[Config]]:
    """Configurations that can be trained together, the others alone.

    Together go trajectories of GD, SGD, AdamW, Muon or SAM that differ in seed and learning rate
    only. Alone go BulkSGD, which searches each run's own steepest directions, and the comparison of
    methods, whose losses and networks with BatchNorm are not stacked.

    Args:
        configs: any.

    Returns:
        All of them, in the order of the first of each stack.

    Example:
        >>> from calibcourse.reproduce import plan
        >>> [(len(stack), stack[0].label) for stack in stacks(plan("figure3"))][:2]
        [(12, 'SGD'), (1, 'BulkSGD 1')]
    """
    groups: dict[str, list[Config]] = {}
    for config in configs:
        stackable = isinstance(config, TrajectoryConfig) and config.optimizer in STACKED
        shared = {n: v for n, v in asdict(config).items() if n not in ("seed", "lr")}
        groups.setdefault(repr(shared) if stackable else config.key, []).append(config)
    return list(groups.values())


def train_stacked(
    configs: Sequence[TrajectoryConfig],
    checkpoints: Sequence[str | os.PathLike[str]] | None = None,
) -> list[History | Exception]:
    """The training runs of configurations that differ in seed and learning rate only.

    Args:
        configs: one of the groups of `stacks`.
        checkpoints: for each, as in `fit`.

    Returns:
        Their histories, each as `calibcourse.reproduce.one_run.train` makes it; where a run could
        not start (its checkpoint is damaged), the error instead, which costs no other run.
    """
    with threads(configs[0].threads):
        data = data_of(configs[0])
        starts = [trajectory_start(config, data) for config in configs]
        return fit_stacked(
            [model for model, _ in starts],
            data,
            [optimizer for _, optimizer in starts],
            steps=configs[0].steps,
            batch_size=configs[0].batch_size,
            probes=[trajectory_probes() for _ in configs],
            probe_steps=configs[0].probe_steps,
            seeds=[config.seed for config in configs],
            checkpoints=checkpoints,
        )


def fit_stacked(
    models: Sequence[nn.Module],
    data: Dataset,
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    steps: int,
    batch_size: int | None = None,
    probes: Sequence[Sequence[Probe]],
    probe_steps: int | Sequence[int],
    seeds: Sequence[int],
    checkpoints: Sequence[str | os.PathLike[str]] | None = None,
) -> list[History | Exception]:
    """`fit` with cross-entropy for several models of one shape at once, on one device.

    Args:
        models: R modules that differ in the values of their parameters only, on the device of
            `data`: without BatchNorm, dropout or whatever else draws or remembers.
        data, steps, batch_size, probe_steps: as in `fit`.
        optimizers: one for each model, of `make_optimizer`, all alike but for the learning rate.
        probes: a list for each model; a probe that remembers belongs to one.
        seeds: decide the batches of each.
        checkpoints: for each, as in `fit`; `fit` can go on from them, and this from those of `fit`.

    Returns:
        For each model its history, or the error that kept it from starting. A run that diverges
        ends as a single one does, the others go on.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or range; a model that remembers.
    """
    steps = check_integer(steps, "steps", 1)
    schedule = _schedule(probe_steps, steps)
    for module in models[0].modules():
        if isinstance(module, nn.modules.batchnorm._NormBase | nn.modules.dropout._DropoutNd):
            raise ValueError(
                "models must not draw or remember, got one with "
                f"{type(module).__name__}: train its runs singly"
            )
    outcomes: list[_Member | Exception] = []
    with ExitStack() as context:
        for place, model in enumerate(models):
            context.enter_context(_training(model, seeds[place]))
            member = _start(
                model, data, optimizers[place], probes[place], steps, batch_size, seeds[place]
            )
            try:
                if checkpoints is not None:
                    member.run.keep(Path(checkpoints[place]), schedule)
                outcomes.append(member)
            except (OSError, ValueError) as error:
                outcomes.append(error)
        members = [outcome for outcome in outcomes if isinstance(outcome, _Member)]
        _train(members, schedule, steps)
    for member in members:
        _warn_if_diverged(member.run, stacklevel=3)
    return [o.run.history() if isinstance(o, _Member) else o for o in outcomes]


@dataclass(frozen=True, eq=False)
class _Member:
    """One of the runs that are trained together."""

    run: _Run
    batches: SplitBatches


def _start(
    model: nn.Module,
    data: Dataset,
    optimizer: torch.optim.Optimizer,
    probes: Sequence[Probe],
    steps: int,
    batch_size: int | None,
    seed: int,
) -> _Member:
    """One of the runs at step 0, as `fit` begins it."""
    batches = SplitBatches(data.train, batch_size, check_seed(seed))
    metadata = _metadata(
        model,
        data,
        batches=batches,
        loss=CrossEntropy(),
        optimizer=(type(optimizer).__name__.lower(), optimizer),
        steps=steps,
        seed=seed,
        device=next(model.parameters()).device,
    )
    run = _Run(model, data, optimizer, list(probes), metadata)  # type: ignore[no-untyped-call]
    return _Member(run, batches)


def _train(members: Sequence[_Member], schedule: set[int], steps: int) -> None:
    """From probe to probe, those that are furthest behind first; resumed runs may be."""
    for member in members:
        if not member.run.rows and member.run.diverged_at is None:
            member.run.probe()
    stack: _Stack | None = None
    while waiting := [m for m in members if m.run.step < steps and m.run.diverged_at is None]:
        step = min(member.run.step for member in waiting)
        together = [member for member in waiting if member.run.step == step]
        if stack is None or stack.members != together:
            stack = _Stack(together, step)
        stack.advance(min(s for s in schedule if s > step) - step)
        stack.hand_back()
        for member in together:
            if member.run.diverged_at is None:
                member.run.probe()


class _Stack:
    """The state of several runs at one step, in tensors of fixed shapes and addresses.

    `update` is one training step of all of them. It reads no number and depends on none, so that a
    CUDA graph can hold it; what changes from epoch to epoch is copied to where it is read.
    """

    def __init__(self, members: list[_Member], step: int):
        self.members, self.step = members, step
        runs = [member.run for member in members]
        self.model = runs[0].model
        stacked, _ = stack_module_state([run.model for run in runs])
        self.parameters = {name: value.detach() for name, value in stacked.items()}
        self.buffers = dict(self.model.named_buffers())  # the same in all: how pixels are scaled
        self.groups = self._groups([run.optimizer for run in runs])
        sam = isinstance(runs[0].optimizer, SAM)
        self.rho: float | None = runs[0].optimizer.param_groups[0]["rho"] if sam else None
        self.train, self.batches = runs[0].data.train, members[0].batches
        device = self.train.target.device
        # The number of updates made, and of that which met NaN or infinity first in each run.
        self.count = torch.tensor(float(step), dtype=torch.float64, device=device)
        self.diverged_at = torch.zeros(len(runs), dtype=torch.float64, device=device)
        size = self.batches.size
        shared = None if size is None else 0  # a full batch is the same for all
        self.differentiate = vmap(
            grad_and_value(self._loss, has_aux=True), in_dims=(0, shared, shared)
        )
        self.epoch = -1
        if size is not None:
            # Padded to whole batches: one shape for all of them, which the ragged last one shares.
            length = self.batches.per_epoch * size
            self.order = torch.full((len(runs), length), IGNORED, device=device)
            self.offsets = torch.arange(size, device=device)
            self.place = self.offsets.clone()

    def advance(self, count: int) -> None:
        """Make so many updates."""
        for step in range(self.step, self.step + count):
            if self.batches.size is not None:
                self._turn_to(step)
            self.update()
        self.step += count

    @torch.no_grad()
    def update(self) -> None:
        """One update of every run."""
        inputs, target = self._batch()
        gradients, finite = self._gradients(self.parameters, inputs, target)
        if self.rho is not None:
            gradients, again = self._gradients(self._uphill(gradients, self.rho), inputs, target)
            finite = finite & again
        self.count += 1
        first = ~finite & (self.diverged_at == 0)
        self.diverged_at.copy_(torch.where(first, self.count, self.diverged_at))
        for names, group in self.groups:
            group.update(group, [gradients[name] for name in names], self.count)

    def hand_back(self) -> None:
        """Give every run its parameters, and its optimizer's memory, at the present step."""
        for _, group in self.groups:
            group.hand_back(self.step)
        diverged_at = [int(step) for step in self.diverged_at.tolist()]
        for place, member in enumerate(self.members):
            run = member.run
            if diverged_at[place]:
                run.step = diverged_at[place]
                run.diverge()
                continue
            run.step = self.step
            with torch.no_grad():
                for name, parameter in run.model.named_parameters():
                    parameter.copy_(self.parameters[name][place])

    def _groups(
        self, optimizers: list[torch.optim.Optimizer]
    ) -> list[tuple[list[str], StackedGroup]]:
        """The optimizers' parameter groups, with the names of their parameters."""
        names = {id(value): name for name, value in self.model.named_parameters()}
        found = []
        for index, group in enumerate(optimizers[0].param_groups):
            of_group = [names[id(parameter)] for parameter in group["params"]]
            stacked = [self.parameters[name] for name in of_group]
            found.append((of_group, StackedGroup(optimizers, index, stacked)))
        return found

    def _turn_to(self, step: int) -> None:
        """Make the batches of this step's epoch, and of a first step its place, be there."""
        epoch, index = divmod(step, self.batches.per_epoch)
        if epoch != self.epoch:
            self.epoch = epoch
            orders = torch.stack([member.batches.order_of(epoch) for member in self.members])
            self.order[:, : orders.shape[1]].copy_(orders)
            self.place.copy_(self.offsets + index * len(self.offsets))

    def _batch(self) -> tuple[Tensor, Tensor]:
        """Inputs and target of this update, (R, B, ...); in full batches without the R."""
        if self.batches.size is None:
            return self.train.inputs, self.train.target
        chosen = self.order.index_select(1, self.place)
        self.place += self.batches.size
        there = chosen >= 0
        chosen = chosen.clamp(min=0)
        return self.train.inputs[chosen], torch.where(there, self.train.target[chosen], IGNORED)

    def _loss(
        self, parameters: dict[str, Tensor], inputs: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The cross-entropy of one run's batch, and whether it and the logits are finite."""
        logits = functional_call(self.model, (parameters, self.buffers), (inputs,))
        loss = F.cross_entropy(logits, target, ignore_index=IGNORED)
        return loss, loss.detach().isfinite() & logits.detach().isfinite().all()

    def _gradients(
        self, parameters: dict[str, Tensor], inputs: Tensor, target: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        gradients, (_, finite) = self.differentiate(parameters, inputs, target)
        return gradients, finite

    def _uphill(self, gradients: dict[str, Tensor], rho: float) -> dict[str, Tensor]:
        """θ + rho g/‖g‖, the norm that of each run's whole gradient."""
        norms = [gradient.flatten(1).norm(dim=1) for gradient in gradients.values()]
        norm = torch.stack(norms).square().sum(0).sqrt() + 1e-12
        return {
            name: parameter + gradients[name] * lanes(rho / norm, parameter)
            for name, parameter in self.parameters.items()
        }
