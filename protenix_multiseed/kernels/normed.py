"""A layer norm and the matrix after it as one: ``norm(x) W^T``, with the norm folded into the matrix.

With scale ``s`` and shift ``b`` of the norm, ``norm(x) W^T = r (x - mean) (W s)^T + b W^T``, where ``r`` is the
reciprocal standard deviation (``rstd``) of a row. If the sum over each row of ``W s`` is zero, the mean drops out, and
the product can be made from ``x`` as it is in memory:

    norm(x) W^T = r x V^T + b W^T,    V = W s, less the mean of each of its rows.

The sums are zero but for rounding. So a row whose numbers are all equal, whose ``r`` is 316, differs from ``b W^T`` by
about a thousandth of its numbers.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

from protenix_multiseed.kernels.base import Norm
from protenix_multiseed.kernels.rows_hopper import in_eights, in_turn

_ROUNDS = 4  # after these, most sums are exactly zero, and none is more than a thousandth of a weight


@dataclass(frozen=True, eq=False)
class NormedLinear:
    """A layer norm over c channels and the matrix of the product after it. Its folded form is made at the first use.

    Attributes:
        norm: Scale and shift of the norm, each [c].
        weight: [c_out, c].
        part_of: The matrix of which this one has some rows, as ``part`` took them. Its folded form is used.
    """

    norm: Norm
    weight: torch.Tensor
    part_of: tuple["NormedLinear", int, slice] | None = None

    def __len__(self) -> int:
        """The number of output channels."""
        return len(self.weight)

    def part(self, n_block: int, rows: slice) -> "NormedLinear":
        """The same with ``rows`` of each of ``n_block`` equal blocks of the matrix."""
        return NormedLinear(self.norm, _rows(self.weight, n_block, rows), (self, n_block, rows))

    @cached_property
    def folded(self) -> torch.Tensor:
        """V [c_out, c] in bfloat16. The sum of each of its rows is nearly zero."""
        if self.part_of is not None:
            whole, n_block, rows = self.part_of
            return _rows(whole.folded, n_block, rows)
        scaled = self.weight.double() * self.norm[0].double()
        return round_to_zero_sums(scaled - scaled.mean(dim=1, keepdim=True))

    @cached_property
    def shift(self) -> torch.Tensor:
        """``b W^T`` [c_out] in float32."""
        if self.part_of is not None:
            whole, n_block, rows = self.part_of
            return _rows(whole.shift, n_block, rows)
        return (self.weight.double() @ self.norm[1].double()).float()

    @cached_property
    def shift_in_eights(self) -> torch.Tensor:
        """``shift`` in the order of :func:`.rows_hopper.in_eights`."""
        return torch.as_strided(self.shift, *in_eights(len(self), 1)).flatten()

    @cached_property
    def shift_in_turn(self) -> torch.Tensor:
        """``shift`` in the order of :func:`.rows_hopper.in_turn`."""
        return torch.as_strided(self.shift, *in_turn(len(self), 1)).flatten()


def _rows(x: torch.Tensor, n_block: int, rows: slice) -> torch.Tensor:
    return x.view(n_block, -1, *x.shape[1:])[:, rows].flatten(0, 1)


def round_to_zero_sums(weight: torch.Tensor) -> torch.Tensor:
    """Round rows to bfloat16 so that their sums are nearly zero.

    Each number is rounded down or up, most of them to the nearer side. If each went to the nearer one, the errors of a
    row would add up, and a product with it would contain a part of the mean of ``x``.

    Args:
        weight: [n, c] in float64. The sum of each row is zero.
    """
    rounded = weight.to(torch.bfloat16).double()
    step = torch.exp2(rounded.abs().log2().floor() - 7)  # to the next number of bfloat16 away from zero; 0 for 0
    total = rounded.sum(dim=1, keepdim=True)
    # Those that were rounded furthest in the direction of the sum go to their other side first.
    loss = (rounded - weight) * total.sign() / step
    by_loss = loss.nan_to_num(-1.0).argsort(dim=1, descending=True)
    spent = step.gather(1, by_loss).cumsum(dim=1)
    goes = torch.zeros_like(step).scatter(1, by_loss, (spent <= total.abs()).double())
    rounded -= goes * step * total.sign()
    for _ in range(_ROUNDS):  # what is left is smaller than the steps of large weights: small ones take it
        total = rounded.sum(dim=1, keepdim=True)
        best = (step - total.abs()).abs().argmin(dim=1, keepdim=True)
        change = step.gather(1, best) * total.sign()
        rounded.scatter_add_(1, best, torch.where((total - change).abs() < total.abs(), -change, 0.0))
    return rounded.to(torch.bfloat16)
