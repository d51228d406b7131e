"""The caller's switches for TF32 and bfloat16 do not reach curvature, and stay as they were."""

from functools import partial
from types import SimpleNamespace as Namespace

import pytest
import torch
from torch import nn

from calibcourse import GaussNewton, curvature_ladder, fit, jacobian_norms
from calibcourse._conduct import PARTS, SWITCHES, _read

BACKENDS = torch.backends


def put(part, name: str, value: object) -> None:
    setattr(part, name, value)


CALLERS = {  # what a caller may have done before
    "nothing": lambda: None,
    "high": partial(torch.set_float32_matmul_precision, "high"),
    "medium": partial(torch.set_float32_matmul_precision, "medium"),
    "matmul": partial(put, BACKENDS.cuda.matmul, "allow_tf32", True),
    "cudnn": partial(put, BACKENDS.cudnn, "allow_tf32", True),
    "newer matmul": partial(put, BACKENDS.cuda.matmul, "fp32_precision", "tf32"),
    "newer conv": partial(put, BACKENDS.cudnn.conv, "fp32_precision", "tf32"),
    "everything": partial(put, BACKENDS, "fp32_precision", "tf32"),
}


def switches() -> tuple:
    return tuple(_read(get) for get, *_ in SWITCHES), tuple(p.fp32_precision for p in PARTS)


@pytest.fixture(params=CALLERS)
def caller(request):
    """The switches as some caller left them; after the test as they were."""
    everything, before = BACKENDS.fp32_precision, switches()
    CALLERS[request.param]()
    yield
    BACKENDS.fp32_precision = everything
    for (_, set_switch, _), value in zip(SWITCHES, before[0], strict=True):
        set_switch(value)
    for part, value in zip(PARTS, before[1], strict=True):
        part.fp32_precision = value
    assert switches() == before


class Watched(nn.Linear):
    """Notes the switches in its forward pass and in its backward pass."""

    def __init__(self):
        super().__init__(4, 3)
        self.seen = []

    def forward(self, inputs):
        self.seen.append(switches()[1])
        logits = super().forward(inputs)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self.seen.append(switches()[1]))
        return logits


@pytest.mark.parametrize(
    "measure",
    [
        lambda model, x: GaussNewton(model, x).matvec(torch.ones(15)),
        lambda model, x: jacobian_norms(model, x),
        lambda model, x: curvature_ladder(model, x, torch.zeros(5, dtype=torch.int64)),
    ],
)
def test_nothing_is_rounded_inside_and_nothing_stays_changed(caller, measure):
    before, model = switches(), Watched()
    measure(model, torch.rand(5, 4))
    assert model.seen and all(set(seen) <= {"ieee", "none"} for seen in model.seen)
    assert switches() == before


def test_an_error_inside_leaves_the_callers_switches(caller):
    before = switches()

    class Failing(Watched):
        def forward(self, inputs):
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        GaussNewton(Failing(), torch.rand(5, 4))
    assert switches() == before


def test_training_keeps_what_the_caller_chose(caller):
    before, model = switches(), Watched()
    data = Namespace(inputs=torch.rand(6, 4), target=torch.arange(6) % 3)
    data = Namespace(name="toy", train=data, to=lambda device: data)
    fit(model, data, lr=0.1, steps=1, progress=False)
    assert set(model.seen) == {before[1]}
