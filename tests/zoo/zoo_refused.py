"""The kinds of models that are refused, with the words that do it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from zoo_models import (
    LENGTH,
    N_CLASSES,
    REFUSED,
    WIDTH,
    Written,
    encoder_layer,
    flat,
    head,
    images,
    refused,
    rows,
    tokens,
)

__all__ = ["REFUSED"]

# --- chance ---------------------------------------------------------------------------------------

CHANCE = r"say the same when it is called again.*model\.eval\(\)"
TOGETHER = r"treat samples one by one.*model\.eval\(\)"


@refused(flat, CHANCE)
def functional_dropout():
    return Written(lambda model, x: model.head(F.dropout(x, 0.2)), head=head()).eval()


@refused(rows, "Dropout in train mode")
def dropout_in_train_mode():
    return nn.Sequential(encoder_layer(), nn.Flatten(), head(LENGTH * WIDTH)).train()


@refused(flat, CHANCE)
def rare_drop_path():
    def forward(model: Written, x: Tensor) -> Tensor:
        kept = (torch.rand(len(x), 1) > 0.05).to(x)
        return model.head(x + kept * torch.tanh(model.layer(x)))

    return Written(forward, layer=nn.Linear(WIDTH, WIDTH), head=head())


@refused(rows, CHANCE)
def attention_dropout():
    return Written(
        lambda model, x: model.head(model.attention(x, x, x)[0].mean(1)),
        attention=nn.MultiheadAttention(WIDTH, 2, dropout=0.2, batch_first=True),
        head=head(),
    ).train()


@refused(flat, CHANCE)
def rrelu_in_train_mode():
    return nn.Sequential(nn.Linear(WIDTH, 8), nn.RReLU(), head(8)).train()


@refused(flat, CHANCE)
def small_noise():
    return Written(lambda model, x: model.head(x + 1e-3 * torch.randn_like(x)), head=head())


# --- samples together -----------------------------------------------------------------------------


@refused(flat, "BatchNorm1d in train mode")
def batch_norm_in_train_mode():
    return nn.Sequential(nn.Linear(WIDTH, 5), nn.BatchNorm1d(5), head(5)).train()


@refused(flat, TOGETHER)
def batch_norm_without_statistics():
    norm = nn.BatchNorm1d(5, track_running_stats=False)
    return nn.Sequential(nn.Linear(WIDTH, 5), norm, head(5)).eval()


@refused(flat, "treat samples one by one")
def functional_batch_norm():
    def forward(model: Written, x: Tensor) -> Tensor:
        return model.head(F.batch_norm(x, None, None, training=True))

    return Written(forward, head=head())


@refused(rows, r"treat samples one by one.*batch_first=False")
def attention_along_the_batch():
    return Written(
        lambda model, x: model.head(model.attention(x, x, x)[0].mean(1)),
        attention=nn.MultiheadAttention(WIDTH, 2),
        head=head(),
    )


@refused(rows, r"treat samples one by one.*recurrence along the batch \(batch_first=False\)")
def recurrence_along_the_batch():
    return Written(
        lambda model, x: model.head(model.body(x)[0][:, -1]), body=nn.GRU(WIDTH, 3), head=head(3)
    )


@refused(flat, TOGETHER)
def centred_on_the_batch():
    return Written(lambda model, x: model.head(x - x.mean(0)), head=head())


@refused(flat, "treat samples one by one.*limited capacity")
def experts_of_limited_capacity():
    """Whoever comes third is dropped: in a batch of four, and not among the few that are tried."""

    def forward(model: Written, x: Tensor) -> Tensor:
        taken = (torch.arange(len(x)) < 2)[:, None]
        return model.head(x) + torch.where(taken, model.expert(x), 0)

    return Written(forward, head=head(), expert=head())


@refused(images, r"must not change its buffers or parameters.*running_mean.*model\.eval\(\)")
def instance_norm_with_statistics():
    norm = nn.InstanceNorm2d(2, track_running_stats=True)
    return nn.Sequential(norm, nn.Flatten(), head(32)).train()


@refused(flat, r"must not change its buffers or parameters.*model\.eval\(\)")
def spectral_norm_in_train_mode():
    return nn.Sequential(parametrizations.spectral_norm(nn.Linear(WIDTH, 5)), head(5)).train()


# --- what has no derivative, or no logits ---------------------------------------------------------


class Once(torch.autograd.Function):
    """A square whose author allowed one derivative."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * gradient


