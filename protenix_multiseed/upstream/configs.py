"""Upstream's configuration for a run, put together as ``protenix pred`` does."""

import importlib
from collections.abc import Mapping
from typing import Any

from protenix_multiseed.errors import ConfigError
from protenix_multiseed.settings import UpstreamSettings
from protenix_multiseed.upstream.models import model_spec


def build_configs(
    settings: UpstreamSettings,
    *,
    kernels: str = "torch",
    device_capability: tuple[int, int] | None = None,
) -> Any:
    """Upstream's configuration. Upstream: ``get_default_runner`` of ``runner/batch_inference.py``.

    Args:
        kernels: ``torch`` or ``cuequivariance``, for triangle attention and multiplication alike.
        device_capability: The GPU's, or None on a CPU.

    Raises:
        ConfigError: for an override that names no setting of upstream, or has a value of another type.
    """
    parse_configs = importlib.import_module("protenix.config.config").parse_configs
    config_dict = importlib.import_module("ml_collections.config_dict").ConfigDict
    base = {
        **importlib.import_module("configs.configs_base").configs,
        "data": importlib.import_module("configs.configs_data").data_configs,
        **importlib.import_module("configs.configs_inference").inference_configs,
    }
    spec = model_spec(settings.model)
    configs = parse_configs({**base, "model_name": spec.upstream_name}, fill_required_with_null=True)
    configs.update(config_dict(spec.settings))
    _override(configs, spec.overrides)
    configs.model.N_cycle = settings.cycles or spec.cycles
    configs.sample_diffusion.N_step = settings.steps or spec.steps
    configs.sample_diffusion.N_sample = settings.samples
    reads = settings.reads
    configs.use_msa, configs.use_template, configs.use_rna_msa = reads.msa, reads.template, reads.rna_msa
    configs.sample_diffusion.guidance.enable = settings.guidance
    configs.triangle_multiplicative = configs.triangle_attention = kernels
    if device_capability is not None and (7, 0) <= device_capability < (8, 0):
        # update_gpu_compatible_configs of runner/inference.py: these cards have neither bf16 nor the fused kernels.
        configs.dtype = "fp32"
        configs.triangle_multiplicative = configs.triangle_attention = "torch"
    _override(configs, settings.overrides)
    return configs


def _override(configs: Any, overrides: Mapping[str, Any]) -> None:
    for path, value in overrides.items():
        *parents, last = path.split(".")
        node = configs
        for parent in parents:
            node = node.get(parent) if hasattr(node, "get") else None
        if not hasattr(node, "get") or last not in node:
            raise ConfigError(f"upstream.{path}: Protenix has no such setting; see its configs/configs_base.py")
        if not _is_like(value, node[last]):
            expected = "an object" if hasattr(node[last], "get") else type(node[last]).__name__
            raise ConfigError(f"upstream.{path}: expected {expected}, such as {node[last]!r}, found {value!r}")
        with node.ignore_type():
            node[last] = value


def _is_like(value: Any, default: Any) -> bool:
    """Whether a value can stand where upstream has this default."""
    if value is None or default is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, int | float):
        return isinstance(value, int) or (isinstance(value, float) and isinstance(default, float))
    return isinstance(value, str) and isinstance(default, str)
