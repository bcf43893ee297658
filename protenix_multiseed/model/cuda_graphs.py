"""CUDA graphs, for loops that are launch-bound: the GPU runs small kernels faster than Python launches them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from protenix_multiseed.limits import (
    CUDA_GRAPH_MAX_KEPT_BYTES,
    CUDA_GRAPH_MAX_KEPT_BYTES_ROOMY,
    CUDA_GRAPH_MAX_PAIRS,
    CUDA_GRAPH_MAX_PAIRS_ROOMY,
)


def can_capture(device: torch.device) -> bool:
    """Whether work on ``device`` can be captured as a CUDA graph."""
    return device.type == "cuda"


def capture(function: Callable[[], None]) -> Callable[[], None]:
    """Capture the kernels that a function launches as a CUDA graph.

    Returns:
        A function that launches the captured kernels again and allocates no memory.
    """
    graph = torch.cuda.CUDAGraph()  # type: ignore[no-untyped-call]
    # Other threads copy features and results at the same time. In the default error mode this would break the capture.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        function()
    replay: Callable[[], None] = graph.replay
    return replay


class GraphedLoop:
    """A function of static tensors that is called many times, by one batch or by several batches of the same sizes.

    On a GPU the first call runs the body directly, which compiles kernels and allocates memory. The second call
    captures a CUDA graph. The second and all later calls replay this graph. On a CPU every call runs the body directly.

    Args:
        body: The function to run. It reads and writes ``tensors``. Apart from them, it only reads data that never
            changes.
        tensors: All tensors of a batch that the body reads or writes.
        fixed: All other values of a batch that the body depends on, such as the number of tokens.
        captures: Whether to capture a CUDA graph. False for a body with large kernels, which is not launch-bound: a
            graph would hold its working memory as long as the graph exists.
    """

    def __init__(
        self, body: Callable[[], None], tensors: Sequence[torch.Tensor], fixed: Sequence[Any], *, captures: bool = True
    ) -> None:
        self.tensors = tuple(tensors)
        self.captures = captures and can_capture(self.tensors[0].device)
        self._body, self._fixed = body, tuple(fixed)
        self._replay: Callable[[], None] | None = None
        self._is_warm = False

    def __call__(self) -> None:
        """Run the body once."""
        if self._replay is None and self._is_warm and self.captures:
            self._replay = capture(self._body)
        (self._replay or self._body)()
        self._is_warm = True

    @property
    def nbytes(self) -> int:
        """Size of ``tensors`` in bytes."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def is_like(self, other: "GraphedLoop") -> bool:
        """Whether ``other`` has the same shapes, strides, dtypes and fixed values, so that :meth:`load` can copy it."""
        mine, theirs = ([(x.shape, x.stride(), x.dtype) for x in loop.tensors] for loop in (self, other))
        return self._fixed == other._fixed and mine == theirs

    def load(self, other: "GraphedLoop") -> None:
        """Copy the values of the tensors of ``other`` into these tensors."""
        for mine, theirs in zip(self.tensors, other.tensors, strict=True):
            mine.copy_(theirs)


class GraphCache:
    """Keeps loops of one batch for the next batch of the same sizes, which then captures no graphs again.

    A graph replays on the tensors with which it was captured, so the values of the next batch are copied into these
    tensors. A loop with many bytes of tensors is not kept, because it would take memory from the next batch.

    Attributes:
        most_pairs: A Pairformer of at most so many token pairs, over all entries of the batch, is captured.
    """

    def __init__(self) -> None:
        self._kept: dict[str, GraphedLoop] = {}
        self._sizes: tuple[int, ...] | None = None
        self._most_bytes = CUDA_GRAPH_MAX_KEPT_BYTES
        self.most_pairs = CUDA_GRAPH_MAX_PAIRS

    def begin(self, *sizes: int, roomy: bool = False) -> None:
        """Begin a batch of these sizes. Drops loops of a batch of other sizes, and loops that are too large to keep.

        Args:
            roomy: Whether the batch leaves memory for larger loops and graphs.
        """
        self.most_pairs = CUDA_GRAPH_MAX_PAIRS_ROOMY if roomy else CUDA_GRAPH_MAX_PAIRS
        self._most_bytes = CUDA_GRAPH_MAX_KEPT_BYTES_ROOMY if roomy else CUDA_GRAPH_MAX_KEPT_BYTES
        if sizes != self._sizes:
            self.forget()
        self._kept = {name: loop for name, loop in self._kept.items() if loop.nbytes <= self._most_bytes}
        self._sizes = sizes

    def take(self, name: str, fresh: GraphedLoop) -> GraphedLoop:
        """Return the loop to run.

        Args:
            name: Name of the loop in the batch.
            fresh: The new batch's loop.

        Returns:
            The last batch's loop of this name with the values of ``fresh``, if it has the same sizes and ``fresh`` may
            be captured. Else ``fresh``.
        """
        kept = self._kept.pop(name, None)
        if kept is not None and fresh.captures and kept.is_like(fresh):
            kept.load(fresh)
            fresh = kept
        if fresh.captures and fresh.nbytes <= self._most_bytes:
            self._kept[name] = fresh
        return fresh

    def forget(self) -> None:
        """Drop all loops."""
        self._kept.clear()
