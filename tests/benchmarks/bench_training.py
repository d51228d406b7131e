"""What looking costs: a probe in full-batch gradients, and `fit` beside a bare loop.

Promised: a probe of everything (logits of all splits, two curvatures) costs at most 25 full-batch
gradients.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from _harness import Comparison, Peer, Setting, script
from _subjects import dataset, descend, images, plain_mlp
from torch import nn

from calibcourse.data import Dataset
from calibcourse.losses import CrossEntropy
from calibcourse.probes import LogitProbe, SharpnessProbe
from calibcourse.training import fit


def few_images(setting: Setting) -> Dataset:
    """1,000 images to train on; validation and test as they are."""
    data = replace(dataset(setting), train=images(setting, 1000))
    return data if not setting.quick else replace(data, test=data.test.head(40))


# --- the loop -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """Everything that decides a run; the network is made anew for each."""

    setting: Setting
    data: Dataset
    batch_size: int
    steps: int

    def __str__(self) -> str:
        return f"{self.steps} steps, batch {self.batch_size}, MLP 784-200-200-10"


def final_loss(model: nn.Module, run: Training) -> float:
    train = run.data.train
    return float(CrossEntropy()(model, train.inputs, train.target).total.detach())


def fitted(run: Training) -> float:
    model = plain_mlp(run.setting)
    options = dict(lr=0.1, steps=run.steps, batch_size=run.batch_size, progress=False)
    fit(model, run.data, device=run.setting.device, **options)
    return final_loss(model, run)


def bare(run: Training) -> float:
    """The same updates on the same batches, written out."""
    model, train = plain_mlp(run.setting), run.data.train
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    per_epoch = -(-len(train) // run.batch_size)
    for step in range(run.steps):
        epoch, index = divmod(step, per_epoch)
        if index == 0:
            shuffled = np.random.default_rng((0, epoch)).permutation(len(train))
            order = torch.from_numpy(shuffled).to(train.target.device)
        chosen = order[index * run.batch_size :][: run.batch_size]
        optimizer.zero_grad()
        F.cross_entropy(model(train.inputs[chosen]), train.target[chosen]).backward()
        optimizer.step()
    return final_loss(model, run)


def loop(batch_size: int) -> Comparison:
    return Comparison(
        name=f"fit_{batch_size}",
        what="fit without probes",
        subject=lambda s: Training(s, few_images(s), batch_size, s.pick(300, 5)),
        size=str,
        ours=fitted,
        # The same float32 operations, perhaps in another order in 300 steps.
        peers=(Peer("bare loop", bare, bound=1e-4),),
        apart=lambda ours, theirs: abs(ours - theirs),
        measure="difference of the final training losses",
        rounds=7,
    )


# --- probes ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkpoints:
    """Networks along gradient descent at rate 0.1."""

    models: list[nn.Module]
    data: Dataset

    def __str__(self) -> str:
        train = self.data.train
        return f"{len(self.models)} probes of a GD run, MLP 784-200-200-10, {len(train):,} images"


def checkpoints(setting: Setting) -> Checkpoints:
    data, steps = few_images(setting), setting.pick(1500, 4)
    every = steps // setting.pick(15, 2)
    return Checkpoints(descend(plain_mlp(setting), data.train, 0.1, steps, every), data)


def probed(run: Checkpoints) -> None:
    probes = [LogitProbe(), SharpnessProbe()]  # made anew: the first starts cold
    for model in run.models:
        for probe in probes:
            probe(model, run.data)


def one_gradient_each(run: Checkpoints) -> None:
    loss: Callable = CrossEntropy()
    for model in run.models:
        model.zero_grad()
        loss(model, run.data.train.inputs, run.data.train.target).total.backward()


PROBE = Comparison(
    name="probe",
    what="probe of everything",
    subject=checkpoints,
    size=str,
    ours=probed,
    peers=(Peer("one full-batch gradient", one_gradient_each, target=1 / 25, unit=True),),
    apart=lambda ours, theirs: 0.0,
    measure="other work",
    rounds=5,
)

PARTS = (loop(100), loop(16), PROBE)

if __name__ == "__main__":
    script(__doc__, PARTS)
