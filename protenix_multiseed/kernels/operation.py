"""An operation: plain PyTorch, a Triton kernel where one fits, and the cases that the probe compares the two on."""

from collections.abc import Callable, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, cast

import torch

from protenix_multiseed.kernels.base import Kernels, Norm

P = ParamSpec("P")
R = TypeVar("R")
Case: TypeAlias = Callable[[Kernels], torch.Tensor]
"""An operation on fixed inputs, which returns what it makes or changes."""


class Operation(Generic[P, R]):
    """Call it with the kernels of the run first: ``add_transition(kernels, x, ...)``.

    Attributes:
        plain: In PyTorch. It defines the result.
        in_triton: As a Triton kernel, or None.
        cases: Makes the inputs that the probe compares the two on.
    """

    def __init__(self, plain: Callable[Concatenate[Kernels, P], R]) -> None:
        self.plain = plain
        self.in_triton: Callable[Concatenate[Kernels, P], R] | None = None
        self.cases: Callable[[Inputs], Iterator[Case]] | None = None
        self._fits: Callable[Concatenate[Kernels, P], bool] | None = None
        self.__doc__, self.__name__ = plain.__doc__, plain.__name__

    def __call__(self, kernels: Kernels, *arguments: P.args, **named: P.kwargs) -> R:
        """Run it."""
        if (
            kernels.name == "triton"
            and self.in_triton is not None
            and (self._fits is None or self._fits(kernels, *arguments, **named))
        ):
            return self.in_triton(kernels, *arguments, **named)
        return self.plain(kernels, *arguments, **named)

    def triton(
        self, fits: Callable[Concatenate[Kernels, P], bool] | None = None
    ) -> Callable[[Callable[Concatenate[Kernels, P], R]], Callable[Concatenate[Kernels, P], R]]:
        """Decorates the launch of the Triton kernel.

        Args:
            fits: Whether the kernel takes these arguments; without it, it takes all.
        """

        def register(function: Callable[Concatenate[Kernels, P], R]) -> Callable[Concatenate[Kernels, P], R]:
            self.in_triton, self._fits = function, fits
            return function

        return register

    def probed(self, cases: Callable[["Inputs"], Iterator[Case]]) -> Callable[["Inputs"], Iterator[Case]]:
        """Decorates the function that makes the probe's cases."""
        self.cases = cases
        return cases

    def making(self, *arguments: Any, **named: Any) -> Case:
        """A case of an operation that returns what it makes."""

        def run(kernels: Kernels) -> torch.Tensor:
            return cast("torch.Tensor", self(kernels, *arguments, **named))

        return run

    def changing(self, x: torch.Tensor, *arguments: Any) -> Case:
        """A case of an operation that changes its first argument."""

        def run(kernels: Kernels) -> torch.Tensor:
            changed = x.clone()
            self(kernels, changed, *arguments)  # type: ignore[call-arg, arg-type]
            return changed

        return run


class Inputs:
    """Random inputs of one type on one device, at the widths of Protenix's models.

    Sizes of cases are such that blocks of rows, of queries and of keys end within them, with padding tokens.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self._generator = torch.Generator(device).manual_seed(0)

    def random(self, *shape: int) -> torch.Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, device=self.device, generator=self._generator).to(self.dtype)

    def norm(self, width: int) -> Norm:
        """Scale and shift of a layer norm."""
        return self.random(width), self.random(width)

    def matrix(self, n_out: int, n_in: int) -> torch.Tensor:
        """A weight matrix [n_out, n_in] that keeps the size of what it multiplies."""
        made: torch.Tensor = self.random(n_out, n_in) / n_in**0.5
        return made
