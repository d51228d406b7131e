"""Every kind of file that an audit may be given, each with what comes of it, to the word."""

import io
import json
import pickle
import re
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from calibcourse.audit import as_logits, read_logits
from calibcourse.audit import formats as audit_formats

RANDOM = np.random.default_rng(0)
LOGITS = 2 * RANDOM.normal(size=(300, 4))
P = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
TARGET = (P.cumsum(1) > RANDOM.random((300, 1))).argmax(1)
BINARY = LOGITS[:, :2].copy()
SINGLE = BINARY[:, 1] - BINARY[:, 0]
TWO = (RANDOM.random(300) < 1 / (1 + np.exp(-SINGLE))).astype(int)


def npz(**arrays):
    def write(path):
        np.savez(path, **arrays)
        return ".npz"

    return write


def table(delimiter=",", head="a,b,c,d,target", values=None):
    def write(path):
        rows = np.column_stack([LOGITS, TARGET]) if values is None else values
        lines = [head.replace(",", delimiter)] * bool(head)
        lines += [delimiter.join(f"{x:.17g}" for x in row) for row in rows]
        path.write_text("\n".join(lines))
        return ".csv" if delimiter == "," else ".tsv"

    return write


def pt(value):
    def write(path):
        torch.save(value, path)
        return ".pt"

    return write


def raw(content, ending=".npz"):
    def write(path):
        path.write_bytes(content)
        return ending

    return write


def member(content, name="logits"):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(f"{name}.npy", content)
        array = io.BytesIO()
        np.save(array, TARGET)
        archive.writestr("target.npy", array.getvalue())
    return raw(stream.getvalue())


def header(shape, descr="'<f8'", version=b"\x01\x00"):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text


def masked(value, dtype=np.float64):
    return np.column_stack([LOGITS, np.full(300, value)]).astype(dtype)


def with_zeros(p):
    p = p.copy()
    p[p < 0.02] = 0
    return p / p.sum(1, keepdims=True)


def one_bad_row():
    p = P.copy()
    p[7] = [3.0, -1.0, 0.0, 0.5]
    return p


class Hostile:
    def __reduce__(self):
        return print, ("executed",)


bad_nan, bad_inf = LOGITS.copy(), LOGITS.copy()
bad_nan[5, 1], bad_inf[6, 2] = np.nan, np.inf
masked_label = LOGITS.copy()
masked_label[9, TARGET[9]] = -np.inf
tensor = torch.from_numpy

# Name: (writes the file, options, logits that must come of it up to a shift of each row).
READ = {
    **{
        f"npz {dtype}, labels {whole}": (
            npz(logits=LOGITS.astype(dtype), target=TARGET.astype(whole)), {},
            LOGITS.astype(dtype).astype(float))
        for dtype, whole in (("e", "b"), ("f", "B"), ("d", "<i2"), (">f", ">i4"), (">d", "Q"),
                             ("d", "f"), ("d", "d"), ("f", "e"))
    },
    "labels (N, 1)": (npz(logits=LOGITS, target=TARGET[:, None]), {}, LOGITS),
    "names scores and y": (npz(scores=LOGITS, y=TARGET), {}, LOGITS),
    "names logits and labels": (npz(logits=LOGITS, labels=TARGET, more=np.eye(2)), {}, LOGITS),
    "whole logits": (npz(logits=(10 * LOGITS).astype("i4"), target=TARGET), {},
                     (10 * LOGITS).astype("i4").astype(float)),
    "transposed in memory": (npz(logits=np.asfortranarray(LOGITS), target=TARGET), {}, LOGITS),
    "csv": (table(), {}, LOGITS),
    "tsv": (table("\t"), {}, LOGITS),
    "csv, labels first": (table(head="label,a,b,c,d", values=np.column_stack([TARGET, LOGITS])),
                          {}, LOGITS),
    "pt": (pt({"logits": tensor(LOGITS), "target": tensor(TARGET)}), {}, LOGITS),
    "pt bfloat16": (pt({"logits": tensor(LOGITS).bfloat16(), "labels": tensor(TARGET)}), {},
                    tensor(LOGITS).bfloat16().double().numpy()),
    "probabilities by name": (npz(probabilities=P, target=TARGET), {}, LOGITS),
    "probabilities as told": (npz(logits=P, target=TARGET), {"scores": "probabilities"}, LOGITS),
    "probabilities with zeros": (
        npz(probs=with_zeros(P), target=TARGET), {},
        np.log(np.maximum(with_zeros(P), with_zeros(P)[with_zeros(P) > 0].min() / 2))),
    "probabilities of 3 decimals": (
        npz(probs=P.round(3), target=TARGET), {}, np.log(np.maximum(P.round(3), 0.0005))),
    "log-probabilities by name": (npz(log_probs=np.log(P), target=TARGET), {}, LOGITS),
    "log-probabilities unsaid": (npz(logits=np.log(P), target=TARGET), {}, LOGITS),
    "probabilities told to be logits": (npz(logits=P, target=TARGET), {"scores": "logits"}, P),
    "one column": (npz(logits=SINGLE, target=TWO), {}, BINARY),
    "one column (N, 1), bool labels": (npz(logits=SINGLE[:, None], target=TWO > 0), {}, BINARY),
    "one column of probabilities": (
        npz(probs=1 / (1 + np.exp(-SINGLE)), target=TWO), {}, BINARY),
    **{
        f"masked by {value:g} in {dtype}": (
            npz(logits=masked(value, dtype), target=TARGET), {},
            np.column_stack([LOGITS.astype(dtype), np.full(300, -1e9)]))
        for value, dtype in ((-np.inf, "d"), (-np.inf, "e"), (-1e9, "d"), (-1e9, "f"),
                             (-65504, "e"), (-1e4, "f"), (float(np.finfo("f").min), "f"))
    },
}  # fmt: skip

