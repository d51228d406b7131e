"""The audit: what it measures, what it says of it, and what it refuses to read."""

import io
import re
import resource
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

import calibcourse as cc
from calibcourse.audit import Audit, audit, audit_figure, read_logits
from calibcourse.cli import main


def drawn(n_samples: int = 2000, scale: float = 1.0, n_classes: int = 5, seed: int = 0):
    """Logits whose labels are drawn from them; then the logits are multiplied by `scale`."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n_samples, n_classes, generator=generator, dtype=torch.float64)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return scale * logits, target


def opposite_errors(n_samples: int = 4000):
    """Two confidences: 0.9, right 7 times of 10, and 0.6, right 8 times of 10."""
    half = n_samples // 2
    logits = torch.tensor([[0.9, 0.1]] * half + [[0.6, 0.4]] * half).log()
    right = torch.arange(half) % 10
    return logits, torch.cat([(right >= 7).long(), (right >= 8).long()])


@pytest.fixture(scope="module")
def too_sure() -> Audit:
    return audit(*drawn(scale=2.0), n_resamples=50)


def test_its_numbers_are_those_of_the_metrics(too_sure):
    data = drawn(scale=2.0)
    confidence, correct = cc.metrics.confidence_and_correct(*data)
    assert (too_sure.n_samples, too_sure.n_classes) == (2000, 5)
    assert too_sure.accuracy == cc.bootstrap_interval(cc.accuracy, *data, n_resamples=50)
    assert too_sure.ece.estimate == float(cc.expected_calibration_error(*data))
    # Two float64 means of the same numbers.
    over_confidence = confidence.mean() - correct.double().mean()
    interval = too_sure.over_confidence
    assert interval.estimate == pytest.approx(over_confidence.item(), abs=1e-12)
    assert interval.low < interval.estimate < interval.high
    with pytest.warns(DeprecationWarning, match="over_confidence"):
        assert too_sure.gap == interval
    assert too_sure.smallest_margin == cc.true_margin(*data).min().item()
    assert too_sure.temperature == cc.TemperatureScaling().fit(*data).temperature
    assert too_sure.negative_log_likelihood == float(cc.negative_log_likelihood(*data))
    assert too_sure.worst_percent_of_q == float(
        cc.margins.margin_moment_share(cc.true_margin(*data))
    )


def test_a_network_twice_too_sure_is_told_so_and_repaired_by_its_temperature(too_sure):
    # Labels come from the halved logits: T = 2 is right up to sampling (2,000 samples: a few %).
    assert too_sure.temperature == pytest.approx(2.0, rel=0.1)
    assert too_sure.ece_rescaled < too_sure.ece_by_chance * 1.5 < too_sure.ece.estimate / 2
    said = " ".join(too_sure.findings())
    assert "Miscalibrated" in said and "Too sure on the whole." in said
    assert f"Dividing the logits by {too_sure.temperature:.3g}" in said
    for rescaled, verdict in ((0.0, "repairs what"), (0.4, "halves"), (0.6, "does not repair")):
        found = replace(too_sure, ece_rescaled=rescaled * too_sure.ece.estimate)
        assert verdict in " ".join(found.findings())


def test_a_network_half_as_sure_as_right_is_told_so():
    found = audit(*drawn(scale=0.5), n_resamples=50)
    assert found.over_confidence.high < 0 and found.temperature < 1
    assert "Not sure enough on the whole." in found.findings()


def test_the_chance_level_is_what_a_calibrated_model_shows():
    """At most about one calibrated model in twenty exceeds its 95 % level."""
    found = [audit(*drawn(500, seed=seed), n_resamples=60) for seed in range(30)]
    above = [a for a in found if a.ece.estimate > a.ece_by_chance]
    # Binomial(30, 0.05): 7 or more have a probability below 0.001.
    assert len(above) < 7
    calm = next(a for a in found if a not in above)
    assert calm.findings()[0].startswith("No miscalibration seen: with 500 samples")
    assert not any("Dividing" in finding for finding in calm.findings())
    # The level falls with the samples, about as their square root.
    wide = audit(*drawn(8000), n_resamples=100).ece_by_chance
    assert 2.5 < np.mean([a.ece_by_chance for a in found]) / wide < 6.5


def test_errors_of_opposite_sign_are_not_taken_for_calibration():
    found = audit(*opposite_errors(), n_resamples=50)
    # 0.2 too sure on one half, 0.2 not sure enough on the other: the average is 0, the ECE 0.2.
    assert found.over_confidence.estimate == pytest.approx(0, abs=1e-6)  # float32 logarithms
    assert found.ece.estimate == pytest.approx(0.2, abs=1e-6)
    said = " ".join(found.findings())
    assert "Miscalibrated" in said and "errors of opposite sign cancel" in said
    assert "One temperature does not repair it" in said


def test_half_a_sample_is_never_read_with_its_own_temperature():
    """Read half by half, with the same draw of the halves, each with the other's temperature."""
    logits = torch.tensor([[1.0, 0.0]]).repeat(400, 1)
    target = torch.tensor([0, 1]).repeat(200)
    found = audit(logits, target, n_resamples=5)
    halves = torch.randperm(400, generator=_after_the_draws(logits, 5)).tensor_split(2)
    scaled, labels = [], []
    for half, other in (halves, halves[::-1]):
        temperature = cc.TemperatureScaling().fit(logits[other], target[other]).temperature
        scaled.append(logits[half] / temperature)
        labels.append(target[half])
    whole = cc.expected_calibration_error(torch.cat(scaled), torch.cat(labels))
    assert found.ece_rescaled == float(whole)


