"""Configurations: what they refuse, what their runs are called, and when they are looked at."""

import json
from dataclasses import asdict, fields, replace

import pytest

from calibcourse.losses import CalMO, CrossEntropy, FocalLoss
from calibcourse.reproduce import METHODS, ComparisonConfig, TrajectoryConfig, plan
from calibcourse.reproduce.configs import ShiftConfig

SHARED = dict(
    dataset="fashion_mnist_small", optimizer="sgd", lr=0.1, steps=24, batch_size=16,
    train_samples=40, held_out_samples=30,
)  # fmt: skip
TRAJECTORY = TrajectoryConfig(**SHARED, hidden=(6,), even_probes=7, log_probes=3)
COMPARISON = ComparisonConfig(
    **SHARED, model="small_cnn", loss="cross_entropy", probes=7, attacked_samples=20
)
SHIFT = ShiftConfig(**asdict(COMPARISON), shift_seed=3)

# Field -> the smallest value; one less is refused.
SHARED_MINIMA = dict(
    steps=1, batch_size=1, train_samples=1, held_out_samples=1, seed=0, threads=1
)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "minima"),
    [
        (TRAJECTORY, SHARED_MINIMA | dict(even_probes=2, log_probes=2)),
        (COMPARISON, SHARED_MINIMA | dict(probes=2, attacked_samples=1)),
        (SHIFT, SHARED_MINIMA | dict(probes=2, attacked_samples=1, shift_seed=0)),
    ],
)
def test_numbers_are_whole_and_no_smaller_than_they_make_sense(config, minima):
    assert replace(config, **minima).key != config.key  # the smallest values are taken
    for name, minimum in minima.items():
        with pytest.raises(ValueError, match=f"^{name} must be at least {minimum}, got"):
            replace(config, **{name: minimum - 1})
        with pytest.raises(TypeError, match=f"^{name} must be an int, got float$"):
            replace(config, **{name: float(minimum)})


@pytest.mark.parametrize("config", [TRAJECTORY, COMPARISON, SHIFT])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(dataset="mnits"), "^dataset must be one of .*, mnist; got 'mnits'$"),
        (dict(optimizer="lion"), "^optimizer must be one of adamw, bulk_sgd, .*; got 'lion'$"),
        (dict(device="tpu"), "^device must be one of cpu, cuda; got 'tpu'$"),
        (dict(lr=0.0), "^lr must lie in .0.0, inf., got 0.0$"),
        (dict(options=[1]), "^options must be a dict, got list$"),
    ],
)
def test_what_every_run_needs_is_refused_by_name(config, change, words):
    with pytest.raises((ValueError, TypeError), match=words):
        replace(config, **change)


@pytest.mark.parametrize("config", [COMPARISON, SHIFT])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(model="vgg"), "^model must be one of resnet20, small_cnn; got 'vgg'$"),
        (dict(loss="hinge"), "^loss must be one of calmo, cross_entropy, focal; got 'hinge'$"),
        (dict(loss_options=[1]), "^loss_options must be a dict, got list$"),
        (dict(loss="calmo", loss_options={"robust_weight": -1.0}), "^robust_weight must"),
    ],
)
def test_what_a_comparison_needs_is_refused_by_name(config, change, words):
    with pytest.raises((ValueError, TypeError), match=words):
        replace(config, **change)


@pytest.mark.parametrize("hidden", [(0,), (6, -1), (2.5,), ("6",)])
def test_a_layer_has_a_whole_width(hidden):
    with pytest.raises((TypeError, ValueError), match=r"^hidden must be"):
        replace(TRAJECTORY, hidden=hidden)
    assert replace(TRAJECTORY, hidden=[1, 3]).hidden == (1, 3)  # JSON knows lists alone


@pytest.mark.parametrize("directions", [0, "/../x", None, 1.5])
def test_bulk_sgd_is_told_how_many_directions_it_leaves_out(directions):
    for options in ({"directions": directions}, {}):
        with pytest.raises((TypeError, ValueError), match=r"^directions in options must be"):
            replace(TRAJECTORY, optimizer="bulk_sgd", options=options)
    one = replace(TRAJECTORY, optimizer="bulk_sgd", options={"directions": 1})
    assert one.label == "BulkSGD 1" and one.slug == "fashion_mnist_small-bulksgd1-lr0.1"


