"""What ``doctor`` checks, and which findings it calls wrong."""

import sys

import pytest
import torch

from protenix_multiseed.commands import doctor
from protenix_multiseed.commands.doctor import as_record, examine
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.upstream.checkpoints import download_urls


def found(**options):
    return {check.name: check for check in examine(load_config(options))}


def test_everything_a_run_needs_is_checked(tmp_path):
    checks = found(model="demo", out=tmp_path, device="cpu")
    assert {"Python", "protenix", "torch", "machine", "GPU", "kernels", "dictionary", "checkpoint", "templates",
            "output", "cache", "shared memory"} <= set(checks)  # fmt: skip
    assert not [check for check in checks.values() if check.state == "wrong"]
    assert "47,353 components" in checks["dictionary"].found
    assert all(set(record) == {"check", "state", "found", "advice"} for record in as_record(list(checks.values())))


def test_a_missing_checkpoint_is_wrong_and_the_advice_is_to_fetch_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PROTENIX_ROOT_DIR", str(tmp_path))
    check = found()["checkpoint"]
    assert check.state == "wrong"
    assert "protenix-ms fetch protenix_base_default_v1.0.0" in check.advice


def test_a_checkpoint_is_read_and_hashed(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"model": {"module.a": torch.zeros(2_000_000)}}, path)
    check = found(checkpoint=path)["checkpoint"]
    assert (check.state, "2 M weights" in check.found) == ("ok", True)
    path.with_name("weights.pt.sha256").write_text("0" * 64 + "  weights.pt\n")
    assert "is not the file that was fetched" in found(checkpoint=path)["checkpoint"].found
    path.write_bytes(path.read_bytes()[:1000])
    path.with_name("weights.pt.sha256").unlink()
    assert found(checkpoint=path)["checkpoint"].state == "wrong"


def test_the_address_of_a_checkpoint_is_the_last_word(monkeypatch, tmp_path):
    """Regression: words behind the address stood on a line of their own, and a comma stuck to the address."""
    monkeypatch.setenv("PROTENIX_ROOT_DIR", str(tmp_path))
    address = found()["checkpoint"].advice.split()[-1]
    assert address == download_urls()["protenix_base_default_v1.0.0"]


def test_lines_are_indented_below_a_state(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setenv("NO_COLOR", "1")
    doctor.doctor(load_config({"model": "demo", "device": "cpu", "out": tmp_path}), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert {line[:6] for line in lines} <= {"ok    ", "note  ", "wrong ", "      "}
    assert any(line.startswith("      ") for line in lines)


def test_the_output_folder_is_named_whole(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert found(model="demo")["output"].found.endswith(f"free at {tmp_path / 'output'}")


def test_another_version_of_protenix_is_wrong(monkeypatch):
    original = doctor.metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "1.0" if name == "protenix" else original(name))
    assert found(model="demo")["protenix"].state == "wrong"


def test_a_missing_gpu_is_wrong_only_if_it_is_asked_for():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert found(model="demo")["GPU"].state == "note"
    assert found(model="demo", device="cuda")["GPU"].state == "wrong"


def test_missing_template_files_are_wrong_only_if_templates_are_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("PROTENIX_ROOT_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found(model="demo")["templates"].state == "note"
    assert found(model="demo", template=True)["templates"].state == "wrong"


def test_shared_memory_without_room_is_wrong(monkeypatch):
    """Regression: doctor said that no shared memory is needed, and the run ended in a traceback."""

    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("multiprocessing.synchronize.RLock", read_only)
    check = found(model="demo")["shared memory"]
    assert check.state == "wrong"
    assert "cannot make semaphores in /dev/shm: Read-only file system" in check.found
    assert "--shm-size" in check.advice


def test_an_error_in_a_check_is_reported_as_wrong(monkeypatch):
    def break_(config):
        raise RuntimeError("it is broken")
        yield

    monkeypatch.setattr(doctor, "_memory", break_)
    check = next(check for check in examine(load_config({"model": "demo"})) if check.state == "wrong")
    assert check.found == "RuntimeError: it is broken"
