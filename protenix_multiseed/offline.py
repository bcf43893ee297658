"""``--offline``: a process that cannot reach the network, whatever library tries to."""

import socket
import sys
from typing import Any

_LOCAL = getattr(socket, "AF_UNIX", None)


def forbid_network() -> None:
    """From now on, for the life of the process, name look-ups and connections to other than local sockets fail.

    An audit hook sees what C code asks of the socket module too, and cannot be taken out again.
    """
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        raise OSError(f"--offline: a look-up of {arguments[0]!r} was refused")
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and arguments[0].family != _LOCAL:
        raise OSError(f"--offline: a connection to {arguments[1]!r} was refused")
