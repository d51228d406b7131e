"""Grading: what is taken of a notebook, what is refused, and that no answer reaches further."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from calibcourse import cli
from calibcourse.course import answers, examiner, grade
from calibcourse.course.answers import Refused, Taken, take
from calibcourse.course.grade import Submission, grade_file, grade_pages, grades_csv
from calibcourse.exercises import all_exercises
from calibcourse.exercises.lesson_00 import over_confidence

KEY = over_confidence.key
RIGHT = "    return confidence.mean() - correct.float().mean()"
ONLY_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")


def notebook(*sources: str) -> bytes:
    cells = [{"cell_type": "code", "source": source} for source in ("import torch", *sources)]
    return json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5}).encode()


def answer(body: str, before: str = "", signature: str = "confidence, correct") -> bytes:
    """A notebook whose answer to the exercise of lesson 00 has a body."""
    return notebook(before, f"def my_over_confidence({signature}):\n{body}\n")


def taken(content: bytes) -> Taken:
    return take(content, all_exercises())[KEY]


# --- What is taken -------------------------------------------------------------------------------


def test_the_function_its_helpers_constants_and_imports_are_taken_and_nothing_else():
    content = notebook(
        "raise SystemExit('never run')",
        "from math import sqrt as root, pi\nimport os\nN = 3\nOTHER = 4",
        "def unused():\n    return os.remove('x')",
        "def helper(x):\n    return root(x) / N",
        "%matplotlib inline\n!ls\ndef my_over_confidence(a, b):\n    return 'first'",
        "%%bash\nrm -rf ~",
        "this does not parse",
        "def my_over_confidence(a, b):\n    return helper(a)\nex.over_confidence.check(0)",
    )
    code = taken(content).code
    names = {}
    exec(code, names)
    assert names["my_over_confidence"](4, 0) == 2 / 3
    assert "os" not in code and "OTHER" not in code and "first" not in code and "ex." not in code


def test_an_answer_may_be_a_lambda_or_call_itself():
    assert "lambda" in taken(notebook("my_over_confidence = lambda a, b: a")).code
    recursive = "    return my_over_confidence(confidence, correct)"
    assert "my_over_confidence(confidence" in taken(answer(recursive)).code


def test_an_exercise_without_its_function_is_missing_and_one_that_does_not_parse_is_told():
    content = notebook("def my_ece(a, b):\n    return 1", "def my_bins(a:\n    return")
    found = take(content, all_exercises())
    assert found["01/ece"].code and found["01/temperature"].missing
    assert "does not parse" in found["01/bins"].refused


REFUSALS = {
    "    import os; os._exit(0)": "imports `os`",
    "    return __import__('os')": "uses `__import__`",
    "    return open('/etc/passwd').read()": "uses `open`",
    "    return eval('1')": "uses `eval`",
    "    return ().__class__.__base__.__subclasses__()": "Python's internals",
    "    return getattr(torch, 'save')": "uses `getattr`",
    "    return torch._C": "a library's internals",
    "    torch.save(confidence, 'x')": "uses `.save`",
    "    t = torch; return t.hub": "uses `.hub`",
    "    torch.allclose = lambda *a: True; return 0": "changes `torch.allclose`",
    "    del torch.mean": "changes `torch.mean`",
    "    from torch.utils import cpp_extension": "imports `torch.utils.cpp_extension`",
    "    from torch import *": "imports everything",
    "    from numpy import fromfile": "imports `numpy.fromfile`",
    "    return ex.over_confidence.reference(confidence, correct)": "solution are closed",
    "    from calibcourse.exercises import lesson_00": "solution are closed",
    "    import calibcourse.exercises.lesson_00 as l": "solution are closed",
    "    return cc.expected_calibration_error(confidence, correct)": "the package's own",
    "    return cc.exercises.lesson_00.my_over_confidence(0, 1)": "the package's own",
    "    from calibcourse.metrics import confidence as c": "the package's own",
    "    return table.mean()": "computes outside of the function",
    "    return __builtins__": "Python's internals",
}
LESSON = (
    "import calibcourse as cc\nfrom calibcourse.exercises import lesson_00 as ex\n"
    "table = torch.ones(3)"
)


@pytest.mark.parametrize(("body", "reason"), REFUSALS.items(), ids=REFUSALS)
def test_what_an_answer_may_not_do_is_refused_with_the_reason(body, reason):
    found = taken(answer(body, before=LESSON))
    assert reason in found.refused and found.code == ""


def test_what_runs_when_a_function_is_defined_is_read_too():
    for signature, before in (("a=open('x')", ""), ("a", "@eval\ndef f():\n    pass")):
        body = "    return f()" if before else "    return a"
        assert "no exercise needs" in taken(answer(body, before, signature)).refused


def test_of_the_package_an_answer_may_use_what_the_exercise_itself_uses():
    body = "def my_robust_term(model, inputs, target, epsilon, step_size, steps):\n    return cc.%s"
    for name, refused in (("true_margin", False), ("CalMO", True)):
        content = notebook("import calibcourse as cc", body % name)
        assert bool(take(content, all_exercises())["07/robust_term"].refused) == refused


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"[]",
        b'{"cells": 3}',
        b'{"cells": [{"cell_type": "code"}]}',
        b'{"cells": [{"cell_type": "code", "source": {"a": 1}}]}',
        b'{"cells": [{"cell_type": "code", "source": ["a", 1]}]}',
        b"[" * 100_000,
        notebook("x = 1"),
        notebook("x = " + "(" * 5_000),
        notebook("x = 1\n" * 50_000),
        b" " * (answers.MAX_BYTES + 1),
    ],
    ids=lambda content: repr(content[:20]),
)
def test_what_is_no_notebook_of_a_lesson_is_refused_as_a_whole(content):
    with pytest.raises(Refused):
        take(content, all_exercises())


# --- What runs -----------------------------------------------------------------------------------


def graded(folder: Path, content: bytes, name: str = "ada.ipynb") -> Submission:
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_bytes(content)
    return grade_file(folder, folder / name)


def outcome(folder: Path, body: str, before: str = "") -> tuple[str, str]:
    (result,) = graded(folder, answer(body, before)).results
    assert result.exercise == KEY
    return result.outcome, result.reason


@pytest.mark.slow
def test_right_wrong_and_untouched_answers_get_their_cards(tmp_path):
    sign = "    return correct.float().mean() - confidence.mean()"
    (right,) = graded(tmp_path, answer(RIGHT)).results
    (wrong,) = graded(tmp_path, answer(sign)).results
    (blank,) = graded(tmp_path, answer("    ...  # your code here")).results
    found = [(r.outcome, r.mistake) for r in (right, wrong, blank)]
    assert found[:2] == [("correct", ""), ("incorrect", "sign reversed")]
    assert blank.outcome == "not attempted"
    assert right.card["tone"] == "good" and wrong.card["rows"]


@pytest.fixture
def unread(monkeypatch):
    """The rules of the syntax switched off: what holds when an answer gets past them."""
    monkeypatch.setattr(answers, "_check", lambda *arguments: None)
    # Without a fork server the child would import its own, unchanged rules.
    content = json.dumps

    def ask(target, *arguments):
        if target is examiner.survey:
            found = take(arguments[0], all_exercises())
            return {"answers": {k: vars(v) for k, v in found.items()}}
        return original(target, *arguments)

    original = grade._ask
    monkeypatch.setattr(grade, "_ask", ask)
    return content


def test_memory_has_a_limit(tmp_path):
    body = "    return torch.ones(10 * 2**30, dtype=torch.uint8).sum()"
    assert outcome(tmp_path, body)[0] == "your code raised"


@pytest.mark.slow  # as long as the limit allows
@pytest.mark.skipif(os.name != "posix", reason="Windows has no limits on computing time")
def test_an_endless_loop_ends(tmp_path, monkeypatch):
    """By the check's own deadline, or else by a limit: of computing time, of waiting."""
    monkeypatch.setattr(grade, "WALL_SECONDS", 60)
    stubborn = "        try:\n            while True: pass\n        except BaseException: pass"
    body = f"    while True:\n{stubborn}"
    found, reason = outcome(tmp_path, body)
    assert found in ("stopped", "your code raised") and (found != "stopped" or reason)
    assert not list((tmp_path / grade.KEPT).glob("*")) or found != "stopped"


