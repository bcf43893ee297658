"""Compiling the Triton programs of many operations at once, in processes that do not open the card.

One after another they would keep a first run waiting for a minute; threads of one process wait for each other's lock.
"""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, ClassVar, TypeAlias

import torch

from protenix_multiseed.model.kernels import Kernels

Run: TypeAlias = Callable[[Kernels], torch.Tensor]
Launch: TypeAlias = tuple[Any, tuple[Any, ...], Mapping[str, Any]]  # a program, its arguments and Triton's options


def compile_ahead(wanted: Sequence[Launch], capability: tuple[int, int]) -> None:
    """Compile programs into Triton's cache. What cannot be compiled fails again where it is run.

    The calling process is forked: it must not have opened the card, nor have used more than one thread.

    Args:
        wanted: Launches of the programs, with arguments on the CPU.
        capability: Compute capability of the card that they will run on.
    """
    context, n_process = multiprocessing.get_context("fork"), min(16, len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(n_process, context, _Compiler.begin, (wanted, capability)) as pool:
        list(pool.map(_Compiler.compile, range(len(wanted))))


def capability_of(device: torch.device) -> tuple[int, int]:
    """Compute capability of a card that this process does not open itself."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(torch.cuda.get_device_capability, device).result()


def launches(kernels: Kernels, runs: Sequence[Run]) -> list[Launch]:
    """What operations would launch; nothing is."""
    from protenix_multiseed.model.kernels import source

    made: list[Launch] = []
    programs = {name: program for name, program in vars(source).items() if hasattr(program, "params")}
    try:
        for name, program in programs.items():
            setattr(source, name, _Recorder(program, made))
        for run in runs:
            run(kernels)
    finally:
        for name, program in programs.items():
            setattr(source, name, program)
    return made


class _Recorder:
    """Stands in for a program and keeps what it is launched with."""

    def __init__(self, program: Any, made: list[Launch]) -> None:
        self._program, self._made = program, made

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def keep(*arguments: Any, **options: Any) -> None:
            self._made.append((self._program, arguments, options))

        return keep


class _Compiler:
    """The work of a process: arguments stay where they are, and the number of a launch is sent."""

    wanted: ClassVar[Sequence[Launch]]
    elsewhere: ClassVar["Elsewhere"]

    @classmethod
    def begin(cls, wanted: Sequence[Launch], capability: tuple[int, int]) -> None:
        from triton.runtime.driver import driver

        cls.wanted, cls.elsewhere = wanted, Elsewhere(capability)
        driver.set_active(cls.elsewhere)

    @classmethod
    def compile(cls, number: int) -> None:
        program, arguments, options = cls.wanted[number]
        with contextlib.suppress(Exception):
            compiled = program.warmup(*arguments, grid=(1,), **options)
            cls.elsewhere.launcher_cls(compiled.src, compiled.metadata)  # a small C module, which takes a while too


class Elsewhere:
    """Stands in for Triton's driver where programs are compiled for a card that is not opened."""

    def __init__(self, capability: tuple[int, int]) -> None:
        from triton.backends.compiler import GPUTarget
        from triton.backends.nvidia.driver import CudaLauncher

        self._target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)
        self.launcher_cls = CudaLauncher

    def get_current_target(self) -> Any:
        """What to compile for."""
        return self._target

    def get_current_device(self) -> int:
        """Programs are kept by device; there is one."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """Asked for with every launch, and not used."""
        return 0
