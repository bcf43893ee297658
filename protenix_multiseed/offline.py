"""``--offline``: keep a process off the network, whichever library tries to reach it."""

import socket
import sys
from typing import Any

_LOCAL = getattr(socket, "AF_UNIX", None)


def forbid_network() -> None:
    """Refuse all name look-ups and all sockets except local ones, for the rest of the process's life.

    The function installs an audit hook. The hook also sees calls that C code makes to the socket module. It cannot be
    removed.
    """
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"):
        raise OSError(f"--offline: a look-up of {arguments[0]!r} was refused")
    if event == "socket.__new__" and arguments[1] not in (_LOCAL, -1):  # -1: made from an existing file descriptor
        raise OSError("--offline: a socket to the network was refused")
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and arguments[0].family != _LOCAL:
        raise OSError(f"--offline: a connection to {arguments[1]!r} was refused")
