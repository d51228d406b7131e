"""The command `calibcourse audit`: what it prints, writes and returns, to the letter."""

import argparse
import base64
import json
import os
import re

import numpy as np
import pytest
import torch

from calibcourse.audit import audit, compare_audits, measure
from calibcourse.audit import page as audit_page
from calibcourse.audit.cli import add_arguments
from calibcourse.cli import main

RANDOM = np.random.default_rng(0)
LOGITS = 2 * RANDOM.normal(size=(300, 4))
P = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
TARGET = (P.cumsum(1) > RANDOM.random((300, 1))).argmax(1)

VERDICTS = ("miscalibrated", "uneven", "near_chance")


@pytest.fixture
def saved(tmp_path):
    """Write a model's file; its path."""

    def save(name="model", **arrays):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        return str(tmp_path / f"{name}.npz")

    return save


def audited(logits):
    return audit(torch.from_numpy(logits), torch.from_numpy(TARGET))


def test_the_help_names_every_option(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    parser = argparse.ArgumentParser(prog="calibcourse audit")
    add_arguments(parser)
    assert (
        parser.format_help()
        .split("\n\n", 1)[1]
        .startswith("""\
positional arguments:
  FILE                  scores and labels of a model
  OTHER                 a second model's, to compare

options:
  -h, --help            show this help message and exit
  --scores {logits,probabilities,log-probabilities}
                        what the scores are, where in doubt
  --labels FILE         a file of the labels alone
  --figure PNG          also draw reliability and margins
  --html PAGE           also write one self-contained page
  --json                print the numbers as JSON instead

files:
  .npz          numpy.savez("model.npz", logits=..., target=...): (N, K) and (N,)
""")
    )


def test_the_report_is_printed_and_the_figure_and_the_page_are_written(
    saved, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(audit_page, "noise_floor", None)  # the audit's band is drawn, not another
    path, picture, page = (
        saved(logits=3 * LOGITS, target=TARGET),
        tmp_path / "f.png",
        tmp_path / "p",
    )
    found = audited(3 * LOGITS)
    assert found.miscalibrated
    assert main(["audit", path, "--html", str(page), "--figure", str(picture)]) == 1
    assert capsys.readouterr() == (f"{found!r}\nwrote {picture}\nwrote {page}\n", "")
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = page.read_text()
    assert base64.b64encode(picture.read_bytes()).decode() in text  # drawn once for both
    assert "<h1>Audit of model.npz</h1>" in text and found.findings()[0] in text
    assert "http" not in text  # it loads nothing


@pytest.fixture
def drawn_at_once(monkeypatch):
    """A figure that takes no time to draw."""
    monkeypatch.setattr("calibcourse.audit.audit_figure", lambda *_: None)
    monkeypatch.setattr("calibcourse.plots.png_bytes", lambda _: b"picture")


@pytest.mark.parametrize(
    ("option", "content"), [("--html", b"<!doctype"), ("--figure", b"picture")]
)
def test_only_what_was_asked_for_is_written(
    option, content, saved, tmp_path, capsys, drawn_at_once, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = saved(logits=LOGITS, target=TARGET)
    assert main(["audit", path, option, "written"]) == 0
    assert capsys.readouterr().out.endswith(" average.\nwrote written\n")
    assert sorted(os.listdir()) == ["model.npz", "written"]
    assert (tmp_path / "written").read_bytes().startswith(content)


def test_json_is_all_that_is_printed(saved, tmp_path, capsys, drawn_at_once):
    path, picture = saved(logits=3 * LOGITS, target=TARGET), tmp_path / "figure.png"
    assert main(["audit", path, "--json", "--figure", str(picture)]) == 1
    assert json.loads(capsys.readouterr().out) == json.loads(
        json.dumps(audited(3 * LOGITS).to_dict(), allow_nan=False)
    )
    assert picture.read_bytes() == b"picture"


def test_the_exit_status_is_that_of_each_verdict(saved, capsys):
    """One file for each verdict by itself, and one with none of them."""
    generator = torch.Generator().manual_seed(0)
    assert main(["audit", saved(logits=LOGITS, target=TARGET), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not any(found[verdict] for verdict in VERDICTS)
    # Two classes, 0.8 sure, right in 70 % and in 90 %: in the average all is well.
    logits = torch.tensor([[1.4, 0.0], [0.0, 1.4]]).repeat(1000, 1)
    right = torch.rand(2000, generator=generator) < torch.tensor([0.7, 0.9]).repeat(1000)
    target = torch.where(right, logits.argmax(1), logits.argmin(1))
    # Labels without any order, and confidences that say so.
    shuffled = torch.randn(500, 4, generator=generator) / 100
    labels = torch.randint(4, (500,), generator=generator)
    for name, scores, truth in (
        ("uneven", logits, target),
        ("near_chance", shuffled, labels),
        ("miscalibrated", torch.tensor([[2.0, 0.0]]).repeat(40, 1), torch.zeros(40).long()),
    ):
        path = saved(logits=scores.numpy(), target=truth.numpy())
        assert main(["audit", path, "--json"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert [verdict for verdict in VERDICTS if found[verdict]] == [name]


def test_two_files_are_compared(saved, capsys):
    sure = saved("sure", logits=3 * LOGITS, target=TARGET)
    calm = saved("calm", logits=LOGITS, target=TARGET)
    other = saved("other", logits=LOGITS, target=TARGET[::-1])
    assert main(["audit", sure, calm]) == 1
    tensors = (torch.from_numpy(x) for x in (3 * LOGITS, LOGITS, TARGET))
    assert capsys.readouterr() == (f"{compare_audits(*tensors)!r}\n", "")
    assert main(["audit", calm, calm]) == 0
    assert "a tie, at this size" in capsys.readouterr().out
    assert main(["audit", sure, other]) == 2
    refusal = "calibcourse audit: both files must hold the same labels in the same order\n"
    assert capsys.readouterr() == ("", refusal)


@pytest.mark.parametrize("option", [["--json"], ["--figure", "f.png"], ["--html", "p.html"]])
def test_what_takes_one_file_is_refused_before_two_are_read(option, capsys):
    assert main(["audit", "none.npz", "nowhere.npz", *option]) == 2
    refusal = "calibcourse audit: --figure, --html and --json take one file\n"
    assert capsys.readouterr() == ("", refusal)


def test_the_kind_of_scores_and_a_file_of_labels_hold_for_both_files(saved, tmp_path, capsys):
    labels = saved("labels", target=TARGET)
    files = [saved("a", logits=P), saved("b", logits=P)]
    options = ["--labels", labels, "--scores", "probabilities"]
    assert main(["audit", files[0], *options]) == 0
    printed = capsys.readouterr().out
    assert printed == f"{audited(np.log(P))!r}\n"
    assert main(["audit", *files, *options]) == 0


def test_the_command_says_in_one_line_what_is_wrong(tmp_path, capsys):
    (tmp_path / "model.npz").write_bytes(b"nothing")
    assert main(["audit", str(tmp_path / "model.npz")]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("calibcourse audit: ") and error.count("\n") == 1


def test_a_bar_shows_where_there_are_many_logits(saved, capsys, monkeypatch):
    path = saved(logits=LOGITS, target=TARGET)
    monkeypatch.setattr(measure, "_LONG", LOGITS.size + 1)
    main(["audit", path])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(measure, "_LONG", LOGITS.size)
    main(["audit", path])
    shown = capsys.readouterr().err
    assert re.search(r"^\raudit:   0%.* 0/8 ", shown) and re.search(r"audit: 100%.* 8/8 ", shown)
    audit(torch.from_numpy(LOGITS), torch.from_numpy(TARGET), n_resamples=1)  # nobody asked for it
    assert capsys.readouterr().err == ""
