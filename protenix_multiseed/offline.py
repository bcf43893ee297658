"""``--offline``: keep a process off the network, whichever library tries to reach it."""

import socket
import sys
from typing import Any

_LOCAL = getattr(socket, "AF_UNIX", None)


def forbid_network(*, loopback: bool = False) -> None:
    """Refuse all name look-ups and all sockets except local ones, for the rest of the process's life.

    The function installs an audit hook. The hook also sees calls that C code makes to the socket module. It cannot be
    removed.

    Args:
        loopback: Whether to allow connections of this machine to itself, which Ray needs.
    """
    sys.addaudithook(_refuse_all_but_loopback if loopback else _refuse)


def _refuse_all_but_loopback(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.__new__":
        return
    if event in ("socket.getaddrinfo", "socket.gethostbyname") and _is_here(arguments[0]):
        return
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and arguments[0].family != _LOCAL:
        address = arguments[1]
        if address is None or (isinstance(address, tuple) and _is_here(address[0])):
            return
    _refuse(event, arguments)


def _is_here(host: Any) -> bool:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    return name in (None, "", "localhost", "::1", socket.gethostname()) or str(name).startswith("127.")


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"):
        raise OSError(f"--offline: a look-up of {arguments[0]!r} was refused")
    if event == "socket.__new__" and arguments[1] not in (_LOCAL, -1):  # -1: made from an existing file descriptor
        raise OSError("--offline: a socket to the network was refused")
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and arguments[0].family != _LOCAL:
        raise OSError(f"--offline: a connection to {arguments[1]!r} was refused")
