"""An operation: its PyTorch version, its Triton kernels if any, and the cases on which the probe compares both."""

from collections.abc import Callable, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, cast

import torch

from protenix_multiseed.kernels.base import EPSILON, Kernels, Lengths, Norm
from protenix_multiseed.kernels.normed import NormedLinear
from protenix_multiseed.limits import FOLDED_CHANNELS

P = ParamSpec("P")
R = TypeVar("R")
Case: TypeAlias = Callable[[Kernels], torch.Tensor]
"""An operation on fixed inputs. Called with kernels, it returns the tensor that the operation makes or changes."""


class Operation(Generic[P, R]):
    """An operation that runs in PyTorch or Triton. The first argument of a call chooses: ``swiglu(kernels, x)``.

    Attributes:
        plain: The PyTorch version. It defines the correct result.
        cases: Makes the cases on which the probe compares Triton with PyTorch, or None.
        has_half: Whether there are cases in float16 too, not only in bfloat16 and float32.
    """

    def __init__(self, plain: Callable[Concatenate[Kernels, P], R]) -> None:
        self.plain = plain
        self._launches: list[
            tuple[Callable[Concatenate[Kernels, P], bool] | None, Callable[Concatenate[Kernels, P], R]]
        ] = []
        self.cases: Callable[[Inputs], Iterator[Case]] | None = None
        self.has_half = False
        self.__doc__, self.__name__ = plain.__doc__, plain.__name__

    def __call__(self, kernels: Kernels, *arguments: P.args, **named: P.kwargs) -> R:
        """Run the first Triton kernel that takes these arguments, if ``kernels`` asks for Triton; else PyTorch."""
        if kernels.name == "triton":
            for fits, launch in self._launches:
                if fits is None or fits(kernels, *arguments, **named):
                    return launch(kernels, *arguments, **named)
        return self.plain(kernels, *arguments, **named)

    def triton(
        self, fits: Callable[Concatenate[Kernels, P], bool] | None = None
    ) -> Callable[[Callable[Concatenate[Kernels, P], R]], Callable[Concatenate[Kernels, P], R]]:
        """Decorator that registers a function that launches a Triton kernel. Kernels are tried in this order.

        Args:
            fits: Tells whether the kernel takes these arguments. None: the kernel takes all arguments.
        """

        def register(function: Callable[Concatenate[Kernels, P], R]) -> Callable[Concatenate[Kernels, P], R]:
            self._launches.append((fits, function))
            return function

        return register

    def probed(self, cases: Callable[["Inputs"], Iterator[Case]]) -> Callable[["Inputs"], Iterator[Case]]:
        """Decorator that registers the function that makes the probe's cases."""
        self.cases = cases
        return cases

    def probed_in_half_too(self, cases: Callable[["Inputs"], Iterator[Case]]) -> Callable[["Inputs"], Iterator[Case]]:
        """The same decorator for an operation of the denoiser, whose products may be in float16."""
        self.has_half = True
        return self.probed(cases)

    def making(self, *arguments: Any, **named: Any) -> Case:
        """Make a case of an operation that returns a new tensor."""

        def run(kernels: Kernels) -> torch.Tensor:
            return cast("torch.Tensor", self(kernels, *arguments, **named))

        return run

    def changing(self, x: torch.Tensor, *arguments: Any) -> Case:
        """Make a case of an operation that changes its first argument. Each run of the case changes a fresh copy."""

        def run(kernels: Kernels) -> torch.Tensor:
            changed = x.clone()
            self(kernels, changed, *arguments)  # type: ignore[call-arg, arg-type]
            return changed

        return run


class Inputs:
    """Random inputs of one dtype on one device, for the cases of the probe.

    In float16 only the operations of the denoiser have cases. There the rows that are updated are in float32.

    Cases use the channel widths of Protenix's models. Their sizes are chosen so that kernels process several tiles and
    partial tiles of rows, queries and keys, and so that some tokens are padding.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.is_half = dtype == torch.float16
        self._generator = torch.Generator(device).manual_seed(0)

    def random(self, *shape: int) -> torch.Tensor:
        """Standard normal numbers of this shape."""
        return torch.randn(shape, device=self.device, generator=self._generator).to(self.dtype)

    def rows(self, *shape: int) -> torch.Tensor:
        """The same for rows that blocks of the denoiser update."""
        made = self.random(*shape)
        return made.float() if self.is_half else made

    def norm(self, width: int) -> Norm:
        """Scale and shift of a layer norm, each [width]."""
        return self.random(width), self.random(width)

    def linear(self, n_out: int, width: int) -> NormedLinear:
        """A layer norm and a weight matrix [n_out, width]."""
        return NormedLinear(self.norm(width), self.matrix(n_out, width))

    def folds(self, width: int) -> bool:
        """Whether kernels for Hopper GPUs fold the norms of rows of ``width`` channels into weights."""
        return width == FOLDED_CHANNELS and self.dtype == torch.bfloat16

    @staticmethod
    def rstd(x: torch.Tensor, known: torch.Tensor | None = None) -> torch.Tensor:
        """Reciprocal standard deviations of ``x`` [..., c] in float32: those ``known``, if a kernel made them."""
        return torch.rsqrt(x.float().var(dim=-1, correction=0) + EPSILON) if known is None else known

    def lengths(self, *numbers: int) -> Lengths:
        """Numbers of real tokens of the entries."""
        return Lengths.of(numbers, self.device)

    def matrix(self, n_out: int, n_in: int) -> torch.Tensor:
        """Weight matrix [n_out, n_in] with variance 1 / n_in, so that a product has about the variance of its input."""
        made: torch.Tensor = self.random(n_out, n_in) / n_in**0.5
        return made
