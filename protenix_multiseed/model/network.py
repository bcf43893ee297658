"""Protenix's model on its device, with the precision that upstream chooses for each part and size."""

from collections.abc import Callable
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
    """The model with the configuration it was built with.

    Attributes:
        module: ``protenix.model.protenix.Protenix``.
        configs: Upstream's configuration.
        spec: The model's entry, by which precision is chosen.
        precision: ``reference``, or ``fast``: the diffusion network in bfloat16.
        kernels: How the operations of the fast stages run.
        padding: The fast trunk pads tokens to a multiple of this.
        graphs: CUDA graphs kept from batch to batch.
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
        """A module's weights in the form that a fast stage wants, made once per run: ``make(module, dtype)``."""
        key = (make, id(module), dtype)
        if key not in self._prepared:
            self._prepared[key] = make(module, dtype)
        made: _Made = self._prepared[key]
        return made

    def set_size(self, n_token: int) -> None:
        """Give the model its configuration with upstream's precision for jobs of this size."""
        for part, skipped in self.spec.skip_amp(n_token).items():
            self.configs.skip_amp[part] = skipped
        self.module.configs = self.configs

    def trunk_dtype(self) -> torch.dtype:
        """The type in which autocast computes the trunk."""
        return _DTYPES[self.configs.dtype] if self.device.type == "cuda" else torch.float32

    def dtype_of(self, part: str, n_token: int) -> torch.dtype:
        """The type of a part that upstream keeps out of autocast up to some size."""
        if part == "sample_diffusion" and self.precision == "fast":
            return torch.bfloat16
        is_full = self.device.type != "cuda" or self.spec.skip_amp(n_token)[part]
        return torch.float32 if is_full else self.trunk_dtype()

    def autocast(self) -> AbstractContextManager[Any]:
        """Upstream's automatic mixed precision: on a GPU only, in the configured type."""
        if self.device.type != "cuda":
            return nullcontext()
        return torch.autocast("cuda", dtype=_DTYPES[self.configs.dtype])

    def full_precision(self, part: str, n_token: int) -> AbstractContextManager[Any]:
        """Outside autocast where upstream runs ``part`` outside it at this size."""
        if self.device.type != "cuda" or not self.spec.skip_amp(n_token)[part]:
            return nullcontext()
        return torch.autocast("cuda", enabled=False)

    def chunk_size(self, n_token: int) -> int | None:
        """Upstream's chunk of triangle attention at this size (``_get_dynamic_chunk_size``)."""
        size: int | None = self.module._get_dynamic_chunk_size(n_token)
        return size
