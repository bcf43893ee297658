"""Compile the Triton kernels of many operations in parallel, in processes that never initialize CUDA.

Compiling one kernel after another would delay a first run by a minute. Threads are slower than processes, because the
threads of one process wait for the GIL.
"""

import contextlib
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, ClassVar, TypeAlias

import torch

from protenix_multiseed.kernels import language
from protenix_multiseed.kernels.base import Kernels
from protenix_multiseed.kernels.operation import Case

Launch: TypeAlias = tuple[Any, tuple[Any, ...], Mapping[str, Any]]
"""A kernel, its arguments and Triton's launch options."""


def compile_ahead(wanted: Sequence[Launch], capability: tuple[int, int]) -> None:
    """Compile kernels into Triton's cache.

    Errors are ignored here: a kernel that cannot be compiled raises its error when it is launched. Launches that may
    need the same compiled kernel go to one process, so that no two processes compile it at the same time.

    The calling process is forked. It must not have initialized CUDA, and must not have used more than one thread.

    Args:
        wanted: Launches of the kernels, with arguments on the CPU.
        capability: Compute capability of the GPU that will run the kernels, as (major, minor).
    """
    context, n_process = multiprocessing.get_context("fork"), min(16, len(os.sched_getaffinity(0)))
    groups = together(wanted)
    with ProcessPoolExecutor(n_process, context, _Compiler.begin, (groups, capability)) as pool:
        list(pool.map(_Compiler.compile, range(len(groups))))


def together(wanted: Sequence[Launch]) -> list[list[Launch]]:
    """Group the launches that may need the same compiled kernel: they differ in numbers only. The order is kept."""
    groups: dict[tuple[Any, ...], list[Launch]] = {}
    for launch in wanted:
        kernel, arguments, options = launch
        kinds = (
            repr(value) if parameter.is_constexpr else getattr(value, "dtype", type(value))
            for parameter, value in zip(kernel.params, arguments, strict=False)
        )
        groups.setdefault((kernel, repr(sorted(options.items())), *kinds), []).append(launch)
    return list(groups.values())


@contextlib.contextmanager
def capability_of(device: torch.device) -> Iterator["Future[tuple[int, int]]"]:
    """Compute capability (major, minor) of a GPU, once it is known.

    A child process asks, so that this process never initializes CUDA. It takes a second or more.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        yield pool.submit(torch.cuda.get_device_capability, device)


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
    """Work of one compiler process. The fork already has all launches, so only the index of a group is sent to it."""

    groups: ClassVar[Sequence[Sequence[Launch]]]
    target: ClassVar["AbsentGpu"]

    @classmethod
    def begin(cls, groups: Sequence[Sequence[Launch]], capability: tuple[int, int]) -> None:
        from triton.runtime.driver import driver

        cls.groups, cls.target = groups, AbsentGpu(capability)
        driver.set_active(cls.target)

    @classmethod
    def compile(cls, number: int) -> None:
        for kernel, arguments, options in cls.groups[number]:
            with contextlib.suppress(Exception):
                compiled = kernel.warmup(*arguments, grid=(1,), **options)
                cls.target.launcher_cls(compiled.src, compiled.metadata)  # the C launcher: it takes time too


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
