"""The kinds of models that are measured, with the words that refuse some of it."""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from zoo_models import (
    LENGTH,
    N_CLASSES,
    N_SAMPLES,
    NO_GRADIENT,
    RIGHT,
    WIDTH,
    Written,
    encoder_layer,
    flat,
    head,
    images,
    right,
    rows,
    tokens,
)

from calibcourse import LogitsOf

__all__ = ["RIGHT"]

# --- plain ones -----------------------------------------------------------------------------------


@right(flat)
def perceptron():
    return nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), nn.Linear(5, 4), nn.GELU(), head())


@right(images)
def convolution():
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), head(12)
    )


@right(images)
def depthwise_and_pooled():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head()
    )


@right(images)
def channels_last():
    return convolution_layers().to(memory_format=torch.channels_last)


def convolution_layers():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), head(12))


@right(images)
def transposed_convolution():
    return nn.Sequential(
        nn.ConvTranspose2d(2, 2, 2, stride=2), nn.Softplus(), nn.AvgPool2d(4), nn.Flatten(), head(8)
    )


@right(images)
def batch_norm_in_eval_mode():
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), head(12)
    ).eval()


@right(images)
def instance_norm_in_train_mode():
    norm = nn.InstanceNorm2d(3, affine=True)
    return nn.Sequential(nn.Conv2d(2, 3, 3), norm, nn.Tanh(), nn.Flatten(), head(12)).train()


@right(images)
def group_and_layer_norm():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.LayerNorm(16), head(16)
    ).train()


@right(flat)
def dropout_in_eval_mode():
    return nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), nn.Dropout(), head(5)).eval()


@right(flat)
def dropout_of_nothing():
    return nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), nn.Dropout(0.0), head(5)).train()


# --- attention and recurrence ---------------------------------------------------------------------


def attend(model: Written, x: Tensor, **options: bool) -> Tensor:
    query, key, value = model.project(x).unflatten(2, (3, 2, 2)).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(query, key, value, **options)
    return model.head(mixed.transpose(1, 2).flatten(2).mean(1))


@right(rows)
def scaled_dot_product_attention():
    return Written(attend, project=nn.Linear(WIDTH, 3 * WIDTH), head=head())


@right(rows)
def causal_attention():
    return Written(
        lambda model, x: attend(model, x, is_causal=True),
        project=nn.Linear(WIDTH, 3 * WIDTH),
        head=head(),
    )


@right(rows)
def multihead_attention():
    return Written(
        lambda model, x: model.head(model.attention(x, x, x, need_weights=False)[0].mean(1)),
        attention=nn.MultiheadAttention(WIDTH, 2, batch_first=True),
        head=head(),
    )


@right(rows)
def transformer_encoder_layer():
    return nn.Sequential(encoder_layer(), nn.Flatten(), head(LENGTH * WIDTH)).eval()


@right(rows)
def transformer_encoder():
    stack = nn.TransformerEncoder(encoder_layer(), 2)
    return nn.Sequential(stack, nn.Flatten(), head(LENGTH * WIDTH)).eval()


@right(rows)
def gru():
    return recurrent(nn.GRU)


@right(rows)
def lstm():
    return recurrent(nn.LSTM)


@right(rows)
def elman():
    return recurrent(nn.RNN)


def recurrent(kind: type[nn.Module]) -> nn.Module:
    return Written(
        lambda model, x: model.head(model.body(x)[0][:, -1]),
        body=kind(WIDTH, 3, batch_first=True),
        head=head(3),
    )


@right(rows)
def two_directions_two_layers():
    return Written(
        lambda model, x: model.head(model.body(x)[0][:, -1]),
        body=nn.LSTM(WIDTH, 2, num_layers=2, bidirectional=True, batch_first=True),
        head=head(),
    )


# --- inputs and outputs of other kinds ------------------------------------------------------------


@right(tokens, **NO_GRADIENT)
def embedding():
    return Written(
        lambda model, x: model.head(torch.tanh(model.table(x)).mean(1)),
        table=nn.Embedding(7, WIDTH),
        head=head(),
    )


@right(tokens, **NO_GRADIENT)
def embedding_with_attention():
    return Written(
        lambda model, x: model.head(model.layer(model.table(x)).mean(1)),
        table=nn.Embedding(7, WIDTH),
        layer=encoder_layer(),
        head=head(),
    ).eval()


@right(lambda: torch.randint(7, (N_SAMPLES,)), **NO_GRADIENT)
def one_category_per_sample():
    return nn.Sequential(nn.Embedding(7, WIDTH), nn.Tanh(), head())


@right(flat)
def dictionary_through_the_adapter():
    model = Written(lambda model, x: {"logits": model.head(x.square())}, head=head())
    return LogitsOf(model, lambda output: output["logits"])


@right(flat, losses="must not write into its inputs", calmo="must not write into its inputs")
def writes_into_its_input():
    def forward(model: Written, x: Tensor) -> Tensor:
        return model.head(torch.tanh(x.sub_(0.5).div_(0.25)))

    return Written(forward, head=head())


# --- parameters -----------------------------------------------------------------------------------


@right(flat)
def scalar_parameter():
    return Written(
        lambda model, x: model.head(x) * model.scale.exp(),
        head=head(),
        scale=nn.Parameter(torch.tensor(0.3)),
    )


@right(flat)
def prelu():
    return nn.Sequential(nn.Linear(WIDTH, 5), nn.PReLU(), head(5))