def test_the_end_of_the_process_is_no_result(tmp_path, unread):
    found, reason = outcome(tmp_path, "    import os; os._exit(0)")
    assert (found, reason) == ("stopped", "it ended its process (exit status 0)")


ATTACKS = {
    "reading another's file": "    return open({other!r}).read()",
    "listing the others": "    import os; return os.listdir({folder!r})",
    "deleting a file": "    import os; os.remove({other!r})",
    "overwriting a file": "    open({other!r}, 'w')",
    "truncating by another library": "    torch.save(1, {other!r})",
    "memory mapping": "    import numpy; numpy.memmap({other!r}, mode='r+')",
    "a child": "    import os; os.fork()",
    "a program": "    import subprocess; subprocess.run(['touch', {new!r}])",
    "the network": "    import socket; socket.create_connection(('127.0.0.1', 9))",
    "a signal to the parent": "    import os; os.kill(os.getppid(), 9)",
    "the C library": "    import ctypes; ctypes.CDLL(None).unlink({other!r}.encode())",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_gets_past_the_rules_meets_a_confined_process(tmp_path, unread, name):
    other = tmp_path / "eve.txt"
    other.write_text("Eve's answer")
    places = {"other": str(other), "folder": str(tmp_path), "new": str(tmp_path / "new")}
    found, _ = outcome(tmp_path, ATTACKS[name].format(**places))
    assert found in ("your code raised", "incorrect", "stopped")
    assert other.read_text() == "Eve's answer" and not (tmp_path / "new").exists()


# From below Python, where no audit hook sees it; the functions are looked up before.
BARE = """
import ctypes, os, sys
from calibcourse.course.confine import confine
libc, other = ctypes.CDLL(None, use_errno=True), sys.argv[1].encode()
calls = {
    "read": (libc.open, other, 0),
    "write": (libc.open, other, 2),
    "delete": (libc.unlink, other),
    "rename": (libc.rename, other, other + b"2"),
    "truncate": (libc.truncate, other, 0),
    "mode": (libc.chmod, other, 0),
    "child": (libc.fork,),
    "program": (libc.execl, b"/bin/true", b"true", None),
    "socket": (libc.socket, 2, 1, 0),
    "signal": (libc.kill, os.getppid(), 0),
}
confine()
for name, (function, *arguments) in calls.items():
    print(name, function(*arguments), flush=True)
"""


@ONLY_LINUX
def test_the_kernel_itself_refuses(tmp_path):
    other = tmp_path / "eve.txt"
    other.write_text("Eve's answer")
    command = [sys.executable, "-c", BARE, str(other)]
    done = subprocess.run(command, capture_output=True, text=True)
    results = dict(line.split() for line in done.stdout.splitlines())
    assert len(results) == 10 and set(results.values()) == {"-1"}, done
    assert other.read_text() == "Eve's answer"


@ONLY_LINUX
def test_here_every_layer_holds():
    assert len(grade._ask(examiner.layers)["layers"]) == 4


def test_changing_the_package_is_seen(tmp_path, unread):
    for body in (
        "    t = torch; t.Tensor.mean = lambda *a: 0; return 0",
        "    import builtins as b; b.all = lambda *a: True; return 0",
        "    from calibcourse.exercises import framework as f; f.examine = f.claim; return 0",
        "    import calibcourse.exercises.lesson_00 as l\n"
        "    object.__setattr__(l.over_confidence, 'cases', ()); return 0",
    ):
        assert outcome(tmp_path, body)[0] in ("refused", "incorrect", "your code raised")


REFERENCES = """
from calibcourse.course import confine, examiner
examiner.prepare()
confine.CPU_SECONDS = 600  # for all of them
confine.confine()
for key, exercise in examiner.EXERCISES.items():
    print(key, exercise.evaluate(exercise.reference).outcome.value, flush=True)
"""


@pytest.mark.slow
def test_the_limits_leave_room_for_every_reference():
    done = subprocess.run([sys.executable, "-c", REFERENCES], capture_output=True, text=True)
    found = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert found == [[key, "correct"] for key in examiner.EXERCISES], done.stderr


def test_a_forged_message_is_text_and_no_more():
    for message in (
        {"outcome": "perfect", "card": {}},
        {"outcome": "correct"},
        {"outcome": "correct", "card": {"rows": 3, "tone": "evil"}},
        {"outcome": "correct", "card": {"icon": {"a": 1}, "rows": [[1, 2, 3], ["a", "\x1b[2J"]]}},
        {},
    ):
        try:
            found = grade._result(KEY, message)
        except TypeError:
            continue
        page = grade_pages([Submission("s", "f", "d", (found,))])["s.html"]
        assert "\x1b" not in page and "evil" not in page


# --- What is kept and written --------------------------------------------------------------------


def test_a_class_is_graded_into_a_table_and_pages(tmp_path, capsys):
    work = tmp_path / "work"
    graded(work, answer(RIGHT), "ada/00_start_here.ipynb")
    graded(work, answer("    return 0 * confidence.mean()"), "bob.ipynb")
    graded(work, b"<html>", "<img src=x>/=cmd.ipynb")
    (work / ".ipynb_checkpoints").mkdir()
    (work / ".ipynb_checkpoints/ada.ipynb").write_bytes(answer(RIGHT))
    table, pages = tmp_path / "grades.csv", tmp_path / "pages"
    arguments = ["grade", str(work), "--csv", str(table), "--html", str(pages), "--jobs", "2"]
    assert cli.main(arguments) == 0
    rows = {row["student"]: row for row in csv.DictReader(table.open(encoding="utf-8"))}
    assert set(rows) == {"<img src=x>", "ada", "bob"}
    assert rows["ada"]["outcome"] == "correct" and len(rows["ada"]["sha256"]) == 64
    assert rows["bob"]["outcome"] == "incorrect"
    assert "no notebook" in rows["<img src=x>"]["reason"]
    index = (pages / "index.html").read_text(encoding="utf-8")
    assert 'href="ada.html"' in index and "<img" not in index
    assert "correct" in (pages / "ada.html").read_text(encoding="utf-8")
    assert len(list(pages.iterdir())) == 4
    assert "ada/00_start_here.ipynb: 1 of 1 correct" in capsys.readouterr().out


def test_what_was_graded_is_kept_and_a_changed_file_is_graded_again(tmp_path, monkeypatch):
    first = graded(tmp_path, answer(RIGHT))

    def never(*arguments):
        raise AssertionError("graded again")

    with monkeypatch.context() as patch:
        patch.setattr(grade, "_ask", never)
        assert graded(tmp_path, answer(RIGHT)) == first
        with pytest.raises(AssertionError):
            graded(tmp_path, answer(RIGHT + " "))
    for damaged in (b"{", b"[3]", b'[{"exercise": 1}]'):
        for kept in (tmp_path / grade.KEPT).iterdir():
            kept.write_bytes(damaged)
        assert graded(tmp_path, answer(RIGHT)) == first


def test_a_run_that_is_stopped_keeps_what_it_has(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.ipynb").write_bytes(answer(f"    {name} = 1\n{RIGHT}"))
    original, calls = grade._results, []

    def stop_at_the_third(content):
        calls.append(content)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(content)

    monkeypatch.setattr(grade, "_results", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        grade.grade(tmp_path, jobs=1, log=lambda line: None)
    assert grade.grade(tmp_path, jobs=1, log=lambda line: None) == 0
    assert len(calls) == 4  # the third again, and no other


def test_a_folder_without_notebooks_and_one_that_is_missing_are_said(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "missing"):
        assert cli.main(["grade", str(folder)]) == 2
        assert "no notebook (.ipynb) in" in capsys.readouterr().err


def test_a_link_and_a_pipe_among_the_submissions(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes here")
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "gone.ipynb").symlink_to(tmp_path / "nowhere")
    for path in ("pipe.ipynb", "gone.ipynb"):
        (result,) = grade_file(tmp_path, tmp_path / path).results
        assert result.outcome == "refused"


def test_rows_are_no_formulas():
    one = Submission("=1+1", "@x", "d", (grade.Result("", "refused", reason="-1"),))
    (row,) = csv.DictReader(io.StringIO(grades_csv([one])))
    assert (row["student"], row["file"], row["reason"]) == ("'=1+1", "'@x", "'-1")
