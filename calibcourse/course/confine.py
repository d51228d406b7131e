"""A process that gives up what an answer does not need, before it runs one.

Four layers, of which Linux has all: Python's audit hook (every system), resource limits (POSIX),
Landlock for files and seccomp for processes and the network (Linux, both without privileges). None
of them can be taken back by the process.
"""

import ctypes
import os
import platform
import struct
import sys
from pathlib import Path
from typing import Any

CPU_SECONDS = 30  # of one exercise
MEMORY = 3 * 2**30  # bytes beyond what the process has at the start
_FORBIDDEN = (
    "subprocess.",
    "socket.",
    "ctypes.",
    "shutil.",
    "tempfile.",
    "webbrowser.",
    "winreg.",
    "pty.",
    "ftplib.",
    "http.",
    "urllib.",
    "smtplib.",
    "pickle.",
    "mmap.",
    "sqlite3.",
    "syslog.",
    "signal.",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "os.utime",
    "os.putenv",
    "os.fork",
    "os.exec",
    "os.spawn",
    "os.posix_spawn",
    "os.system",
    "os.startfile",
    "os.kill",
    "os.chdir",
    "gc.get_",
)


def confine() -> list[str]:
    """Confine this process for good.

    Returns:
        The layers that hold here: "limits", "files", "processes and network", "Python".
    """
    package = Path(__file__).resolve().parents[1]
    places = (sys.prefix, sys.base_prefix, package, "/lib", "/lib64", "/dev/null", "/dev/urandom")
    readable = [Path(place).resolve() for place in places if os.path.exists(place)]
    layers = []
    if _limit():
        layers.append("limits")
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS: both layers below ask for it
        if _landlock(libc, readable):
            layers.append("files")
        if _seccomp(libc):
            layers.append("processes and network")
    sys.addaudithook(_audit(tuple(map(str, readable)), tuple(f"{p}{os.sep}" for p in readable)))
    return [*layers, "Python"]


def _limit() -> bool:
    try:
        import resource
    except ImportError:  # Windows
        return False
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + MEMORY
    except OSError:
        limits[resource.RLIMIT_DATA] = MEMORY
    for limit, value in limits.items():
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # The signal for too much computing time comes at the soft limit; at the hard one, a kill.
        later = value + 5 if limit == resource.RLIMIT_CPU else value
        resource.setrlimit(limit, (value, later if hard == resource.RLIM_INFINITY else hard))
    return True


def _audit(places: tuple[str, ...], folders: tuple[str, ...]) -> Any:
    """A hook that refuses what leaves the process, as far as Python sees it."""
    forbidden, startswith, fspath = _FORBIDDEN, str.startswith, os.fspath

    def is_open(path: Any) -> bool:
        whole = os.path.realpath(os.fsdecode(fspath(path)))
        return whole in places or startswith(whole, folders)

    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or (isinstance(flags, int) and flags & writing):
                raise PermissionError("an answer may not write files")
            if not is_open(path):
                raise PermissionError("an answer may not read files")
        elif event in ("os.listdir", "os.scandir"):
            if not is_open(arguments[0] or "."):
                raise PermissionError("an answer may not look at folders")
        elif startswith(event, forbidden):
            raise PermissionError(f"an answer may not use {event}")

    return hook


# --- Linux: Landlock (kernel 5.13) -------------------------------------------------------------

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}  # by version of the interface


def _landlock(libc: ctypes.CDLL, readable: list[Path]) -> bool:
    """No file can be opened or changed, but those below some folders read."""
    version = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    rights = _RIGHTS[min(version, 3)]
    attributes = struct.pack("Q", rights)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    for path in readable:
        granted = _READ_FILE | (_READ_DIR | _EXECUTE if path.is_dir() else 0)
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", granted & rights, folder)
        libc.syscall(_ADD_RULE, ruleset, 1, rule, 0)
        os.close(folder)
    done = libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return done


# --- Linux: seccomp ----------------------------------------------------------------------------

_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# By number: sockets; fork and exec; signals to others; tracing; modes and owners of files, and
# truncation, which Landlock leaves to others; unshare and mount; io_uring, which no filter sees.
_DENIED = {
    "x86_64": "41 53 57 58 59 322 62 129 200 234 297 424 101 310 311 76 90 91 92 93 94 260 268 280 "
    "165 272 425",
    "aarch64": "198 199 221 281 129 130 131 138 240 424 117 270 271 45 52 53 54 55 88 40 97 425",
}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3, _CLONE_THREAD = 435, 0x10000
_EPERM, _ENOSYS = 1, 38
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _JUMP_EQUAL, _JUMP_FROM, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_X32 = 0x40000000  # a second set of numbers for the same calls, on x86_64


def _seccomp(libc: ctypes.CDLL) -> bool:
    """No new process (threads are free), no program, no socket, no signal to another process."""
    machine = platform.machine()
    if machine not in _ARCHITECTURE:
        return False
    program = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_JUMP_EQUAL, 1, 0, _ARCHITECTURE[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # the number of the call
        (_JUMP_FROM, 0, 1, _X32),
        (_RETURN, 0, 0, _ERRNO | _ENOSYS),
    ]
    for number in map(int, _DENIED[machine].split()):
        program += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    # clone3 hides its flags from the filter; without it the C library falls back to clone.
    program += [(_JUMP_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    program += [
        (_JUMP_EQUAL, 0, 3, _CLONE[machine]),
        (_LOAD, 0, 0, 16),  # its first argument: the flags
        (_JUMP_SET, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, _ERRNO | _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    packed = b"".join(struct.pack("=HBBI", *line) for line in program)
    memory = ctypes.create_string_buffer(packed, len(packed))
    filter_program = struct.pack("@HP", len(program), ctypes.addressof(memory))
    return libc.prctl(22, 2, filter_program, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
