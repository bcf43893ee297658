"""The configuration of a run. Each part of the program gets its settings from one property of :class:`RunConfig`.

:mod:`.config_loading` reads and checks it.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from protenix_multiseed.errors import ConfigError
from protenix_multiseed.hashes import sketch
from protenix_multiseed.inputs.seeds import check_seeds, parse_seeds
from protenix_multiseed.limits import ESM_MAX_RESIDUES, MAX_SEEDS_PER_BATCH
from protenix_multiseed.paths import RUN_FOLDER, cache_dir
from protenix_multiseed.settings import (
    FeatureSettings,
    FolderSettings,
    InputRules,
    PlanSettings,
    ReadSettings,
    UpstreamSettings,
    WriteSettings,
)
from protenix_multiseed.units import parse_bytes
from protenix_multiseed.upstream.checkpoints import checkpoint_path, default_checkpoint_dir
from protenix_multiseed.upstream.models import DEFAULT_MODEL, ModelSpec, model_spec


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_surprise(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false for numbers, and read ~ as the home folder, as shells do."""
        kinds = _kinds(cls.model_fields[info.field_name or ""].annotation)
        if isinstance(value, bool) and bool not in kinds and kinds & {int, float}:
            raise ValueError(f"write a number, not {str(value).lower()}")
        if Path not in kinds:
            return value
        return [_at_home(one) for one in value] if isinstance(value, list) else _at_home(value)