NO_KIND = "say which by --scores logits, --scores probabilities or --scores log-probabilities"
# Name: (writes the file, options, what the refusal says after the file's name).
REFUSED = {
    "probabilities": (npz(logits=P, target=TARGET), {}, rf"all scores lie in \[0, 1\].*{NO_KIND}"),
    "probabilities of 2 decimals": (npz(logits=P.round(2), target=TARGET), {}, NO_KIND),
    "probabilities in bfloat16": (
        pt({"logits": tensor(P).bfloat16(), "target": tensor(TARGET)}), {}, NO_KIND),
    "one bad row": (npz(logits=one_bad_row(), target=TARGET), {},
                    f"most rows.*probabilities do; sample 7 does not: {NO_KIND}"),
    "percentages": (npz(logits=100 * P, target=TARGET), {},
                    "sum to 100 as percentages do.*after dividing by 100"),
    "sigmoids": (npz(logits=1 / (1 + np.exp(-LOGITS)), target=TARGET), {}, NO_KIND),
    "sigmoids told to be probabilities": (
        npz(logits=1 / (1 + np.exp(-LOGITS)), target=TARGET), {"scores": "probabilities"},
        "must sum to 1 in every row.*one class against the rest"),
    "percentages told to be probabilities": (
        npz(logits=100 * P, target=TARGET), {"scores": "probabilities"}, "percentages"),
    "logits told to be probabilities": (
        npz(logits=LOGITS, target=TARGET), {"scores": "probabilities"}, r"must lie in \[0, 1\]"),
    "logits told to be log-probabilities": (
        npz(logits=LOGITS, target=TARGET), {"scores": "log-probabilities"}, "at most 0"),
    "log-odds told to be log-probabilities": (
        npz(logits=np.log(P) - 1, target=TARGET), {"scores": "log-probabilities"},
        "exponentials must sum to 1"),
    "one column of log-probabilities": (
        npz(log_probs=-np.abs(SINGLE), target=TWO), {}, "a column for each class"),
    "one column of probabilities unsaid": (
        npz(logits=1 / (1 + np.exp(-SINGLE)), target=TWO), {}, NO_KIND),
    "NaN": (npz(logits=bad_nan, target=TARGET), {}, "sample 5 holds NaN"),
    "+inf": (npz(logits=bad_inf, target=TARGET), {}, "sample 6 holds NaN, \\+inf"),
    "all masked": (npz(logits=np.full((3, 2), -np.inf), target=[0, 1, 1]), {}, "nothing else"),
    "masked label": (npz(logits=masked_label, target=TARGET), {}, "the first in sample 9"),
    "no scores": (npz(outputs=LOGITS, target=TARGET), {},
                  "holds no scores: expected one of logits.*found outputs, target"),
    "no labels": (npz(logits=LOGITS, truth=TARGET), {}, "holds no labels.*found logits, truth"),
    "two kinds of scores": (npz(logits=LOGITS, probs=P, target=TARGET), {}, "logits, probs"),
    "complex": (npz(logits=LOGITS + 0j, target=TARGET), {}, "numbers of at most 64 bits"),
    "long double": (npz(logits=LOGITS.astype(np.longdouble), target=TARGET), {}, "64 bits"),
    "texts": (npz(logits=np.array([["a", "b"]]), target=TARGET), {}, "64 bits"),
    "three axes": (npz(logits=LOGITS[None], target=TARGET), {}, r"shape \(N, K\)"),
    "no samples": (npz(logits=np.zeros((0, 2)), target=np.zeros(0, int)), {},
                   r"scores must be numbers of shape .*, got float64, \(0, 2\)"),
    "one number": (npz(logits=1.5, target=0), {},
                   r"scores must be numbers of shape .*, got float64, \(\)"),
    "bool scores": (npz(logits=LOGITS > 0, target=TARGET), {}, "must be numbers"),
    "too few labels": (npz(logits=LOGITS, target=TARGET[:-1]), {}, r"shape \(300,\)"),
    "one-hot labels": (npz(logits=LOGITS, target=np.eye(4)[TARGET]), {}, "one-hot labels"),
    "fractions as labels": (npz(logits=LOGITS, target=TARGET + 0.5), {}, "fractions"),
    "NaN as label": (npz(logits=LOGITS, target=np.full(300, np.nan)), {}, "NaN"),
    "labels from 1": (npz(logits=LOGITS, target=TARGET + 1), {}, "count from 1"),
    "label -1": (npz(logits=LOGITS, target=TARGET - 1), {}, r"lie in 0\.\.3, got -1"),
    "label 2^64 - 1": (npz(logits=LOGITS, target=np.full(300, 2**64 - 1, "Q")), {}, "lie in 0"),
    "csv without names": (table(head=""), {}, "the first line must name the columns"),
    "csv without labels": (table(head="a,b,c,d,e"), {}, "column of labels.*got a, b, c, d, e"),
    "csv of unequal lines": (raw(b"a,b,target\n1,2,0\n1,2\n", ".csv"), {}, "columns"),
    "csv of texts": (raw(b"a,b,target\n1,x,0\n", ".csv"), {}, "could not convert"),
    "csv of one name too few": (table(head="a,b,target"), {}, "must hold 3 values, got 5"),
    "npy without labels": (
        lambda path: np.save(path.open("wb"), LOGITS) or ".npy", {}, "--labels FILE"),
    "pt that runs code": (
        pt({"logits": Hostile(), "target": tensor(TARGET)}), {}, "must be a sound"),
    "pt of a list": (pt([1, 2]), {}, "dict of tensors, got list"),
    "pt expanded": (
        pt({"logits": torch.zeros(1).expand(10**6, 10**6), "target": tensor(TARGET)}), {},
        "at most 4294967296 bytes"),
    "pt sparse": (pt({"logits": torch.eye(3).to_sparse(), "target": tensor(TARGET)}), {}, "dense"),
    "old pt": (raw(pickle.dumps({"logits": 1}), ".pt"), {}, r"sound \.pt file"),
    "another ending": (raw(b"x", ".mat"), {}, r"must end in \.npz, .*got \.mat"),
    "empty": (raw(b""), {}, r"sound \.npz file"),
    "no archive": (raw(b"0" * 1000), {}, r" must be a sound \.npz file: File is not a zip file$"),
    "a pickle": (raw(b"\x80\x04K\x01."), {}, r"sound \.npz file"),
    "no array": (member(b"not an array"), {}, "sound header"),
    "cut off": (member(header("(2, 2)") + bytes(31)), {}, "cut off: 31 bytes are there of 32"),
    "huge": (member(header("(1000000000, 1000000000)")), {}, "at most 4294967296 bytes"),
    "beyond 64 bits": (member(header(f"({2**62}, {2**62})")), {}, "at most"),
    "negative shape": (member(header("(-1, 2)")), {}, "whole numbers"),
    "objects": (member(header("(2, 2)", "'|O'")), {}, "64 bits, got object"),
    "code in the header": (
        member(header("(2, 2)", "__import__('os').system('true')")), {}, "sound header"),
    "a long header": (member(header("(2, 2)" + 10_000 * " ")), {}, "sound header"),
    "unknown version": (member(header("(2, 2)", version=b"\x07\x00")), {}, "sound header"),
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def write(writer):
        ending = writer(tmp_path / "made.npz")
        path = tmp_path / f"model{ending}"
        (tmp_path / "made.npz").rename(path)
        return path

    return write


def softmax(logits):
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("name", READ)
def test_what_is_clear_is_read(name, write):
    writer, options, expected = READ[name]
    logits, target = read_logits(write(writer), **options)
    assert logits.dtype in (torch.float32, torch.float64) and target.dtype == torch.int64
    assert target.tolist() == (TWO if "column" in name else TARGET).tolist()
    # The probabilities decide; float32 logits of 10 carry them to 1e-6.
    np.testing.assert_allclose(softmax(logits.double().numpy()), softmax(expected), atol=2e-6)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_is_refused_by_name(name, write, capsys):
    writer, options, message = REFUSED[name]
    path = write(writer)
    with pytest.raises((ValueError, OSError)) as error:
        read_logits(path, **options)
    before, said = str(error.value).split(str(path), 1)
    assert before == "" and re.search(message, said, re.DOTALL), said
    assert "executed" not in capsys.readouterr().out


def test_safetensors_are_read_where_the_library_is(write, monkeypatch):
    monkeypatch.setattr(audit_formats.importlib.util, "find_spec", lambda name: None)
    path = write(raw(b"x", ".safetensors"))
    needed = f"{path}: reading .safetensors needs the package safetensors: pip install it"
    with pytest.raises(ValueError, match=f"^{re.escape(needed)}$"):
        read_logits(path)
    monkeypatch.undo()
    save_file({"logits": tensor(LOGITS), "target": tensor(TARGET)}, path)
    assert read_logits(path)[0].tolist() == LOGITS.tolist()
    save_file({"logits": tensor(LOGITS).bfloat16(), "target": tensor(TARGET)}, path)
    assert read_logits(path)[0].tolist() == tensor(LOGITS).bfloat16().tolist()
    save_file({"weights": tensor(LOGITS)}, path)
    with pytest.raises(ValueError, match="weights"):
        read_logits(path)


@pytest.mark.parametrize("damage", ["cut short", "no header", "a huge header", "promises"])
def test_damaged_safetensors_are_refused(damage, write):
    path = write(raw(b"", ".safetensors"))
    save_file({"logits": tensor(LOGITS), "target": tensor(TARGET)}, path)
    sound = path.read_bytes()
    header = json.dumps(
        {"logits": {"dtype": "F32", "shape": [10**9, 10], "data_offsets": [0, 4 * 10**10]}}
    ).encode()
    path.write_bytes(
        {
            "cut short": sound[:-30],
            "no header": b"",
            "a huge header": struct.pack("<Q", 2**40) + sound[8:],
            "promises": struct.pack("<Q", len(header)) + header,
        }[damage]
    )
    with pytest.raises(ValueError, match=r"must be a sound \.safetensors file"):
        read_logits(path)


def test_labels_may_have_a_file_of_their_own(tmp_path):
    np.save(tmp_path / "scores.npy", LOGITS)
    np.save(tmp_path / "labels.npy", TARGET)
    np.savez(tmp_path / "labels.npz", y=TARGET)
    for labels in ("labels.npy", "labels.npz"):
        logits, target = read_logits(tmp_path / "scores.npy", labels=tmp_path / labels)
        assert logits.tolist() == LOGITS.tolist() and target.tolist() == TARGET.tolist()


def test_no_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_logits(tmp_path / "none.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(OSError, match="must be a regular file"):
        read_logits(tmp_path / "folder.npz")


def test_a_large_file_is_refused_unread(write, monkeypatch):
    monkeypatch.setattr(audit_formats, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="at most 1000 bytes"):
        read_logits(write(npz(logits=LOGITS, target=TARGET)))


def test_nothing_of_the_callers_is_changed():
    values = masked(-np.inf)
    kept = values.copy()
    as_logits(values, TARGET)
    np.testing.assert_array_equal(values, kept)
