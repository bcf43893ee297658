"""A layer norm and the matrix after it as one: ``norm(x) W^T``, with the norm folded into the matrix.

With scale ``s`` and shift ``b`` of the norm, ``norm(x) W^T = r (x - mean) (W s)^T + b W^T``, where ``r`` is the
reciprocal standard deviation (``rstd``) of a row. If the sum over each row of ``W s`` is zero, the mean drops out, and
the product can be made from ``x`` as it is in memory:

    norm(x) W^T = r x V^T + b W^T,    V = W s, less the mean of each of its rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import torch

from protenix_multiseed.kernels.base import Norm

View: TypeAlias = Callable[[int, int], tuple[list[int], list[int]]]
"""Shape and strides of a view [c_out / 32, a, b, d, c] of a weight [c_out, c], where a * b * d = 32."""
_ROUNDS = 8  # after these, sums of rows are 1e-5 of a weight or less


@dataclass(frozen=True, eq=False)
class NormedLinear:
    """A layer norm over c channels and the matrix of the product after it.

    Attributes:
        norm: Scale and shift of the norm, each [c].
        weight: [c_out, c].
    """

    norm: Norm
    weight: torch.Tensor
    _shifts: dict[View, torch.Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of output channels."""
        return len(self.weight)

    @cached_property
    def folded(self) -> torch.Tensor:
        """V [c_out, c] in bfloat16. The sum of each of its rows is nearly zero. Made at the first use."""
        scaled = self.weight.double() * self.norm[0].double()
        return round_to_zero_sums(scaled - scaled.mean(dim=1, keepdim=True))

    @cached_property
    def shift(self) -> torch.Tensor:
        """``W b`` [c_out] in float32."""
        return (self.weight.double() @ self.norm[1].double()).float()

    def shift_in(self, order: View) -> torch.Tensor:
        """``shift`` in the order of the rows of a view of the weight, such as ``in_eights``."""
        if order not in self._shifts:
            self._shifts[order] = torch.as_strided(self.shift, *order(len(self), 1)).flatten()
        return self._shifts[order]


def round_to_zero_sums(weight: torch.Tensor) -> torch.Tensor:
    """Round rows to bfloat16 so that their sums are nearly zero.

    Each number is rounded down or up, most of them to the nearer side. If each went to the nearer one, the errors of a
    row would add up, and a product with it would contain a part of the mean of ``x``.

    Args:
        weight: [n, c] in float64. The sum of each row is zero.
    """
    rounded = weight.to(torch.bfloat16)
    total = rounded.double().sum(dim=1, keepdim=True)
    other = _neighbour(rounded, up=total < 0)
    step = (other.double() - rounded.double()).abs()
    # Those that were rounded furthest in the direction of the sum go to their other side first.
    loss = (rounded.double() - weight) * total.sign() / step
    by_loss = loss.argsort(dim=1, descending=True, stable=True)
    spent = step.gather(1, by_loss).cumsum(dim=1)
    goes = torch.zeros_like(rounded, dtype=torch.bool).scatter(1, by_loss, spent <= total.abs())
    rounded = torch.where(goes, other, rounded)
    for _ in range(_ROUNDS):  # what is left is smaller than the steps of large weights: small ones take it
        total = rounded.double().sum(dim=1, keepdim=True)
        other = _neighbour(rounded, up=total < 0)
        left = (total + other.double() - rounded.double()).abs()
        best = left.argmin(dim=1, keepdim=True)
        goes = torch.zeros_like(goes).scatter(1, best, left.gather(1, best) < total.abs())
        rounded = torch.where(goes, other, rounded)
    return rounded


def _neighbour(x: torch.Tensor, *, up: torch.Tensor) -> torch.Tensor:
    """The next larger number of bfloat16 where ``up``, else the next smaller one. Zero stays."""
    away = torch.where((x > 0) == up, 1, -1).to(torch.int16)  # the bits of a number count its distance from zero
    return torch.where(x == 0, x, (x.view(torch.int16) + away).view(torch.bfloat16))
