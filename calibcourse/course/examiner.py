"""What runs in a process of its own, one for each answer: the check, confined.

The parent (`grade.py`) reads one JSON message and believes nothing in it but text. Importing this
module loads all that an examination needs, so that a fork server pays for it once.
"""

import json
import linecache
import os
import sys
from multiprocessing.connection import Connection
from typing import Any

import torch

from ..exercises import Exercise, all_exercises
from . import answers
from .confine import confine

_FILE = "<your answer>"
_RELIED_ON = {"builtins", "math", "numpy", "torch", "torch.nn.functional", "torch.linalg", "json"}
EXERCISES: dict[str, Exercise] = {exercise.key: exercise for exercise in all_exercises()}


def survey(connection: Connection, content: bytes) -> None:
    """Send what a notebook answers, by exercise, or why nothing is taken of it."""
    _leave()
    try:
        taken = answers.take(content, EXERCISES.values())
        found = {
            key: {"code": one.code, "refused": one.refused, "missing": one.missing}
            for key, one in taken.items()
        }
        _send(connection, {"answers": found})
    except answers.Refused as reason:
        _send(connection, {"refused": str(reason)})


def examine(connection: Connection, key: str, code: str) -> None:
    """Run the check of one exercise on an answer and send the outcome and the card."""
    _leave()
    exercise = EXERCISES[key]
    before = _package()
    linecache.cache[_FILE] = (len(code), None, code.splitlines(keepends=True), _FILE)
    namespace: dict[str, Any] = {"__name__": "answer"}
    try:
        exec(compile(code, _FILE, "exec"), namespace)
        answer = namespace[exercise.reference.__name__]
    except BaseException as error:  # defaults and decorators run here
        _send(connection, {"refused": f"it cannot be defined: {type(error).__name__}: {error}"})
        return
    feedback = exercise.evaluate(answer)
    after = _package()  # names that a first use adds are no change
    if any(after.get(name) != value for name, value in before.items()):
        _send(connection, {"refused": "it changes the package or a library while it runs"})
        return
    card = feedback.card
    message = {"icon": card.icon, "word": card.word, "title": card.title, "tone": card.tone}
    message |= {"rows": card.rows, "code": card.code}
    mistake = exercise.mistake(feedback)
    _send(connection, {"outcome": feedback.outcome.value, "mistake": mistake, "card": message})


def layers(connection: Connection) -> None:
    """Send the layers that confine a process here."""
    _send(connection, {"layers": confine()})


def prepare() -> None:
    """Do now what cannot be done confined, or what every examination would do again."""
    # A fork would inherit a pool of threads that does not run; and two answers share two cores.
    torch.set_num_threads(1)
    # The first use of a transform imports files, and looks for a folder to write to.
    torch.func.jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))
    torch.func.vmap(torch.func.jacrev(torch.sin))(torch.zeros(1, 1))


def _leave() -> None:
    """Print to nowhere, know nothing of the parent's environment, and confine this process."""
    prepare()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)
    if hasattr(os, "setsid"):
        os.setsid()
    os.environ.clear()
    confine()


def _send(connection: Connection, message: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(message).encode())
    connection.close()


def _package() -> dict[tuple[str, str], int]:
    """What stands behind each name of the package and of the libraries that a check relies on."""
    places: list[tuple[str, Any]] = []
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if top == "calibcourse" or name in _RELIED_ON:
            places.append((name, module))
            if top == "calibcourse":
                inside = vars(module).items()
                places += [(f"{name}.{key}", v) for key, v in inside if isinstance(v, type)]
    places += [("Tensor", torch.Tensor), ("Module", torch.nn.Module)]
    places += [(key, exercise) for key, exercise in EXERCISES.items()]
    return {
        (place, key): id(value)
        for place, holder in places
        for key, value in list(vars(holder).items())
    }


if any("multiprocessing.forkserver" in word for word in sys.orig_argv):
    prepare()  # this is the server, from which the examinations fork: once for all of them
