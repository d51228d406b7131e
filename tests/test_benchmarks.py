"""The comparisons run and agree with their peers, and what is shown of them is what was recorded.

Agreement is a test, here and in the committed record; time never is.
"""

import doctest
import itertools
import json
import math
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_pins import pins

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "benchmarks"
sys.path.insert(0, str(FOLDER))  # where its scripts find each other

import _growth_figure  # noqa: E402
import _harness  # noqa: E402
import _report  # noqa: E402
import run  # noqa: E402

PARTS = [part for parts in run.catalogue().values() for part in parts]
COMPARISONS = [part for part in PARTS if isinstance(part, _harness.Comparison)]
GROWTHS = [part for part in PARTS if isinstance(part, _harness.Growth)]
RESULTS = json.loads((FOLDER / "results" / "cpu.json").read_text(encoding="utf-8"))
RECORDS = {record["name"]: record for record in RESULTS["parts"]}


def names(parts):
    return [part.name for part in parts]


def check_agreement(comparison, record):
    """Every peer of the record, and its disagreement within the bound that the script states."""
    bounds = {peer.name: peer.bound for peer in comparison.peers}
    for peer in record["peers"]:
        if bounds[peer["name"]] is None:
            assert peer["disagreement"] is None
        else:
            assert abs(peer["disagreement"]) <= bounds[peer["name"]], (record["name"], peer["name"])


# --- the committed record -------------------------------------------------------------------------


def test_the_record_holds_every_part_once():
    assert [record["name"] for record in RESULTS["parts"]] == names(PARTS)
    assert len(set(names(PARTS))) == len(PARTS)


@pytest.mark.parametrize("comparison", COMPARISONS, ids=names(COMPARISONS))
def test_a_comparison_was_recorded_with_all_its_peers_and_they_agree(comparison):
    record = RECORDS[comparison.name]
    assert [peer["name"] for peer in record["peers"]] == names(comparison.peers)
    assert record["left_out"] == {}
    check_agreement(comparison, record)
    assert record["rounds"] == comparison.rounds >= 5
    assert record["ours_ms"] > 0
    for peer, planned in zip(record["peers"], comparison.peers, strict=True):
        low, high = peer["quartiles"]
        assert 0 < low <= peer["ratio"] <= high < math.inf
        # The median of ratios and the ratio of medians are two things, but not far apart.
        assert 0.5 < peer["ratio"] / (peer["ms"] / record["ours_ms"]) < 2
        assert (peer["target"], peer["unit"]) == (planned.target, planned.unit)


def test_it_was_recorded_with_the_pinned_versions():
    pinned = pins("requirements.txt") | pins("tests/benchmarks/requirements.txt")
    pinned |= pins("tests/benchmarks/requirements-no-deps.txt")
    recorded = RESULTS["made"]["versions"]
    assert set(run.libraries()) <= recorded.keys()
    assert recorded == {name: str(pinned[name]) for name in recorded}


def test_the_peers_are_pinned_as_in_the_other_tests():
    here, tests = pins("tests/benchmarks/requirements.txt"), pins("tests/requirements.txt")
    assert {n: here[n] for n in here.keys() & tests.keys()} == {
        n: tests[n] for n in here.keys() & tests.keys()
    }


def test_the_record_says_when_and_where():
    made = RESULTS["made"]
    assert date.fromisoformat(made["date"]) >= date(2026, 1, 1)
    assert made["processor"] and made["cores"] >= made["threads"] >= 1
    assert len(made["load"]) == 2 and all(load >= 0 for load in made["load"])


@pytest.mark.parametrize("growth", GROWTHS, ids=names(GROWTHS))
def test_ours_was_followed_to_the_last_size_and_a_peer_as_far_as_it_goes(growth):
    ours, *peers = RECORDS[growth.name]["curves"]
    assert ours["name"] == "ours" and ours["stopped"] is None
    assert len(ours["sizes"]) == len(growth.sizes)
    # 1e3 to 1e7 samples; some 1e4 to 1e7 parameters.
    first, last = {"samples": (1e3, 1e7), "parameters": (1e4, 1e7)}[growth.along]
    assert ours["sizes"][0] <= 1.1 * first and ours["sizes"][-1] >= 0.7 * last
    comparison_peers = [peer for peer in growth.comparison.peers if not peer.unit]
    assert [peer["name"] for peer in peers] == names(comparison_peers)
    for curve in (ours, *peers):
        count = len(curve["sizes"])
        assert curve["sizes"] == ours["sizes"][:count]
        assert (count < len(ours["sizes"])) == (curve["stopped"] is not None)
        assert len(curve["seconds"]) == len(curve["megabytes"]) == count >= 3
        assert min(curve["seconds"]) > 0


