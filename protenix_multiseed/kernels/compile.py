"""Compiles the Triton kernels of many operations at once, in processes that never initialize CUDA.

Compiled one after another they would keep a first run waiting for a minute, and threads of one process wait for each
other's lock.
"""

import contextlib
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, ClassVar, TypeAlias

import torch

from protenix_multiseed.kernels import language
from protenix_multiseed.kernels.base import Kernels
from protenix_multiseed.kernels.operation import Case

Launch: TypeAlias = tuple[Any, tuple[Any, ...], Mapping[str, Any]]
"""A kernel, its arguments and Triton's options."""


def compile_ahead(wanted: Sequence[Launch], capability: tuple[int, int]) -> None:
    """Compile kernels into Triton's cache. One that cannot be compiled fails again where it is run.

    The calling process is forked: it must not have initialized CUDA, nor have used more than one thread.

    Args:
        wanted: Launches of the kernels, with arguments on the CPU.
        capability: Compute capability of the GPU that they will run on.
    """
    context, n_process = multiprocessing.get_context("fork"), min(16, len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(n_process, context, _Compiler.begin, (wanted, capability)) as pool:
        list(pool.map(_Compiler.compile, range(len(wanted))))


def capability_of(device: torch.device) -> tuple[int, int]:
    """Compute capability of a GPU, asked in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(torch.cuda.get_device_capability, device).result()


def launches(kernels: Kernels, cases: Sequence[Case]) -> list[Launch]:
    """What operations would launch. Nothing is launched."""
    made: list[Launch] = []
    language.launches_kept = made
    try:
        for case in cases:
            case(kernels)
    finally:
        language.launches_kept = None
    return made


class _Compiler:
    """The work of one process. Arguments stay where they are; the number of a launch is sent."""

    wanted: ClassVar[Sequence[Launch]]
    target: ClassVar["AbsentGpu"]

    @classmethod
    def begin(cls, wanted: Sequence[Launch], capability: tuple[int, int]) -> None:
        from triton.runtime.driver import driver

        cls.wanted, cls.target = wanted, AbsentGpu(capability)
        driver.set_active(cls.target)

    @classmethod
    def compile(cls, number: int) -> None:
        kernel, arguments, options = cls.wanted[number]
        with contextlib.suppress(Exception):
            compiled = kernel.warmup(*arguments, grid=(1,), **options)
            cls.target.launcher_cls(compiled.src, compiled.metadata)  # a small C module, which takes a while too


class AbsentGpu:
    """Stands in for Triton's driver, to compile for a GPU that is not opened."""

    def __init__(self, capability: tuple[int, int]) -> None:
        from triton.backends.compiler import GPUTarget
        from triton.backends.nvidia.driver import CudaLauncher

        self._target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)
        self.launcher_cls = CudaLauncher

    def get_current_target(self) -> Any:
        """What to compile for."""
        return self._target

    def get_current_device(self) -> int:
        """Triton keeps kernels by device; there is one."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """Asked for with every launch, and not used."""
        return 0
