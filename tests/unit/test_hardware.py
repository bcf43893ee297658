"""What the probe of kernels makes of processes that print, fail, abort or hang; and which errors mean memory."""

import sys

import pytest
import torch

from protenix_multiseed import hardware
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.hardware import KernelProbe, choose_device, is_out_of_memory

GPU = torch.device("cuda:0")
BOTH = 'print(\'{"triton": "ok"}\'); print(\'{"cuequivariance": "ok"}\')'


@pytest.fixture
def probe(monkeypatch, tmp_path):
    """A probe whose process runs a given script in the place of the real one."""
    monkeypatch.setattr(hardware, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(hardware, "_fingerprint", lambda device: "card")
    started = []
    popen = hardware.subprocess.Popen

    def make(script, wanted="auto"):
        def start(command, **named):
            started.append(command)
            return popen([sys.executable, "-c", script], **named)

        monkeypatch.setattr(hardware.subprocess, "Popen", start)
        return KernelProbe(GPU, wanted)

    make.started = started
    return make


def test_what_it_found_is_kept_for_the_next_run(probe):
    assert probe(BOTH).result() == {"triton": "ok", "cuequivariance": "ok"}
    assert probe("raise SystemExit(1)").result() == {"triton": "ok", "cuequivariance": "ok"}
    assert len(probe.started) == 1


def test_a_kind_that_aborts_spares_what_came_before(probe):
    found = probe('import os; print(\'{"triton": "ok"}\', flush=True); os.abort()').result()
    assert found["triton"] == "ok"
    assert found["cuequivariance"] == "the probe ended early"
    assert probe(BOTH).result()["cuequivariance"] == "ok"  # an abort is not kept


def test_a_probe_that_hangs_is_ended(probe, monkeypatch):
    monkeypatch.setattr(hardware, "PROBE_SECONDS", 0.5)
    assert probe("import time; time.sleep(60)").result()["triton"] == "the probe ended early"


def test_kernels_asked_for_by_name_must_work(probe):
    with pytest.raises(ConfigError, match="it is broken; use --kernels torch or auto"):
        probe('print(\'{"cuequivariance": "it is broken"}\')', "cuequivariance").result()


def test_nothing_is_tried_where_nothing_compiled_is_wanted(probe):
    assert probe(BOTH, "torch").result() == {}
    assert KernelProbe(torch.device("cpu"), "auto").result() == {}
    assert not probe.started
    with pytest.raises(ConfigError, match="it needs a GPU"):
        KernelProbe(torch.device("cpu"), "cuequivariance")


def test_a_device_that_is_not_there():
    if not torch.cuda.is_available():
        assert choose_device("auto") == torch.device("cpu")
        with pytest.raises(ConfigError, match="there are 0 CUDA devices"):
            choose_device("cuda")


def wrapped(inner):
    try:
        try:
            raise inner
        except Exception:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")  # noqa: B904  as torch does
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(("error", "expected"), [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
    (MemoryError(), True),
    (RuntimeError("CUDA error: out of memory"), True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
    (wrapped(torch.OutOfMemoryError("CUDA out of memory")), True),
    (wrapped(ValueError("something else")), False),
    (RuntimeError("an illegal memory access was encountered"), False),
    (ValueError("out of memory"), False),
])  # fmt: skip
def test_errors_that_mean_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_a_device_that_no_longer_answers(monkeypatch):
    def gone(*_):
        raise RuntimeError("CUDA error: device-side assert\nmore")

    monkeypatch.setattr(torch.cuda, "synchronize", gone)
    assert hardware.free_memory(GPU) == "CUDA error: device-side assert"
    assert hardware.free_memory(torch.device("cpu")) is None