def test_the_picture_shows_the_record(tmp_path):
    run.draw(RESULTS, tmp_path / "growth.png")
    drawn, committed = (
        np.asarray(Image.open(folder / "growth.png").convert("L"), dtype=int)
        for folder in (tmp_path, FOLDER / "results")
    )
    assert drawn.shape == committed.shape
    # Another processor may round the edge of a line differently; a curve elsewhere is thousands
    # of pixels.
    assert (abs(drawn - committed) > 40).sum() < 300


def test_the_figure_draws_every_curve_and_names_it():
    grown = [RECORDS[name] for name in names(GROWTHS)]
    panels = _growth_figure.growth_figure(grown).axes
    drawn = {tuple(line.get_ydata()) for ax in panels for line in ax.lines}
    assert {tuple(curve["seconds"]) for record in grown for curve in record["curves"]} <= drawn
    labels = [text.get_text() for ax in panels for text in ax.texts]
    assert len(labels) == 2 + sum(len(record["curves"]) for record in grown)


def test_the_page_shows_the_record():
    page = (ROOT / ".github/benchmarks.md").read_text(encoding="utf-8")
    assert page == _report.benchmarks_page(RESULTS)


# --- they run -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """What the one command records and prints when it only tries that everything runs."""
    path = tmp_path_factory.mktemp("trial") / "cpu.json"
    command = [sys.executable, str(FOLDER / "run.py"), "--quick", "--threads", "1"]
    done = subprocess.run(
        [*command, "--output", str(path)],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text(encoding="utf-8")), done.stdout


@pytest.mark.slow
def test_every_part_runs_at_a_small_size(trial):
    results, printed = trial
    assert [record["name"] for record in results["parts"]] == names(PARTS)
    assert all(f"\n{name}: " in "\n" + printed for name in names(PARTS))


@pytest.mark.slow
def test_a_peer_that_was_not_there_is_named_and_all_others_agree(trial):
    results, printed = trial
    there = run.installed(run.libraries()).keys()
    records = {record["name"]: record for record in results["parts"]}
    for comparison in COMPARISONS:
        record = records[comparison.name]
        expected = [p.name for p in comparison.peers if p.library is None or p.library in there]
        assert [peer["name"] for peer in record["peers"]] == expected
        assert record["left_out"].keys() == set(names(comparison.peers)) - set(expected)
        check_agreement(comparison, record)
        assert all(f"left out: {name} (" in printed for name in record["left_out"])


BLOCKED = {
    "ece": ("torchmetrics", "netcal"),
    "kce": ("probcal",),
    "gauss_newton_product": ("curvlinops", "hessian_eigenthings"),
    "lambda_max": ("scipy", "hessian_eigenthings"),
    "hessian_top": ("pyhessian",),
    "float32_products": ("curvlinops",),
    "growth_product": ("curvlinops",),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BLOCKED)
def test_without_a_library_its_peer_is_left_out_and_the_rest_is_measured(
    name, monkeypatch, tmp_path, capsys
):
    for library in BLOCKED[name]:
        for module in [m for m in sys.modules if m.partition(".")[0] == library]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, library, None)  # importing it raises ImportError
    path = tmp_path / "part.json"
    run.main(["--quick", "--threads", "1", "--only", name, "--output", str(path)])
    (record,) = json.loads(path.read_text(encoding="utf-8"))["parts"]
    printed = capsys.readouterr().out
    if record["kind"] == "table":
        assert "left out" in printed and record["rows"][0]["median: ours"] < 1e-5
        return
    assert len(record["left_out"]) >= len(BLOCKED[name])
    for left_out, why in record["left_out"].items():
        assert f"left out: {left_out} ({why})" in printed
    measured = record["curves"] if record["kind"] == "growth" else record["peers"]
    assert not {one["name"] for one in measured} & record["left_out"].keys()


def test_an_import_error_of_our_own_is_no_missing_peer():
    def broken():
        raise ImportError("ours")

    with pytest.raises(ImportError, match="ours"):
        _harness.warm_up({"ours": broken}, may_be_missing=["peer"])


def test_a_part_or_a_trial_leaves_the_record_alone(capsys):
    files = {path: path.read_bytes() for path in (FOLDER / "results").iterdir()}
    run.main(["--quick", "--threads", "1", "--only", "temperature"])
    assert "nothing recorded" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (FOLDER / "results").iterdir()} == files


def test_an_unknown_name_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        run.main(["--only", "ece", "kze"])
    message = capsys.readouterr().err
    assert "got kze" in message and "ece_small" in message


@pytest.mark.slow
def test_each_script_runs_in_a_process_of_its_own():
    options = run.argparse.Namespace(device="cpu", threads=1)
    (part,) = [p for p in run.catalogue()["bench_metrics"] if p.name == "temperature"]
    (record,) = run.run_script("bench_metrics", [part], options)
    check_agreement(part, record)


