"""What each part of the program needs of the configuration. :class:`RunConfig` makes each of these in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSettings:
    """Which files of a job are read."""

    msa: bool = True
    rna_msa: bool = False
    template: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRules:
    """What the model and the switches of a run accept.

    Attributes:
        model: Its name, for messages.
        constraint: Whether the model reads constraints.
        max_tokens: The model's limit, or None.
    """

    model: str
    reads: ReadSettings = ReadSettings()
    constraint: bool = False
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSettings:
    """What featurization depends on besides the job; the switches are upstream's of the same meaning.

    Attributes:
        esm_folder: Where ESM embeddings are kept, for the models that read them.
    """

    reads: ReadSettings = ReadSettings()
    guidance: bool = False
    constraint: bool = False
    msa_pair_as_unpair: bool = True
    esm_folder: Path | None = None
    template_mmcif_dir: Path | None = None
    fetch_template_structures: bool = False
    kalign: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """What upstream's configuration is made of.

    Attributes:
        cycles, steps: The model's own if None.
        overrides: Values by dotted path, such as ``{"model.pairformer.n_blocks": 2}``; they win over all else.
    """

    model: str
    cycles: int | None = None
    steps: int | None = None
    samples: int = 5
    reads: ReadSettings = ReadSettings()
    guidance: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """What planning depends on besides the model and the device.

    Attributes:
        assumed_free: Bytes of device memory to plan for instead of asking the device.
        force: Plan jobs that seem too large.
        reference_reason: Why every seed runs alone through Protenix's own modules; None if none does.
    """

    model: str
    samples: int
    precision: str
    max_seeds: int
    max_tokens: int | None = None
    assumed_free: int | None = None
    force: bool = False
    reference_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSettings:
    """How results are written.

    Attributes:
        full_confidence: Write per-atom and per-pair confidence too.
        pae: A file of each sample's predicted aligned error: ``none``, ``json`` as the AlphaFold database has it, or
            ``npz``, compressed.
        kept: How many of a seed's samples, best first, keep more than their scores; None for all.
        notice: A sentence that every file must carry, such as that the model is a demo.
    """

    out: Path
    full_confidence: bool = False
    pae: str = "none"
    kept: int | None = None
    notice: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSettings:
    """How the output folder is looked at.

    Attributes:
        verify: Compare the contents of files, not only that they are there and as long as they were.
        overwrite: Replace results that were made in another way.
    """

    out: Path
    verify: bool = False
    overwrite: bool = False
