"""The airlock: the one place that imports upstream's ``configs`` and ``runner``, and prepares ``protenix``.

Importing this module imports nothing heavy. :func:`prepare` must run before the first import of ``protenix.data`` or
``protenix.model`` in a process, since upstream reads its environment there.
"""

import contextlib
import importlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protenix_multiseed.dictionary import Dictionary, EmbeddedDictionary, MoleculeTable
from protenix_multiseed.errors import ConfigError

DEFAULT_MODEL = "protenix_base_default_v1.0.0"
DEMO_MODEL = "demo"
DEMO_NOTICE = (
    "Made by the demo model: an untrained Protenix with few blocks and made-up weights. "
    "It shows how the tool works and says nothing about biology."
)
_DEMO_ARCHITECTURE: dict[str, Any] = {
    "model.N_cycle": 2,
    "sample_diffusion.N_step": 8,
    "model.template_embedder.n_blocks": 1,
    "model.msa_module.n_blocks": 1,
    "model.pairformer.n_blocks": 1,
    "model.diffusion_module.atom_encoder.n_blocks": 1,
    "model.diffusion_module.transformer.n_blocks": 2,
    "model.diffusion_module.atom_decoder.n_blocks": 1,
    "model.confidence_head.n_blocks": 1,
}
# Upstream's batch_inference.py names these three where it allows templates and RNA MSAs.
_TEMPLATE_MODELS = frozenset(
    {"protenix_base_default_v1.0.0", "protenix_base_20250630_v1.0.0", "protenix-v2", DEMO_MODEL}
)
_TOKEN_LIMITS = {"protenix-v2": 2560}  # runner/inference.py, update_inference_configs


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPreset:
    """What upstream's ``configs_model_type.py`` says about one model."""

    name: str
    cycles: int
    steps: int
    msa: bool
    template: bool
    constraint: bool
    esm_model: str | None
    max_tokens: int | None


def model_names() -> tuple[str, ...]:
    """Every model of upstream, and the demo."""
    return (*_model_configs(), DEMO_MODEL)


def preset(name: str) -> ModelPreset:
    """The preset of a model that :func:`model_names` lists."""
    settings = _model_configs()[DEFAULT_MODEL if name == DEMO_MODEL else name]
    model, diffusion = settings.get("model", {}), settings.get("sample_diffusion", {})
    esm = settings.get("esm", {})
    demo = _DEMO_ARCHITECTURE if name == DEMO_MODEL else {}
    return ModelPreset(
        name=name,
        cycles=demo.get("model.N_cycle", model["N_cycle"]),
        steps=demo.get("sample_diffusion.N_step", diffusion.get("N_step", 200)),
        msa=settings.get("use_msa", True),
        template=name in _TEMPLATE_MODELS,
        constraint="constraint_embedder" in model,
        esm_model=esm.get("model_name") if esm.get("enable") else None,
        max_tokens=_TOKEN_LIMITS.get(name),
    )


def checkpoint_urls() -> Mapping[str, str]:
    """Upstream's own table of downloads, by the name of a model or of a data file."""
    urls: Mapping[str, str] = importlib.import_module("protenix.web_service.dependency_url").URL
    return urls


def default_checkpoint_dir() -> Path:
    """Where upstream keeps checkpoints: ``PROTENIX_ROOT_DIR/checkpoint``, the root being the home folder by default."""
    return Path(os.environ.get("PROTENIX_ROOT_DIR") or Path.home()) / "checkpoint"


def template_data_dir() -> Path:
    """Where upstream keeps the release dates of template structures: ``PROTENIX_ROOT_DIR/common``."""
    return default_checkpoint_dir().parent / "common"


def prepare(dictionary: Dictionary) -> None:
    """Set upstream's environment, quieten it and give it the dictionary. Safe to call again."""
    # The fused layer norm compiles CUDA at the first call, a known cause of failed starts; torch's needs no compiler.
    os.environ.setdefault("LAYERNORM_TYPE", "torch")
    logging.getLogger("protenix").setLevel(logging.ERROR)
    for name in ("rdkit", "pdbeccdutils", "absl", "graphviz"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"biotite|protenix|torch|pdbeccdutils|cuequivariance.*")
    if isinstance(dictionary, EmbeddedDictionary):
        _embed(dictionary)


