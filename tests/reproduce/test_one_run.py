"""One run: what it trains, from which start, what is measured of it, and how its step is timed."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from reproduce_cases import TINY
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from calibcourse.data import load_dataset
from calibcourse.models import mlp, resnet20, small_cnn
from calibcourse.probes import LadderProbe
from calibcourse.reproduce import ComparisonConfig, one_run
from calibcourse.reproduce.configs import ShiftConfig
from calibcourse.reproduce.one_run import check_data, data_of, train

SHORT = replace(TINY, steps=4, even_probes=2, log_probes=2, seed=5)
FOCAL = ComparisonConfig(
    dataset="fashion_mnist_small", model="small_cnn", optimizer="sgd", lr=0.02,
    options={"momentum": 0.9}, loss="focal", loss_options={"gamma": 3.0}, steps=4, batch_size=16,
    train_samples=40, held_out_samples=30, probes=3, attacked_samples=5, seed=5,
)  # fmt: skip


def same(model: nn.Module, other: nn.Module) -> bool:
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def parameter_sum(model: nn.Module) -> float:
    return float(sum(p.detach().double().sum() for p in model.parameters()))


# --- training


@pytest.mark.parametrize("config", [SHORT, replace(SHORT, batch_size=None), FOCAL])
def test_a_run_is_that_of_its_configuration(config, tmp_path, capsys):
    path = tmp_path / "run.pt"
    history = train(config, path)
    made = history.metadata
    assert {name: made[name] for name in ("lr", "steps", "batch_size", "seed", "device")} == {
        "lr": config.lr, "steps": 4, "batch_size": config.batch_size, "seed": 5, "device": "cpu",
    }  # fmt: skip
    assert list(history.column("step")) == config.probe_steps
    watched = {"train_ece", "validation_loss" if config is FOCAL else "sharpness"}
    assert all(watched <= row.keys() for row in history.rows)
    (group,) = made["optimizer_groups"]
    assert group["momentum"] == config.options.get("momentum", 0)
    told = [made["loss"]["name"], made["loss"].get("gamma")]
    assert told == (["FocalLoss", 3.0] if config is FOCAL else ["CrossEntropy", None])
    assert torch.load(path, weights_only=True)["step"] == 4
    assert capsys.readouterr().err == ""  # the bar is the sweep's


def test_bulk_sgd_sees_the_training_images():
    data = data_of(SHORT)
    bulk = replace(SHORT, optimizer="bulk_sgd", options={"directions": 2})
    _, optimizer = one_run.trajectory_start(bulk, data)
    assert optimizer.param_groups[0]["lr"] == SHORT.lr
    assert optimizer.inputs is data.train.inputs
    assert optimizer.param_groups[0]["directions"] == 2
    assert bulk.options == {"directions": 2}  # what goes into the record


def test_a_trajectory_is_watched_on_both_splits_with_all_bounds():
    data, model = data_of(SHORT), mlp(hidden=(6,))
    probes = one_run.trajectory_probes()
    row = {name: value for probe in probes for name, value in probe(model, data).items()}
    shared = {name.partition("_")[2] for name in row if name.startswith("train_")}
    assert shared == {name.partition("_")[2] for name in row if name.startswith("test_")}
    assert {"ece", "margin_q05", "log_lower", "log_upper", "log_u0", "log_u6"} <= shared
    assert {"sharpness", "batch_sharpness"} <= row.keys()
    assert not any(name.startswith("validation") for name in row)
    ladders = [(p.split, p.samples) for p in probes if isinstance(p, LadderProbe)]
    assert ladders == [("train", None), ("test", 500)]


def test_what_is_no_configuration_is_refused(monkeypatch):
    now = [1]
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[-1])
    monkeypatch.setattr(torch, "set_num_threads", now.append)
    words = "^config must be one of the two kinds, got SimpleNamespace$"
    with pytest.raises(TypeError, match=words):
        train(SimpleNamespace(threads=3))
    assert now == [1, 3, 1]


@pytest.mark.parametrize(("shape", "classes"), [((1, 28, 28), 10), ((3, 32, 32), 7)])
def test_a_networks_start_is_that_of_its_kind_its_images_and_its_seed(shape, classes, monkeypatch):
    data = SimpleNamespace(
        train=SimpleNamespace(inputs=torch.zeros(2, *shape)), classes=range(classes)
    )
    monkeypatch.setattr(one_run, "data_of", lambda config: data)
    small, large = one_run._model(FOCAL), one_run._model(replace(FOCAL, model="resnet20"))
    assert same(small, small_cnn(shape, n_classes=classes, seed=5))
    assert same(large, resnet20(shape[0], classes, seed=5))
    model, _ = one_run.trajectory_start(SHORT, data)
    assert same(model, mlp(shape, (6,), classes, seed=5))
    assert not same(model, mlp(shape, (6,), classes, seed=4))


# --- the end of a run of the comparison


def test_the_last_and_the_best_network_are_looked_at_in_eval_mode(monkeypatch):
    looks = []

    def evaluation(model, data, attacked_samples):
        looks.append((model.training, len(data.train), len(data.test), attacked_samples))
        return {"test_sum": parameter_sum(model)}

    monkeypatch.setattr(one_run, "evaluation", evaluation)
    falls = train(FOCAL)
    assert looks == [(False, 40, 30, 5)]  # the last step is the best: one look is enough
    assert [row["step"] for row in falls.rows if "test_sum" in row] == [4]
    looks.clear()
    climbs = train(replace(FOCAL, lr=2.0))
    assert looks == [(False, 40, 30, 5)] * 2
    assert climbs.best("validation_loss") is climbs.rows[0]
    assert climbs.rows[0]["test_sum"] == parameter_sum(one_run._model(FOCAL))
    assert climbs.rows[-1]["test_sum"] != climbs.rows[0]["test_sum"]


def test_shifted_images_are_looked_at_by_runs_that_ask_for_them_at_the_fitted_temperature(
    monkeypatch,
):
    seen = []
    monkeypatch.setattr(one_run, "evaluation", lambda *_: {"temperature": 1.5})
    monkeypatch.setattr(one_run, "shift_evaluation", lambda *all_: seen.append(all_) or {"x": 1.0})
    config = ShiftConfig(**vars(FOCAL), shift_seed=9)
    model, data = object(), object()
    assert one_run._look(model, data, FOCAL) == {"temperature": 1.5} and not seen
    assert one_run._look(model, data, config) == {"temperature": 1.5, "x": 1.0}
    assert seen == [(model, data, 1.5, 9)]


def test_a_linear_network_is_measured_as_can_be_counted():
    """Its margins under attack are known: m_j - ε ‖w_y - w_j‖₁, where no pixel meets 0 or 1."""
    data, parts = load_dataset("fashion_mnist_small"), {}
    for name, count in (("train", 3), ("validation", 90), ("test", 60)):
        part = getattr(data, name).head(count)
        parts[name] = replace(part, inputs=0.2 + 0.6 * part.inputs.double())
    some = data.train.head(500)
    means = torch.stack([some.inputs[some.target == k].mean(0) for k in range(10)]).double()
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).double()
    weight = (means - means.mean(0)).flatten(1) / 5
    with torch.no_grad():
        model[1].weight.copy_(weight)
        model[1].bias.copy_(-(means.flatten(1) ** 2).sum(1) / 20)
    row = one_run.evaluation(model, replace(data, **parts), attacked_samples=40)
    logits = {name: model(part.inputs).detach() for name, part in parts.items()}

    def margins(name):
        z, target = logits[name], parts[name].target[:, None]
        reach = (weight[target] - weight).abs().sum(2) * 8 / 255
        gaps = z.gather(1, target) - z - reach
        return gaps.scatter(1, target, torch.inf).amin(1).numpy()

    for name, count in (("train", 3), ("test", 40)):  # 3 training images are all there are
        margin = margins(name)[:count]
        assert row[f"{name}_robust_margin"] == pytest.approx(margin.mean(), rel=1e-9)
        log_q = np.log(np.exp(-margin).mean())
        assert row[f"{name}_robust_log_q"] == pytest.approx(log_q, rel=1e-9)
        assert row[f"{name}_robust_accuracy"] == (margin > 0).mean()
    assert 0 < row["test_robust_accuracy"] < row["test_accuracy"] < 1

    def loss(name, temperature):
        return float(nn.functional.cross_entropy(logits[name] / temperature, parts[name].target))

    temperature = row["temperature"]
    assert temperature == pytest.approx(
        min(np.geomspace(0.1, 10, 2001), key=lambda t: loss("validation", t)), rel=3e-3
    )  # the grid's step
    assert row["test_loss"] == pytest.approx(loss("test", 1.0))
    assert row["test_scaled_loss"] == pytest.approx(loss("test", temperature))
    assert row["test_scaled_accuracy"] == row["test_accuracy"]
    columns = {name.removeprefix("test_") for name in row if not name.startswith("train_")}
    plain = {name for name in columns if not name.startswith(("scaled_", "robust_"))}
    assert plain - {"temperature"} == {
        "loss", "accuracy", "ece", "kce", "confidence", "brier",
        "margin_q05", "margin_q50", "margin_q95", "log_q",
    }  # fmt: skip
    assert columns - plain == {f"scaled_{name}" for name in plain - {"temperature"}} | {
        f"robust_{name}" for name in ("margin", "log_q", "accuracy")
    }


def test_a_network_that_cannot_decide_is_not_robust():
    data = load_dataset("fashion_mnist_small")
    parts = {name: getattr(data, name).head(20) for name in ("train", "validation", "test")}
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    row = one_run.evaluation(model, replace(data, **parts), attacked_samples=20)
    assert row["test_robust_margin"] == row["test_robust_accuracy"] == 0


# --- the time of a step


@pytest.mark.parametrize(("batch_size", "images"), [(16, 16), (40, 40), (64, 40), (None, 40)])
def test_a_steps_time_is_the_median_over_whole_batches(batch_size, images, monkeypatch):
    """Twenty steps of 7, 1, 2, ..., 18 and 1000 seconds, by a clock that counts its readings."""
    lengths = iter([7, *range(1, 19), 1000])
    now, losses, sizes = [0.0], [], []

    def process_time():
        if len(now) % 2 == 0:  # the end of a step
            now.append(now[-1] + next(lengths) + 0.000014)
        else:
            now.append(now[-1] + 50)  # between steps
        return now[-1]

    monkeypatch.setattr(one_run, "time", SimpleNamespace(process_time=process_time))
    make_loss = ComparisonConfig.make_loss

    def watched(self):
        loss = make_loss(self)
        return lambda *given: losses.append(loss(*given)) or losses[-1]

    monkeypatch.setattr(ComparisonConfig, "make_loss", watched)
    made, make = [], one_run.make_optimizer
    monkeypatch.setattr(
        one_run, "make_optimizer", lambda *a, **o: made.append(make(*a, **o)) or made[0]
    )
    with register_module_forward_hook(lambda m, given, _: sizes.append(len(given[0]))):
        seconds = one_run.step_seconds(replace(FOCAL, batch_size=batch_size))
    assert set(sizes) == {images} and next(lengths, None) is None
    assert seconds == 9.50001
    (group,) = made[0].param_groups
    assert (type(made[0]), group["lr"], group["momentum"]) == (torch.optim.SGD, 0.02, 0.9)
    first, *_, last = [float(terms.total.detach()) for terms in losses]
    assert len(losses) == 20 and last < 0.9 * first  # it is training, from gradients of its own


@pytest.mark.cuda
def test_on_a_device_a_step_ends_when_the_device_has_done_it(monkeypatch):
    events, now = [], [0.0]

    def perf_counter():
        events.append("read")
        now[0] += 2
        return now[0]

    monkeypatch.setattr(torch.cuda, "synchronize", lambda: events.append("done"))
    monkeypatch.setattr(one_run, "time", SimpleNamespace(perf_counter=perf_counter))
    assert one_run.step_seconds(replace(FOCAL, device="cuda")) == 2
    assert events == ["done", "read"] * 40


@pytest.mark.cuda
def test_network_and_images_are_on_the_device_of_the_run():
    config = replace(SHORT, device="cuda")
    data = data_of(config)
    model, _ = one_run.trajectory_start(config, data)
    network = one_run._model(replace(FOCAL, device="cuda"))
    places = [data.test.inputs, *model.parameters(), *network.parameters()]
    assert {place.device.type for place in places} == {"cuda"}


# --- images


def test_a_run_has_the_first_images_of_training_and_test():
    data, own = load_dataset("fashion_mnist_small"), data_of(SHORT)
    assert (len(own.train), len(own.test)) == (40, 30)
    assert torch.equal(own.train.inputs, data.train.inputs[:40])
    assert torch.equal(own.test.target, data.test.target[:30])
    assert len(own.validation) == len(data.validation)


def test_every_data_set_must_have_the_images_that_its_own_runs_ask_for(monkeypatch):
    small = load_dataset("fashion_mnist_small")
    there = {"fashion_mnist_small": small, "mnist": replace(small, test=small.test.head(1100))}
    monkeypatch.setattr(one_run, "_dataset", there.get)
    much = replace(SHORT, held_out_samples=1200)
    check_data([much, replace(much, dataset="mnist", held_out_samples=1100)])
    for order in (1, -1):
        both = [replace(much, dataset="mnist", held_out_samples=n) for n in (1101, 3)]
        words = (
            "^held_out_samples must be at most the 1,100 images that mnist has, got 1,101; choose "
            "another profile or data set$"
        )
        with pytest.raises(ValueError, match=words):
            check_data([much, *both[::order]])


def test_a_process_reads_a_data_set_once():
    assert one_run._dataset("fashion_mnist_small") is one_run._dataset("fashion_mnist_small")
