"""Protenix's model on its device, with the precision that upstream chooses for each part and job size."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from protenix_multiseed.kernels.base import Kernels, torch_kernels
from protenix_multiseed.model.cuda_graphs import GraphCache
from protenix_multiseed.upstream.models import ModelSpec

_Made = TypeVar("_Made")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The model and the configuration with which it was built.

    Attributes:
        module: ``protenix.model.protenix.Protenix``.
        configs: Upstream's configuration.
        spec: The model's entry in the table of models. It chooses the precision of each part.
        device: Device of the model.
        precision: ``reference`` for upstream's precision, or ``fast`` to run the diffusion network and the confidence
            head's Pairformer in bfloat16.
        kernels: How the operations of the fast stages run.
        padding: The fast stages pad the number of tokens to a multiple of this.
        graphs: CUDA graphs that are kept from batch to batch.
    """

    module: Any
    configs: Any
    spec: ModelSpec
    device: torch.device
    precision: str = "reference"
    kernels: Kernels = field(default_factory=torch_kernels)
    padding: int = 1
    graphs: GraphCache = field(default_factory=GraphCache)
    _prepared: dict[Any, Any] = field(default_factory=dict)

    def prepared(self, make: Callable[[Any, torch.dtype], _Made], module: Any, dtype: torch.dtype) -> _Made:
        """Return ``make(module, dtype)``: a module's weights in the form for a fast stage. Computed once and kept."""
        key = (make, id(module), dtype)
        if key not in self._prepared:
            self._prepared[key] = make(module, dtype)
        made: _Made = self._prepared[key]
        return made

    def set_size(self, n_token: int) -> None:
        """Set upstream's precision for jobs of ``n_token`` tokens in the model's configuration."""
        for part, skipped in self.spec.skip_amp(n_token).items():
            self.configs.skip_amp[part] = skipped
        self.module.configs = self.configs

    def set_sizes(self, n_tokens: Sequence[int]) -> None:
        """Set upstream's precision for a batch of jobs of these numbers of tokens.

        Raises:
            ValueError: if upstream's precision is not the same for all these jobs.
        """
        first = self.spec.skip_amp(n_tokens[0])
        if any(self.spec.skip_amp(n_token) != first for n_token in n_tokens):
            raise ValueError(f"jobs of {sorted(n_tokens)} tokens differ in precision: they cannot share a batch")
        self.set_size(n_tokens[0])

    def trunk_dtype(self) -> torch.dtype:
        """The dtype in which autocast computes the trunk; float32 on a CPU."""
        return _DTYPES[self.configs.dtype] if self.device.type == "cuda" else torch.float32

    def dtype_of(self, part: str, n_token: int) -> torch.dtype:
        """The dtype of ``part`` for ``n_token`` tokens: bfloat16 with precision ``fast``, else upstream's dtype.

        Up to some size, upstream runs these parts outside autocast.

        Args:
            part: ``confidence_head`` or ``sample_diffusion``.
            n_token: Number of tokens of the job.
        """
        if self.precision == "fast":
            return torch.bfloat16
        is_full = self.device.type != "cuda" or self.spec.skip_amp(n_token)[part]
        return torch.float32 if is_full else self.trunk_dtype()

    def factors_of_sampling(self, n_token: int) -> torch.dtype:
        """The dtype of the factors of the denoiser's products. Where upstream takes TF32, it may be float16."""
        dtype = self.dtype_of("sample_diffusion", n_token)
        return torch.float16 if dtype == torch.float32 and self.kernels.half else dtype

    def autocast(self) -> AbstractContextManager[Any]:
        """Upstream's automatic mixed precision, in the configured dtype. Does nothing on a CPU."""
        if self.device.type != "cuda":
            return nullcontext()
        return torch.autocast("cuda", dtype=_DTYPES[self.configs.dtype])

    def full_precision(self, part: str, n_token: int) -> AbstractContextManager[Any]:
        """Turn autocast off if upstream runs ``part`` without autocast for ``n_token`` tokens, else do nothing."""
        if self.device.type != "cuda" or not self.spec.skip_amp(n_token)[part]:
            return nullcontext()
        return torch.autocast("cuda", enabled=False)

    def chunk_size(self, n_token: int) -> int | None:
        """Upstream's chunk size of triangle attention for this size (``_get_dynamic_chunk_size``). None: no chunks."""
        size: int | None = self.module._get_dynamic_chunk_size(n_token)
        return size
