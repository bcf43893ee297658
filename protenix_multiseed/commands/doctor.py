"""``protenix-ms doctor``: check whether ``predict`` would run on this machine, and say what to do if not."""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape

from protenix_multiseed.commands.console import make_console
from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ProtenixMsError
from protenix_multiseed.failures import reason_of
from protenix_multiseed.hashes import recorded_sha256
from protenix_multiseed.kernels.probe import KernelProbe
from protenix_multiseed.paths import cache_dir
from protenix_multiseed.run.preflight import (
    SHARED_MEMORY_ADVICE,
    check_sha256,
    check_surroundings,
    existing_part,
    semaphore_problem,
)
from protenix_multiseed.units import format_bytes
from protenix_multiseed.upstream.checkpoints import fetch_hint, template_data_dir
from protenix_multiseed.upstream.dictionary import find_dictionary

_LOW_DISK = 2 * 2**30
_LOW_MEMORY = 8 * 2**30
_PROTENIX_VERSION = "2.0.0"
_INDENT = 6  # of the lines below a state


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of one check, shown as one line.

    Attributes:
        name: Name of the check.
        state: ``ok``; ``note`` if something could be better; ``wrong`` if predict would not run.
        found: State of the machine, as a sentence.
        advice: How to improve or repair it; empty if nothing is to be done.
    """

    name: str
    state: Literal["ok", "note", "wrong"]
    found: str
    advice: str = ""


def doctor(config: RunConfig, *, as_json: bool) -> int:
    """Show the result of every check as soon as it is known. Returns 1 if predict would not run, else 0."""
    console = make_console(indent=_INDENT)
    checks = []
    for check in examine(config):
        checks.append(check)
        if not as_json:
            _show(console, check)
    if as_json:
        console.print_json(json.dumps(as_record(checks)))
    return int(any(check.state == "wrong" for check in checks))


def _show(console: Console, check: Check) -> None:
    """Print one check and its advice."""
    colour = {"ok": "green", "note": "yellow", "wrong": "red"}[check.state]
    text = f"[{colour}]{check.state:5}[/{colour}] {escape(check.name)}: {escape(check.found)}"
    if check.advice:
        text += f"\n{' ' * _INDENT}{escape(check.advice)}"
    console.print(text, soft_wrap=True)


def examine(config: RunConfig) -> Iterator[Check]:
    """Check everything that a run with this configuration needs. Yields each check as soon as it is done."""
    looks: list[Callable[[RunConfig], Iterator[Check]]] = [
        _python, _packages, _memory, _gpu, _kernels, _dictionary, _checkpoint, _templates, _disk, _shared_memory
    ]  # fmt: skip
    for look in looks:
        try:
            yield from look(config)
        except Exception as error:  # one failing check must not end the doctor
            yield Check(name=look.__name__.strip("_"), state="wrong", found=f"{type(error).__name__}: {error}")


def _python(config: RunConfig) -> Iterator[Check]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if (3, 11) <= sys.version_info < (3, 14):
        yield Check(name="Python", state="ok", found=found)
    else:
        yield Check(name="Python", state="wrong", found=found, advice="use Python 3.11, 3.12 or 3.13")


def _packages(config: RunConfig) -> Iterator[Check]:
    for name in ("protenix", "torch", "rdkit", "biotite"):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Check(
                name=name, state="wrong", found="not installed", advice="install protenix-ms as its README says"
            )
            continue
        if name == "protenix" and version != _PROTENIX_VERSION:
            advice = f"install protenix=={_PROTENIX_VERSION}, the version that this program is tested against"
            yield Check(name=name, state="wrong", found=version, advice=advice)
        else:
            yield Check(name=name, state="ok", found=version)


def _memory(config: RunConfig) -> Iterator[Check]:
    import psutil

    free, cores = psutil.virtual_memory().available, len(os.sched_getaffinity(0))
    found = f"{cores} cores, {format_bytes(free)} of memory free"
    if free < _LOW_MEMORY:
        yield Check(name="machine", state="note", found=found, advice="loading a model needs about 6 GiB")
    else:
        yield Check(name="machine", state="ok", found=found)


def _gpu(config: RunConfig) -> Iterator[Check]:
    import torch

    from protenix_multiseed.execution.hardware import choose_device

    try:
        device = choose_device(config.device)
    except ProtenixMsError as error:
        yield Check(name="GPU", state="wrong", found=str(error), advice="check the driver with nvidia-smi")
        return
    if device.type == "cpu":
        built = torch.version.cuda or "no CUDA"
        found = f"none that PyTorch (built with {built}) can use; predictions run on the CPU"
        yield Check(name="GPU", state="note", found=found, advice="only small complexes are practical without one")
        return
    free, total = torch.cuda.mem_get_info(device)
    torch.ones(1, device=device).add_(1).item()  # a GPU that is visible may still fail to compute
    name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    found = (
        f"{device}: {name}, compute capability {capability[0]}.{capability[1]}, {format_bytes(free)} of "
        f"{format_bytes(total)} free, CUDA {torch.version.cuda}, driver {_driver()}"
    )
    if free < total // 2:
        yield Check(name="GPU", state="note", found=found, advice="another program holds most of its memory")
    else:
        yield Check(name="GPU", state="ok", found=found)


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
        return answer.stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


def _kernels(config: RunConfig) -> Iterator[Check]:
    from protenix_multiseed.execution.hardware import card_of, choose_device

    try:
        with KernelProbe(config.device, config.kernels, keep=False) as probe:
            probe.begin(card_of(choose_device(config.device)))
            found = probe.result()
    except ProtenixMsError as error:
        yield Check(name="kernels", state="wrong", found=str(error))
        return
    if not found:
        yield Check(name="kernels", state="ok", found="torch; compiled kernels need a GPU")
    for kind, outcome in found.items():
        if outcome == "ok":
            yield Check(name=f"kernels: {kind}", state="ok", found="results match PyTorch's")
        else:
            yield Check(
                name=f"kernels: {kind}",
                state="note",
                found=outcome,
                advice=f"{'Triton' if kind == 'hopper' else 'PyTorch'}'s kernels are used; they are slower",
            )


def _dictionary(config: RunConfig) -> Iterator[Check]:
    try:
        dictionary = find_dictionary()
    except ProtenixMsError as error:
        yield Check(name="dictionary", state="wrong", found=str(error))
        return
    if dictionary.name == "upstream":
        found = f"Protenix's two files in {template_data_dir()}"
        advice = "one is a pickle, and loading a pickle can run any code: use only files you trust"
        yield Check(name="dictionary", state="note", found=found, advice=advice)
    else:
        found = f"{len(dictionary):,} components, {dictionary.identity}"  # type: ignore[arg-type]
        yield Check(name="dictionary", state="ok", found=f"{found}; {dictionary.note}" if dictionary.note else found)


def _checkpoint(config: RunConfig) -> Iterator[Check]:
    checkpoint = config.checkpoint_path
    if checkpoint is None:
        yield Check(name="checkpoint", state="ok", found="the demo model makes its own weights")
        return
    if not checkpoint.is_file():
        yield Check(name="checkpoint", state="wrong", found=f"none at {checkpoint}", advice=fetch_hint(config.model))
        return
    try:
        digest = check_sha256(checkpoint, config.model)
        from protenix_multiseed.model.weights import read_checkpoint

        count = sum(tensor.numel() for tensor in read_checkpoint(checkpoint, config.model).values())
    except ProtenixMsError as error:
        yield Check(name="checkpoint", state="wrong", found=str(error))
        return
    checked = "as fetched" if recorded_sha256(checkpoint) else "no recorded hash to compare with"
    yield Check(
        name="checkpoint",
        state="ok",
        found=f"{checkpoint}: {count / 1e6:.0f} M weights, SHA-256 {digest[:16]}... ({checked})",
    )


def _templates(config: RunConfig) -> Iterator[Check]:
    if config.template:
        try:
            check_surroundings(config, needs_checkpoint=False)
        except ProtenixMsError as error:
            yield Check(name="templates", state="wrong", found=str(error))
            return
    kalign = config.templates.kalign or shutil.which("kalign")
    dates = template_data_dir() / "release_date_cache.json"
    if kalign and dates.is_file():
        yield Check(name="templates", state="ok", found=f"kalign at {kalign}, release dates at {dates}")
        return
    missing = [
        name for name, there in (("the program kalign", kalign), ("release dates", dates.is_file())) if not there
    ]
    yield Check(
        name="templates",
        state="note",
        found=f"{' and '.join(missing)} missing",
        advice="for --template: install kalign, and run 'protenix-ms fetch template-data'",
    )


def _disk(config: RunConfig) -> Iterator[Check]:
    for name, folder in (("output", config.out), ("cache", cache_dir())):
        try:
            existing = existing_part(folder)
            free = shutil.disk_usage(existing).free
            found = f"{format_bytes(free)} free at {folder.absolute()}"
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            advice = "choose another folder with --out" if name == "output" else "set PROTENIX_MS_CACHE"
            yield Check(
                name=name,
                state="wrong",
                found=f"{folder.absolute()} cannot be written: {reason_of(error)}",
                advice=advice,
            )
            continue
        low = free < _LOW_DISK
        yield Check(name=name, state="note" if low else "ok", found=found, advice="the disk may fill up" if low else "")


def _shared_memory(config: RunConfig) -> Iterator[Check]:
    problem = semaphore_problem()
    if problem is None:
        found = "the workers can make semaphores in /dev/shm; features are sent through pipes and need no shared memory"
        yield Check(name="shared memory", state="ok", found=found)
    else:
        found = f"the workers cannot make semaphores in /dev/shm: {problem}"
        yield Check(name="shared memory", state="wrong", found=found, advice=SHARED_MEMORY_ADVICE)


def as_record(checks: list[Check]) -> list[dict[str, Any]]:
    """Return the checks as plain dictionaries, for JSON."""
    return [
        {"check": check.name, "state": check.state, "found": check.found, "advice": check.advice} for check in checks
    ]
