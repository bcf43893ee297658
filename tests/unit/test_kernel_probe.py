"""How the kernel probe treats a process that prints, fails, aborts or hangs; when it starts one; what it remembers."""

import contextlib
import os
import subprocess
import sys
import time

import psutil
import pytest

from protenix_multiseed.config_loading import load_config
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.execution.local import make_probe
from protenix_multiseed.kernels import probe as module
from protenix_multiseed.kernels import probe_process
from protenix_multiseed.kernels.probe import KINDS, KernelProbe

TRITON, CUEQUIVARIANCE = (f'print(\'{{"{kind}": "ok"}}\', flush=True)' for kind in KINDS)
BOTH = f"{TRITON}; {CUEQUIVARIANCE}"
HANGS = "import os, time; os.fork(); time.sleep(600)"  # with a child that keeps the output open, as a compiler does


@pytest.fixture
def probe(monkeypatch, tmp_path):
    """Makes a probe whose process runs a given script. ``started`` has the device and kinds of each process."""
    monkeypatch.setattr(module, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(module, "_DRIVER", tmp_path / "driver")
    started, popen = [], subprocess.Popen

    def make(script, wanted="auto", used=KINDS, card="a card", device="auto"):
        def start(command, **named):
            started.append(command[command.index("-m") + 2 :])
            return popen([sys.executable, "-c", script], **named)

        monkeypatch.setattr(subprocess, "Popen", start)
        made = KernelProbe(device, wanted, used)
        made.start_early()
        make.early = list(started)
        made.begin(card)
        return made

    make.started = started
    make.driver = tmp_path / "driver"
    return make


def alive(group):
    """The processes of a process group that still run."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def assert_ends(group):
    """A killed process that nobody waits for may take a moment to end."""
    deadline = time.monotonic() + 60
    while alive(group):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_outcomes_are_kept_for_the_next_run_on_this_gpu(probe):
    first = probe(BOTH)
    assert first.is_at_work
    assert first.result() == {"triton": "ok", "cuequivariance": "ok"}
    assert not first.is_at_work
    again = probe("raise SystemExit(1)")
    assert not again.is_at_work
    assert again.result() == {"triton": "ok", "cuequivariance": "ok"}
    assert probe.started == [["cuda:0", *KINDS]]
    assert probe("", card="another card").result()["triton"] == "the probe ended early"


def test_only_kinds_that_the_run_uses_and_does_not_know_are_probed(probe):
    assert probe(TRITON, used=("triton",)).result() == {"triton": "ok"}
    assert probe(CUEQUIVARIANCE).result() == {"triton": "ok", "cuequivariance": "ok"}
    assert probe("", used=("cuequivariance",)).result() == {"cuequivariance": "ok"}
    assert probe.started == [["cuda:0", "triton"], ["cuda:0", "cuequivariance"]]


@pytest.mark.parametrize(("options", "kinds"), [
    ({}, ("triton",)),
    ({"sequential": True}, ("cuequivariance",)),
    ({"kernels": "cuequivariance"}, KINDS),
    ({"kernels": "torch"}, ()),
])  # fmt: skip
def test_options_choose_the_kinds_to_probe(probe, options, kinds):
    assert make_probe(load_config({"device": "cpu", **options}))._kinds == kinds


def test_a_first_run_starts_the_probe_before_the_gpu_is_named(probe):
    assert probe(BOTH).result()
    assert probe.early == []  # no driver: there may be no GPU at all
    probe.driver.touch()
    assert probe("", card="another card").result()["triton"] == "the probe ended early"
    assert len(probe.early) == 1  # outcomes are known for these versions: not a first run
    for path in module.cache_dir().rglob("*.json"):
        path.unlink()
    assert probe(BOTH, device="cuda:1").result() == {"triton": "ok", "cuequivariance": "ok"}
    assert probe.early[2:] == probe.started[2:] == [["cuda:1", *KINDS]]
    assert probe(HANGS, card=None, device="cpu").result() == {}
    assert len(probe.started) == 3


def test_a_probe_that_is_no_longer_needed_is_ended(probe):
    probe.driver.touch()
    made = probe(HANGS, card=None)
    assert len(probe.started) == 1
    assert made.result() == {}
    assert made._process is None
    assert probe(HANGS, card=None).result() == {}
    assert len(probe.started) == 1  # the outcome "no GPU" was kept
    with probe(HANGS) as made:
        process = made._process
        while len(alive(process.pid)) < 2:
            time.sleep(0.05)
        start = time.monotonic()
    assert time.monotonic() - start < 30  # the child that keeps the output open would live for 60 s
    assert process.poll() is not None
    assert_ends(process.pid)


def test_an_abort_keeps_the_outcomes_before_it(probe):
    found = probe(f"import os; {TRITON}; os.abort()").result()
    assert found["triton"] == "ok"
    assert found["cuequivariance"] == "the probe ended early"
    assert probe(BOTH).result()["cuequivariance"] == "ok"  # the outcome of an abort is not kept


def test_an_abort_in_the_kernels_for_hopper_is_said(probe, monkeypatch, capsys):
    """They are no kind of their own that a run asks for."""

    def refuse(*_, **__):
        raise RuntimeError

    def outcome(kind, device):
        if kind == "hopper":
            raise SystemExit
        return "ok"

    monkeypatch.setattr(probe_process, "wanted_launches", refuse)
    monkeypatch.setattr(probe_process, "outcome_of", outcome)
    monkeypatch.setattr(probe_process.torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(probe_process.torch.cuda, "get_device_capability", lambda device: (9, 0))
    with pytest.raises(SystemExit):
        probe_process.main("cuda:0", "triton")
    printed = capsys.readouterr().out
    found = probe(f"import os; os.write(1, {printed.encode()!r}); os.abort()", used=("triton",)).result()
    assert found == {"triton": "ok", "hopper": "the probe ended early"}


def test_a_probe_that_hangs_is_ended(probe, monkeypatch):
    monkeypatch.setattr(module, "PROBE_SECONDS", 3)
    for waits in (True, False):  # a run asks whether it is at work, until it is not
        made = probe(HANGS)
        process = made._process
        while waits and made.is_at_work:
            time.sleep(0.05)
        assert made.result()["triton"] == "the probe ended early"
        assert_ends(process.pid)


def test_a_probe_that_writes_much_is_not_blocked(probe):
    made = probe(f"import sys; sys.stderr.write('x' * 10**6); {BOTH}")
    while made.is_at_work:
        time.sleep(0.05)
    assert made.result() == {"triton": "ok", "cuequivariance": "ok"}


def test_kernels_that_are_asked_for_by_name_must_work(probe):
    with pytest.raises(ConfigError, match="it is broken; use --kernels torch or auto"):
        probe('print(\'{"cuequivariance": "it is broken"}\')', "cuequivariance").result()


def test_nothing_is_probed_without_compiled_kernels_or_a_gpu(probe):
    assert probe(BOTH, "torch").result() == {}
    assert probe(BOTH, card=None).result() == {}
    assert not probe.started
    with pytest.raises(ConfigError, match="it needs a GPU"):
        probe(BOTH, "cuequivariance", card=None)


def test_torch_is_not_imported_before_workers_start():
    modules = "protenix_multiseed.run.pipeline, protenix_multiseed.execution.local"
    script = f"import sys; import {modules}; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"


def test_a_changed_kernel_or_version_is_probed_again(monkeypatch, tmp_path):
    """Regression: the kernels' sources were once left out, so that a changed kernel inherited an old "ok"."""
    folder = tmp_path / "kernels"
    (folder / "ops").mkdir(parents=True)
    (folder / "probe.py").write_text("")
    source = folder / "ops" / "attention.py"
    source.write_text("one")
    monkeypatch.setattr(module, "__file__", str(folder / "probe.py"))
    first = module._fingerprint()
    source.write_text("two")
    second = module._fingerprint()
    monkeypatch.setattr(module, "__version__", "another")
    assert len({first, second, module._fingerprint()}) == 3


def test_hopper_kernels_have_an_outcome_of_their_own(probe):
    """A Hopper GPU without Gluon, or with a wrong Hopper kernel, still runs the general Triton kernels."""
    both = TRITON + '; print(\'{"hopper": "results differ"}\')'
    assert probe(both, used=("triton",)).result() == {"triton": "ok", "hopper": "results differ"}
    assert probe("", used=("triton",)).result() == {"triton": "ok", "hopper": "results differ"}
    assert probe("", used=(), wanted="torch").result() == {}
