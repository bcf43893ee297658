"""Estimate the bytes of a job's files from its sizes alone."""

from protenix_multiseed.types import Sizes


def estimate_disk_bytes(
    sizes: Sizes, *, seeds: int, n_sample: int, kept: int | None, full_confidence: bool, pae: str
) -> int:
    """Estimate the bytes of a job's files.

    An mmCIF file takes about 98 bytes per atom. Per pair of tokens, the full confidence takes 18 bytes, the predicted
    aligned error (PAE) 6 bytes as JSON or 2 bytes as npz. The PAE of every sample is also kept in reduced form, with 1
    byte per pair of at most 256 tokens or blocks of tokens.

    Args:
        sizes: Sizes of the job.
        seeds: Number of seeds.
        n_sample: Samples per seed.
        kept: Number of samples of a seed that keep more than their scores; None for all.
        full_confidence: Whether the full confidence is written.
        pae: Format of the PAE files: ``none``, ``json`` or ``npz``.
    """
    pairs = sizes.n_token**2
    scores = 4000 + 10 * sizes.n_token + min(sizes.n_token, 256) ** 2
    more = 98 * sizes.n_atom + 2000 + 100 * sizes.n_token + {"none": 0, "json": 6, "npz": 2}[pae] * pairs
    if full_confidence:
        more += 18 * pairs + 20 * sizes.n_atom
    return seeds * (n_sample * scores + min(n_sample, kept or n_sample) * more + 2000)
