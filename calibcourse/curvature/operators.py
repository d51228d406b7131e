"""Curvature matrices of a network as matrix-vector products over flat vectors.

    GaussNewton    G v = mean_i J_iᵀ H_i J_i v                   paper Sec. 2, THEORY.md section 1
    Hessian        G v + mean_i Σ_k (∂ℓ_i/∂z_k) ∇²z_k(x_i) v     the full Hessian of the mean loss

J_i is the K × d Jacobian of the logits, H_i the Hessian of the loss in the logits (closed form,
`logit_hessian.py`). No d × d matrix is formed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from functools import partial
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from .._checks import check_choice, check_floating, check_integer, check_target, numbers
from .._conduct import spread, undisturbed, usable
from .._devices import precise
from .._sources import check_source
from ._network import (
    GRAPH_BYTES,
    Linearization,
    Parameters,
    inputs_for,
    prepared,
    try_one_sample,
)
from ._point import Point
from ._stream import Stream
from .logit_hessian import LOSSES, _gradient, _product

Samples = Tensor | Iterable[tuple[Tensor, Tensor]]

# How far vᵀHw and wᵀHv may be apart, in lengths of H v: rounding is 1e-15 and 1e-6 of it, and 1e-3
# in TF32; a wrong derivative is off by some per cent at least.
SYMMETRY = {torch.float64: 1e-7, torch.float32: 4e-3}


class SymmetricOperator(ABC):
    """A real symmetric d × d matrix known by its products alone: all that Lanczos asks for."""

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    @abstractmethod
    def matvec(self, vector: Tensor) -> Tensor:
        """The product with a vector (d,) of the operator's dtype and device."""

    def matmat(self, columns: Tensor) -> Tensor:
        """The product with several vectors, the columns of (d, k)."""
        return torch.stack([self.matvec(column) for column in _vectors(columns)], dim=1)

    def __matmul__(self, other: Tensor) -> Tensor:
        """`operator @ v`: `matvec` of a vector (d,), `matmat` of columns (d, k)."""
        if isinstance(other, Tensor) and other.ndim == 2:
            return self.matmat(other)
        return self.matvec(other)

    def to_scipy(self) -> Any:
        """The same matrix for scipy's solvers (eigsh, cg, ...), which are not needed otherwise.

        Returns:
            A `scipy.sparse.linalg.LinearOperator` of float64 where the operator is, else float32.

        Raises:
            ImportError: scipy is not installed.
        """
        try:
            from scipy.sparse.linalg import LinearOperator  # type: ignore[import-untyped]
        except ImportError as error:
            raise ImportError("to_scipy needs scipy: pip install scipy") from error
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32

        def product(array: np.ndarray) -> np.ndarray:
            columns = torch.from_numpy(np.array(array)).to(self.device, self.dtype)
            return (self @ columns).detach().to("cpu", wide).numpy()

        dtype = np.float64 if wide == torch.float64 else np.float32
        return LinearOperator(
            self.shape,
            matvec=product,
            rmatvec=product,
            matmat=product,
            rmatmat=product,
            dtype=dtype,
        )

    def to_dense(self) -> Tensor:
        """The d × d matrix, by d products with the unit vectors: for tests and small networks."""
        identity = torch.eye(self.shape[0], dtype=self.dtype, device=self.device)
        return self.matmat(identity)

    def _check_vector(self, vector: Tensor) -> None:
        if not isinstance(vector, Tensor):
            raise TypeError(f"vector must be a torch.Tensor, got {type(vector).__name__}")
        if vector.shape != self.shape[:1]:
            raise ValueError(f"vector must have shape {self.shape[:1]}, got {tuple(vector.shape)}")
        if vector.dtype != self.dtype:
            raise TypeError(f"vector must have dtype {self.dtype}, got {vector.dtype}")
        if vector.device != self.device:
            raise ValueError(f"vector must be on {self.device}, got {vector.device}")


class MatrixOperator(SymmetricOperator):
    """A given symmetric matrix as an operator.

    Args:
        matrix: (d, d), floating, symmetric up to rounding.

    Raises:
        ValueError, TypeError: not a square floating matrix, or not symmetric.

    Example:
        >>> MatrixOperator(torch.diag(torch.tensor([2.0, 1.0]))).matvec(torch.ones(2))
        tensor([2., 1.])
    """

    def __init__(self, matrix: Tensor):
        check_floating(matrix, "matrix")
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
            raise ValueError(f"matrix must have shape (d, d), d >= 1, got {tuple(matrix.shape)}")
        slack = 100 * torch.finfo(matrix.dtype).eps * matrix.abs().max()  # rounding of A + Aᵀ
        if not (matrix - matrix.mT).abs().max() <= slack:
            raise ValueError("matrix must be finite and symmetric")
        self.matrix = matrix.detach()
        self.shape = len(matrix), len(matrix)
        self.dtype, self.device = matrix.dtype, matrix.device

    def matvec(self, vector: Tensor) -> Tensor:
        """The matrix times a vector (d,)."""
        self._check_vector(vector)
        return self.matrix @ vector


