"""The settings that each part of the program reads. Properties of :class:`RunConfig` make them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protenix_multiseed.limits import MAX_SEEDS_PER_BATCH


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSettings:
    """Which kinds of files a run reads, and how.

    Attributes:
        exact: Whether inputs mean what Protenix reads, also where it misreads them (``inputs/corrections.py``).
    """

    msa: bool = True
    rna_msa: bool = False
    template: bool = False
    exact: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRules:
    """The inputs that the model and the options of a run accept.

    Attributes:
        model: Name of the model, for messages.
        constraint: Whether the model reads constraints.
        max_tokens: Largest number of tokens that the model accepts; None for no limit.
        max_residues: Largest number of residues of a protein that the model accepts; None for no limit.
        searches_msa: Whether the run searches MSAs for proteins that have none.
        template_from_input: Whether the coordinates of an input structure are the templates of its proteins.
    """

    model: str
    reads: ReadSettings = ReadSettings()
    template_from_input: bool = False
    constraint: bool = False
    max_tokens: int | None = None
    max_residues: int | None = None
    searches_msa: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSettings:
    """Everything that featurization depends on, except the job. The flags mean the same as in upstream.

    Attributes:
        guidance: Whether to make the features for training-free guidance (TFG).
        constraint: Whether the model reads constraint features.
        msa_pair_as_unpair: Whether rows of paired MSAs serve as unpaired rows too.
        esm_folder: Folder of the ESM embeddings; None for models that do not read them.
        template_mmcif_dir: Folder of template structures; None for upstream's default.
        fetch_template_structures: Whether to download template structures that the folder lacks.
        kalign: The kalign program; None for upstream's default.
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
    """The settings from which upstream's configuration is built.

    Attributes:
        cycles, steps: Recycling cycles and diffusion steps; None for the model's own number.
        overrides: Upstream's settings by dotted path, such as ``{"model.pairformer.n_blocks": 2}``. They take
            precedence over all other settings.
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
    """Everything that planning depends on, except the model's sizes and the device.

    Attributes:
        max_seeds: Largest number of seeds of one job in one batch.
        max_jobs: Largest number of jobs in one batch; None: as many as pay on the device.
        max_entries: Largest number of seeds of all jobs in one batch.
        max_tokens: Largest number of tokens that the model accepts; None for no limit.
        force: Whether to plan jobs that seem too large for the device.
        reference_reason: Why every seed runs alone through Protenix's own modules; None if seeds run in batches.
    """

    model: str
    samples: int
    precision: str
    max_seeds: int
    max_jobs: int | None = None
    max_entries: int = MAX_SEEDS_PER_BATCH
    max_tokens: int | None = None
    force: bool = False
    reference_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSettings:
    """How results are written.

    Attributes:
        full_confidence: Whether to write per-atom and per-pair confidence too.
        pae: Format of the predicted aligned error of each sample: ``none``, ``json`` as in the AlphaFold database, or
            ``npz``, compressed.
        kept: Number of best-ranked samples of a seed that keep all their files. The other samples keep only their
            scores. None: all samples keep all their files.
        notice: A sentence that every file must contain, such as that the model is a demo.
        as_protenix: Whether structures stay as Protenix writes them: ligands have a ``label_seq_id``, which mmCIF does
            not want, and the bonds of molecules that are in no dictionary are missing.
    """

    out: Path
    full_confidence: bool = False
    pae: str = "none"
    kept: int | None = None
    notice: str | None = None
    as_protenix: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSettings:
    """How results that already exist in the output folder are treated.

    Attributes:
        verify: Whether to compare the contents of files too, not only their presence and length.
        overwrite: Whether to replace results that were made from another input or with other settings.
    """

    out: Path
    verify: bool = False
    overwrite: bool = False
