"""The models: one entry each. To add a model, add a :class:`ModelSpec` to :data:`MODELS`; nothing else changes."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT_MODEL = "protenix_base_default_v1.0.0"
DEMO_MODEL = "demo"
DEMO_NOTICE = (
    "Made by the demo model: an untrained Protenix with few blocks and made-up weights. "
    "It shows how the tool works and says nothing about biology."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EsmModel:
    """A language model whose embeddings a model reads.

    Attributes:
        name: Upstream's name of it.
        checkpoints: Names of its files in upstream's table of downloads.
    """

    name: str
    checkpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model.

    Attributes:
        architecture: Name of its settings in upstream's ``configs_model_type.py``; its own name if None.
        overrides: Settings of upstream by dotted path that differ from the architecture's.
        template: Whether it was trained with templates and RNA MSAs.
        constraint: Whether it reads constraints.
        esm: The language model it reads.
        max_tokens: Largest complex that it takes, or None.
        confidence_full_precision_max_tokens: On a GPU the confidence head runs in 32 bits up to this many tokens.
        sampling_full_precision_max_tokens: The same of the diffusion network.
        url: Where the checkpoint is; None if upstream's table of downloads has it, or if there is none.
        made_up_weights: Whether weights are made up instead of loaded.
        notice: A sentence that every result must carry.
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
    made_up_weights: bool = False
    notice: str | None = None

    @property
    def upstream_name(self) -> str:
        """Name of its settings in upstream's ``configs_model_type.py``."""
        return self.architecture or self.name

    @property
    def settings(self) -> Mapping[str, Any]:
        """Upstream's own settings of the architecture."""
        settings: Mapping[str, Any] = _upstream_settings()[self.upstream_name]
        return settings

    @property
    def cycles(self) -> int:
        """Recycling cycles."""
        return int(self.overrides.get("model.N_cycle", self.settings["model"]["N_cycle"]))

    @property
    def steps(self) -> int:
        """Diffusion steps."""
        default = self.settings.get("sample_diffusion", {}).get("N_step", 200)
        return int(self.overrides.get("sample_diffusion.N_step", default))

    @property
    def msa(self) -> bool:
        """Whether it reads MSAs unless told otherwise."""
        return bool(self.settings.get("use_msa", True))

    def skip_amp(self, n_token: int) -> dict[str, bool]:
        """Which parts run outside automatic mixed precision at this size.

        Upstream: ``update_inference_configs`` of ``runner/inference.py``.
        """
        return {
            "confidence_head": n_token <= self.confidence_full_precision_max_tokens,
            "sample_diffusion": n_token <= self.sampling_full_precision_max_tokens,
        }


_ESM2 = EsmModel(name="esm2-3b", checkpoints=("esm2_t36_3B_UR50D", "esm2_t36_3B_UR50D-contact-regression"))
_ISM = EsmModel(name="esm2-3b-ism", checkpoints=("esm2_t36_3B_UR50D_ism", "esm2_t36_3B_UR50D_ism-contact-regression"))
_DEMO_ARCHITECTURE = {
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

# In the order in which messages and help list them. Limits and precision: runner/inference.py of upstream; templates:
# its runner/batch_inference.py.
MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(name="protenix-v2", template=True, max_tokens=2560, confidence_full_precision_max_tokens=-1),
    ModelSpec(name=DEFAULT_MODEL, template=True),
    ModelSpec(name="protenix_base_20250630_v1.0.0", template=True),
    ModelSpec(name="protenix_base_default_v0.5.0"),
    ModelSpec(name="protenix_base_constraint_v0.5.0", constraint=True, esm=_ESM2),
    ModelSpec(name="protenix_mini_default_v0.5.0"),
    ModelSpec(name="protenix_tiny_default_v0.5.0"),
    ModelSpec(name="protenix_mini_esm_v0.5.0", esm=_ESM2),
    ModelSpec(name="protenix_mini_ism_v0.5.0", esm=_ISM),
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
    """Names of all models."""
    return tuple(spec.name for spec in MODELS)


def model_spec(name: str) -> ModelSpec:
    """The entry of a model.

    Raises:
        KeyError: if there is none.
    """
    for spec in MODELS:
        if spec.name == name:
            return spec
    raise KeyError(name)


def _upstream_settings() -> dict[str, Any]:
    settings: dict[str, Any] = importlib.import_module("configs.configs_model_type").model_configs
    return settings
