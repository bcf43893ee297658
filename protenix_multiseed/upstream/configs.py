"""Build upstream's configuration for a run, as ``protenix pred`` does."""

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
    """Build upstream's configuration. Upstream: ``get_default_runner`` of ``runner/batch_inference.py``.

    Args:
        settings: The settings of the run.
        kernels: ``torch`` or ``cuequivariance``, for both triangle attention and triangle multiplication.
        device_capability: Compute capability of the GPU; None on a CPU.

    Raises:
        ConfigError: if an override is not a setting of upstream, or its value has the wrong type.
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
        # As update_gpu_compatible_configs of runner/inference.py: these GPUs lack bfloat16 and the fused kernels.
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
    """Return whether a value has a type that fits a setting with this default."""
    if value is None or default is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, int | float):
        return isinstance(value, int) or (isinstance(value, float) and isinstance(default, float))
    return isinstance(value, str) and isinstance(default, str)
