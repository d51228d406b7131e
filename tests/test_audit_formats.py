"""What a file of each format gives, array by array, and what its refusal says, to the letter."""

import io
import re
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from calibcourse.audit import formats, read_arrays
from calibcourse.cli import main

SCORES = np.array([[1.5, -2.0, 0.25], [0.0, 3.0, -1.0]])
LABELS = np.array([2, 1])
tensor = torch.from_numpy
BOTH = {"logits": tensor(SCORES), "target": tensor(LABELS)}


def npz(path, **arrays):
    np.savez(path, **arrays)


def rezipped(path, change, compression=zipfile.ZIP_STORED):
    """Write an archive anew, each member's content changed."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, member in content.items():
            archive.writestr(name, change(member))


def of_format_2(path):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, SCORES, version=(2, 0))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("logits.npy", stream.getvalue())
        stream = io.BytesIO()
        np.save(stream, LABELS)
        archive.writestr("target.npy", stream.getvalue())


def from_a_gpu(path):
    torch.save(BOTH, path)
    rezipped(path, lambda member: member.replace(b"\x03\x00\x00\x00cpu", b"\x06\x00\x00\x00cuda:0"))


# Name: (ending, writes it); each holds SCORES and LABELS.
WHOLE = {
    "npz": (".npz", lambda path: npz(path, logits=SCORES, target=LABELS)),
    "npz, compressed": (
        ".NPZ", lambda path: np.savez_compressed(path.open("wb"), logits=SCORES, target=LABELS)),
    "npz, others unread": (
        ".npz", lambda path: npz(path, logits=SCORES, target=LABELS, names=np.array([{}]))),
    "npy format 2.0": (".npz", of_format_2),
    "csv": (".csv", lambda path: path.write_text("a,b,c,Label\n1.5,-2,0.25,2\n0,3,-1,1\n")),
    "csv as spreadsheets write it": (".csv", lambda path: path.write_bytes(
        '"a","Größe, cm",c, target \r\n1.5,-2,2.5e-1,2\r\n0,3,-1,1\r\n'.encode("utf-8-sig"))),
    "tsv": (".tsv", lambda path: path.write_text("a,1\ty\tb\t3\n1.5\t2\t-2\t0.25\n0\t1\t3\t-1")),
    "pt": (".pt", lambda path: torch.save(BOTH, path)),
    "pt, others unread": (".pt", lambda path: torch.save(
        BOTH | {"epoch": 3, 7: torch.eye(2).to_sparse()}, path)),
    "pt, from a GPU": (".pt", from_a_gpu),
    "pt, of a parameter": (".pt", lambda path: torch.save(
        BOTH | {"logits": torch.nn.Parameter(tensor(SCORES))}, path)),
    "safetensors": (".safetensors", lambda path: save_file(BOTH, path)),
    "safetensors, others unread": (".safetensors", lambda path: save_file(
        BOTH | {"weights": torch.ones(2, dtype=torch.complex64)}, path)),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_scores_and_labels_come_back_as_they_were(name, tmp_path):
    ending, write = WHOLE[name]
    path = tmp_path / f"model{ending}"
    write(path)
    key, scores, target = read_arrays(path)
    assert key == "logits" and scores.dtype == np.float64
    assert scores.tolist() == SCORES.tolist() and target.tolist() == LABELS.tolist()


# Ending: (writes one array alone).
ALONE = {
    ".npy": lambda path, array: np.save(path, array),
    ".pt": lambda path, array: torch.save(tensor(array), path),
    ".csv": lambda path, array: np.savetxt(
        path, array, delimiter=",", comments="",
        header="a,b,c" if array.ndim == 2 else "target"),
}  # fmt: skip


@pytest.mark.parametrize("ending", ALONE)
def test_labels_come_from_a_file_of_their_own(ending, tmp_path):
    paths = [tmp_path / f"{name}{ending}" for name in ("scores", "labels")]
    for path, array in zip(paths, (SCORES, LABELS), strict=True):
        ALONE[ending](path, array)
    key, scores, target = read_arrays(*paths)
    assert key == "logits"
    assert scores.tolist() == SCORES.tolist() and target.ravel().tolist() == LABELS.tolist()
    # Labels that the first file holds too are neither scores nor believed.
    both = tmp_path / "both.csv"
    both.write_text("a,b,c,target\n1.5,-2,0.25,0\n0,3,-1,0\n")
    key, scores, target = read_arrays(both, paths[1])
    assert scores.tolist() == SCORES.tolist() and target.ravel().tolist() == LABELS.tolist()


NAMES = "target or targets or labels or label or y"
WRITE = "Write it by numpy.savez(path, logits=..., target=...), or give the labels by --labels FILE"
REFUSED = {
    "no ending": ("", lambda path: path.write_text(""),
        " must end in .npz, .npy, .csv, .tsv, .pt, .safetensors; got no ending"),
    "another ending": (".MAT", lambda path: path.write_text(""),
        " must end in .npz, .npy, .csv, .tsv, .pt, .safetensors; got .mat"),
    "nothing": (".npz", lambda path: npz(path),
        " holds no scores: expected one of logits, scores, probabilities, probs, "
        f"log_probabilities, log_probs, found nothing. {WRITE}"),
    "no labels": (".npz", lambda path: npz(path, truth=LABELS, logits=SCORES),
        " holds no labels: expected one of target, targets, labels, label, y, found logits, truth. "
        + WRITE),
    "two scores": (".npz", lambda path: npz(path, probs=SCORES, logits=SCORES, y=LABELS),
        " must hold one array of scores, got logits, probs"),
    "two labels": (".npz", lambda path: npz(path, logits=SCORES, y=LABELS, label=LABELS),
        " must hold one array of labels, got label, y"),
    "an npy alone": (".npy", lambda path: np.save(path, SCORES),
        " holds one array: give the labels by --labels FILE"),
    "a tensor alone": (".pt", lambda path: torch.save(tensor(SCORES), path),
        " holds one array: give the labels by --labels FILE"),
    "an npy of objects": (".npy", lambda path: np.save(path, np.array([[{}]])),
        ": the array must hold numbers of at most 64 bits, got object"),
    "npz of long doubles": (
        ".npz", lambda path: npz(path, logits=SCORES.astype(np.longdouble), y=LABELS),
        ": logits must hold numbers of at most 64 bits, got float128"),
    "an npy cut short": (".npy", lambda path: path.write_bytes(npy()[:-1]),
        ": the array is cut off: 47 bytes are there of 48"),
    "an npy with a damaged header": (".npy", lambda path: path.write_bytes(npy()[:20]),
        ": the array must have a sound header of .npy format 1.0 or 2.0"),
    "an empty table": (".csv", lambda path: path.write_text(""),
        ": the first line must name the columns, that of the labels 'target'; got nothing"),
    "a table of numbers": (".csv", lambda path: path.write_text("1,2,0\n"),
        ": the first line must name the columns, that of the labels 'target'; got numbers"),
    "a table of names": (".csv", lambda path: path.write_text("a,b,target\n\n"),
        ": there must be a line of numbers for each sample, got none"),
    "a table without labels": (".csv", lambda path: path.write_text("a,b\n1,2\n"),
        f": the first line must name one column of labels by {NAMES}; got a, b"),
    "a table with labels twice": (".csv", lambda path: path.write_text("a,y,TARGET\n1,0,0\n"),
        f": the first line must name one column of labels by {NAMES}; got a, y, TARGET"),
    "a table of too many values": (".csv", lambda path: path.write_text("a,b,y\n1,2,3,0\n"),
        ": every line must hold 3 values, got 4"),
    "a compressed pt": (".pt", lambda path: compressed(path),
        ": a .pt file holds nothing compressed"),
    "a pt of a list": (".pt", lambda path: torch.save([1], path),
        ": it must hold a dict of tensors, got list"),
    "a pt with labels in a list": (".pt", lambda path: torch.save(BOTH | {"target": [2, 1]}, path),
        ": target must be a tensor, got list"),
    "a pt of complex numbers": (
        ".pt", lambda path: torch.save(BOTH | {"logits": torch.ones(2, 3) + 0j}, path),
        ": logits must be a dense tensor of real numbers, got torch.complex64"),
    "a sparse pt": (
        ".pt", lambda path: torch.save(BOTH | {"logits": torch.eye(3).to_sparse()}, path),
        ": logits must be a dense tensor of real numbers, got torch.float32"),
    "an expanded pt": (
        ".pt", lambda path: torch.save(BOTH | {"logits": torch.zeros(2, 1).expand(2, 3)}, path),
        ": logits is cut off: 8 bytes are there of 24"),
    "an expanded tensor alone": (
        ".pt", lambda path: torch.save(torch.zeros(2, 1).expand(2, 3), path),
        ": the tensor is cut off: 8 bytes are there of 24"),
    "complex safetensors": (
        ".safetensors", lambda path: save_file(BOTH | {"logits": torch.ones(2, 3) + 0j}, path),
        ": logits must be a dense tensor of real numbers, got torch.complex64"),
}  # fmt: skip


def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, SCORES)
    return stream.getvalue()


def compressed(path):
    torch.save(BOTH, path)
    rezipped(path, bytes, zipfile.ZIP_DEFLATED)


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_what_is_wrong_and_what_to_do(name, tmp_path):
    ending, write, message = REFUSED[name]
    path = tmp_path / f"model{ending}"
    write(path)
    with (
        warnings.catch_warnings(),
        pytest.raises(ValueError, match=f"^{re.escape(f'{path}{message}')}$"),
    ):
        warnings.simplefilter("error")  # a refusal is all that is said
        read_arrays(path)


def test_an_empty_name_in_a_file_is_a_name(tmp_path):
    """It is no array without a name, as in .npy, which would be taken for whatever is asked."""
    path, labels = tmp_path / "model.pt", tmp_path / "labels.npy"
    torch.save({"": tensor(SCORES)}, path)
    np.save(labels, LABELS)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} holds no scores: "):
        read_arrays(path, labels)


@pytest.mark.filterwarnings("ignore")  # torch itself warns of quantized tensors
def test_quantized_scores_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    scores = torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8)
    torch.save(BOTH | {"logits": scores}, path)
    message = f"{path}: logits must be a dense tensor of real numbers, got torch.qint8"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_arrays(path)


def test_a_file_of_labels_is_named_where_it_is_refused(tmp_path):
    np.save(tmp_path / "scores.npy", SCORES)
    labels = tmp_path / "labels.npz"
    npz(labels, classes=LABELS)
    with pytest.raises(ValueError, match=f"^{labels} holds no labels: .*, found classes. "):
        read_arrays(tmp_path / "scores.npy", labels)


def test_sizes_are_refused_above_a_limit_and_read_up_to_it(tmp_path, monkeypatch):
    """The file as a whole, then each array; 48 bytes of scores."""
    path = tmp_path / "model.npz"
    np.savez_compressed(path, logits=np.zeros((100, 3)), target=np.zeros(100, int))
    size = path.stat().st_size
    assert size < 2399
    monkeypatch.setattr(formats, "MAX_BYTES", size - 1)
    with pytest.raises(ValueError, match=f": the file must take at most {size - 1} bytes, got"):
        read_arrays(path)
    monkeypatch.setattr(formats, "MAX_BYTES", 2399)
    with pytest.raises(ValueError, match=": logits must take at most 2399 bytes, got 2400"):
        read_arrays(path)
    monkeypatch.setattr(formats, "MAX_BYTES", 2400)
    assert read_arrays(path)[1].shape == (100, 3)
    npz(path, logits=SCORES, target=LABELS)
    monkeypatch.setattr(formats, "MAX_BYTES", path.stat().st_size)
    assert read_arrays(path)[1].tolist() == SCORES.tolist()


def test_a_table_whose_first_line_does_not_end_is_refused(tmp_path):
    path = tmp_path / "model.csv"
    line = ",".join(["nnn"] * (formats._MAX_LINE // 4))  # as many bytes as may be read, less one
    for first, message in (
        (line, "one column of labels"),
        (f"{line},", "must take less than 1048576 bytes"),
        (f"{line},nnn\n1,2\n", "must take less than 1048576 bytes"),
    ):
        path.write_text(first)
        with pytest.raises(ValueError, match=message):
            read_arrays(path)


@pytest.mark.parametrize("ending", [".npz", ".npy"])
def test_objects_are_refused_behind_the_header_too(ending, tmp_path, monkeypatch):
    """The header is read twice; what is not numbers is refused each time."""
    path = tmp_path / f"model{ending}"
    if ending == ".npz":
        npz(path, logits=np.array([[{}]]), target=LABELS)
    else:
        np.save(path, np.array([[{}]]))
    monkeypatch.setattr(formats, "_check_header", lambda *_: None)
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        read_arrays(path)


def test_no_setting_makes_a_file_run_code(tmp_path, monkeypatch, capsys):
    class Hostile:
        def __reduce__(self):
            return print, ("executed",)

    path = tmp_path / "model.pt"
    torch.save({"logits": Hostile(), "target": tensor(LABELS)}, path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert main(["audit", str(path)]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith(f"calibcourse audit: {path} must be a sound .pt file: ")
