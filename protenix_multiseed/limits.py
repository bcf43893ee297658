"""Sizes that the engine and its memory estimate must share. This module does not import torch."""

TEMPLATE_SLOTS = 4  # of upstream's model
EMPTY_TEMPLATES = 2  # that differ if all slots are empty: one has gaps, the others zeros
MAX_TEMPORARY_ELEMENTS_GPU = 2**27  # larger temporaries are computed in chunks
MAX_TEMPORARY_ELEMENTS_CPU = 2**20  # the same on a CPU, where a chunk should fit in the processor's cache
MAX_PAIR_ELEMENTS_GPU = 2**30  # the same for the tensors of a triangle update, which are fast only if they are large
MAX_PAIR_ELEMENTS_GPU_ROOMY = 2**32  # the same for a batch that leaves enough memory free
FOLDED_CHANNELS = 256  # of pairs whose layer norms are folded into the weights after them, on a Hopper GPU
KEY_BLOCK = 64  # rows of attention biases are padded to a multiple of this: the most keys that Triton reads at once
TOKEN_PADDING_GPU = 16  # tokens are padded to a multiple of this: tensor cores and vector loads need aligned rows
CUDA_GRAPH_MAX_PAIRS = 2**17  # up to this many token pairs the Pairformer is launch-bound: capture a CUDA graph
CUDA_GRAPH_MAX_PAIRS_ROOMY = 5 * 2**16  # the same for a batch that leaves enough memory free for a larger graph
CUDA_GRAPH_MAX_KEPT_BYTES = 2**27  # a captured loop with larger tensors is not kept for the next batch
CUDA_GRAPH_MAX_KEPT_BYTES_ROOMY = 2**31  # the same for a batch that leaves enough memory free
ESM_MAX_RESIDUES = 4094  # of a protein: the limit of upstream's ESMFeaturizer, which cuts the rest off
MAX_SEEDS_PER_BATCH = 20  # more seeds gain nothing measurable and delay the first result
SHARED_BATCH_MAX_TOKENS = (
    400  # larger jobs gain less than a fifth by filling a batch: 1.95 x at 120, 1.4 x at 245, 1.08 x at 600
)
MAX_SHARED_PADDING_PERCENT = 10  # of the arithmetic of a batch of several jobs
_MAX_SCORED_PAIRS = 2**19  # the confidence head scores at most this many token pairs at once, over all samples


def fewest_channels(n_channel: int) -> int:
    """Return how many of the channels of a triangle product are computed at a time at least.

    Kernels for Hopper GPUs make 64 of 256 channels.
    """
    return max(min(n_channel, 32), n_channel // 4)


def channel_groups(n_pair: int, n_channel: int, elements: int | None) -> int:
    """Return in how many groups of channels a triangle product is computed, so that its two factors stay small.

    Args:
        n_pair: Token pairs of all seeds.
        n_channel: Channels of the product, a power of two.
        elements: Maximum number of elements of both factors; None: one group.
    """
    groups, fewest = 1, fewest_channels(n_channel)
    while elements is not None and n_channel // groups > fewest and 2 * n_pair * n_channel > groups * elements:
        groups *= 2
    return groups


def samples_scored_at_once(n_token: int) -> int:
    """Return how many samples of one seed the confidence head scores at once, if memory allows."""
    return max(1, _MAX_SCORED_PAIRS // n_token**2)