@pytest.mark.parametrize("config", [TRAJECTORY, COMPARISON, SHIFT])
def test_key_tells_every_two_configurations_apart(config):
    other = dict(
        dataset="mnist", optimizer="sam", lr=0.2, steps=25, batch_size=17, train_samples=41,
        held_out_samples=31, seed=1, options={"eps": 1e-7}, hidden=(7,), even_probes=8,
        log_probes=4, model="resnet20", loss="focal", loss_options={"label_smoothing": 0.2},
        probes=8, attacked_samples=9, shift_seed=4, threads=2, device="cuda",
    )  # fmt: skip
    changed = [replace(config, **{f.name: other[f.name]}) for f in fields(config)]
    assert len({config.key for config in [config, *changed]}) == len(changed) + 1


@pytest.mark.parametrize(
    ("config", "slug"),
    [
        (TRAJECTORY, "fashion_mnist_small-sgd-lr0.1"),
        (COMPARISON, "fashion_mnist_small-small_cnn-sgd-ce"),
        (SHIFT, "fashion_mnist_small-small_cnn-sgd-ce-shift"),
    ],
)
def test_a_key_begins_with_words_and_survives_json(config, slug):
    assert config.key.startswith(f"{slug}-seed0-") and len(config.key) == len(slug) + 7 + 8
    again = type(config).from_dict(json.loads(json.dumps(asdict(config))))
    assert again == config and again.key == config.key


@pytest.mark.parametrize("config", [TRAJECTORY, COMPARISON, SHIFT])
def test_a_record_has_exactly_the_fields_of_its_kind(config):
    record = asdict(config)
    missing = {name: value for name, value in record.items() if name != "lr"}
    names = ", ".join(f"'{name}'" for name in sorted(record))
    for bad in (missing, record | {"colour": 1}, list(record), None):
        with pytest.raises(ValueError) as refusal:
            type(config).from_dict(bad)
        assert str(refusal.value) == f"a configuration must have exactly the fields [{names}]"


def test_runs_are_looked_at_evenly_and_trajectories_by_logarithm_too():
    assert TRAJECTORY.even_steps == COMPARISON.probe_steps == [0, 4, 8, 12, 16, 20, 24]
    config = replace(TRAJECTORY, steps=100, even_probes=3, log_probes=4)
    assert config.log_steps == [0, 1, 10, 100]
    assert config.probe_steps == [0, 1, 10, 50, 100]


def test_labels_are_the_methods_names_or_the_loss_and_its_options():
    for config in plan("methods", seeds=[0]):
        assert METHODS[config.label] == (config.loss, config.loss_options)
    odd = replace(COMPARISON, loss="calmo", loss_options={"robust_weight": 2.0, "norm": "l2"})
    assert odd.label == "CalMO(2, l2)"
    assert odd.slug == "fashion_mnist_small-small_cnn-sgd-calmo2l2"
    names = [replace(TRAJECTORY, optimizer=name).label for name in ("gd", "adamw", "muon", "sam")]
    assert names == ["GD", "AdamW", "Muon", "SAM"]


def test_a_method_is_its_loss_with_its_options():
    made = {name: replace(COMPARISON, loss=loss, loss_options=options).make_loss()
            for name, (loss, options) in METHODS.items()}  # fmt: skip
    kinds = {name: type(loss) for name, loss in made.items()}
    assert kinds == {
        "CE": CrossEntropy, "Flat": CalMO, "Rob": CalMO, "CalMO": CalMO,
        "label smoothing": CrossEntropy, "focal": FocalLoss,
    }  # fmt: skip
    assert made["label smoothing"].label_smoothing == 0.1 and made["CE"].label_smoothing == 0
    assert (made["Rob"].robust_weight, made["Rob"].smooth_weight) == (0.5, 0.0)
    assert made["focal"].gamma == 2.0
