"""The configuration of a run.

Precedence, highest first: command-line option, YAML file, the model's default, the program's default. Each part of the
program gets its settings from one property of :class:`RunConfig`.
"""

import difflib
import os
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from protenix_multiseed.errors import ConfigError, yaml_problem
from protenix_multiseed.hashes import sketch
from protenix_multiseed.inputs.seeds import check_seeds, parse_seeds
from protenix_multiseed.limits import MAX_SEEDS_PER_BATCH
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
from protenix_multiseed.upstream.configs import build_configs
from protenix_multiseed.upstream.models import DEFAULT_MODEL, ModelSpec, model_names, model_spec

# Settings of Protenix, and the key that sets them here. Only the key here reaches every part of a run.
OWN_KEYS = {
    "model_name": "model",
    "model.N_cycle": "cycles",
    "sample_diffusion.N_step": "steps",
    "sample_diffusion.N_sample": "samples",
    "sample_diffusion.guidance.enable": "guidance",
    "use_msa": "msa",
    "use_rna_msa": "rna_msa",
    "use_template": "template",
    "need_atom_confidence": "full_confidence",
    "triangle_attention": "kernels",
    "triangle_multiplicative": "kernels",
    "seeds": "seeds",
    "use_seeds_in_json": "seeds",
    "dump_dir": "out",
    "num_workers": "workers",
    "load_checkpoint_dir": "checkpoint",
}
MAX_YAML_BYTES = 2**20
MAX_PROBLEMS = 8  # problems of a configuration that one message explains
DTYPES = ("bf16", "fp32")  # Protenix accepts fp16 too, but the kernels of this package are not tested with fp16
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2  # YAML aliases can nest without end
SEQUENTIAL_VARIABLE = "PROTENIX_NOBATCHED_SEEDS"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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
        default="reference", description="Protenix's own, or fast: the diffusion network in bfloat16"
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
    assume_free: int | None = Field(
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
        description="full: all files; top:K: all scores, other files of K best samples; slim: top:1, no pair errors",
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
        match value:
            case None:
                return None
            case int() if not isinstance(value, bool):
                return check_seeds([value], "seeds")
            case str():
                return parse_seeds(value)
            case list() | tuple() if all(isinstance(seed, int) and not isinstance(seed, bool) for seed in value):
                return check_seeds(value, "seeds")
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
            assumed_free=self.assume_free,
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
            ligand_numbers=self.sequential,
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


def load_config(options: Mapping[str, Any], file: Path | None = None, *, prefix: str = "--") -> RunConfig:
    """Build the configuration and check it.

    Args:
        options: Command-line options by key. Options that were not given are None.
        file: A YAML file, or None.
        prefix: What messages put before the name of an option.

    Raises:
        ConfigError: if a setting is invalid. The message names the file, the key, the value and the way out.
    """
    content = _read_yaml(file) if file else {}
    if os.environ.get(SEQUENTIAL_VARIABLE, "").strip().lower() in {"1", "true", "yes"}:
        content = {**content, "sequential": True}
    given = {key: value for key, value in options.items() if value is not None}
    try:
        config = RunConfig.model_validate({**content, **given})
    except ValidationError as error:
        problems = [_explain(problem, given, file, prefix) for problem in error.errors()]
        if len(problems) > MAX_PROBLEMS:  # each one may list all keys
            problems[MAX_PROBLEMS:] = [f"... and {len(problems) - MAX_PROBLEMS} more problems"]
        raise ConfigError("\n".join(problems)) from None
    known = model_names()
    if config.model not in known:
        near = difflib.get_close_matches(config.model, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"model {config.model!r} is not known; {hint}known models: {', '.join(known)}")
    return _resolve(config)


def _resolve(config: RunConfig) -> RunConfig:
    """Fill in the model's defaults, and refuse settings that the model does not support."""
    model = config.spec
    if config.template_from_input:
        config = config.model_copy(update={"template": True})
    for switch, name in ((config.template, "template"), (config.rna_msa, "rna_msa")):
        if switch and not model.template:
            able = ", ".join(name for name in model_names() if model_spec(name).template)
            raise ConfigError(
                f"{name}: {config.model} was not trained with it; choose one of {able}, "
                f"or leave --{name.replace('_', '-')} out"
            )
    _check_upstream(config)
    if model.made_up_weights and config.checkpoint:
        raise ConfigError(
            f"checkpoint: the {config.model} model makes its own weights; leave --checkpoint out or choose another "
            "--model"
        )
    if config.sequential and config.precision == "fast":
        raise ConfigError(
            "precision: fast works only for batches of seeds; leave out --sequential, or leave out --precision fast"
        )
    if config.store == "slim" and (config.full_confidence or config.pae != "none"):
        what = "full_confidence" if config.full_confidence else "pae"
        raise ConfigError(
            f"store: slim keeps no per-pair errors, but {what} asks for them; use top:1, or leave {what} out"
        )
    _check_search(config)
    _check_gpus(config)
    if config.offline and config.templates.fetch:
        raise ConfigError(
            "templates.fetch: structures cannot be fetched with --offline; give templates.mmcif_dir instead"
        )
    return config.model_copy(
        update={
            "cycles": config.cycles or model.cycles,
            "steps": config.steps or model.steps,
            "msa": model.msa if config.msa is None else config.msa,
            "workers": config.workers or max(1, min(8, (os.cpu_count() or 2) - 1)),
            "executor": "ray" if config.ray or config.gpus not in (None, "1") else config.executor,
        }
    )


def _check_search(config: RunConfig) -> None:
    """Refuse searches of alignments that cannot be made."""
    if config.msa_server and config.msa_database:
        raise ConfigError("msa_server: msa_database is given too; choose one of them")
    if config.msa_server and config.offline:
        raise ConfigError("msa_server: sequences cannot be sent to it with --offline; give msa_database instead")
    if config.msa_server and not config.msa_server.startswith(("https://", "http://")):
        raise ConfigError(f"msa_server: {config.msa_server!r} is not an address; write for example https://host/path")
    if config.msa_server and "@" in config.msa_server:
        raise ConfigError(
            "msa_server: write user name and password into ~/.netrc: a record of the run shows this address"
        )
    if config.msa_gpu and not config.msa_database:
        raise ConfigError("msa_gpu: only a search in msa_database can use a GPU; give one, or leave msa_gpu out")


def _check_gpus(config: RunConfig) -> None:
    """Refuse settings that do not go together with several GPUs.

    Raises:
        ConfigError: if there is one.
    """
    if config.gpus is None and config.ray is None:
        return
    option = "ray" if config.ray else "gpus"
    if config.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device: {config.device} is one GPU; leave it out, or leave --{option} out")
    if config.ray and config.gpus and not config.gpus.isdigit():
        raise ConfigError(
            f"gpus: {config.gpus} names GPUs of this machine, but --ray uses a cluster; give a number, or leave it out"
        )
    if config.spec.esm and config.gpus != "1":
        raise ConfigError(
            f"{option}: {config.model} embeds its proteins with a language model on one GPU; leave --{option} out"
        )


def _check_upstream(config: RunConfig) -> None:
    """Refuse settings of Protenix that cannot be run, before anything is loaded.

    Raises:
        ConfigError: if there is one; the message names the setting.
    """
    for path in config.upstream:
        if path in OWN_KEYS:
            raise ConfigError(f"upstream.{path}: use the key {OWN_KEYS[path]} instead, which sets it for the whole run")
        if path.startswith("data.") or path == "sorted_by_ranking_score":
            raise ConfigError(f"upstream.{path}: it has no effect here; template files are set under templates")
    if not config.upstream:
        return
    build_configs(config.upstream_settings)  # checks the names and types of all overrides
    dtype = config.upstream.get("dtype", "bf16")
    if dtype not in DTYPES:
        raise ConfigError(f"upstream.dtype: {dtype!r} cannot be run; choose one of {', '.join(DTYPES)}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():  # reading a pipe or a device may never end
            raise ConfigError(f"{path}: not a file")
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_YAML_BYTES} bytes: not a configuration")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path.name}: {yaml_problem(error)}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path.name}: expected lines of 'key: value'")
    return content


def _explain(problem: Any, options: Mapping[str, Any], file: Path | None, prefix: str) -> str:
    keys = [str(part) for part in problem["loc"]]
    source = (
        f"{prefix}{keys[0].replace('_', '-') if prefix else '.'.join(keys)}"
        if keys[0] in options
        else f"{file.name if file else 'configuration'}: {'.'.join(keys)}"
    )
    if problem["type"] == "extra_forbidden":
        model: type[BaseModel] = TemplateConfig if keys[0] == "templates" and len(keys) > 1 else RunConfig
        near = difflib.get_close_matches(keys[-1], list(model.model_fields), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(model.model_fields)}"
        return f"{source}: unknown key; {hint}"
    if problem["type"] == "value_error":
        return f"{source}: {problem['ctx']['error']}"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{source}: {message}, found {_SHORT.repr(problem['input'])}"
