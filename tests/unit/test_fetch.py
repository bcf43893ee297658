import hashlib
import http.server
import threading

import pytest
from rich.console import Console

from protenix_multiseed.commands import fetch
from protenix_multiseed.errors import ConfigError, WeightsError
from protenix_multiseed.hashes import hash_file, recorded_sha256
from protenix_multiseed.upstream.checkpoints import download_urls
from protenix_multiseed.upstream.models import MODELS, ModelSpec

CONTENT = bytes(range(256)) * 20_000


class Server(http.server.BaseHTTPRequestHandler):
    """A server that resumes downloads unless ``resumes`` is False, and breaks off at byte ``breaks_at`` if set.

    With headers that name the version of its file, it obeys ``If-Range``.
    """

    resumes, breaks_at, asked, content, headers_sent = True, None, [], CONTENT, {}
    meanwhile = staticmethod(lambda: None)

    def do_GET(self):
        type(self).asked.append(self.headers.get("Range"))
        self.meanwhile()
        if self.path != "/model.pt":
            self.send_error(404)
            return
        is_same = self.headers.get("If-Range") in (None, *self.headers_sent.values())
        start = (
            int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if self.headers.get("Range") and self.resumes and is_same
            else 0
        )
        if start >= len(self.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        for key, value in self.headers_sent.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(self.content[start : self.breaks_at])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    handler = type("Handler", (Server,), {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield handler, f"http://127.0.0.1:{running.server_port}/model.pt"
        running.shutdown()


def download(url, target):
    fetch.download(url, target, Console(quiet=True))


def test_a_download_is_complete_and_its_hash_is_recorded(server, tmp_path):
    target = tmp_path / "new" / "model.pt"
    download(server[1], target)
    assert target.read_bytes() == CONTENT
    assert recorded_sha256(target) == hashlib.sha256(CONTENT).hexdigest()
    assert sorted(path.name for path in target.parent.iterdir()) == ["model.pt", "model.pt.sha256"]


def test_a_broken_download_is_resumed(server, tmp_path):
    handler, url = server
    target = tmp_path / "model.pt"
    handler.breaks_at = 1_000_000
    with pytest.raises(WeightsError, match="run the same command again"):
        download(url, target)
    assert not target.exists()
    handler.breaks_at = None
    download(url, target)
    assert target.read_bytes() == CONTENT
    assert handler.asked == [None, "bytes=1000000-"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "model.pt.sha256"]


def break_off(handler, url, target):
    """Download the first megabyte of a file."""
    handler.breaks_at = 1_000_000
    with pytest.raises(WeightsError):
        download(url, target)
    handler.breaks_at = None


@pytest.mark.parametrize(
    ("before", "after", "n_asked"),
    [
        ({"ETag": '"1"'}, {"ETag": '"2"'}, 2),  # the server sends the new file at once
        ({"Last-Modified": "Mon"}, {"Last-Modified": "Tue"}, 2),
        ({"ETag": 'W/"1"', "Last-Modified": "Mon"}, {"ETag": 'W/"1"', "Last-Modified": "Tue"}, 2),
        ({}, {}, 3),  # only the length shows it
    ],
)
def test_a_partial_download_of_another_version_begins_anew(server, tmp_path, before, after, n_asked):
    """Regression: the rest of the new file was appended to the start of the old one."""
    handler, url = server
    handler.breaks_at, handler.headers_sent = 1_000_000, before
    with pytest.raises(WeightsError, match="run the same command again"):
        download(url, tmp_path / "model.pt")
    handler.breaks_at, handler.headers_sent, handler.content = None, after, CONTENT[::-1] + b"more"
    download(url, tmp_path / "model.pt")
    assert (tmp_path / "model.pt").read_bytes() == handler.content
    assert len(handler.asked) == n_asked


def test_a_partial_download_of_another_address_begins_anew(server, tmp_path):
    handler, url = server
    break_off(handler, url, tmp_path / "model.pt")
    download(url.replace("127.0.0.1", "localhost"), tmp_path / "model.pt")
    assert handler.asked == [None, None]


def test_two_fetches_never_write_one_file(server, tmp_path):
    """Regression: both appended to the same partial file."""
    handler, url = server
    refused = []

    def second():
        try:
            download(url, tmp_path / "model.pt")
        except WeightsError as error:
            refused.append(str(error))

    handler.meanwhile = staticmethod(second)
    download(url, tmp_path / "model.pt")
    assert refused == [f"{tmp_path / 'model.pt.part'}: another fetch downloads this file; wait for its end"]
    assert (tmp_path / "model.pt").read_bytes() == CONTENT
    assert handler.asked == [None]


def test_a_download_starts_again_if_the_server_cannot_resume(server, tmp_path):
    handler, url = server
    handler.resumes = False
    target = tmp_path / "model.pt"
    (tmp_path / "model.pt.part").write_bytes(b"something else")
    download(url, target)
    assert target.read_bytes() == CONTENT


def test_a_partial_file_that_is_too_long_begins_anew(server, tmp_path):
    handler, url = server
    break_off(handler, url, tmp_path / "model.pt")
    (tmp_path / "model.pt.part").write_bytes(CONTENT + b"more")
    download(url, tmp_path / "model.pt")
    assert (tmp_path / "model.pt").read_bytes() == CONTENT
    assert handler.asked == [None, f"bytes={len(CONTENT) + 4}-", None]


@pytest.mark.parametrize(
    ("url", "says"), [("/none", "answered 404"), (None, "refused"), ("file:///etc/passwd", "only http and https")]
)
def test_failures_name_the_address_and_the_target_file(server, tmp_path, url, says):
    address = server[1].replace("/model.pt", url) if url == "/none" else url or "http://127.0.0.1:9/model.pt"
    with pytest.raises(WeightsError, match=says) as error:
        download(address, tmp_path / "model.pt")
    assert address in str(error.value)
    assert str(tmp_path / "model.pt") in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_written_is_no_fault_of_the_server(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match=r"file: .*; move it away, then run the same command again") as error:
        download(server[1], tmp_path / "file" / "model.pt")
    assert "resume" not in str(error.value)


def test_models_are_downloaded_from_upstreams_addresses(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(fetch, "download", lambda url, target, *_: asked.append((url, target.name)))
    fetch.fetch_model("protenix_mini_esm_v0.5.0", tmp_path, None)
    names = ["protenix_mini_esm_v0.5.0", "esm2_t36_3B_UR50D", "esm2_t36_3B_UR50D-contact-regression"]
    assert asked == [(download_urls()[name], f"{name}.pt") for name in names]


def test_an_existing_file_is_not_downloaded_again(monkeypatch, tmp_path):
    (tmp_path / "protenix-v2.pt").write_bytes(b"mine")
    monkeypatch.setattr(fetch, "download", lambda *_: pytest.fail("downloaded again"))
    fetch.fetch_model("protenix-v2", tmp_path, None)
    assert not hash_file(tmp_path / "protenix-v2.pt").exists()


def test_an_unknown_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be fetched; known: protenix-v2"):
        fetch.fetch_model("protenix-v3", tmp_path, None)


def test_template_data_goes_where_upstream_looks(monkeypatch, tmp_path):
    monkeypatch.setenv("PROTENIX_ROOT_DIR", str(tmp_path))
    asked = []
    monkeypatch.setattr(fetch, "download", lambda url, target, *_: asked.append((url, target)))
    fetch.fetch_model("template-data", None, None)
    assert asked == [
        (download_urls()["release_dates_path"], tmp_path / "common" / "release_date_cache.json"),
        (download_urls()["obsolete_pdbs_path"], tmp_path / "common" / "obsolete_to_successor.json"),
    ]
    with pytest.raises(ConfigError, match="--to, --url and --sha256 do not apply"):
        fetch.fetch_model("template-data", tmp_path, None)


DIGEST = hashlib.sha256(CONTENT).hexdigest()


def fetch_toy(monkeypatch, address, published, folder, **more):
    toy = ModelSpec(name="toy", url=address, sha256=published)
    monkeypatch.setattr(fetch, "MODELS", (*MODELS, toy))
    monkeypatch.setattr(fetch, "download_urls", lambda: {"toy": address})
    return fetch.fetch_model("toy", folder, None, **more)


def test_a_download_is_compared_with_a_published_hash(server, tmp_path, monkeypatch, capsys):
    (target,) = fetch_toy(monkeypatch, server[1], DIGEST, tmp_path)
    assert target.read_bytes() == CONTENT
    assert f"{target}  SHA-256 {DIGEST} (as expected)" in capsys.readouterr().err
    fetch_toy(monkeypatch, server[1], DIGEST, tmp_path)
    assert f"{target} exists already (SHA-256 as expected)" in capsys.readouterr().err
    with pytest.raises(WeightsError, match=f"exists already, with SHA-256 {DIGEST}, not {'0' * 64}; move it away"):
        fetch_toy(monkeypatch, server[1], DIGEST, tmp_path, sha256="0" * 64)


def test_a_download_with_another_hash_is_removed(server, tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match=f"the file has SHA-256 {DIGEST}, not {'0' * 64}; it was removed"):
        fetch_toy(monkeypatch, server[1], "0" * 64, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_hash_is_recorded_and_compared_with_that_of_the_user(server, tmp_path, monkeypatch, capsys):
    fetch_toy(monkeypatch, server[1], None, tmp_path / "a")
    assert f"SHA-256 {DIGEST} (recorded; none is published to compare it with)" in capsys.readouterr().err
    fetch_toy(monkeypatch, server[1], None, tmp_path / "b", sha256=DIGEST.upper())
    assert "(as expected)" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="--sha256 'abc': not the 64 hexadecimal digits"):
        fetch_toy(monkeypatch, server[1], None, tmp_path, sha256="abc")
