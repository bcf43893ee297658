"""--offline, tested in other processes: an audit hook cannot be removed from a process."""

import subprocess
import sys

import pytest

TRY = "from protenix_multiseed.offline import forbid_network; forbid_network(); import socket\n"


@pytest.mark.parametrize("attempt", [
    "socket.create_connection(('127.0.0.1', 9))",
    "socket.getaddrinfo('example.org', 80)",
    "socket.getnameinfo(('127.0.0.1', 80), 0)",
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')",
    "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    "socket.socket(socket.AF_INET6).connect(('::1', 9))",
])  # fmt: skip
def test_the_network_is_refused(attempt):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRY + attempt], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "--offline: a" in done.stderr


def test_socket_pairs_are_allowed():
    code = TRY + "a, b = socket.socketpair(); a.sendall(b'x'); assert b.recv(1) == b'x'; a.close(); b.close()"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
