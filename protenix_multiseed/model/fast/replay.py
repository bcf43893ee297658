"""CUDA graphs: a GPU runs a long row of small kernels faster than Python can send them."""

from collections.abc import Callable

import torch


class Replay:
    """A function of static tensors, called many times.

    On a GPU the first call runs as it is, which compiles and allocates what is needed; the second is captured as a CUDA
    graph; it and all later ones replay the graph, which sends no kernels one by one and allocates nothing. Elsewhere
    every call runs as it is.

    Args:
        captures: False for a function whose kernels are long enough to keep a GPU busy by themselves: a graph holds
            its working memory for as long as it lives.
    """

    def __init__(self, function: Callable[[], None], device: torch.device, *, captures: bool = True) -> None:
        self._function = function
        self._is_warm = False
        self._captures = captures and device.type == "cuda"
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Run the function once."""
        if self._graph is not None:
            self._graph.replay()  # type: ignore[no-untyped-call]
        elif self._is_warm and self._captures:
            graph = torch.cuda.CUDAGraph()  # type: ignore[no-untyped-call]
            with torch.cuda.graph(graph):
                self._function()
            self._graph = graph
            graph.replay()  # type: ignore[no-untyped-call]
        else:
            self._function()
            self._is_warm = True
