import os
from types import SimpleNamespace

import pytest

from protenix_multiseed.config_loading import load_config
from protenix_multiseed.errors import ConfigError, RefusedInputsError, WeightsError
from protenix_multiseed.run.preflight import check_surroundings, check_workers
from protenix_multiseed.run.prepare import prepare


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("PROTENIX_ROOT_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path


def check(root, **options):
    return check_surroundings(load_config({"model": "demo", "out": root / "out", **options}))


def test_checkpoint_is_looked_for_where_upstream_keeps_it(root):
    with pytest.raises(WeightsError, match=str(root / "checkpoint" / "protenix-v2.pt")):
        check(root, model="protenix-v2")
    (root / "checkpoint").mkdir()
    (root / "checkpoint" / "protenix-v2.pt").touch()
    check(root, model="protenix-v2")


def test_templates_need_an_aligner_dates_and_structures(root):
    with pytest.raises(ConfigError, match="kalign, which is not on PATH"):
        check(root, template=True)
    kalign = root / "bin" / "kalign"
    kalign.write_text("#!/bin/sh\n")
    with pytest.raises(ConfigError, match="kalign"):
        check(root, template=True, templates={"kalign": kalign})
    kalign.chmod(0o755)
    with pytest.raises(ConfigError, match="protenix-ms fetch template-data"):
        check(root, template=True)
    (root / "common").mkdir()
    (root / "common" / "release_date_cache.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"no folder of template structures.*set templates.mmcif_dir"):
        check(root, template=True)
    (root / "mmcif").mkdir()
    assert check(root, template=True).templates.kalign == kalign


def test_a_wrong_output_folder_is_refused_and_none_is_created(root):
    (root / "file").touch()
    with pytest.raises(ConfigError, match="is a file; choose another folder"):
        check(root, out=root / "file" / "below")
    with pytest.raises(ConfigError, match="not a folder's name"):
        check(root, out=root / ("a" * 300))
    check(root, out=root / "new" / "deep")
    assert not (root / "new").exists()


def test_workers_that_cannot_make_semaphores_are_refused(monkeypatch):
    """For example in a container with a tiny or read-only /dev/shm."""
    check_workers()

    def no_room(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("multiprocessing.synchronize.RLock", no_room)
    with pytest.raises(ConfigError, match=r"/dev/shm: .* No space left on device; mount a tmpfs .*--shm-size"):
        check_workers()


def test_workers_begin_their_imports_before_the_inputs_are_read_if_the_output_folder_is_new(root):
    """If they cannot start, a mistake of the inputs is still what the user reads first."""
    started = []

    def fail():
        started.append("failed")
        raise ConfigError("no socket")

    def refuse(start, **more):
        config = load_config({"model": "demo", "out": root / "out", **more})
        with pytest.raises(RefusedInputsError, match=r"none\.json"):
            prepare(config, [root / "none.json"], print, None, SimpleNamespace(start=start))

    refuse(fail)  # the input is missing
    (root / "none.json").write_text("{}")
    refuse(lambda: started.append("begun"))
    refuse(fail)
    refuse(fail, msa_server="https://server.example")  # a search may take hours
    (root / "out").mkdir()
    refuse(fail)
    assert started == ["begun", "failed"]


def test_an_output_folder_that_cannot_be_written_is_refused(root, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="cannot be written; choose another folder"):
        check(root)


@pytest.mark.parametrize(
    ("options", "is_new", "begins"),
    [
        ({"gpus": "2"}, True, ["connect"]),
        ({"gpus": "2"}, False, []),  # all seeds may be done
        ({"ray": "127.0.0.1:9"}, True, []),  # others share that cluster, so the inputs are read first
        ({"gpus": "2", "msa_server": "https://example.org/api"}, True, []),  # a search may take hours
    ],
)
def test_ray_starts_before_the_inputs_are_read_if_the_output_folder_is_new(root, monkeypatch, options, is_new, begins):
    ray_cluster, seen = pytest.importorskip("protenix_multiseed.execution.ray_cluster"), []
    monkeypatch.setattr(ray_cluster, "connect_ahead", lambda config: seen.append("connect"))
    out = root / "of_ray"
    if not is_new:
        out.mkdir()
    (root / "none.json").write_text("{}")
    config = load_config({"model": "demo", "device": "cpu", "out": out, **options})
    with pytest.raises(RefusedInputsError, match=r"none\.json"):
        prepare(config, [root / "none.json"], print, None, SimpleNamespace())
    assert seen == begins