def _after_the_draws(logits, n_draws) -> torch.Generator:
    generator = torch.Generator().manual_seed(0)
    for _ in range(n_draws):
        torch.multinomial(logits.double().softmax(1), 1, generator=generator)
    return generator


def test_probabilities_in_the_place_of_logits_are_noticed():
    logits, target = drawn(300)
    found = audit(logits.softmax(1), target, n_resamples=5)
    assert found.looks_like_probabilities and "look like probabilities" in found.findings()[0]
    to_one = logits - logits.mean(1, keepdim=True) + 1 / logits.shape[1]
    for no_probabilities in (logits.log_softmax(1), logits.abs(), to_one):
        assert not audit(no_probabilities, target, n_resamples=5).looks_like_probabilities


def test_the_report_holds_every_number_and_finding(too_sure):
    report = repr(too_sure)
    assert report.startswith("2,000 samples, 5 classes")
    for value in (too_sure.accuracy, too_sure.over_confidence, too_sure.ece):
        assert f"{value.estimate:.4f} [{value.low:.4f}, {value.high:.4f}]" in report
    for value in (too_sure.kce, too_sure.smooth_ece, too_sure.ece_rescaled, too_sure.ece_by_chance):
        assert f"{value:.4f}" in report
    assert all(f"- {finding}" in report for finding in too_sure.findings())
    rare = replace(too_sure, worst_percent_of_q=0.9)
    assert "few worst samples" in repr(rare) and "90% in the worst" in repr(rare)


def test_shift_and_order_do_not_matter():
    """Every sample's logits shifted by its own constant: all but the rounding stays."""
    logits, target = drawn(400)
    one = audit(logits, target, n_resamples=10)
    other = audit(logits + torch.arange(400.0)[:, None], target, n_resamples=10)
    for name in ("kce", "temperature", "ece_rescaled", "worst_percent_of_q", "smallest_margin"):
        # Shifts up to 400 cost three of sixteen digits.
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3, 2), torch.zeros(3)), "target must have dtype torch.int64"),
        ((torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)), "logits must hold at least 2"),
        ((*drawn(10), 0), "n_resamples must be at least 1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        audit(*arguments)


def test_the_figure_has_both_panels():
    left, right = audit_figure(*drawn(300)).axes
    assert left.get_ylabel() == "accuracy" and "true margin" in right.get_xlabel()


# --- the file


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.npz"


def save(path, **arrays) -> None:
    np.savez(path, **arrays)


GOOD = {"logits": np.array([[2.0, 0.0], [0.0, 1.0]]), "target": np.array([0, 1])}


@pytest.mark.parametrize("kind", ["e", "f", "d", ">f", ">d"])
@pytest.mark.parametrize("whole", ["b", "B", "<i2", ">i4", "q", "Q"])
def test_every_precision_and_byte_order_is_read(path, kind, whole):
    save(path, logits=GOOD["logits"].astype(kind), target=GOOD["target"].astype(whole))
    logits, target = read_logits(path)
    assert logits.dtype == {"e": torch.float16, "f": torch.float32}.get(kind[-1], torch.float64)
    assert logits.tolist() == GOOD["logits"].tolist()
    assert target.dtype == torch.int64 and target.tolist() == [0, 1]


def test_compressed_and_transposed_arrays_are_read(path):
    logits = np.asfortranarray(np.arange(12.0).reshape(4, 3))
    np.savez_compressed(path, logits=logits, target=np.zeros(4, dtype=int), more=np.zeros(2))
    assert read_logits(path)[0].tolist() == logits.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": None}, "logits is missing; write the file by numpy.savez"),
        ({"target": None}, "target is missing"),
        ({"logits": np.zeros(2)}, r"logits must be floating of at most 64 bits, shape \(N, K\)"),
        ({"logits": np.zeros((2, 2), int)}, "logits must be floating"),
        ({"logits": np.zeros((2, 2), complex)}, "logits must be floating"),
        ({"logits": np.array([["a", "b"]])}, "logits must be floating"),
        ({"logits": np.array([[{}, {}]], dtype=object)}, "sound .npy array: Object arrays cannot"),
        ({"logits": np.zeros((2, 2), "f,f")}, "logits must be floating"),
        ({"logits": np.zeros((2, 2), np.longdouble)}, "at most 64 bits, shape"),
        ({"logits": np.array([[np.nan, 0], [0, 0]])}, "logits must be finite"),
        ({"logits": np.zeros((2, 1))}, "K >= 2"),
        ({"logits": np.zeros((0, 2)), "target": np.zeros(0, int)}, "at least one sample"),
        ({"logits": np.zeros((3, 2))}, r"target must have shape \(3,\)"),
        ({"target": np.array([0.0, 1.0])}, "target must be integer"),
        ({"target": np.array([True, False])}, "target must be integer"),
        ({"target": np.array([0, 2])}, r"target must lie in 0\.\.1"),
        ({"target": np.array([0, -1])}, r"target must lie in 0\.\.1"),
        ({"target": np.array([0, 2**64 - 1], np.uint64)}, "target must fit int64"),
    ],
)
def test_what_is_no_logits_is_refused_by_name(path, changes, message):
    arrays = {name: array for name, array in (GOOD | changes).items() if array is not None}
    save(path, **arrays)
    refused(path, message)


