"""A server that speaks ColabFold's protocol, and fails on purpose in ways that a test names."""

import io
import json
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def changed(sequence, number):
    """A homolog: every third residue is another one, depending on the number."""
    return "".join(
        LETTERS[(LETTERS.find(one) + number + 1) % 20] if place % 3 == number % 3 else one
        for place, one in enumerate(sequence)
    )


def unpaired_rows(sequence, database):
    """Rows that the server finds for a sequence, with an insertion in the first one."""
    rows = [changed(sequence, number) for number in range(3 if database == "uniref" else 2)]
    rows[0] = rows[0][:2] + "ac" + rows[0][2:]
    return [(f"{database}_{number}\t90\t0.5", row) for number, row in enumerate(rows)]


def paired_rows(sequences):
    """Paired rows of each chain: rows 1 and 3 in all of them, row 2 in the first one only."""
    made = {}
    for place, sequence in enumerate(sequences):
        rows = [(f"UniRef100_P{place}{number}\t90", changed(sequence, number)) for number in range(3)]
        if place:
            rows[1] = ("DUMMY", "-" * len(sequence))
        made[sequence] = rows
    return made


class Handler(BaseHTTPRequestHandler):
    """One request. ``server.faults`` holds, by part of the path, what to do wrong next."""

    def do_POST(self):
        body = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        kind = self.path.removeprefix("/ticket/")
        lines = body["q"][0].split()
        sequences = lines[1::2]
        assert [line[1:] for line in lines[::2]] == [str(101 + n) for n in range(len(sequences))]
        if self._fault("submit"):
            return
        self.server.submitted.append((kind, body["mode"][0], tuple(sequences)))
        if poison := [one for one in sequences if one in self.server.poison]:
            self._json({"status": "ERROR", "id": "", "error": poison[0]})
            return
        ticket = f"{kind}-{len(self.server.tickets)}"
        self.server.tickets[ticket] = (kind, sequences)
        self._json({"status": "PENDING", "id": ticket})

    def do_GET(self):
        if self.path.startswith("/ticket/"):
            ticket = self.path.removeprefix("/ticket/")
            if not self._fault("status"):
                self._json({"status": "COMPLETE", "id": ticket})
            return
        if self._fault("download"):
            return
        kind, sequences = self.server.tickets[self.path.removeprefix("/result/download/")]
        self._send(200, archive(paired_files(sequences) if kind == "pair" else unpaired_files(sequences)))

    def _fault(self, where):
        faults = self.server.faults.get(where, [])
        if not faults:
            return False
        fault = faults.pop(0)
        if fault == "ratelimit":
            self._json({"status": "RATELIMIT", "id": ""}, code=429, headers={"Retry-After": "0"})
        elif fault == "drop":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"{")
            self.wfile.flush()
            self.connection.shutdown(2)
        elif fault == "damaged":
            self._send(200, archive({"uniref.a3m": b">101\nMK\n" * 1000})[:60])
        elif fault == "other rows":
            self._send(200, archive({"uniref.a3m": b">101\nWWWWW\n\0", "pair.a3m": b">101\nWWWWW\n\0"}))
        elif fault == "cut row":
            _, sequences = self.server.tickets[self.path.removeprefix("/result/download/")]
            content = unpaired_files(sequences)["uniref.a3m"].replace(b"\n\0", b"\0")
            self._send(200, archive({"uniref.a3m": content[:-3] + b"\0"}))
        elif fault == "redirect":
            self._send(302, b"", {"Location": "https://elsewhere.example"})
        elif isinstance(fault, int):
            self._send(fault, b"a page about the problem")
        else:
            self._json({"status": fault, "id": "x"})
        return True

    def _json(self, content, code=200, headers=None):
        self._send(code, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, code, content, headers=None):
        self.send_response(code)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def unpaired_files(sequences):
    return {
        name: b"".join(
            f">{number}\n{one}\n".encode()
            + b"".join(f">{header}\n{row}\n".encode() for header, row in unpaired_rows(one, database))
            + b"\0"
            for number, one in enumerate(sequences, start=101)
        )
        for name, database in (("uniref.a3m", "uniref"), ("bfd.mgnify30.metaeuk30.smag30.a3m", "env"))
    }


def paired_files(sequences):
    rows = paired_rows(sequences)
    blocks = (
        f">{number}\n{one}\n" + "".join(f">{header}\n{row}\n" for header, row in rows[one]) + "\0"
        for number, one in enumerate(sequences, start=101)
    )
    return {"pair.a3m": "".join(blocks).encode()}


def archive(files):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


@contextmanager
def msa_server(faults=None, poison=()):
    """Run the server. Its attributes: url, submitted (kind, mode, sequences)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.faults, server.poison = {key: list(value) for key, value in (faults or {}).items()}, set(poison)
    server.submitted, server.tickets = [], {}
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
