"""Per-sample Jacobians J = ∂z/∂θ (K × d) through their K × K Gram matrices J Jᵀ.

‖J‖_op² is the top eigenvalue of J Jᵀ, so no K × d matrix is needed where J Jᵀ can be had without
one. A linear layer z' = W a + b that is met once has, with B (K × width) the K backpropagated rows,

    (J Jᵀ of its weight and bias) = (B Bᵀ) (‖a‖² + 1)            THEORY.md section 5

so K backward passes that stop at the layers' outputs give all samples at once. Every other
parameter (convolutions, BatchNorm's scale, weights met twice) takes the generic path: explicit
per-sample Jacobians, a chunk of samples at a time.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from .._checks import check_integer
from .._conduct import call_with, exact_kernels, spread, undisturbed
from ._network import GRAPH_BYTES, Parameters, evaluate, gradients, prepared, try_one_sample


@undisturbed()
def jacobian_grams(model: nn.Module, inputs: Tensor, chunk_size: int | None = None) -> Tensor:
    """The Gram matrix J_i J_iᵀ of every sample's logit Jacobian in the trainable parameters.

    Args:
        model: maps (N, ...) to logits (N, K); BatchNorm and dropout must be in eval mode.
        inputs: (N, ...), the model's dtype and device.
        chunk_size: samples at a time; None takes as many as keep memory near 128 MB.

    Returns:
        (N, K, K), symmetric positive semidefinite, the model's dtype, without a graph.

    Raises:
        ValueError, TypeError: empty or non-finite inputs or parameters, a model in train mode that
            couples samples, no trainable parameter, outputs not (N, K), chunk_size < 1.

    Example:
        >>> inputs = torch.tensor([[3.0, 4.0]])  # z = W a + b: J Jᵀ = (‖a‖² + 1) I
        >>> jacobian_grams(nn.Linear(2, 2), inputs)
        tensor([[[26.,  0.],
                 [ 0., 26.]]])
    """
    return torch.cat(list(gram_blocks(model, inputs, chunk_size)))


@undisturbed()
def jacobian_norms(model: nn.Module, inputs: Tensor, chunk_size: int | None = None) -> Tensor:
    """‖J_i‖_op, the largest singular value of every sample's logit Jacobian; C_J is its maximum.

    Args:
        model, inputs, chunk_size: as for `jacobian_grams`.

    Returns:
        (N,), the model's dtype: how far the logits can move per unit step in parameter space.

    Raises:
        ValueError, TypeError: as for `jacobian_grams`.

    Example:
        >>> jacobian_norms(nn.Linear(2, 2, bias=False), torch.tensor([[3.0, 4.0]]))
        tensor([5.])
    """
    # One block at a time: with 1,000 classes the matrices of 64 samples are 256 MB.
    return torch.cat([_norms(grams) for grams in gram_blocks(model, inputs, chunk_size)])


def gram_blocks(
    model: nn.Module, inputs: Tensor, chunk_size: int | None = None
) -> Iterator[Tensor]:
    """What `jacobian_grams` returns, with its checks, in blocks of about 128 MB."""
    model, inputs, parameters = prepared(model, inputs)
    yield from blocks_of_prepared(model, inputs, parameters, chunk_size)


def blocks_of_prepared(
    model: nn.Module, inputs: Tensor, parameters: Parameters, chunk_size: int | None = None
) -> Iterator[Tensor]:
    """`gram_blocks` of what `prepared` has checked."""
    if chunk_size is None:
        chunk_size = max(1, GRAPH_BYTES // gram_bytes_per_sample(model, inputs)[1])
    chunk_size = check_integer(chunk_size, "chunk_size", 1)
    plan = _Plan(_layers_by_sample(model, inputs))
    waiting: list[Tensor] = []
    for chunk in inputs.split(chunk_size):
        waiting.append(_grams(model, parameters, chunk, plan))
        if sum(grams.nbytes for grams in waiting) >= GRAPH_BYTES:
            yield torch.cat(waiting)
            waiting = []
    if waiting:
        yield torch.cat(waiting)


def _norms(grams: Tensor) -> Tensor:
    widened = grams.to(torch.promote_types(grams.dtype, torch.float32))  # no eigenvalues in half
    return torch.linalg.eigvalsh(widened)[:, -1].clamp(min=0).sqrt().to(grams.dtype)


def gram_bytes_per_sample(model: nn.Module, inputs: Tensor) -> tuple[int, int]:
    """K, and about how many bytes `jacobian_grams` needs for each sample of a chunk."""
    linear = {id(p) for m in model.modules() if type(m) is nn.Linear for p in m.parameters()}
    explicit = [p for p in model.parameters() if p.requires_grad and id(p) not in linear]
    n_classes, graph_bytes = try_one_sample(model, inputs)
    row_bytes = sum(p.numel() * p.element_size() for p in explicit)
    return n_classes, n_classes * (graph_bytes + row_bytes)


@dataclass
class _Call:
    """One call of a linear layer: what came in, and where in the graph it came out."""

    module: nn.Linear
    features: Tensor  # (N, width)
    output: GradientEdge


@dataclass
class _Plan:
    """What the first samples have shown of a model."""

    by_sample: set[int]  # of `_layers_by_sample`
    vectorised: bool | None = None  # whether vmap can be trusted; None where it was not tried yet


def _grams(model: nn.Module, parameters: Parameters, inputs: Tensor, plan: _Plan) -> Tensor:
    """Gram matrices of a chunk."""
    with torch.enable_grad(), _recorded_linear_calls(model) as calls:
        logits = evaluate(model, inputs)
        calls = _factorising(calls, logits, len(inputs))
        calls = [call for call in calls if id(call.module) in plan.by_sample]
        grams = _factorised_share(calls, logits)
    done = {id(p) for call in calls for p in call.module.parameters()}
    rest = {name: p.detach() for name, p in parameters.items() if id(p) not in done}
    return grams + _generic_share(model, rest, inputs, plan) if rest else grams


def _layers_by_sample(model: nn.Module, inputs: Tensor) -> set[int]:
    """The linear layers, by id, whose row i serves sample i and no other.

    As many rows as samples may be chance: prototypes of N classes, or the same rows in another
    order. So a few samples are run, and row j of a layer must have no part in the logits of
    sample i ≠ j.
    """
    few = inputs[spread(len(inputs), inputs.device)]
    if len(few) == 1:
        few = few.expand(2, *few.shape[1:])
    with torch.enable_grad(), _recorded_linear_calls(model) as calls:
        logits = evaluate(model, few)
        calls = _factorising(calls, logits, len(few))
        # Weighted: the plain sum of a sample's logits may be constant.
        totals = (logits @ torch.arange(1, 1 + logits.shape[1], device="cpu").to(logits)).unbind()
    mixing: set[int] = set()
    edges = [call.output for call in calls]
    for sample, logit in enumerate(totals) if calls else ():
        others = torch.arange(len(few), device=inputs.device) != sample
        for call, rows in zip(calls, gradients(logit, edges), strict=True):
            if rows[others].any():
                mixing.add(id(call.module))
    return {id(call.module) for call in calls} - mixing


@contextmanager
def _recorded_linear_calls(model: nn.Module) -> Iterator[list[_Call]]:
    """Note every call of an `nn.Linear` inside the block."""
    calls: list[_Call] = []

    def note(module: nn.Linear, args: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:
            calls.append(_Call(module, args[0].detach(), get_gradient_edge(output)))

    # First among the hooks, and by graph edge rather than by tensor: a later hook may replace the
    # output, and an in-place activation overwrites it.
    hooks = [
        module.register_forward_hook(note, prepend=True)
        for module in model.modules()
        # A subclass may compute something else, and so may a forward set on the layer itself.
        if type(module) is nn.Linear and "forward" not in vars(module)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _factorising(calls: list[_Call], logits: Tensor, n_samples: int) -> list[_Call]:
    """The calls whose layer is met once, on one row per sample, and whose parameters only there.

    What the logits do not come from, such as an auxiliary head, is left out.
    """
    met = _consumers(logits)
    called = Counter(id(call.module) for call in calls)
    return [
        call
        for call in calls
        if called[id(call.module)] == 1
        and call.output.node in met
        and call.features.ndim == 2
        and len(call.features) == n_samples
        and all(
            isinstance(p, nn.Parameter)
            for p in (call.module.weight, call.module.bias)
            if p is not None
        )
        and all(
            _meets_only(id(p), call.output.node, met)
            for p in call.module.parameters()
            if p.requires_grad
        )
    ]


def _consumers(logits: Tensor) -> dict[int | Node, list[Node]]:
    """By node of the graph of the logits, and by parameter's id: the nodes that take it in."""
    root = cast(Node, logits.grad_fn)
    found: dict[int | Node, list[Node]] = {root: []}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        for following, _ in node.next_functions:
            if following is None:
                continue
            leaf = getattr(following, "variable", None)  # the end of the graph
            if leaf is None and following not in found:
                waiting.append(following)
            found.setdefault(following if leaf is None else id(leaf), []).append(node)
    return found