def refused(path, message: str) -> None:
    """The error names the file, and then says what is wrong."""
    with pytest.raises(ValueError) as error:
        read_logits(path)
    named, said = str(error.value).split(str(path))
    assert named == "" and re.search(message, said)


def member(path, name: str, content: bytes) -> None:
    """A file whose one member of this name holds these bytes; the other is sound."""
    with zipfile.ZipFile(path, "w") as archive:
        for other, array in GOOD.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{other}.npy", content if other == name else buffer.getvalue())


def header(shape: str, descr: str = "'<f8'", version: bytes = b"\x01\x00") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an array",
        header("(2, 2)"),
        header("(2, 2)") + bytes(31),
        header("(100000, 100000)"),
        header("(10**9, 10**9)"),
        header("(1000000000, 1000000000)"),
        header(f"({2**62}, {2**62})"),
        header("(-1, 2)"),
        header("(2, 2)", "'|O'"),
        header("(2, 2)", "'<U1000000000'"),
        header("(2, 2)", "__import__('os').system('true')"),
        header("(2, 2)", version=b"\x07\x00"),
        header("(2, 2" + " " * 20_000 + ")"),
    ],
    ids=lambda content: content[10:75].decode(errors="replace").strip() or "nothing",
)
def test_a_header_that_lies_is_refused_and_fills_no_memory(path, content):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    member(path, "logits", content)
    refused(path, "logits must be a sound .npy array")
    # kB; the smallest of the large lies is 16 GB, and reading has its own small needs.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_member_that_is_too_large_is_refused_before_it_is_unpacked(path, monkeypatch):
    monkeypatch.setattr("calibcourse.audit.MAX_BYTES", 1000)
    np.savez_compressed(path, **GOOD | {"logits": np.zeros((1000, 2))})
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("it is unpacked"))
    refused(path, "logits must take at most 1000 bytes, got 16128")


def test_what_is_no_archive_is_refused(path, tmp_path):
    with pytest.raises(FileNotFoundError):
        read_logits(path)
    with pytest.raises(OSError, match="must be a regular file"):
        read_logits(tmp_path)
    for content in (b"", b"PK\x03\x04", b"\x80\x04K\x01.", b"0" * 1000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"must be a sound \.npz file"):
            read_logits(path)


def test_a_damaged_archive_is_refused(path):
    np.savez_compressed(path, **GOOD)
    whole = bytearray(path.read_bytes())
    place = whole.find(b"NUMPY") if b"NUMPY" in whole else 60
    whole[place + 5] ^= 0xFF
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        read_logits(path)


# --- the command


def test_the_command_prints_the_report_and_draws(path, tmp_path, capsys):
    logits, target = drawn(300)
    save(path, logits=logits.numpy(), target=target.numpy())
    picture = tmp_path / "figure.png"
    assert main(["audit", str(path), "--figure", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert repr(audit(logits, target)) in printed and str(picture) in printed
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_command_says_in_one_line_what_is_wrong(path, capsys):
    path.write_bytes(b"nothing")
    assert main(["audit", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("calibcourse audit: ") and error.count("\n") == 1