def _embed(dictionary: EmbeddedDictionary) -> None:
    """Stand the embedded dictionary where upstream keeps its two files once read."""
    ccd: Any = importlib.import_module("protenix.data.core.ccd")
    data_utils: Any = importlib.import_module("protenix.data.utils")

    def load() -> EmbeddedDictionary:
        return dictionary

    ccd.biotite_load_ccd_cif = load
    data_utils.biotite_load_ccd_cif = load
    if not isinstance(ccd._ccd_rdkit_mols, MoleculeTable):
        ccd._ccd_rdkit_mols = MoleculeTable(dictionary)
        for cached in (ccd.get_component_atom_array, ccd.get_one_letter_code, ccd.get_mol_type, ccd.get_ccd_ref_info):
            cached.cache_clear()


def build_configs(
    *,
    model: str,
    cycles: int | None = None,
    steps: int | None = None,
    samples: int = 5,
    msa: bool = True,
    template: bool = False,
    rna_msa: bool = False,
    guidance: bool = False,
    kernels: str = "torch",
    device_capability: tuple[int, int] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Any:
    """Upstream's configuration for a run, put together as ``protenix pred`` does (``get_default_runner``).

    Args:
        cycles, steps: The model's own if None.
        kernels: ``torch`` or ``cuequivariance``, for triangle attention and multiplication alike.
        device_capability: The GPU's, or None on a CPU.
        overrides: Values by dotted path, such as ``{"model.pairformer.n_blocks": 2}``; they win over all else.

    Raises:
        ConfigError: for an override that names no setting of upstream.
    """
    parse_configs = importlib.import_module("protenix.config.config").parse_configs
    config_dict = importlib.import_module("ml_collections.config_dict").ConfigDict
    base = {
        **importlib.import_module("configs.configs_base").configs,
        "data": importlib.import_module("configs.configs_data").data_configs,
        **importlib.import_module("configs.configs_inference").inference_configs,
    }
    architecture = DEFAULT_MODEL if model == DEMO_MODEL else model
    configs = parse_configs({**base, "model_name": architecture}, fill_required_with_null=True)
    configs.update(config_dict(_model_configs()[architecture]))
    if model == DEMO_MODEL:
        _override(configs, _DEMO_ARCHITECTURE)
    configs.model.N_cycle = cycles or preset(model).cycles
    configs.sample_diffusion.N_step = steps or preset(model).steps
    configs.sample_diffusion.N_sample = samples
    configs.use_msa, configs.use_template, configs.use_rna_msa = msa, template, rna_msa
    configs.sample_diffusion.guidance.enable = guidance
    configs.triangle_multiplicative = configs.triangle_attention = kernels
    if device_capability is not None and (7, 0) <= device_capability < (8, 0):
        # runner/inference.py, update_gpu_compatible_configs: these cards have neither bf16 nor the fused kernels.
        configs.dtype = "fp32"
        configs.triangle_multiplicative = configs.triangle_attention = "torch"
    _override(configs, overrides or {})
    return configs


def skip_amp_rules(model: str, n_token: int) -> dict[str, bool]:
    """Which parts run outside autocast at this size (``update_inference_configs`` of ``runner/inference.py``)."""
    return {
        "confidence_head": n_token <= 2560 and model != "protenix-v2",
        "sample_diffusion": n_token <= 3840,
    }


@contextlib.contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Put ``value`` in the place of an attribute of upstream for the length of a block."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keep upstream's prints off the terminal."""
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
        yield


def call_quietly(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call something of upstream that prints."""
    with silenced():
        return function(*arguments, **named)


def _model_configs() -> dict[str, Any]:
    configs: dict[str, Any] = importlib.import_module("configs.configs_model_type").model_configs
    return configs


def _override(configs: Any, overrides: Mapping[str, Any]) -> None:
    for path, value in overrides.items():
        *parents, last = path.split(".")
        node = configs
        for parent in parents:
            node = node.get(parent) if hasattr(node, "get") else None
        if not hasattr(node, "get") or last not in node:
            raise ConfigError(f"upstream.{path}: Protenix has no such setting; see its configs/configs_base.py")
        with node.ignore_type():
            node[last] = value


def load_data_dumper() -> Any:
    """The class of upstream's writer, with all that it imports."""
    return importlib.import_module("runner.dumper").DataDumper


def data_dumper(folder: Path, *, full_confidence: bool) -> Any:
    """Upstream's writer of mmCIF and confidence files."""
    return load_data_dumper()(base_dir=str(folder), need_atom_confidence=full_confidence, sorted_by_ranking_score=True)
