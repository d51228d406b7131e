"""The import remedy: it acts on one failure only, and never where torchvision works by itself.

Stand-ins for torchvision take its place on the import path; what they do is recorded in a list.
Defining operators for real in this process could abort it, so here the definition is recorded too.
One test meets the installed torchvision, in a process of its own.
"""

import subprocess
import sys

import pytest

from calibcourse.data import _torchvision

EXTENSION = "def _has_ops():\n    return {has_ops}\n"
FAILING_ONCE = """\
import builtins
from . import extension, helper
builtins.imports_of_stand_in.append("torchvision")
if "schemas" not in builtins.imports_of_stand_in:
    raise {error!r}
"""
SYMPTOM = RuntimeError("operator torchvision::nms does not exist")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a stand-in for torchvision on the import path; returns the record of what happened."""
    import builtins

    events = []
    monkeypatch.setattr(builtins, "imports_of_stand_in", events, raising=False)
    monkeypatch.setattr(_torchvision, "operator_schemas", lambda: events.append("schemas"))
    monkeypatch.syspath_prepend(tmp_path)
    loaded = {name: sys.modules[name] for name in sys.modules if _belongs(name)}
    for name in loaded:
        del sys.modules[name]

    def write(init, has_ops=False):
        package = tmp_path / "torchvision"
        package.mkdir()
        (package / "__init__.py").write_text(init)
        (package / "extension.py").write_text(EXTENSION.format(has_ops=has_ops))
        (package / "helper.py").write_text(
            'import builtins\nbuiltins.imports_of_stand_in.append("helper")\n'
        )
        return events

    yield write
    for name in [name for name in sys.modules if _belongs(name)]:
        del sys.modules[name]
    sys.modules.update(loaded)


def _belongs(name):
    return name.split(".")[0] == "torchvision"


def test_a_healthy_torchvision_is_left_alone(stand_in):
    events = stand_in("healthy = True\n", has_ops=True)
    assert _torchvision.import_torchvision().healthy
    assert events == []


def test_absent_operators_are_declared_and_every_module_is_imported_again(stand_in):
    events = stand_in(FAILING_ONCE.format(error=SYMPTOM))
    module = _torchvision.import_torchvision()
    # The helper had been imported halfway through the first attempt; it must not survive.
    assert events == ["helper", "torchvision", "schemas", "helper", "torchvision"]
    assert sys.modules["torchvision"] is module
    assert _torchvision.import_torchvision() is module
    assert len(events) == 5


@pytest.mark.parametrize(
    ("error", "has_ops"),
    [
        (SYMPTOM, True),  # the operators are there: something else is wrong
        (RuntimeError("operator torchvision::roi_align does not exist"), False),
        (ImportError("operator torchvision::nms does not exist"), False),
        (ImportError("libcudart.so.13: cannot open shared object file"), False),
    ],
)
def test_any_other_failure_passes_through_unchanged(error, has_ops, stand_in):
    events = stand_in(FAILING_ONCE.format(error=error), has_ops=has_ops)
    with pytest.raises(type(error)) as caught:
        _torchvision.import_torchvision()
    assert caught.value.args == error.args
    assert "schemas" not in events


def test_the_symptom_without_an_extension_module_passes_through(stand_in):
    events = stand_in(f"raise {SYMPTOM!r}\n")
    with pytest.raises(RuntimeError, match="nms does not exist"):
        _torchvision.import_torchvision()
    assert events == []


def test_a_second_failure_is_not_hidden(stand_in):
    events = stand_in(f"from . import extension\nraise {SYMPTOM!r}\n")
    with pytest.raises(RuntimeError, match="nms does not exist"):
        _torchvision.import_torchvision()
    assert events == ["schemas"]


REAL_IMPORT = """
import sys
import calibcourse, calibcourse.data
assert not any(name.split(".")[0] == "torchvision" for name in sys.modules), "imported too early"
try:
    import torchvision
    fails = False
except RuntimeError as error:
    assert str(error) == "operator torchvision::nms does not exist", error
    fails = True
from calibcourse.data import _torchvision
torchvision = _torchvision.import_torchvision()
assert _torchvision.import_torchvision() is torchvision
assert _torchvision.operator_schemas.cache_info().currsize == fails
assert torchvision.extension._has_ops() == (not fails)
assert torchvision.datasets.CIFAR10.tgz_md5
import torch
boxes, scores = torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1)
try:
    kept = torchvision.ops.nms(boxes, scores, 0.5)
    assert not fails and kept.tolist() == [0]
except (RuntimeError, NotImplementedError):
    assert fails
print("remedied" if fails else "healthy")
"""


def test_the_installed_torchvision_imports():
    """Beside a CPU-only torch this is the remedy at work; with a matching build nothing happens.

    In both cases `import calibcourse` must not import torchvision, which takes seconds.
    """
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", REAL_IMPORT], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() in ("remedied", "healthy")