class _NetworkOperator(SymmetricOperator):
    """What both curvature operators share: checks, batches, and the graph that is kept."""

    @undisturbed()
    def __init__(
        self,
        model: nn.Module,
        inputs: Samples,
        target: Tensor | None,
        loss: str,
        batch_size: int | None,
        parameters: Iterable[nn.Parameter] | None,
    ):
        check_choice(loss, "loss", LOSSES)
        if batch_size is not None:
            batch_size = check_integer(batch_size, "batch_size", 1)
        self.loss, self._asked_batch_size = loss, batch_size
        self._tried: torch.Size | None = None
        self._stream: Stream | None = None
        if not isinstance(inputs, Tensor):
            inputs, target = self._first_of(inputs, model, target)
        self.model, self.inputs, self.parameters = prepared(model, inputs)
        self.whole = parameters is None  # all trainable parameters
        if parameters is not None:
            self.parameters = _chosen(self.parameters, parameters)
        first, *_ = self.parameters.values()
        size = sum(p.numel() for p in self.parameters.values())
        self.shape, self.dtype, self.device = (size, size), first.dtype, first.device
        self._take(target)
        self._check_symmetric()

    @undisturbed()
    def at(self, inputs: Tensor, target: Tensor) -> Self:
        """The operator of other samples at the same point: the model is not looked at once more."""
        other = copy(self)
        other._stream = None
        other.inputs = inputs_for(self.model, inputs)
        other._take(target, self._point)
        return other

    def batches(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """All samples, inputs and target (None for `GaussNewton`), at most `batch_size` at once."""
        for inputs, target in [(self.inputs, self.target)] if self._stream is None else self._all():
            for start in range(0, len(inputs), self.batch_size):
                some = slice(start, start + self.batch_size)
                yield inputs[some], None if target is None else target[some]

    def _first_of(
        self, source: Samples, model: nn.Module, target: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if target is not None:
            raise TypeError(
                "inputs must be a torch.Tensor where target is given, got "
                f"{type(source).__name__}; leave target out where inputs yields it in its batches"
            )
        check_source(source, "inputs", "a torch.Tensor")
        weights = model.parameters() if isinstance(model, nn.Module) else iter(())
        device = next((weight.device for weight in weights), torch.device("cpu"))
        self._stream = Stream(source, device)
        inputs, target = next(iter(self._stream), (torch.empty(0, 1), None))
        return inputs, target if self._needs_target else None

    def _all(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The batches of the stream, checked."""
        for inputs, target in cast(Stream, self._stream):
            inputs = inputs_for(self.model, inputs)
            if self._needs_target:
                check_target(target, len(inputs), self._n_classes)
            yield inputs, usable(target) if self._needs_target else None

    def _take(self, target: Tensor | None, point: Point | None = None) -> None:
        shape = self.inputs.shape[1:]
        if shape != self._tried:  # one sample tells of all that are alike
            self._n_classes, graph_bytes = try_one_sample(self.model, self.inputs)
            self.batch_size = self._asked_batch_size or max(1, GRAPH_BYTES // graph_bytes)
            self._tried = shape
        if self._needs_target:
            target = usable(cast(Tensor, target))
            check_target(target, len(self.inputs), self._n_classes, device=self.device)
        self.target = target
        samples = () if self._stream else (self.inputs, target)
        self._point = point.at(samples) if point else Point(self.model, samples)
        # One batch: its graph is kept and every product reuses it. More: each product rebuilds one
        # graph after another, at about twice the time, so that memory stays that of one batch.
        whole = self._stream is None and len(self.inputs) <= self.batch_size
        self._kept = self._linearize(self.inputs, self.target) if whole else None

    @undisturbed()
    def matvec(self, vector: Tensor) -> Tensor:
        """The product with a vector (d,), in the order of `model.parameters()`.

        Raises:
            ValueError, TypeError: wrong length, dtype or device; an operation in the model that
                torch cannot differentiate twice.
            RuntimeError: parameters, buffers, modes or samples have changed since the operator was
                built (single entries that were written through `.data` may escape).
        """
        self._check_vector(vector)
        return self._mean(lambda point: self._product(point, vector))

    @undisturbed()
    def matmat(self, columns: Tensor) -> Tensor:
        """The product with the columns of (d, k): one graph per batch serves them all."""
        vectors = _vectors(columns)
        for vector in vectors:
            self._check_vector(vector)
        return self._mean(
            lambda point: torch.stack([self._product(point, vector) for vector in vectors], dim=1)
        )

    def _mean(self, batch_sum: Callable[[Linearization], Tensor]) -> Tensor:
        if what := self._point.changed():
            raise RuntimeError(
                f"the model's {what} have changed since this operator was built; "
                "an operator describes one point: build a new one"
            )
        return self._mean_here(batch_sum)

    def _mean_here(self, batch_sum: Callable[[Linearization], Tensor]) -> Tensor:
        """The mean at a point that is known to be the one of before."""
        if self._kept is not None:
            return batch_sum(self._kept).div_(len(self.inputs))
        total, count = None, 0
        for inputs, target in self.batches():
            # Each graph is freed before the next is built: no name may hold on to it.
            some = batch_sum(self._linearize(inputs, target))
            total = some if total is None else total + some
            count += len(inputs)
        return cast(Tensor, total).div_(count)

    def _linearize(self, inputs: Tensor, target: Tensor | None) -> Linearization:
        parameters = list(self.parameters.values())
        if target is None:
            return Linearization(self.model, parameters, inputs)
        slope = partial(_gradient, target=target, loss=self.loss)
        bend = partial(_product, loss=self.loss)
        return Linearization(self.model, parameters, inputs, slope, bend)

    def _check_symmetric(self) -> None:
        """Require vᵀAw = wᵀAv for two random vectors, on a few samples: derivatives can be wrong.

        A wrong matrix differs from its transpose by about as much as it is wrong, and
        vᵀ(A - Aᵀ)w is of that size times the length of A w.
        """
        some = spread(len(self.inputs), self.device)
        few = self._linearize(self.inputs[some], None if self.target is None else self.target[some])
        wide = torch.promote_types(self.dtype, torch.float32)
        v, w = _random_signs(2, self.shape[0]).to(self.device, wide)
        av, aw = (self._product(few, vector.to(self.dtype)).to(wide) for vector in (v, w))
        unit = float(aw.abs().max()) or 1.0  # products near 1e-300 have squares of 0
        av, aw = av.div_(unit), aw.div_(unit)
        apart, size = numbers([(v @ aw - w @ av).abs(), av.norm() + aw.norm()])
        if apart > SYMMETRY.get(few.narrowest, 0.1) * size:
            raise ValueError(
                "model must consist of operations that torch can differentiate twice, but the "
                f"matrix of {type(self).__name__} is not symmetric (vᵀAw and wᵀAv are "
                f"{apart / size:.1g} of a product's length apart): torch's own weight_norm has a "
                "wrong second derivative, and functions marked once_differentiable lose it without "
                "a word; write the operation out in plain ones (with weight_norm GaussNewton is "
                "right)"
            )

    _needs_target: bool

    @abstractmethod
    def _product(self, point: Linearization, vector: Tensor) -> Tensor:
        """The product of one batch, summed over its samples."""


def _random_signs(rows: int, columns: int) -> Tensor:
    """The same ±1 on every device, float32: a bit each, where torch draws a number each."""
    count = rows * columns
    drawn = np.frombuffer(np.random.default_rng(0).bytes(count // 8 + 1), np.uint8)
    bits = torch.from_numpy(np.unpackbits(drawn, count=count))
    return bits.reshape(rows, columns).float().mul_(2).sub_(1)


def _vectors(columns: Tensor) -> Tensor:
    """The columns of (d, k) as rows, (k, d)."""
    if not isinstance(columns, Tensor) or columns.ndim != 2 or not columns.shape[1]:
        got = tuple(columns.shape) if isinstance(columns, Tensor) else type(columns).__name__
        raise ValueError(f"columns must be a tensor of shape (d, k), k >= 1, got {got}")
    return columns.T.contiguous()


def _chosen(trainable: Parameters, parameters: Iterable[nn.Parameter]) -> Parameters:
    """Those of the trainable parameters that are asked for, in the model's order."""
    wanted = {id(parameter) for parameter in parameters}
    chosen = {name: p for name, p in trainable.items() if id(p) in wanted}
    if not wanted or len(chosen) < len(wanted):
        raise ValueError(
            "parameters must be trainable parameters of the model, such as layer.parameters(), got "
            + ("none" if not wanted else f"{len(wanted) - len(chosen)} that are not")
        )
    return chosen


class GaussNewton(_NetworkOperator):
    """The Gauss–Newton (GGN) matrix of the mean loss, G = mean_i J_iᵀ H_i J_i, as an operator.

    For cross-entropy it is also the Fisher matrix, it needs no labels, and products keep a
    relative error near 1e-6 in float32 at any margin (TF32 is switched off while they are made).
    See THEORY.md sections 1 and 5; Schraudolph 2002 for the product. For "mse" (averaged over
    samples and classes) G = (2/K) mean JᵀJ.

    Args:
        model: maps inputs to logits (N, K); BatchNorm and dropout must be in eval mode.
        inputs: (N, ...), the model's dtype and device. Or a DataLoader, or what else yields batches
            (inputs, target) in every pass anew: samples that do not fit into memory. Every product
            is one pass then; the labels are not looked at.
        loss: "cross_entropy" or "mse".
        batch_size: samples per graph; None takes as many as keep one graph near 128 MB. When all
            samples fit in one batch the graph is built once, here, and reused by every product.
        parameters: those to differentiate in, such as `model[3].parameters()` for the block of one
            layer; None is all that require a gradient.

    Attributes:
        shape, dtype, device: of the d × d matrix, d the number of parameters.

    Raises:
        ValueError, TypeError: empty or non-finite inputs or parameters, a model in train mode that
            couples samples, no trainable parameter, outputs not (N, K), an unknown loss, parameters
            of another model; batches that differ from pass to pass (in a product).

    Example:
        >>> model = nn.Linear(3, 2, bias=False).double()
        >>> inputs = torch.tensor([[1.0, 0, 0], [0, 2, 0]], dtype=torch.float64)
        >>> G = GaussNewton(model, inputs, loss="mse")  # (2/K) mean JᵀJ is diagonal here
        >>> G.to_dense().diagonal()
        tensor([0.5000, 2.0000, 0.0000, 0.5000, 2.0000, 0.0000], dtype=torch.float64)
    """

    _needs_target = False

    def __init__(
        self,
        model: nn.Module,
        inputs: Samples,
        loss: str = "cross_entropy",
        batch_size: int | None = None,
        parameters: Iterable[nn.Parameter] | None = None,
    ):
        super().__init__(model, inputs, None, loss, batch_size, parameters)

    def _product(self, point: Linearization, vector: Tensor) -> Tensor:
        return point.vjp(_product(point.logits, point.jvp(vector), self.loss))


class Hessian(_NetworkOperator):
    """The Hessian of the mean loss as an operator: Gauss–Newton plus the logits' own curvature.

    Args:
        model: maps inputs to logits (N, K), twice differentiable where it matters (ReLU's second
            derivative counts as 0); BatchNorm and dropout must be in eval mode.
        inputs: (N, ...), the model's dtype and device; or batches, as for `GaussNewton`.
        target: (N,), int64 labels; left out where `inputs` yields them.
        loss: "cross_entropy" or "mse" (one-hot targets, averaged over samples and classes).
        batch_size, parameters: as for `GaussNewton`.

    Attributes:
        shape, dtype, device: of the d × d matrix, d the number of parameters.

    Raises:
        ValueError, TypeError: as for `GaussNewton`; also labels out of range or of wrong shape.

    Example:
        >>> model = nn.Linear(3, 2)  # linear: the logits have no curvature: H = G
        >>> inputs, target = torch.randn(5, 3), torch.zeros(5, dtype=torch.int64)
        >>> H = Hessian(model, inputs, target)
        >>> torch.allclose(H.to_dense(), GaussNewton(model, inputs).to_dense())
        True
    """

    _needs_target = True

    def __init__(
        self,
        model: nn.Module,
        inputs: Samples,
        target: Tensor | None = None,
        loss: str = "cross_entropy",
        batch_size: int | None = None,
        parameters: Iterable[nn.Parameter] | None = None,
    ):
        super().__init__(model, inputs, target, loss, batch_size, parameters)

    @undisturbed()
    def gradient(self) -> Tensor:
        """Gradient of the mean loss, (d,): Jᵀ ∂ℓ/∂z, left over from building the graph."""
        return self._mean(Linearization.vjp)

    def _product(self, point: Linearization, vector: Tensor) -> Tensor:
        return point.hessian_product(vector)

    @undisturbed()
    def curvature_along_gradient(self) -> float | None:
        """gᵀHg / ‖g‖² for the gradient g of the mean loss, added up in float64; None where g is 0.

        Raises:
            RuntimeError: as for `matvec`.
        """
        direction = self.gradient()
        largest = direction.abs().max()
        if not largest > 0:
            return None
        direction /= largest  # or squares near 1e-40 would vanish in float32
        mean = self._mean if self._kept is None else self._mean_here  # nothing runs in between
        product = mean(lambda point: point.hessian_product(direction))
        wide = precise(direction)
        return float(wide @ precise(product) / (wide @ wide))
