"""Refuses every connection but loopback, before anything is sent.

`pytest --offline` puts this folder on PYTHONPATH: Python imports `sitecustomize` as it starts.
"""

import functools
import importlib.machinery
import importlib.util
import ipaddress
import socket
import sys
from collections.abc import Callable
from pathlib import Path

_TO_ADDRESS = {"socket.connect", "socket.sendto", "socket.sendmsg"}  # audited as (socket, address)
_OF_HOST = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}


def block() -> None:
    """Watch the sockets of this process from now on; there is no way back."""
    sys.addaudithook(_refuse)
    # A name given to a socket is looked up, over the network, before the audit event.
    for method in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, method, _checked_first(getattr(socket.socket, method)))


def _checked_first(method: Callable) -> Callable:
    @functools.wraps(method)
    def checked(end: socket.socket, *arguments):
        _refuse("socket.connect", (end, arguments[-1] if arguments else None))
        return method(end, *arguments)

    return checked


def _refuse(event: str, arguments: tuple) -> None:
    if event in _TO_ADDRESS:
        end, address = arguments[:2]
        internet = end.family in (socket.AF_INET, socket.AF_INET6)
        host = address[0] if internet and isinstance(address, tuple) and address else None
    elif event in _OF_HOST:
        host = arguments[0]
    elif event == "socket.getnameinfo":
        host = arguments[0][0]
    else:
        return
    if not _is_loopback(host):
        raise PermissionError(f"offline: {event} to {host!r} refused, only loopback is allowed")


def _is_loopback(host: str | bytes | None) -> bool:
    host = host.decode() if isinstance(host, bytes) else host
    if host in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hand_over() -> None:
    """Import the sitecustomize that this one hides, if there is one."""
    here = Path(__file__).parent.resolve()
    others = [entry for entry in sys.path if Path(entry).resolve() != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None:
        sys.modules["sitecustomize"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["sitecustomize"])


if __name__ == "sitecustomize":
    block()
    _hand_over()
