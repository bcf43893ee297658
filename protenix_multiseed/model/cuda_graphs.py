"""CUDA graphs: a GPU runs many small kernels faster than Python can launch them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from protenix_multiseed.limits import CUDA_GRAPH_MAX_KEPT_BYTES


def can_capture(device: torch.device) -> bool:
    """Whether a device's work can be captured and replayed."""
    return device.type == "cuda"


def capture(function: Callable[[], None]) -> Callable[[], None]:
    """Capture what a function launches. Calling the result launches it again and allocates nothing."""
    graph = torch.cuda.CUDAGraph()  # type: ignore[no-untyped-call]
    # Other threads copy features and results meanwhile, which a capture of the default mode would not survive.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        function()
    replay: Callable[[], None] = graph.replay
    return replay


class GraphedLoop:
    """A function of static tensors, called many times by one batch or by several of the same sizes.

    On a GPU the first call runs as it is, which compiles kernels and allocates memory. The second is captured as a CUDA
    graph, which it and all later calls replay. Elsewhere every call runs as it is.

    Args:
        body: Reads and writes ``tensors``, and otherwise only reads what never changes.
        tensors: All tensors of a batch that the body reads or writes.
        fixed: What else the body depends on, such as the number of tokens.
        captures: False for a body whose kernels keep a GPU busy by themselves: a graph holds its working memory for as
            long as it lives.
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
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def is_like(self, other: "GraphedLoop") -> bool:
        """Whether the other's values fit in these tensors."""
        mine, theirs = ([(x.shape, x.stride(), x.dtype) for x in loop.tensors] for loop in (self, other))
        return self._fixed == other._fixed and mine == theirs

    def load(self, other: "GraphedLoop") -> None:
        """Take over the other's values."""
        for mine, theirs in zip(self.tensors, other.tensors, strict=True):
            mine.copy_(theirs)


class GraphCache:
    """Loops kept from one batch for the next of the same sizes, so that its graphs need not be captured again.

    A graph replays on the tensors it was captured with, so the next batch's values are copied there. A loop whose
    tensors are too large to be held beside the next batch is not kept.
    """

    def __init__(self) -> None:
        self._kept: dict[str, GraphedLoop] = {}
        self._sizes: tuple[int, ...] | None = None

    def begin(self, *sizes: int) -> None:
        """A batch of these sizes begins: loops of other sizes are dropped."""
        if sizes != self._sizes:
            self.forget()
        self._sizes = sizes

    def take(self, name: str, fresh: GraphedLoop) -> GraphedLoop:
        """The loop to run: ``fresh``, or the last batch's of this name, filled with the fresh values."""
        kept = self._kept.pop(name, None)
        if kept is not None and kept.is_like(fresh):
            kept.load(fresh)
            fresh = kept
        if fresh.captures and fresh.nbytes <= CUDA_GRAPH_MAX_KEPT_BYTES:
            self._kept[name] = fresh
        return fresh

    def forget(self) -> None:
        """Drop all loops."""
        self._kept.clear()
