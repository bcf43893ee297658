"""The table of models. To add a model, add a :class:`ModelSpec` to :data:`MODELS`. Nothing else has to change."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT_MODEL = "protenix_base_default_v1.0.0"
DEMO_MODEL = "demo"
DEMO_NOTICE = (
    "Made by the demo model: a small network with made-up weights, fitted to one known structure (PDB 1BRS) and to "
    "nothing else. It shows how the tool works and predicts nothing."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EsmModel:
    """An ESM language model, whose embeddings some models read.

    Attributes:
        name: Upstream's name of the language model.
        checkpoints: Names of its files in upstream's table of downloads.
    """

    name: str
    checkpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model.

    Attributes:
        architecture: Name of the model's settings in upstream's ``configs_model_type.py``; None: the model's own name.
        overrides: Upstream's settings that differ from the architecture's, by dotted path.
        template: Whether the model was trained with templates and RNA MSAs.
        constraint: Whether the model reads constraints.
        esm: The language model whose embeddings the model reads, or None.
        max_tokens: Largest number of tokens that the model accepts; None for no limit.
        confidence_full_precision_max_tokens: On a GPU the confidence head runs in float32 up to this many tokens.
        sampling_full_precision_max_tokens: On a GPU the diffusion network runs in float32 up to this many tokens.
        url: Address of the checkpoint; None if upstream's table of downloads has it, or if there is no checkpoint.
        sha256: SHA-256 that the authors of the checkpoint publish; None if they publish none, as Protenix does.
        million_parameters: Number of parameters, in millions; None if unknown.
        cutoff: Date of the newest training structures; None if there are none, or if it is unknown.
        made_up_weights: Whether the weights are made up instead of loaded.
        notice: A sentence that every result must contain, or None.
    """

    name: str
    architecture: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    template: bool = False
    constraint: bool = False
    esm: EsmModel | None = None
    max_tokens: int | None = None
    confidence_full_precision_max_tokens: int = 2560
    sampling_full_precision_max_tokens: int = 3840
    url: str | None = None
    sha256: str | None = None
    million_parameters: float | None = None
    cutoff: str | None = None
    made_up_weights: bool = False
    notice: str | None = None

    @property
    def upstream_name(self) -> str:
        """Name of the model's settings in upstream's ``configs_model_type.py``."""
        return self.architecture or self.name

    @property
    def settings(self) -> Mapping[str, Any]:
        """Upstream's own settings of the architecture."""
        settings: Mapping[str, Any] = _upstream_settings()[self.upstream_name]
        return settings

    @property
    def cycles(self) -> int:
        """Default number of recycling cycles."""
        return int(self.overrides.get("model.N_cycle", self.settings["model"]["N_cycle"]))

    @property
    def steps(self) -> int:
        """Default number of diffusion steps."""
        default = self.settings.get("sample_diffusion", {}).get("N_step", 200)
        return int(self.overrides.get("sample_diffusion.N_step", default))

    @property
    def msa(self) -> bool:
        """Whether the model reads MSAs by default."""
        return bool(self.settings.get("use_msa", True))

    def skip_amp(self, n_token: int) -> dict[str, bool]:
        """Return which parts run without automatic mixed precision for this number of tokens.

        Upstream: ``update_inference_configs`` of ``runner/inference.py``.
        """
        return {
            "confidence_head": n_token <= self.confidence_full_precision_max_tokens,
            "sample_diffusion": n_token <= self.sampling_full_precision_max_tokens,
        }


_ESM2 = EsmModel(name="esm2-3b", checkpoints=("esm2_t36_3B_UR50D", "esm2_t36_3B_UR50D-contact-regression"))
_ISM = EsmModel(name="esm2-3b-ism", checkpoints=("esm2_t36_3B_UR50D_ism", "esm2_t36_3B_UR50D_ism-contact-regression"))
_CUTOFF = "2021-09-30"  # of most models
_DEMO_ARCHITECTURE = {
    "model.N_cycle": 2,
    "sample_diffusion.N_step": 8,
    # With so few steps, these settings of upstream's mini models leave no noise in the structure.
    "sample_diffusion.gamma0": 0,
    "sample_diffusion.step_scale_eta": 1.0,
    "model.template_embedder.n_blocks": 1,
    "model.msa_module.n_blocks": 1,
    "model.pairformer.n_blocks": 1,
    "model.diffusion_module.atom_encoder.n_blocks": 1,
    "model.diffusion_module.transformer.n_blocks": 2,
    "model.diffusion_module.atom_decoder.n_blocks": 1,
    "model.confidence_head.n_blocks": 1,
}

# Messages and help list the models in this order. Sources: upstream's runner/inference.py for limits and precision,
# upstream's runner/batch_inference.py for templates, upstream's docs/supported_models.md for parameters and dates.
MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(
        name="protenix-v2",
        template=True,
        max_tokens=2560,
        confidence_full_precision_max_tokens=-1,
        million_parameters=464.44,
        cutoff=_CUTOFF,
    ),
    ModelSpec(name=DEFAULT_MODEL, template=True, million_parameters=368.48, cutoff=_CUTOFF),
    ModelSpec(name="protenix_base_20250630_v1.0.0", template=True, million_parameters=368.48, cutoff="2025-06-30"),
    ModelSpec(name="protenix_base_default_v0.5.0", million_parameters=368.09, cutoff=_CUTOFF),
    ModelSpec(
        name="protenix_base_constraint_v0.5.0", constraint=True, esm=_ESM2, million_parameters=368.3, cutoff=_CUTOFF
    ),
    ModelSpec(name="protenix_mini_default_v0.5.0", million_parameters=134.06, cutoff=_CUTOFF),
    ModelSpec(name="protenix_tiny_default_v0.5.0", million_parameters=109.5, cutoff=_CUTOFF),
    ModelSpec(name="protenix_mini_esm_v0.5.0", esm=_ESM2, million_parameters=135.22, cutoff=_CUTOFF),
    ModelSpec(name="protenix_mini_ism_v0.5.0", esm=_ISM, million_parameters=135.22, cutoff=_CUTOFF),
    ModelSpec(
        name=DEMO_MODEL,
        architecture=DEFAULT_MODEL,
        overrides=_DEMO_ARCHITECTURE,
        template=True,
        made_up_weights=True,
        notice=DEMO_NOTICE,
    ),
)


def model_names() -> tuple[str, ...]:
    """Return the names of all models."""
    return tuple(spec.name for spec in MODELS)


def model_spec(name: str) -> ModelSpec:
    """Return the entry of a model.

    Raises:
        KeyError: if there is no model with this name.
    """
    for spec in MODELS:
        if spec.name == name:
            return spec
    raise KeyError(name)


def _upstream_settings() -> dict[str, Any]:
    settings: dict[str, Any] = importlib.import_module("configs.configs_model_type").model_configs
    return settings
