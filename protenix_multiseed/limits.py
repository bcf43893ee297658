"""Sizes on which the engine and its memory estimate must agree. Nothing here imports torch."""

MAX_TEMPORARY_ELEMENTS_GPU = 2**27  # larger temporaries are computed in chunks
MAX_TEMPORARY_ELEMENTS_CPU = 2**20  # the same on a CPU, where a chunk should stay in the cache
KEY_BLOCK = 64  # rows of attention biases are padded to a multiple of this many keys: Triton reads no more at once
TOKEN_PADDING_GPU = 16  # tokens are padded to a multiple of this: matrix units and vector loads want aligned rows
CUDA_GRAPH_MAX_PAIRS = 2**17  # below this many token pairs the Pairformer is launch-bound: capture a CUDA graph
CUDA_GRAPH_MAX_KEPT_BYTES = 2**27  # a captured loop with larger tensors is not kept for the next batch
MAX_SEEDS_PER_BATCH = 20  # more seeds gain nothing measurable and delay the first result
_MAX_SCORED_PAIRS = 2**19  # token pairs over all samples that are scored at once


def samples_scored_at_once(n_token: int) -> int:
    """How many samples of one seed the confidence head scores at once, if memory allows."""
    return max(1, _MAX_SCORED_PAIRS // n_token**2)