@refused(flat, "differentiate twice", margins="", jacobian="")
def once_differentiable():
    return Written(
        lambda model, x: model.head(Once.apply(model.layer(x))),
        layer=nn.Linear(WIDTH, 5),
        head=head(5),
    )


@refused(flat, "differentiate twice", margins="", jacobian="")
def distances():
    return Written(
        lambda model, x: -torch.cdist(model.layer(x), model.centres).square(),
        layer=nn.Linear(WIDTH, 2),
        centres=nn.Parameter(torch.rand(N_CLASSES, 2)),
    )


@refused(tokens, "differentiate twice", jacobian="", margins="floating dtype")
def bag_of_words():
    return nn.Sequential(nn.EmbeddingBag(7, WIDTH), nn.Tanh(), head())


@refused(tokens, "dense gradients", margins="floating dtype", jacobian="")
def sparse_gradients():
    return nn.Sequential(nn.Embedding(7, WIDTH, sparse=True), nn.Flatten(), head(LENGTH * WIDTH))


@refused(tokens, "must not change its buffers or parameters.*max_norm", margins="floating dtype")
def embedding_of_bounded_norm():
    return nn.Sequential(nn.Embedding(7, WIDTH, max_norm=0.5), nn.Flatten(), head(LENGTH * WIDTH))


@refused(tokens, "floating dtype for this model.*embedding", margins="floating dtype")
def integers_for_a_linear_layer():
    return nn.Linear(LENGTH, N_CLASSES)


@refused(flat, r"no hook that changes the gradient.*copy\.deepcopy", margins="")
def masked_gradient():
    model = nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), head(5))
    mask = torch.arange(5)[:, None] < 3
    model[0].double().weight.register_hook(lambda gradient: gradient * mask)
    return model


@refused(tokens, "must not scale its gradients", margins="floating dtype")
def gradients_scaled_by_frequency():
    table = nn.Embedding(7, WIDTH, scale_grad_by_freq=True)
    return nn.Sequential(table, nn.Flatten(), head(LENGTH * WIDTH))


@refused(flat, "must have real parameters", margins="")
def complex_parameters():
    weight = nn.Parameter(torch.rand(WIDTH, 5, dtype=torch.complex128))
    return Written(lambda model, x: (x.to(weight.dtype) @ weight).abs()[:, :N_CLASSES], w=weight)


@refused(flat, "differentiable in the inputs.*no_grad", curvature="", hessian="", jacobian="")
def inputs_cut_off():
    return Written(
        lambda model, x: model.head(torch.no_grad()(model.layer)(x)),
        layer=nn.Linear(WIDTH, 5),
        head=head(5),
    )


@refused(flat, "must be a torch.Tensor of logits, got dict.*LogitsOf")
def dictionary():
    return Written(lambda model, x: {"logits": model.head(x)}, head=head())


@refused(flat, "must be a torch.Tensor of logits, got tuple.*LogitsOf")
def pair():
    return Written(lambda model, x: (model.head(x), x), head=head())


@refused(flat, "must be a torch.nn.Module, got function", margins="")
def anonymous_function():
    layer = head().double()
    return lambda x: layer(x)


@refused(flat, "trainable parameters of one dtype", margins="")
def two_dtypes():
    return Written(
        lambda model, x: model.head(model.layer(x.float()).double()),
        layer=nn.Linear(WIDTH, WIDTH),
        head=head().double(),
    )


@refused(flat, "must not be built under torch.inference_mode")
def built_in_inference_mode():
    with torch.inference_mode():
        return nn.Linear(WIDTH, N_CLASSES).double()