@right(flat)
def tied_weights():
    def forward(model: Written, x: Tensor) -> Tensor:
        return model.head(torch.tanh(model.twice(torch.tanh(model.twice(x)))))

    return Written(forward, twice=nn.Linear(WIDTH, WIDTH), head=head())


@right(flat)
def one_layer_under_two_names():
    layer = nn.Linear(WIDTH, WIDTH)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), head())


@right(flat)
def one_weight_of_two_layers():
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), head())
    model[2].weight = model[0].weight
    return model


@right(flat)
def subset_of_parameters():
    model = perceptron_layers()
    model[0].requires_grad_(False)
    model[2].bias.requires_grad_(False)
    return model


def perceptron_layers():
    return nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), head(5))


@right(flat)
def low_rank_adapter():
    def forward(model: Written, x: Tensor) -> Tensor:
        return model.head(torch.tanh(model.frozen(x) + x @ model.down @ model.up))

    return Written(
        forward,
        frozen=nn.Linear(WIDTH, 5).requires_grad_(False),
        down=nn.Parameter(torch.rand(WIDTH, 1)),
        up=nn.Parameter(torch.rand(1, 5)),
        head=head(5),
    )


@right(flat)
def unused_parameters():
    return Written(lambda model, x: model.head(x), head=head(), spare=nn.Linear(2, 2))


@right(flat)
def spectral_norm_in_eval_mode():
    layer = parametrizations.spectral_norm(nn.Linear(WIDTH, 5))
    return nn.Sequential(layer, nn.Tanh(), head(5)).eval()


@right(flat, hessian="differentiate twice.*weight_norm")
def weight_norm():
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(WIDTH, 5)), nn.Tanh(), head(5))


@right(flat)
def orthogonal_weight():
    return nn.Sequential(parametrizations.orthogonal(nn.Linear(WIDTH, WIDTH)), nn.Tanh(), head())


@right(flat)
def bilinear():
    return Written(
        lambda model, x: model.head(model.form(x, x)),
        form=nn.Bilinear(WIDTH, WIDTH, 3),
        head=head(3),
    )


# --- the axis of samples, and where samples part ways ---------------------------------------------


@right(flat)
def prototypes_as_many_as_samples():
    """Class vectors computed from a constant with N rows, as CLIP's head has."""

    def forward(model: Written, x: Tensor) -> Tensor:
        return torch.tanh(model.image(x)) @ model.text(model.prompts).mT[:, :N_CLASSES]

    prompts = torch.rand(N_SAMPLES, 5)
    return Written(forward, image=nn.Linear(WIDTH, 3), text=nn.Linear(5, 3), prompts=prompts)


@right(flat)
def rows_in_another_order():
    def forward(model: Written, x: Tensor) -> Tensor:
        return model.head(torch.tanh(model.layer(x.flip(0)).flip(0)))

    return Written(forward, layer=nn.Linear(WIDTH, 5), head=head(5))


@right(flat)
def experts_by_mask():
    def forward(model: Written, x: Tensor) -> Tensor:
        out = x.new_zeros(len(x), N_CLASSES)
        first = x[:, 0] > 0.5
        out[first] = model.first(x[first])
        out[~first] = torch.tanh(model.second(x[~first]))
        return out

    return Written(forward, first=head(), second=head())


@right(flat)
def branch_in_python():
    def forward(model: Written, x: Tensor) -> Tensor:
        return torch.stack([model.head(row if row[0] > 0.5 else row.square()) for row in x])

    return Written(forward, head=head())


@right(flat)
def fourier_features():
    def forward(model: Written, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(model.layer(x))
        return model.head(torch.cat([spectrum.real, spectrum.imag], 1))

    return Written(forward, layer=nn.Linear(WIDTH, 4), head=head(6))


@right(flat)
def solved_for_all_samples_at_once():
    """torch's batching rule for `linalg.solve` is wrong for all but a few samples."""

    def forward(model: Written, x: Tensor) -> Tensor:
        matrix = 3 * torch.eye(N_CLASSES).to(x) + model.weight.mT @ model.weight
        return torch.linalg.solve(matrix, model.head(x).mT).mT

    return Written(forward, weight=nn.Parameter(torch.rand(2, N_CLASSES)), head=head())


@right(rows)
def time_on_axis_0_inside():
    def forward(model: Written, x: Tensor) -> Tensor:
        return model.head(model.body(x.transpose(0, 1))[0][-1])

    return Written(forward, body=nn.GRU(WIDTH, 3), head=head(3))


@right(rows)
def padded_tokens_masked():
    def forward(model: Written, x: Tensor) -> Tensor:
        padding = (x[:, :, 0] > 0.5) & (torch.arange(LENGTH) > 0)
        return model.head(model.body(x, src_key_padding_mask=padding)[:, 0])

    return Written(forward, body=nn.TransformerEncoder(encoder_layer(), 2), head=head()).eval()


# --- modules that torch has made ------------------------------------------------------------------


@right(flat, calmo="robust_weight > 0; scripted")
def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(perceptron_layers())


@right(flat)
def compiled():
    return torch.compile(perceptron_layers(), backend="eager")


@right(flat, calmo="activation checkpoints cannot")
def checkpointed():
    def forward(model: Written, x: Tensor) -> Tensor:
        hidden = torch.utils.checkpoint.checkpoint(model.body, x, use_reentrant=False)
        return model.head(torch.tanh(hidden))

    return Written(forward, body=nn.Linear(WIDTH, 5), head=head(5))
