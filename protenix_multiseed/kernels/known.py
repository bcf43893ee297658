"""What is known of a pair representation besides its numbers, and what of it the operation after an update reads.

On a Hopper GPU the kernels that update pairs of 256 channels have whole new rows on the chip. There they find what
would otherwise take another pass over all pairs: the deviations of the rows, and the attention biases made from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch

from protenix_multiseed.kernels.base import MASKED, Kernels, Lengths
from protenix_multiseed.kernels.normed import NormedLinear

N_HEADS = (8, 16)  # numbers of heads for which a kernel makes biases


@dataclass(frozen=True, eq=False)
class PairBias:
    """The attention biases that the operation after an update reads: arguments of :func:`.ops.pair_bias.pair_bias`.

    Attributes:
        linear: The norm, and a weight [n_head, c_z].
        lengths: Numbers of real keys of each pair representation.
        starting: True for Alg. 14. False for Alg. 15, whose queries are the columns of the pairs.
    """

    linear: NormedLinear
    lengths: Lengths
    starting: bool = True

    def only(self, seeds: slice) -> Self:
        """The biases of some entries."""
        return self if seeds == slice(None) else replace(self, lengths=self.lengths.only([seeds]))


class Known(NamedTuple):
    """What an update found of the pair representation [A, N, N, c_z] that it left. None: it is not known.

    Attributes:
        rstd: Reciprocal standard deviations of the rows [A, N, N] in float32.
        bias: The biases that were asked for [A, n_head, N, N_key]. N_key is N, rounded up to whole blocks of keys.
    """

    rstd: torch.Tensor | None = None
    bias: torch.Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence["Known"]) -> "Known":
        """Join what is known of some entries after another."""
        if len(parts) == 1:
            return parts[0]
        rstds = [part.rstd for part in parts if part.rstd is not None]
        biases = [part.bias for part in parts if part.bias is not None]
        return cls(
            rstd=torch.cat(rstds) if len(rstds) == len(parts) else None,
            bias=torch.cat(biases) if len(biases) == len(parts) else None,
        )


NOTHING = Known()


def empty_bias(kernels: Kernels, z: torch.Tensor, n_head: int) -> torch.Tensor:
    """Make a place for the biases [A, n_head, N, N_key] of ``z`` [A, N, N, c_z]. In memory the heads come first."""
    n_pair, n = z.shape[:2]
    n_key = -(-n // kernels.key_block) * kernels.key_block
    return z.new_empty(n_head, n_pair, n, n_key).transpose(0, 1)


def place_known(
    kernels: Kernels, x: torch.Tensor, after: PairBias | None
) -> tuple[Known, tuple[Any, ...], tuple[int, bool]]:
    """Make places for what a kernel finds of the rows ``x`` [..., c] that it updates: biases only of [A, N, N, c].

    Returns:
        The places, the kernel's arguments for them, and its constants HEADS and IS_TURNED.
    """
    rstd, n = x.new_empty(x.shape[:-1], dtype=torch.float32), x.shape[-2]
    if after is None or len(after.linear) not in N_HEADS or x.dim() != 4 or x.shape[1] != n:
        return Known(rstd), (x, rstd, rstd, rstd, x, n, 0, 0, 0), (0, False)  # only deviations; the others are not read
    linear, lengths = after.linear, after.lengths
    bias = empty_bias(kernels, x, len(linear))
    bias[..., n:] = MASKED  # keys that are no tokens
    places = (linear.folded, linear.shift, lengths.each, rstd, bias, n, *bias.stride()[:3])
    return Known(rstd, bias), places, (len(linear), not after.starting)
