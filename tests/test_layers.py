"""Imports point downwards: each module uses lower floors only. And an import changes nothing."""

import ast
import subprocess
import sys
from pathlib import Path

from floors import (
    PAGE,
    ROOT,
    TOP,
    imports,
    page_with,
    picture,
    read_floors,
    targets,
    without_detours,
)


def upward_imports(package: Path, floors: dict[str, int]) -> list[str]:
    """Every import in a package that does not go to a lower floor, as file, line and both modules.

    Args:
        package: the package's folder.
        floors: of its modules and subpackages; within a subpackage imports are free.
    """
    wrong = []
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        module = inside.parts[0].removesuffix(".py")
        if module in TOP and len(inside.parts) == 1:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for target in targets(node, package.name, inside):
                lower = floors.get(target, -1 if target == "__version__" else 99)
                if target != module and lower >= floors.get(module, -1):
                    wrong.append(f"{inside}:{node.lineno}: {module} imports {target}")
    return wrong


def without_floor(package: Path, floors: dict[str, int]) -> set[str]:
    """The modules and subpackages that the table forgets."""
    there = {path.stem for path in package.glob("*.py")} - TOP
    there |= {path.parent.name for path in package.glob("*/__init__.py")}
    return there - set(floors)


def test_every_import_points_downwards():
    assert upward_imports(ROOT / "calibcourse", read_floors()) == []


def test_every_module_has_its_floor():
    assert without_floor(ROOT / "calibcourse", read_floors()) == set()


def test_the_contributors_page_shows_the_floors_as_they_are():
    """After a change of floors or imports: `python tests/floors.py`."""
    text = PAGE.read_text(encoding="utf-8")
    assert page_with(text, picture(read_floors(), imports(ROOT / "calibcourse"))) == text


def test_the_picture_has_every_module_on_its_floor_and_no_detour():
    used = {"low": set(), "mid": {"low"}, "alone": set(), "top": {"mid", "low"}}
    assert without_detours(used) == used | {"top": {"mid"}}
    drawn = picture({"low": 0, "alone": 1, "mid": 1, "top": 2}, used).splitlines()
    places = [line.strip() for line in drawn]
    assert places.index('subgraph floor2["2"]') < places.index("top") < places.index("mid")
    assert places.index("alone") < places.index("mid") < places.index("low")
    assert [line for line in places if "-->" in line] == ["mid --> low", "top --> mid"]


def test_each_way_to_import_upwards_is_found(tmp_path):
    package = tmp_path / "pack"
    (package / "sub").mkdir(parents=True)
    files = {
        "__init__.py": "from .high import x\n",
        "low.py": "from .high import x\nimport pack.high\nfrom pack import high\n"
        "from . import high\nimport pack\nfrom . import x\nfrom .low import y\n"
        "from . import __version__\nimport os\ndef f():\n    from pack.high import z\n",
        "high.py": "from .low import y\nfrom .equal import z\n",
        "equal.py": "",
        "sub/__init__.py": "",
        "sub/one.py": "from .two import a\nfrom ..high import x\nfrom .. import low\n",
        "sub/two.py": "",
    }
    for name, text in files.items():
        (package / name).write_text(text)
    floors = {"low": 0, "sub": 1, "high": 2, "equal": 2}
    found = [line.split(": ")[0] for line in upward_imports(package, floors)]
    low = sorted(f"low.py:{line}" for line in (1, 2, 3, 4, 5, 6, 11))
    assert sorted(found) == ["high.py:2", *low, "sub/one.py:2"]
    assert without_floor(package, floors | {"gone": 1}) == set()
    assert without_floor(package, {"low": 0}) == {"high", "equal", "sub"}


IMPORT_EVERYTHING = """
import importlib, os, pkgutil, random, threading
import matplotlib, numpy, torch
import calibcourse

def state():
    return {
        "torch": (torch.get_rng_state().tolist(), torch.get_default_dtype()),
        "cores": (torch.get_num_threads(), threading.active_count()),
        "numpy": (numpy.random.get_state()[1].tolist(), numpy.geterr()),
        "random": random.getstate(),
        "matplotlib": dict(matplotlib.rcParams),
        "environment": dict(os.environ),
    }

before = state()
for module in pkgutil.walk_packages(calibcourse.__path__, "calibcourse."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
after = state()
print([name for name in before if before[name] != after[name]])
"""


def test_importing_every_module_changes_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert list(tmp_path.iterdir()) == []


def test_importing_the_package_costs_little_more_than_torch(tmp_path):
    """What only some functions need is imported by them: each takes a tenth of a second or more."""
    heavy = {
        "IPython", "PIL", "ipywidgets", "matplotlib", "pandas", "scipy", "sympy", "torchvision",
        "torch._dynamo", "torch._inductor",
    }  # fmt: skip
    program = "import sys, torch; before = set(sys.modules); import calibcourse; "
    program += "print(*(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert heavy.isdisjoint(done.stdout.split())