def _meets_only(place: int | Node, goal: Node, met: dict[int | Node, list[Node]]) -> bool:
    """Whether the goal, and nothing else, takes in a parameter, as it is or transposed.

    A gradient that a model takes of itself takes in the very transpose that its layer did, and
    `torch.func.functional_call` may have lent the layer a tensor that is made of its parameter.
    """
    while len(met.get(place, ())) == 1:
        place = met[place][0]
        if place is goal:
            return True
        if place.name() != "TBackward0":
            break
    return False


def _factorised_share(calls: list[_Call], logits: Tensor) -> Tensor:
    """Σ over layers of (B Bᵀ)(‖a‖² + 1); a frozen weight or bias loses its term."""
    n_samples, n_classes = logits.shape
    share = logits.new_zeros(n_samples, n_classes, n_classes)
    if not calls:
        return share
    edges = [call.output for call in calls]
    rows = [gradients(logits[:, k].sum(), edges) for k in range(n_classes)]
    for call, *per_class in zip(calls, *rows, strict=True):
        backward = torch.stack(per_class, dim=1)  # B: (N, K, width)
        weight, bias = call.module.weight, call.module.bias
        scale = torch.zeros_like(call.features[:, 0])
        if weight.requires_grad:
            scale += call.features.square().sum(1)
        if bias is not None and bias.requires_grad:
            scale += 1
        share += (backward @ backward.mT) * scale[:, None, None]
    return share


