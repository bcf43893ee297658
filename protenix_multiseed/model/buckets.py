"""The sizes to which the entries of a batch of several jobs are padded. Pure arithmetic on integers."""

from collections.abc import Sequence

from protenix_multiseed.limits import TOKEN_PADDING_GPU
from protenix_multiseed.types import Sizes

_ATOM_STEP = 32  # atoms of one local attention window


def padded_sizes(sizes: Sequence[Sizes]) -> Sizes:
    """Return the sizes to which all entries of a batch are padded.

    The features of one job are not padded. For several jobs, tokens and atoms are rounded up, so that different batches
    have the same few sizes and reuse CUDA graphs. Rounding adds at most 1/16 of the tokens above 256 tokens, and at
    most 1/8 of the atoms above 256 atoms.

    Args:
        sizes: Sizes of the parts of the batch, at least one.
    """
    names = ("n_token", "n_atom", "n_msa", "n_template")
    n_token, n_atom, n_msa, n_template = (max(getattr(one, name) for one in sizes) for name in names)
    if len(sizes) > 1:
        n_token = _rounded(n_token, max(TOKEN_PADDING_GPU, _power_of_2(n_token // 16)))
        n_atom = _rounded(n_atom, max(_ATOM_STEP, _power_of_2(n_atom // 8)))
    return Sizes(n_token=n_token, n_atom=n_atom, n_msa=n_msa, n_template=n_template)


def _rounded(n: int, step: int) -> int:
    return -(-n // step) * step


def _power_of_2(n: int) -> int:
    """The largest power of two that is not larger than ``n``; 0 for 0."""
    return 1 << n.bit_length() - 1 if n else 0
