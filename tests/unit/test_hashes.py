import json
import os

import pytest

from protenix_multiseed import hashes
from protenix_multiseed.hashes import sha256, sha256_kept


@pytest.fixture
def hashed(monkeypatch, tmp_path):
    """The files that were hashed. Files count as settled at once."""
    done = []
    monkeypatch.setattr(hashes, "sha256", lambda path: done.append(path) or sha256(path))
    monkeypatch.setattr(hashes, "_SETTLED_SECONDS", -1.0)
    monkeypatch.setenv("PROTENIX_MS_CACHE", str(tmp_path / "cache"))
    return done


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"first")
    return path


def test_a_file_is_hashed_once_for_all_runs(hashed, path):
    assert sha256_kept(path) == sha256_kept(path) == sha256(path)
    assert hashed == [path]


def change_contents(path):
    """Same length, same time of modification. Only the time of the inode tells, once the system's clock has ticked."""
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        path.write_bytes(b"other")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_file(path):
    path.with_name("new").write_bytes(b"first")
    path.with_name("new").rename(path)


@pytest.mark.parametrize("change", [change_contents, replace_file, lambda path: path.write_bytes(b"longer")])
def test_a_file_that_changed_is_hashed_again(hashed, path, change):
    sha256_kept(path)
    change(path)
    assert sha256_kept(path) == sha256(path)
    assert hashed == [path, path]


def test_the_hash_of_a_file_that_changed_just_now_is_not_kept(hashed, path, monkeypatch):
    """A second change at the same time of the clock would not show."""
    monkeypatch.setattr(hashes, "_SETTLED_SECONDS", 3600.0)
    sha256_kept(path)
    sha256_kept(path)
    assert hashed == [path, path]


@pytest.mark.parametrize("damage", ["", "[]", "{}", "null", "[" * 200_000, "no hash"])
def test_a_damaged_cache_only_costs_time(hashed, path, tmp_path, damage):
    sha256_kept(path)
    (kept,) = (tmp_path / "cache" / "hashes").iterdir()
    held = json.loads(kept.read_text())
    assert held["path"] == str(path)
    kept.write_text(json.dumps(held | {"sha256": ""}) if damage == "no hash" else damage)
    assert sha256_kept(path) == sha256(path)
    assert hashed == [path, path]


def test_the_name_of_a_file_may_have_any_bytes(hashed, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.pt")
    path.write_bytes(b"weights")
    assert sha256_kept(path) == sha256_kept(path) == sha256(path)
    assert hashed == [path]


def test_a_file_that_cannot_be_read_is_an_error_also_if_its_hash_is_known(hashed, path):
    sha256_kept(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        sha256_kept(path)


def test_a_cache_that_cannot_be_written_is_no_error(hashed, path, tmp_path):
    (tmp_path / "cache").write_text("not a folder")
    assert sha256_kept(path) == sha256(path)
