"""``--offline``: a process that cannot reach the network, whatever library tries to."""

import socket
import sys
from typing import Any

_LOCAL = getattr(socket, "AF_UNIX", None)


def forbid_network() -> None:
    """From now on, for the life of the process, no look-up of a name and no socket but a local one can be had.

    An audit hook sees what C code asks of the socket module too, and cannot be taken out again.
    """
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"):
        raise OSError(f"--offline: a look-up of {arguments[0]!r} was refused")
    if event == "socket.__new__" and arguments[1] not in (_LOCAL, -1):  # -1: of a descriptor that is there already
        raise OSError("--offline: a socket to the network was refused")
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and arguments[0].family != _LOCAL:
        raise OSError(f"--offline: a connection to {arguments[1]!r} was refused")