def _at_home(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith("~"):
        return value
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise ValueError(f"{value}: no such home folder") from None


def _kinds(annotation: Any) -> set[Any]:
    """Return the types that an annotation names, such as ``int`` and ``NoneType``."""
    inner = get_args(annotation)
    return {kind for one in inner for kind in _kinds(one)} if inner else {annotation}


class TemplateConfig(_Strict):
    """The source of template structures, and the alignment program that upstream calls."""

    mmcif_dir: Path | None = Field(
        default=None, description="folder of <pdb id>.cif files; PROTENIX_ROOT_DIR/mmcif if not given"
    )
    kalign: Path | None = Field(default=None, description="the kalign program; searched on PATH if not given")
    fetch: bool = Field(default=False, description="fetch structures that the folder lacks from PDBe during the run")


class RunConfig(_Strict):
    """All settings of a run. The keys of the YAML file are the names of these fields."""

    out: Path = Field(default=Path("output"), description="output folder")
    seeds: tuple[int, ...] | None = Field(
        default=None, description="seeds for every job, as 1-5 or 1,7,20-30 or a list"
    )
    model: str = Field(default=DEFAULT_MODEL, description="model name of Protenix, or demo")
    checkpoint: Path | None = Field(
        default=None, description="checkpoint file; by default PROTENIX_ROOT_DIR/checkpoint/<model>.pt"
    )
    samples: Annotated[int, Field(ge=1, le=1000)] = Field(default=5, description="diffusion samples per seed")
    cycles: Annotated[int, Field(ge=1, le=100)] | None = Field(
        default=None, description="recycling cycles; the model's own by default"
    )
    steps: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="diffusion steps; the model's own by default"
    )
    workers: Annotated[int, Field(ge=1, le=64)] | None = Field(default=None, description="CPU worker processes")
    executor: str = Field(
        default="local", description="how to run the model: local, on one device of this machine; ray, on several"
    )
    gpus: str | None = Field(default=None, description="GPUs to use: all, a number, or indices such as 0,2 or 3,")
    ray: str | None = Field(default=None, description="use the GPUs of a Ray cluster: auto, or the cluster's address")
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = Field(
        default="auto", description="auto, cpu, cuda or cuda:1"
    )
    kernels: Literal["auto", "torch", "cuequivariance"] = Field(default="auto", description="GPU kernels")
    precision: Literal["reference", "fast"] = Field(
        default="reference", description="as precise as Protenix, or fast: diffusion and confidence head in bfloat16"
    )
    max_seeds_per_batch: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="at most this many seeds in one batch"
    )
    max_jobs_per_batch: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="at most this many small jobs in one batch; 1: every job has its own batches"
    )
    stop_when_stable: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="end a job when its last N seeds did not improve the best ranking score"
    )
    assume_free: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="plan for this much free device memory, such as 24GiB, instead of asking the device"
    )
    force: bool = Field(default=False, description="try jobs that seem too large for the device")
    sequential: bool = Field(default=False, description="one seed at a time through Protenix's own modules")
    protenix_exact: bool = Field(
        default=False, description="keep Protenix's reading of inputs that it misreads; always with sequential"
    )
    msa: bool | None = Field(default=None, description="use MSAs; the model's own default")
    rna_msa: bool = Field(default=False, description="use RNA MSAs")
    msa_server: str | None = Field(
        default=None, description="address of a ColabFold server, which is sent proteins without an MSA"
    )
    msa_database: Path | None = Field(
        default=None,
        description="MMseqs2 database, or folder of ColabFold's, to search for proteins without an MSA",
    )
    msa_gpu: bool = Field(default=False, description="search msa_database on a GPU")
    rna_databases: tuple[Path, ...] = Field(default=(), description="FASTA files to search for RNAs without an MSA")
    template: bool = Field(default=False, description="use templates")
    template_from_input: bool = Field(
        default=False, description="use the coordinates of an input structure as template; implies template"
    )
    templates: TemplateConfig = TemplateConfig()
    full_confidence: bool = Field(default=False, description="write per-atom and per-pair confidence of every sample")
    pae: Literal["none", "json", "npz"] = Field(
        default="none", description="write each sample's predicted aligned error in a file of its own, as json or npz"
    )
    store: Annotated[str, Field(pattern=r"^(full|slim|top:[1-9]\d{0,3})$")] = Field(
        default="full",
        description="full (all structures), slim (the best one of each seed) or top:K (the K best, such as top:3)",
    )
    guidance: bool = Field(default=False, description="training-free guidance (TFG)")
    offline: bool = Field(default=False, description="never use the network")
    overwrite: bool = Field(default=False, description="replace results of other inputs, settings or versions")
    verify: bool = Field(default=False, description="check the contents of existing files, not only their lengths")
    grace: Annotated[float, Field(ge=0, le=86_400)] = Field(
        default=20.0, description="seconds that the running batch has to finish after SIGINT or SIGTERM"
    )
    log_file: Path | None = Field(default=None, description="log; <out>/protenix-ms/run.log by default")
    log_format: Literal["text", "json"] = Field(default="text", description="format of the lines of the log")
    upstream: dict[str, bool | int | float | str | None] = Field(
        default={}, description="any setting of Protenix, by dotted path"
    )

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds(cls, value: Any) -> Any:
        try:
            match value:
                case None:
                    return None
                case int() if not isinstance(value, bool):
                    return check_seeds([value])
                case str():
                    return parse_seeds(value)
                case list() | tuple() if all(isinstance(seed, int) and not isinstance(seed, bool) for seed in value):
                    return check_seeds(value)
        except ConfigError as error:  # as a ValueError it is told with the place, and with all other problems
            raise ValueError(str(error)) from None
        raise ValueError("write for example 1-5 or [1, 7, 20]")

    @field_validator("gpus", mode="before")
    @classmethod
    def _gpus(cls, value: Any) -> Any:
        text = str(value).replace(" ", "") if isinstance(value, int | str) and not isinstance(value, bool) else ""
        if value is None or text == "all" or re.fullmatch(r"[1-9]\d{0,3}|(\d{1,3},)+(\d{1,3})?", text):
            return text or None
        raise ValueError("write all, a number of GPUs such as 2, or the indices of GPUs such as 0,2 (one GPU: 3,)")

    @field_validator("assume_free", mode="before")
    @classmethod
    def _assume_free(cls, value: Any) -> Any:
        return parse_bytes(value) if isinstance(value, str) else value

    @property
    def spec(self) -> ModelSpec:
        """The entry of the model in the table of models."""
        return model_spec(self.model)

    @property
    def checkpoint_path(self) -> Path | None:
        """The checkpoint file; None for a model with made-up weights."""
        return checkpoint_path(self.spec, self.checkpoint)

    @property
    def esm_checkpoint_dir(self) -> Path:
        """The folder with the checkpoints of the ESM language models."""
        return self.checkpoint.parent if self.checkpoint else default_checkpoint_dir()

    @property
    def esm_folder(self) -> Path | None:
        """The folder of the ESM embeddings that the checkpoint of the ESM model makes; None for other models."""
        if self.spec.esm is None:
            return None
        try:
            checkpoint = sketch(self.esm_checkpoint_dir / f"{self.spec.esm.checkpoints[0]}.pt")
        except OSError:
            checkpoint = "missing"
        return cache_dir() / "esm" / f"{self.spec.esm.name}-{checkpoint}"

    @property
    def reference_reason(self) -> str | None:
        """Why every seed runs alone through Protenix's own modules; None if seeds run in batches."""
        if self.sequential:
            return "--sequential"
        if self.guidance:
            return "guidance"
        if self.spec.esm:
            return "an ESM model"
        return "a constraint model" if self.spec.constraint else None

    @property
    def read_settings(self) -> ReadSettings:
        """Which kinds of files the run reads."""
        exact = self.protenix_exact or self.sequential
        return ReadSettings(msa=bool(self.msa), rna_msa=self.rna_msa, template=self.template, exact=exact)

    @property
    def input_rules(self) -> InputRules:
        """The inputs that the model and the options accept."""
        spec = self.spec
        return InputRules(
            model=self.model,
            reads=self.read_settings,
            constraint=spec.constraint,
            max_tokens=spec.max_tokens,
            max_residues=ESM_MAX_RESIDUES if spec.esm else None,
            searches_msa=bool(self.msa_server or self.msa_database),
            template_from_input=self.template_from_input,
        )

    @property
    def upstream_settings(self) -> UpstreamSettings:
        """The settings from which upstream's configuration is built."""
        return UpstreamSettings(
            model=self.model,
            cycles=self.cycles,
            steps=self.steps,
            samples=self.samples,
            reads=self.read_settings,
            guidance=self.guidance,
            overrides=self.upstream,
        )

    @property
    def feature_settings(self) -> FeatureSettings:
        """The settings that featurization depends on."""
        return FeatureSettings(
            reads=self.read_settings,
            guidance=self.guidance,
            constraint=self.spec.constraint,
            msa_pair_as_unpair=bool(self.upstream.get("msa_pair_as_unpair", True)),
            esm_folder=self.esm_folder,
            template_mmcif_dir=self.templates.mmcif_dir,
            fetch_template_structures=self.templates.fetch,
            kalign=self.templates.kalign,
        )

    @property
    def plan_settings(self) -> PlanSettings:
        """The settings that planning depends on."""
        most = min(self.max_seeds_per_batch or MAX_SEEDS_PER_BATCH, self.stop_when_stable or MAX_SEEDS_PER_BATCH)
        return PlanSettings(
            model=self.model,
            samples=self.samples,
            precision=self.precision,
            max_seeds=most,
            max_jobs=self.max_jobs_per_batch,
            max_entries=self.max_seeds_per_batch or MAX_SEEDS_PER_BATCH,
            max_tokens=self.spec.max_tokens,
            force=self.force,
            reference_reason=self.reference_reason,
        )

    @property
    def write_settings(self) -> WriteSettings:
        """How results are written."""
        kept = {"full": None, "slim": 1}
        return WriteSettings(
            out=self.out,
            full_confidence=self.full_confidence,
            pae=self.pae,
            kept=kept[self.store] if self.store in kept else int(self.store.removeprefix("top:")),
            notice=self.spec.notice,
            as_protenix=self.sequential,
        )

    @property
    def folder_settings(self) -> FolderSettings:
        """How results that already exist in the output folder are treated."""
        return FolderSettings(out=self.out, verify=self.verify, overwrite=self.overwrite)

    @property
    def answer_settings(self) -> dict[str, Any]:
        """The settings that determine the prediction and the files that are kept, as written to each seed's record."""
        names = (
            "model", "samples", "cycles", "steps", "precision", "msa", "rna_msa", "template", "guidance",
            "full_confidence", "pae", "store", "upstream",
        )  # fmt: skip
        settings = self.model_dump(mode="json", include=set(names))
        return {name: settings[name] for name in names}

    @property
    def log_path(self) -> Path:
        """The log file of the run."""
        return self.log_file or self.out / RUN_FOLDER / "run.log"