@pytest.mark.cuda("real")
def test_every_part_runs_on_the_gpu(tmp_path):
    path = tmp_path / "cuda.json"
    run.main(["--quick", "--device", "cuda", "--output", str(path)])
    results = json.loads(path.read_text(encoding="utf-8"))
    records = {record["name"]: record for record in results["parts"]}
    assert results["made"]["gpu"]
    for comparison in COMPARISONS:
        check_agreement(comparison, records[comparison.name])


# --- pure functions -------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [_harness, _report, _growth_figure])
def test_the_examples_hold(module):
    assert doctest.testmod(module).failed == 0


def test_quartiles_lie_between_the_values():
    assert _harness.quartiles([3.0, 1.0]) == (1.5, 2.0, 2.5)
    assert _harness.quartiles([1.0, 2.0, 3.0, 4.0, 100.0]) == (2.0, 3.0, 4.0)


def test_who_goes_first_rotates():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    ticks = itertools.count()
    times = _harness.alternate(calls, 3, clock=lambda: next(ticks))
    assert "".join(order) == "abcbcacab"
    assert times == {name: [1, 1, 1] for name in "abc"}


@pytest.mark.parametrize(
    "seconds, megabytes, stopped",
    [
        ([0.01, 0.1], [1, 10], None),
        ([0.03, 3.0], [1, 10], "about 300 s at 1,000"),
        ([0.0001, 0.3], [1, 10], "about 30 s at 1,000"),  # at most with the square
        ([0.01, 0.1], [1, 100], "about 10 GB at 1,000"),
        ([0.01, 0.1], [None, None], None),
        ([1.0, 2.1], [0, 0], "about 21 s at 1,000"),  # at least in proportion
    ],
)
def test_a_peer_stops_before_a_call_that_takes_too_long_or_too_much(seconds, megabytes, stopped):
    curve = _harness.Curve()
    curve.sizes, curve.seconds, curve.megabytes = [10, 100], seconds, megabytes
    assert curve.can_reach(1000) == (stopped is None)
    assert curve.stopped == stopped
    assert curve.can_reach(1000) == (stopped is None)  # it does not start again


def ratios_of(theirs, **options):
    """The record of a comparison timed by a clock that adds up the calls' own seconds."""
    now = [0.0]

    def taking(seconds):
        def call(subject):
            now[0] += seconds
            return seconds

        return call

    comparison = _harness.Comparison(
        name="ticks",
        what="ticking",
        subject=lambda setting: None,
        size=lambda subject: "2 ticks",
        ours=taking(2.0),
        peers=(_harness.Peer("theirs", taking(theirs), bound=10.0, **options),),
        apart=lambda a, b: b - a,
        measure="ticks",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_harness, "clock_for", lambda setting: lambda: now[0])
        return comparison.record(_harness.Setting())


def test_a_ratio_is_the_peers_time_over_ours():
    record = ratios_of(5.0)
    assert record["ours_ms"] == 2000
    (peer,) = record["peers"]
    assert (peer["ms"], peer["ratio"], peer["quartiles"]) == (5000, 2.5, [2.5, 2.5])
    assert peer["disagreement"] == 3.0


@pytest.mark.parametrize(
    "theirs, options, text",
    [
        (5.0, {}, "2.50 [2.50, 2.50]"),
        (5.0, {"target": 2.5}, "2.50 [2.50, 2.50]"),
        (5.0, {"target": 3.0}, "2.50 [2.50, 2.50], short of the target 3"),
        (1.0, {}, "0.50 [0.50, 0.50], slower"),
        (1.0, {"unit": True}, "costs 2.00 [2.00, 2.00]"),
        (1.0, {"unit": True, "target": 0.5}, "costs 2.00 [2.00, 2.00]"),
        (1.0, {"unit": True, "target": 1.0}, "costs 2.00 [2.00, 2.00], more than the target 1"),
    ],
)
def test_a_ratio_in_words(theirs, options, text):
    (peer,) = ratios_of(theirs, **options)["peers"]
    assert _report.ratio_text(peer) == text


def test_the_table_shows_what_is_slower():
    made = RESULTS["made"] | {"load": [0.25, 1.0], "versions": {"torch": "2"}}
    text = _report.benchmarks_page({"made": made, "parts": [ratios_of(1.0)]})
    row = "| `ticks` | ticking | 2 ticks | theirs | 0.50 [0.50, 0.50], slower | -1e+00 |"
    assert row in text
    assert "Of 1 ratios to a peer, 1 are below 1." in text
    assert "load 0.2 before" in text and "Versions: torch 2." in text


def test_the_page_is_written_whole(tmp_path):
    path = tmp_path / "benchmarks.md"
    path.write_text("old", encoding="utf-8")
    run.write_page(RESULTS, path)
    assert path.read_text(encoding="utf-8") == _report.benchmarks_page(RESULTS)
