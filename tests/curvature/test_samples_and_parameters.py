"""Operators of batches that are read anew, of some parameters, and for scipy's solvers."""

import builtins

import numpy as np
import pytest
import torch
from curvature_cases import dense_gauss_newton, dense_hessian, make_case, relative_error
from scipy.sparse.linalg import cg, eigsh
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import calibcourse as cc
from calibcourse.curvature import GaussNewton, Hessian, MatrixOperator, top_eigenpair, trace

CASES = ["mlp_tanh", "cnn", "tied_weights", "partly_frozen"]
LOSSES = ["cross_entropy", "mse"]
# Float64 and a handful of layers; a missing or doubled sample is off by a seventh.
EXACT = 1e-12


def loaders(inputs, target):
    pairs = TensorDataset(inputs, target)
    return {
        "uneven": DataLoader(pairs, batch_size=3),
        "shuffled": DataLoader(pairs, batch_size=2, shuffle=True),
        "own generator": DataLoader(
            pairs, batch_size=2, shuffle=True, generator=torch.Generator().manual_seed(1)
        ),
        "list": [(inputs[:1], target[:1]), (inputs[1:], target[1:])],
    }


@pytest.mark.parametrize(
    "kind",
    [
        "uneven",
        "shuffled",
        *(pytest.param(k, marks=pytest.mark.slow) for k in ("own generator", "list")),
    ],
)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", CASES)
def test_batches_give_the_matrix_of_all_their_samples(name, loss, kind):
    model, inputs, target = make_case(name)
    source = loaders(inputs, target)[kind]
    before = torch.get_rng_state()
    gauss_newton = GaussNewton(model, source, loss).to_dense()
    assert relative_error(gauss_newton, dense_gauss_newton(model, inputs, loss)) < EXACT
    hessian = Hessian(model, source, loss=loss)
    assert relative_error(hessian.to_dense(), dense_hessian(model, inputs, target, loss)) < EXACT
    gradient = Hessian(model, inputs, target, loss).gradient()
    assert relative_error(hessian.gradient(), gradient) < EXACT
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_smaller_than_those_they_come_in():
    model, inputs, target = make_case("cnn")
    operator = GaussNewton(model, [(inputs, target)], batch_size=2)
    assert max(len(some) for some, _ in operator.batches()) == 2
    expected = dense_gauss_newton(model, inputs, "cross_entropy")
    assert relative_error(operator.to_dense(), expected) < EXACT


def test_every_measure_takes_batches():
    model, inputs, target = make_case("mlp_tanh")
    source, whole = DataLoader(TensorDataset(inputs, target), 3), GaussNewton(model, inputs)
    sharpness = cc.gauss_newton_sharpness(model, source, tol=1e-8)
    assert sharpness.value == pytest.approx(top_eigenpair(whole, tol=1e-8).value, rel=1e-10)
    exact = trace(GaussNewton(model, source))
    assert exact.exact and exact.value == pytest.approx(trace(whole).value, rel=1e-12)


class Noisy(Dataset):
    def __init__(self, inputs, target, noise):
        self.inputs, self.target, self.noise = inputs, target, noise

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        image = self.inputs[index]
        return image + self.noise(image), self.target[index]


def test_samples_augmented_by_torchs_chance_come_again():
    model, inputs, target = make_case("mlp_tanh")
    source = DataLoader(Noisy(inputs, target, lambda image: 0.1 * torch.rand_like(image)), 3)
    matrix, again = (GaussNewton(model, source).to_dense() for _ in range(2))
    assert torch.equal(matrix, again)


def test_samples_that_do_not_come_again_are_refused():
    model, inputs, target = make_case("mlp_tanh")
    random = np.random.default_rng(0)
    source = DataLoader(Noisy(inputs, target, lambda image: 0.1 * random.random()), 3)
    with pytest.raises(ValueError, match="must yield the same samples in every pass"):
        cc.gauss_newton_sharpness(model, source)
    some = DataLoader(
        TensorDataset(inputs, target),
        3,
        shuffle=True,
        drop_last=True,
        generator=torch.Generator().manual_seed(0),
    )
    with pytest.raises(ValueError, match=r"same samples.*DataLoader without generator="):
        cc.gauss_newton_sharpness(model, some)


@pytest.mark.parametrize(
    "source, error, message",
    [
        (lambda x, y: iter([(x, y)]), TypeError, r"inputs must be a torch.Tensor, or yield"),
        (lambda x, y: [], ValueError, "at least one"),
        (lambda x, y: [x], TypeError, r"or yield pairs \(inputs, target\)"),
        (lambda x, y: [(x, y), (x * torch.nan, y)], ValueError, "inputs must be finite"),
        (lambda x, y: [(x, y), (x, y + 9)], ValueError, r"target must lie in 0\.\.3"),
        (lambda x, y: [(x, y[:2])], ValueError, "target must have shape"),
    ],
)
def test_batches_that_cannot_be_used_are_refused(source, error, message):
    model, inputs, target = make_case("mlp_tanh")
    with pytest.raises(error, match=message):
        Hessian(model, source(inputs, target)).gradient()


def test_a_target_is_needed_once():
    model, inputs, target = make_case("mlp_tanh")
    with pytest.raises(TypeError, match="where target is given, got list; leave target out"):
        Hessian(model, [(inputs, target)], target)
    with pytest.raises(TypeError, match=r"target must be a torch.Tensor, got NoneType"):
        Hessian(model, inputs)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", CASES)