def _generic_share(
    model: nn.Module, rest: dict[str, Tensor], inputs: Tensor, plan: _Plan
) -> Tensor:
    """J Jᵀ from the explicit Jacobian of every sample in the parameters `rest`."""
    if plan.vectorised is not False:
        try:
            jacobians = _vectorised(model, rest, inputs)
        except Exception:  # data-dependent shapes, recurrent kernels, scripted modules ...
            plan.vectorised = False
        else:
            if plan.vectorised is None:
                plan.vectorised = _agrees(model, rest, inputs, jacobians)
            if plan.vectorised:
                return cast(Tensor, sum(j @ j.mT for j in jacobians))
    return torch.cat([_share_of_one(model, rest, sample) for sample in inputs.split(1)])


def _vectorised(model: nn.Module, rest: dict[str, Tensor], inputs: Tensor) -> list[Tensor]:
    """The Jacobians of all samples, (N, K, size) for each parameter, by torch's batching rules."""

    def logits_of(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        return call_with(parameters, model, sample[None])[0]

    per_sample = torch.func.vmap(torch.func.jacrev(logits_of), in_dims=(None, 0))
    with torch.no_grad(), exact_kernels(model):  # the other parameters need no graph
        jacobians = per_sample(rest, inputs).values()
    return [j.flatten(2) if j.ndim > 2 else j[:, :, None] for j in jacobians]


def _agrees(
    model: nn.Module, rest: dict[str, Tensor], inputs: Tensor, jacobians: list[Tensor]
) -> bool:
    """Whether Σ_i J_iᵀu_i is what a plain backward pass gives: some batching rules are wrong.

    Of torch 2.13's, those of PReLU and `linalg.solve` are, without a word.
    """
    own = dict(model.named_parameters())
    with torch.enable_grad():
        logits = evaluate(model, inputs)
    u = torch.arange(1, 1 + logits.numel(), device="cpu").cos().view_as(logits).to(logits)
    expected = gradients(logits, [own[name] for name in rest], u)
    for j, part in zip(jacobians, expected, strict=True):
        found = torch.einsum("nkd,nk->d", j, u)
        slack = torch.finfo(j.dtype).eps ** 0.5 * (j.norm() + part.norm())
        if not (found - part.flatten()).norm() <= slack:
            return False
    return True


def _share_of_one(model: nn.Module, rest: dict[str, Tensor], sample: Tensor) -> Tensor:
    """The same for one sample, (1, K, K), by K backward passes: what every model can do."""
    own = dict(model.named_parameters())
    with torch.enable_grad():
        logits = evaluate(model, sample)[0]
        rows = [gradients(logit, [own[name] for name in rest]) for logit in logits]
    blocks = [torch.stack([part.flatten() for part in parts]) for parts in zip(*rows, strict=True)]
    return torch.stack([j @ j.mT for j in blocks]).sum(0)[None]
