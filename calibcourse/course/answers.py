"""What a submitted notebook answers: its functions, taken by syntax tree; nothing is executed.

Of each exercise: the function of the exercise's name, the helpers, constants and imports that it
needs, and nothing else of the notebook. What an answer may not do is refused with the reason. The
rules stop what a student would write; what gets past them meets the limits of `confine.py`.
"""

import ast
import inspect
import json
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..exercises import Exercise


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MAX_BYTES = 20_000_000  # of a submission
MAX_SOURCE = 200_000  # characters of code in it
MODULES = _words(
    """
    calibcourse cmath collections copy dataclasses enum functools itertools math numbers
    numpy random scipy statistics torch tqdm typing
    """
)
_CLOSED = re.compile(  # parts of allowed modules that reach files, processes or other programs
    r"torch\.(hub|package|multiprocessing|distributed|utils(?!\.data\b)|_.*|ops|classes|jit"
    r"|serialization|onnx|export|compiler|library|cuda|backends|testing|profiler)\b"
    r"|numpy\.(ctypeslib|distutils|f2py|lib|testing|core)\b|scipy\.(io|datasets|_lib|weave)\b"
)
_CALLS = _words(
    """
    eval exec compile open input __import__ globals locals vars getattr setattr delattr
    breakpoint exit quit help memoryview get_ipython
    """
)
_ATTRIBUTES = _words(
    """
    save load from_file fromfile tofile memmap loadtxt genfromtxt savetxt savez
    savez_compressed hub ctypes ctypeslib f_globals f_locals f_builtins f_back gi_frame
    cr_frame tb_frame load_library load_state_dict_from_url register_module_forward_hook
    set_default_tensor_type utils ops classes jit package multiprocessing distributed
    serialization
    """
)
_DUNDERS = {"__init__", "__name__", "__doc__"}


class Refused(ValueError):
    """An answer that is not run; the message says why, for its author."""


@dataclass(frozen=True)
class Taken:
    """What was taken of a notebook for one exercise: code to run, or why there is none.

    Attributes:
        code: definitions, the exercise's function among them; "" where there is a reason.
        refused: why it is not run, or "".
        missing: whether the function is not in the notebook at all.
    """

    code: str = ""
    refused: str = ""
    missing: bool = False


def take(content: bytes, exercises: Iterable[Exercise]) -> dict[str, Taken]:
    """What a notebook answers, for every exercise of the lesson that it is a copy of.

    Args:
        content: of the file.
        exercises: of the course.

    Returns:
        By the exercise's key, in the order of the course.

    Raises:
        Refused: it is no notebook, is too large, or holds no answer to any lesson.

    Example:
        >>> from calibcourse.exercises import all_exercises
        >>> cell = {"cell_type": "code", "source": "def my_over_confidence(a, b): return 1"}
        >>> taken = take(json.dumps({"cells": [cell]}).encode(), all_exercises())
        >>> print(taken["00/over_confidence"].code)
        def my_over_confidence(a, b):
            return 1
    """
    trees, broken = _parsed(_code_cells(content))
    definitions = _definitions(trees)
    by_function = {exercise.reference.__name__: exercise for exercise in exercises}
    lessons = Counter(by_function[name].lesson for name in definitions if name in by_function)
    if not lessons:
        reason = f"; a cell does not parse: {broken[0]}" if broken else ""
        raise Refused(f"no function of any exercise is in it{reason}")
    lesson = lessons.most_common(1)[0][0]
    return {
        exercise.key: _taken(exercise, definitions, broken)
        for exercise in by_function.values()
        if exercise.lesson == lesson
    }


def _taken(exercise: Exercise, definitions: dict[str, ast.stmt], broken: list[str]) -> Taken:
    name = exercise.reference.__name__
    if name not in definitions:
        where = next((line for line in broken if name in line), "")
        return Taken(refused=f"its cell does not parse: {where}") if where else Taken(missing=True)
    try:
        needed = _needed(name, definitions)
        for statement in needed:
            _check(statement, _allowed(exercise), definitions)
    except Refused as reason:
        return Taken(refused=str(reason))
    except RecursionError:
        return Taken(refused="it is nested too deeply to be read")
    return Taken(code="\n\n".join(map(ast.unparse, needed)))


def _code_cells(content: bytes) -> Iterator[str]:
    if len(content) > MAX_BYTES:
        raise Refused(f"larger than {MAX_BYTES // 10**6} MB: clear its outputs and save it again")
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
        cells = notebook["cells"]
        sources = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
        sources = ["".join(one) if isinstance(one, list) else one for one in sources]
        if not all(isinstance(one, str) for one in sources):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refused("no notebook: not the JSON that Jupyter writes") from None
    if sum(map(len, sources)) > MAX_SOURCE:
        raise Refused(f"more than {MAX_SOURCE:,} characters of code")
    return sources


def _parsed(sources: Iterable[str]) -> tuple[list[ast.Module], list[str]]:
    """The syntax tree of each cell, and what is wrong with those that have none."""
    trees, broken = [], []
    for source in sources:
        lines = source.replace("\0", "").splitlines()
        if lines and lines[0].lstrip().startswith("%%"):
            continue
        kept = [re.sub(r"^(\s*)[%!].*", r"\1pass", line) for line in lines]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trees.append(ast.parse("\n".join(kept)))
        except SyntaxError as error:
            names = " ".join(re.findall(r"def (\w+)", source))
            broken.append(f"{error.msg} in line {error.lineno} ({names[:200]})")
        except (ValueError, RecursionError, MemoryError):
            broken.append("it is nested too deeply to be read")
    return trees, broken


