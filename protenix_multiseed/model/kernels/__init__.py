"""The few operations the fast stages are made of, each twice: in plain PyTorch and in Triton, behind one signature.

Shapes: ``A`` counts what has an attention bias of its own (seeds), ``B`` what shares it (samples, or rows of the pair
representation). ``eps`` of every norm is 1e-5, as upstream's. Tensors are contiguous where nothing else is said.
"""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import torch

Norm: TypeAlias = tuple[torch.Tensor, torch.Tensor]  # a layer norm's scale and shift


class Kernels(Protocol):
    """What both implementations offer.

    Attributes:
        key_block: How many keys are read at once: see :meth:`attention`.
        elements: Of a transition's or outer product's temporary at once: what fills a GPU, or fits in a CPU's cache.
        pair_elements: The same of a pair representation's projections; None to take them whole.
    """

    name: str
    key_block: int
    elements: int
    pair_elements: int | None

    def norm(self, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
        """Layer norm over the last dimension of ``x``, in its type."""

    def modulated_norm(self, a: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Alg. 26 from its projected conditioning: ``norm(a) * sigmoid(scale) + shift``.

        Args:
            a: [A, B, N, c].
            scale, shift: [A, 1, N, c], parts of the rows of one tensor.
        """

    def add_conditioned_transition(
        self,
        a: torch.Tensor,
        update: torch.Tensor,
        conditioning: Sequence[torch.Tensor],
        expand: torch.Tensor,
        contract: torch.Tensor,
    ) -> torch.Tensor:
        """Alg. 23 from the attention's ungated output on: it and Alg. 25 are added to ``a``, and ``a`` is returned.

        ``a += update * sigmoid(update_gate); a += swiglu(modulated_norm(a) expand^T) contract^T * sigmoid(gate)``

        Args:
            a, update: [A, B, N, c].
            conditioning: ``update_gate``, the norm's scale and shift, and ``gate``, each [A, 1, N, c]; the gates are
                parts of the rows of one tensor, scale and shift of another's.
            expand: Both halves of the expansion [2 * c_hidden, c].
            contract: [c, c_hidden].
        """

    def norm_linear(self, x: torch.Tensor, norm: Norm, weight: torch.Tensor) -> torch.Tensor:
        """``norm(x) weight^T``."""

    def pair_bias(
        self, z: torch.Tensor, norm: Norm, weight: torch.Tensor, n_token: int, *, starting: bool = True
    ) -> torch.Tensor:
        """Alg. 14 line 3: [A, N, N, c_z] -> [A, n_head, N, N], the heads foremost in memory, masked at padding keys.

        Args:
            starting: False for Alg. 15, whose queries are the columns of ``z``.
        """

    def gated_channels(self, z: torch.Tensor, norm: Norm, weight: torch.Tensor, n_token: int) -> torch.Tensor:
        """Alg. 12 lines 1-2: both factors of a triangle product, zero at padding.

        Args:
            z: [A, N, N, c_z].
            weight: Values of both factors, then their gates [4 * c, c_z].

        Returns:
            [2 * c, A, N, N].
        """

    def add_triangle(
        self,
        z: torch.Tensor,
        product: torch.Tensor,
        norm: Norm,
        gate: torch.Tensor,
        norm_out: Norm,
        out: torch.Tensor,
    ) -> None:
        """Alg. 12 lines 3-4: ``z += norm_out(product) out^T * sigmoid(norm(z) gate^T)``.

        Args:
            z: [A, N, N, c_z].
            product: [c, A, N, N]; its norm is over the first dimension.
        """

    def add_transition(self, x: torch.Tensor, norm: Norm, expand: torch.Tensor, contract: torch.Tensor) -> None:
        """Alg. 11: ``x += swiglu(norm(x) expand^T) contract^T`` on ``x`` [..., c]."""

    def add_outer(
        self, z: torch.Tensor, outer: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, count: float
    ) -> None:
        """Alg. 9 lines 3-4: ``z += (outer weight^T + bias) / count``, into ``z``.

        Args:
            z: Some rows of one seed's pair representation [R, N, c_z].
            outer: Their outer products, summed over the MSA [R * c, N * c].
            weight: [c_z, c * c].
        """

    def head_values(self, m: torch.Tensor, norm: Norm, weight: torch.Tensor, n_head: int) -> torch.Tensor:
        """Alg. 10 lines 1-2: ``norm(m) weight^T``, heads apart: [N_row, N, c_m] -> [n_head, N, N_row * c]."""

    def add_gated_average(
        self, x: torch.Tensor, average: torch.Tensor, norm: Norm, gate: torch.Tensor, out: torch.Tensor
    ) -> None:
        """Alg. 10 lines 4-7 and Alg. 14 lines 4, 6, 7: ``x += (average * sigmoid(norm(x) gate^T)) out^T``, into ``x``.

        Args:
            x: An MSA or a pair representation [..., N, c_x], of any strides but the last.
            average: Each head's average of values [..., N, n_head, c], of any strides but the last, multiples of c.
        """

    def attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        gate: torch.Tensor | None,
        bias: torch.Tensor,
        out: torch.Tensor,
        n_key: int,
    ) -> None:
        """``softmax(query key + bias) value * sigmoid(gate)`` into ``out``, or ungated; queries come scaled.

        Args:
            query, key, value, gate: [A, B, N, n_head, c], all of the same strides, any but the last.
            out: The same, of its own strides.
            bias: [A, n_head, N, N], finite, of any strides. Rows reach in memory to the end of a block of ``key_block``
                keys, all of them :data:`MASKED` from ``n_key`` on.
            n_key: Keys from this one on are padding.
        """

    def mean_of_atoms(self, x: torch.Tensor, atoms: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """Alg. 5 line 16: mean of ``relu(x)`` over each token's atoms, always summed in the same order.

        Args:
            x: [A, B, N_atom, c].
            atoms: Atoms of each token, filled up with N_atom [N_token, most atoms of a token].
            count: How many they are [N_token].

        Returns:
            [A, B, N_token, c].
        """

    def local_attention(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, gate: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        """Alg. 7: each window of 32 atoms attends to the 128 around it -> [A, B, N_atom, n_head, c], gated.

        Queries come scaled.

        Args:
            query, key, value, gate: [A, B, N_atom, n_head, c].
            bias: [A, n_head, N_window, 32, 128], far below zero where a key lies outside the sequence.
        """


N_QUERY, N_KEY = 32, 128  # Alg. 7
EPSILON = 1e-5
MASKED = -1e10  # a bias that lets nothing through, as upstream has it


def mask_keys(bias: torch.Tensor, n_key: int, key_block: int) -> torch.Tensor:
    """Biases [..., N] as :meth:`Kernels.attention` wants them; a copy where rows must become longer or be masked."""
    n = bias.shape[-1]
    if n % key_block == 0 and n_key == n:
        return bias
    made = bias.new_full((*bias.shape[:-1], -(-n // key_block) * key_block), MASKED)
    made[..., :n_key] = bias[..., :n_key]
    return made[..., :n]


def scale_queries(weight: torch.Tensor, n_head: int) -> torch.Tensor:
    """A projection to queries (its matrix or bias) that makes them scaled by ``1 / sqrt(c)``.

    Upstream scales them once projected, and rounds once more.
    """
    scaled: torch.Tensor = weight * (len(weight) // n_head) ** -0.5
    return scaled


def split_heads(joined: torch.Tensor, n_part: int, n_head: int) -> list[torch.Tensor]:
    """Joined projections [..., n_part * n_head * c] as ``n_part`` views [..., n_head, c]."""
    return [part.view(*part.shape[:-1], n_head, -1) for part in joined.chunk(n_part, dim=-1)]
