"""Valid documents made into broken and hostile ones: one value, key or branch, or any bytes."""

import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable
from typing import Any

import torch

# As they stand in a JSON file; Python cannot write all of them.
HOSTILE = [
    "null", "true", "false", "0", "-1", "1", "2", "-0.0", "0.5", "1e999", "-1e999", "1e308", "NaN",
    "Infinity", "-Infinity", "1" * 19, "1" * 400, "1" + "0" * 4000, "1" + "0" * 5000, "1e-400",
    '""', '"a"', r'"\ud800"', r'"\u0000"', '"../../x"', '"__class__"', '"__proto__"', '"\'; DROP"',
    '"=1+1"', '"2026-01-01"', '"2026-01-01\\ud80010:00:00"', '"9999-12-31T23:59:59Z"', '"NaN"',
    "[]", "{}", "[[]]", "[null]", '{"step": 1}', '{"__proto__": {"x": 1}}', "[" * 500 + "]" * 500,
    "[" * 5000 + "]" * 5000, '{"a":' * 300 + "1" + "}" * 300, '"' + "x" * 3000 + '"',
]  # fmt: skip
KEYS = ["step", "version", "__class__", "__proto__", "__init__", "self", "", "\ud800", "\0", "loss"]
HOLE = "a hole for a hostile value"


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a document: its container and its key or index."""
    found, open_ = [], [value]
    while open_:
        container = open_.pop()
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, child in items:
            found.append((container, key))
            if isinstance(child, dict | list):
                open_.append(child)
    return found


def mutate_json(chance: random.Random, seed: bytes) -> bytes:
    """Change one to three places of a document."""
    document, holes = json.loads(seed), []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        places = nodes(document)
        if not places:
            break
        container, key = chance.choice(places)
        kind = chance.randrange(8)
        if kind < 4:
            container[key] = HOLE
            holes.append(chance.choice(HOSTILE))
        elif kind == 4:
            del container[key]
        elif kind == 5 and isinstance(container, dict):
            container[chance.choice(KEYS)] = container.pop(key)
        elif kind == 6:
            other, at = chance.choice(places)
            if isinstance(other[at], int | float | str | None):
                container[key] = other[at]
        elif isinstance(container[key], int | float) and not isinstance(container[key], bool):
            container[key] += chance.choice((-1, 1, 0.5, 10**6, 10**18, -(10**18)))
    text = json.dumps(document, indent=chance.choice((None, 1)))
    for hole in holes:
        text = text.replace(json.dumps(HOLE), hole, 1)
    if chance.random() < 0.05:  # a key that stands twice
        text = text.replace(
            "{", "{" + f'"{chance.choice(KEYS[:6])}": {chance.choice(HOSTILE)}, ', 1
        )
    return text.encode(errors="surrogatepass")


def mutate_bytes(chance: random.Random, seed: bytes) -> bytes:
    """Change, cut, repeat or insert bytes; now and then nothing of the seed is left."""
    content = bytearray(seed)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(content) + 1)
        kind = chance.randrange(7)
        if kind == 0 and content:
            content[at % len(content)] ^= 1 << chance.randrange(8)
        elif kind == 1 and content:
            content[at % len(content)] = chance.choice(b'\0\xff"{}[]:,0-9eE\\\n')
        elif kind == 2:
            del content[at:]
        elif kind == 3:
            del content[at : at + chance.randrange(1, 9)]
        elif kind == 4:
            content[at:at] = content[at : at + chance.randrange(1, 40)]
        elif kind == 5:
            content[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif chance.random() < 0.1:
            content = bytearray(chance.randbytes(chance.randrange(200)))
    return bytes(content)


def mutate_gzip(chance: random.Random, seed: bytes) -> bytes:
    """Change what is packed, the package, or both."""
    if chance.random() < 0.5:
        seed = gzip.compress(mutate_bytes(chance, gzip.decompress(seed)), chance.randrange(10))
    return seed if chance.random() < 0.3 else mutate_bytes(chance, seed)


def mutate_checkpoint(chance: random.Random, seed: bytes) -> bytes:
    """Change a value of the state, or the pickle inside with its checksum, or any bytes."""
    kind = chance.random()
    if kind < 0.2:
        return mutate_bytes(chance, seed)
    if kind < 0.6:
        return with_pickle(seed, lambda content: mutate_bytes(chance, content))
    state = torch.load(io.BytesIO(seed), weights_only=True)
    container, key = chance.choice(nodes_of_state(state))
    container[key] = chance.choice(STRANGE)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


STRANGE = [
    None, True, -1, 2, 3, 10**30, 1.5, float("nan"), "", "x", "\ud800", [], {}, [[]], (1,), {1: 2},
    torch.zeros(3), torch.zeros(0), torch.zeros(3, 3).fill_(float("inf")), torch.tensor([1, 1]),
    torch.zeros(1).expand(10**12), torch.zeros(3, 3, dtype=torch.complex64),
    torch.eye(3).to_sparse(),
]  # fmt: skip


def nodes_of_state(state: dict) -> list[tuple[Any, Any]]:
    found, open_ = [], [state]
    while open_:
        container = open_.pop()
        for key in list(container) if isinstance(container, dict) else range(len(container)):
            found.append((container, key))
            if isinstance(container[key], dict | list):
                open_.append(container[key])
    return found


def with_pickle(archive: bytes, change: Callable[[bytes], bytes], **options: Any) -> bytes:
    """A torch file whose pickle is changed, all checksums right."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith("data.pkl") else content, **options)
    return buffer.getvalue()
