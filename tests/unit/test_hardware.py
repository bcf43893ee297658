"""Which device a run gets, and which errors mean that memory ran out."""

import pytest
import torch

from protenix_multiseed.errors import ConfigError
from protenix_multiseed.execution import hardware, warm_up
from protenix_multiseed.execution.hardware import card_of, choose_device, is_out_of_memory

GPU = torch.device("cuda:0")


def test_a_missing_device_is_refused():
    if not torch.cuda.is_available():
        assert choose_device("auto") == torch.device("cpu")
        with pytest.raises(ConfigError, match="there are 0 CUDA devices"):
            choose_device("cuda")


def test_compiled_kernels_need_a_gpu_of_compute_capability_8(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert card_of(torch.device("cpu")) is None
    assert card_of(GPU) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert card_of(GPU) == "a card"


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
def test_out_of_memory_errors_are_recognized(error, expected):
    assert is_out_of_memory(error) is expected


def test_a_lost_device_is_reported_with_its_error(monkeypatch):
    def gone(*_):
        raise RuntimeError("CUDA error: device-side assert\nmore")

    monkeypatch.setattr(torch.cuda, "synchronize", gone)
    assert hardware.free_memory(GPU) == "CUDA error: device-side assert"
    assert hardware.free_memory(torch.device("cpu")) is None


def test_a_processor_needs_no_warming_up(monkeypatch):
    monkeypatch.setattr(torch, "zeros", None)
    warm_up.warm_up("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_warming_up_changes_no_draw(dtype, monkeypatch):
    """It runs beside the model's loading. Upstream's draws come from the global generators."""
    monkeypatch.setattr(warm_up, "_LINEAR", ((8, 4, 2),))
    monkeypatch.setattr(warm_up, "_BATCHED", ((2, 3),))
    before = torch.get_rng_state()
    warm_up.multiply(torch.device("cpu"), dtype)
    warm_up.run_small_operations(torch.device("cpu"), dtype)
    assert torch.equal(torch.get_rng_state(), before)


def limits(folder, names, limit, used, cached):
    folder.mkdir(parents=True, exist_ok=True)
    for name, number in zip(names, (limit, used), strict=False):
        (folder / name).write_text(f"{number}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cached}\n")


@pytest.mark.parametrize(("line", "top", "names"), [
    ("0::/jobs/7", ".", ("memory.max", "memory.current", "inactive_file")),
    ("4:memory:/jobs/7", "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")),
])  # fmt: skip
def test_limits_of_containers_and_batch_systems_are_found(tmp_path, line, top, names):
    """The own group may have no limit, and the one around it a lower one."""
    groups, root = tmp_path / "cgroup", tmp_path / "fs"
    groups.write_text(f"9:cpu:/elsewhere\n{line}\n")
    assert list(hardware._left_of_limits(groups, root)) == []
    limits(root / top / "jobs" / "7", names, "max", 30, 10)
    limits(root / top / "jobs", names, 100, 70, 20)
    assert list(hardware._left_of_limits(groups, root)) == [50]
    limits(root / top / "jobs" / "7", names, 80, 75, 10)
    assert list(hardware._left_of_limits(groups, root)) == [15, 50]
    limits(root / top / "jobs" / "7", names, 80, 95, 10)
    assert list(hardware._left_of_limits(groups, root)) == [0, 50]


def test_a_limit_bounds_what_is_available(monkeypatch):
    assert hardware.available_bytes(torch.device("cpu")) > 2**20
    monkeypatch.setattr(hardware, "_left_of_limits", lambda: [2**20])
    assert hardware.available_bytes(torch.device("cpu")) == 2**20


def test_on_a_cpu_what_the_process_has_taken_for_the_model_counts_as_available(monkeypatch):
    """Else the weights, which an estimate contains, would count twice when loaded. The rest is the caller's."""
    monkeypatch.setattr(hardware, "_left_of_limits", lambda: [2**20])
    before = hardware.resident_bytes()
    assert before > 2**20
    for taken, counted in ((-7, 0), (0, 0), (5000, 5000), (10**9, 10**6)):
        monkeypatch.setattr(hardware, "resident_bytes", lambda taken=taken: before + taken)
        assert hardware.available_bytes(torch.device("cpu"), before, most=10**6) == 2**20 + counted
    assert hardware.available_bytes(torch.device("cpu")) == 2**20