def test_some_parameters_give_their_block_of_the_matrix(name, loss):
    model, inputs, target = make_case(name)
    trainable = [p for p in model.parameters() if p.requires_grad]
    ends = torch.tensor([p.numel() for p in trainable]).cumsum(0).tolist()
    places = [list(range(end - p.numel(), end)) for p, end in zip(trainable, ends, strict=True)]
    block = torch.tensor(places[0] + places[-1])
    some = [trainable[-1], trainable[0]]  # in any order
    for whole, part in (
        (GaussNewton(model, inputs, loss), GaussNewton(model, inputs, loss, parameters=some)),
        (
            Hessian(model, inputs, target, loss),
            Hessian(model, inputs, target, loss, parameters=iter(some)),
        ),
    ):
        expected = whole.to_dense()[block][:, block]
        assert relative_error(part.to_dense(), expected) < EXACT
        exact = trace(part, exact=True)
        assert exact.value == pytest.approx(float(expected.trace()), rel=1e-12)


def test_sharpness_of_every_layer_is_at_most_the_whole_one():
    model, inputs, _ = make_case("mlp_tanh")
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    whole = cc.gauss_newton_sharpness(model, inputs, tol=1e-8).value
    for layer in layers:
        part = cc.gauss_newton_sharpness(model, inputs, tol=1e-8, parameters=layer.parameters())
        assert 0 < part.value <= whole * (1 + 1e-12)
        assert len(part.vector) == sum(p.numel() for p in layer.parameters())


def test_parameters_that_are_not_the_models_are_refused():
    model, inputs, _ = make_case("partly_frozen")
    frozen = [p for p in model.parameters() if not p.requires_grad]
    for wrong in ([nn.Parameter(torch.ones(2))], frozen[:1], []):
        with pytest.raises(ValueError, match="parameters must be trainable parameters of the mod"):
            GaussNewton(model, inputs, parameters=wrong)


@pytest.mark.parametrize("kind", ["kept graph", "in batches", "loaded", "matrix"])
def test_several_columns_at_once(kind):
    model, inputs, target = make_case("cnn")
    operator = {
        "kept graph": lambda: Hessian(model, inputs, target),
        "in batches": lambda: Hessian(model, inputs, target, batch_size=3),
        "loaded": lambda: Hessian(model, [(inputs, target)]),
        "matrix": lambda: MatrixOperator(Hessian(model, inputs, target).to_dense()),
    }[kind]()
    generator = torch.Generator().manual_seed(0)
    columns = torch.randn(operator.shape[0], 3, dtype=torch.float64, generator=generator)
    product = operator @ columns
    assert torch.equal(product, operator.matmat(columns)) and product.shape == columns.shape
    for place in range(3):
        assert relative_error(product[:, place], operator @ columns[:, place]) < EXACT
        assert torch.equal(operator @ columns[:, place], operator.matvec(columns[:, place]))


def test_columns_of_a_wrong_shape_or_kind_are_refused():
    model, inputs, _ = make_case("cnn")
    for operator in (GaussNewton(model, inputs), MatrixOperator(torch.eye(3).double())):
        size = operator.shape[0]
        for wrong in (torch.ones(size, 0), [1.0], torch.ones(size, 2, 2)):
            with pytest.raises(ValueError, match=r"columns must be a tensor of shape \(d, k\)"):
                operator.matmat(wrong)
        with pytest.raises(ValueError, match="vector must have shape"):
            operator @ torch.ones(size + 1, 2, dtype=torch.float64)
        with pytest.raises(TypeError, match="vector must have dtype"):
            operator @ torch.ones(size, 2)


def test_scipys_solvers():
    model, inputs, target = make_case("cnn")
    operator = Hessian(model, inputs, target)
    dense, scipys = operator.to_dense().numpy(), operator.to_scipy()
    expected = np.linalg.eigvalsh(dense)
    assert eigsh(scipys, 3, which="LA")[0] == pytest.approx(expected[-3:], rel=1e-8)
    assert eigsh(scipys, 2, which="SA")[0] == pytest.approx(expected[:2], rel=1e-8)
    columns = np.random.default_rng(0).standard_normal((len(dense), 2))
    assert scipys @ columns == pytest.approx(dense @ columns, rel=1e-9, abs=1e-12)
    assert scipys.T @ columns == pytest.approx(dense @ columns, rel=1e-9, abs=1e-12)
    damped = GaussNewton(model, inputs).to_scipy() + 0.1 * eye(len(dense))
    solution, failed = cg(damped, columns[:, 0], rtol=1e-10)
    assert not failed
    assert damped @ solution == pytest.approx(columns[:, 0], abs=1e-8)


def eye(size: int):
    return MatrixOperator(torch.eye(size, dtype=torch.float64)).to_scipy()


@pytest.mark.parametrize("dtype, numpys", [(torch.float32, "f4"), (torch.bfloat16, "f4")])
def test_scipys_operator_has_a_dtype_that_numpy_knows(dtype, numpys):
    scipys = MatrixOperator(2 * torch.eye(3, dtype=dtype)).to_scipy()
    product = scipys @ np.ones(3)
    assert scipys.dtype == product.dtype == np.dtype(numpys) and product.tolist() == [2.0] * 3


def test_scipy_is_asked_for_by_name_where_it_is_missing(monkeypatch):
    plain_import = builtins.__import__

    def without(name, *rest):
        if name.startswith("scipy"):
            raise ImportError(name)
        return plain_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="to_scipy needs scipy: pip install scipy"):
        MatrixOperator(torch.eye(2)).to_scipy()