def _definitions(trees: Iterable[ast.Module]) -> dict[str, ast.stmt]:
    """By name: the last definition at the top of a cell, or the statement that binds it."""
    found: dict[str, ast.stmt] = {}
    for tree in trees:
        for statement in tree.body:
            for name in _bound(statement):
                found[name] = statement
    return found


def _bound(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        for alias in statement.names:
            yield alias.asname or alias.name.partition(".")[0]
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def _needed(name: str, definitions: dict[str, ast.stmt]) -> list[ast.stmt]:
    """The statements that define a function and all that it refers to, in the notebook's order."""
    wanted, seen = [name], set()
    while wanted:
        one = wanted.pop()
        if one in seen or one not in definitions:
            continue
        seen.add(one)
        statement = definitions[one]
        constant = isinstance(statement, ast.Assign | ast.AnnAssign) and not _is_value(statement)
        if constant:
            raise Refused(
                f"it uses `{one}`, which the notebook computes outside of the function: an answer "
                "has its arguments, its helpers, constants and imports"
            )
        wanted += [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]
    order = list(definitions)
    statements = [definitions[one] for one in sorted(seen, key=order.index)]
    unique = list({id(statement): statement for statement in statements}.values())
    return sorted(unique, key=lambda s: not isinstance(s, ast.Import | ast.ImportFrom))


def _is_value(statement: ast.Assign | ast.AnnAssign) -> bool:
    if isinstance(statement.value, ast.Lambda):
        return True
    try:
        ast.literal_eval(statement.value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _allowed(exercise: Exercise) -> frozenset[str]:
    """What of the package an answer may use: what the exercise's own module takes from it."""
    module = sys.modules[exercise.reference.__module__]
    tree = ast.parse(inspect.getsource(module))
    return frozenset(
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 2
        for alias in node.names
    )


def _check(statement: ast.stmt, allowed: frozenset[str], definitions: dict[str, ast.stmt]) -> None:
    """Refuse what an answer may not do.

    Raises:
        Refused: with the reason.
    """
    imported = {
        name
        for name, other in definitions.items()
        if isinstance(other, ast.Import | ast.ImportFrom)
    }
    package = {
        name
        for name in imported
        for module in [_module(definitions[name])]
        if module.partition(".")[0] == "calibcourse"
    }
    for node in ast.walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):
            _check_import(node, allowed)
        elif isinstance(node, ast.Name):
            if node.id in _CALLS:
                raise Refused(f"it uses `{node.id}`, which no exercise needs")
            if node.id.startswith("__"):
                raise Refused(f"it reads `{node.id}`: Python's internals are closed to an answer")
        elif isinstance(node, ast.Attribute):
            _check_attribute(node, allowed, imported, package)
        elif isinstance(node, ast.MatchClass):
            raise Refused("it matches classes, which no exercise needs")


def _module(statement: ast.Import | ast.ImportFrom) -> str:
    if isinstance(statement, ast.ImportFrom):
        return statement.module or ""
    return statement.names[0].name


def _check_import(node: ast.Import | ast.ImportFrom, allowed: frozenset[str]) -> None:
    if isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        names = [alias.name for alias in node.names]
    for name in names:
        top, _, rest = name.partition(".")
        if name.startswith("calibcourse.exercises") or name.startswith("calibcourse.course"):
            raise Refused(f"it uses `{name}`: the check and its solution are closed to an answer")
        if getattr(node, "level", 0) or name.endswith("*"):
            raise Refused("it imports everything, or relative to a package: name what it needs")
        if top not in MODULES or _CLOSED.match(name):
            raise Refused(f"it imports `{name}`: an answer has torch, numpy and math")
        last = name.rpartition(".")[2]
        if last.startswith("_") or last in _ATTRIBUTES:
            raise Refused(f"it imports `{name}`, which no exercise needs")
        if top == "calibcourse" and rest and isinstance(node, ast.ImportFrom):
            _check_package_name(last, allowed)


def _check_attribute(
    node: ast.Attribute, allowed: frozenset[str], imported: set[str], package: set[str]
) -> None:
    name = node.attr
    root = node.value
    while isinstance(root, ast.Attribute):
        root = root.value
    base = root.id if isinstance(root, ast.Name) else ""
    if name.startswith("__") and name not in _DUNDERS:
        raise Refused(f"it reads `{name}`: Python's internals are closed to an answer")
    if base in imported and not isinstance(node.ctx, ast.Load):
        raise Refused(f"it changes `{ast.unparse(node)}`, which belongs to a library")
    if base in imported and name.startswith("_"):
        raise Refused(f"it reads `{ast.unparse(node)}`: a library's internals are closed")
    if name in _ATTRIBUTES:
        raise Refused(f"it uses `.{name}`, which no exercise needs")
    if base in package and isinstance(node.value, ast.Name):
        _check_package_name(name, allowed)


def _check_package_name(name: str, allowed: frozenset[str]) -> None:
    if name not in allowed:
        may = ", ".join(f"`{one}`" for one in sorted(allowed)) or "nothing"
        raise Refused(
            f"it calls the package's own `{name}`: the exercise is to write it (of the package it "
            f"may use {may})"
        )
