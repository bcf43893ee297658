"""The Triton programs behind :mod:`protenix_multiseed.model.kernels.fused`, which documents their arguments.

Capital letters are compile-time constants. Indices that may pass 2**31 are 64 bits wide. Sizes of a job that only bound
indices are not specialised on, so that jobs of other sizes share what is compiled.
"""

from protenix_multiseed.model.kernels.source import attend, diffusion, msa, pairs, rows
from protenix_multiseed.model.kernels.source.attend import attention, local_attention
from protenix_multiseed.model.kernels.source.diffusion import (
    add_conditioned_transition,
    add_modulated,
    mean_of_atoms,
    modulated_norm,
)
from protenix_multiseed.model.kernels.source.msa import add_gated_average, head_values
from protenix_multiseed.model.kernels.source.pairs import add_outer, add_triangle, gated_channels, pair_bias
from protenix_multiseed.model.kernels.source.rows import add_transition, norm, norm_linear, swiglu

__all__ = [
    "add_conditioned_transition",
    "add_gated_average",
    "add_modulated",
    "add_outer",
    "add_transition",
    "add_triangle",
    "attention",
    "gated_channels",
    "head_values",
    "local_attention",
    "mean_of_atoms",
    "modulated_norm",
    "norm",
    "norm_linear",
    "pair_bias",
    "swiglu",
]

# Triton names a compiled program after those it calls, but differently if their own names were not made before: made in
# this order, callees first, they are the same in every process, which then finds what another compiled.
for _module in (rows, pairs, msa, diffusion, attend):
    for _program in vars(_module).values():
        getattr(_program, "cache_key", None)  # none where programs are interpreted
