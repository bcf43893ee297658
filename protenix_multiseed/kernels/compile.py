"""Compile the Triton kernels of many operations in parallel, in processes that never initialize CUDA.

Compiling one kernel after another would delay a first run by a minute. Threads are slower than processes, because the
threads of one process wait for the GIL.
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
"""A kernel, its arguments and Triton's launch options."""


def compile_ahead(wanted: Sequence[Launch], capability: tuple[int, int]) -> None:
    """Compile kernels into Triton's cache.

    Errors are ignored here: a kernel that cannot be compiled raises its error when it is launched.

    The calling process is forked. It must not have initialized CUDA, and must not have used more than one thread.

    Args:
        wanted: Launches of the kernels, with arguments on the CPU.
        capability: Compute capability of the GPU that will run the kernels, as (major, minor).
    """
    context, n_process = multiprocessing.get_context("fork"), min(16, len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(n_process, context, _Compiler.begin, (wanted, capability)) as pool:
        list(pool.map(_Compiler.compile, range(len(wanted))))


def capability_of(device: torch.device) -> tuple[int, int]:
    """Compute capability (major, minor) of a GPU. A child process asks, so that this process never initializes CUDA."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(torch.cuda.get_device_capability, device).result()


def launches(kernels: Kernels, cases: Sequence[Case]) -> list[Launch]:
    """Record the kernels that the cases would launch. Nothing is launched."""
    made: list[Launch] = []
    language.launches_kept = made
    try:
        for case in cases:
            case(kernels)
    finally:
        language.launches_kept = None
    return made


class _Compiler:
    """Work of one compiler process. The fork already has all launches, so only the index of a launch is sent to it."""

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
            cls.target.launcher_cls(compiled.src, compiled.metadata)  # compile the C launcher too: it also takes time


class AbsentGpu:
    """Replacement for Triton's driver. With it, Triton compiles for a GPU without initializing CUDA."""

    def __init__(self, capability: tuple[int, int]) -> None:
        from triton.backends.compiler import GPUTarget
        from triton.backends.nvidia.driver import CudaLauncher

        self._target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)
        self.launcher_cls = CudaLauncher

    def get_current_target(self) -> Any:
        """The GPU target to compile for."""
        return self._target

    def get_current_device(self) -> int:
        """Index of the only device. Triton keeps compiled kernels by device."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """A placeholder. Triton asks for a stream at every launch, but nothing is launched."""
        return 0
