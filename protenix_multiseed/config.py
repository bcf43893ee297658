"""The run's configuration: option over YAML file over model preset over default."""

import difflib
import os
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from protenix_multiseed.errors import ConfigError
from protenix_multiseed.seeds import check_seeds, parse_seeds
from protenix_multiseed.upstream import DEFAULT_MODEL, DEMO_MODEL, ModelPreset, model_names, preset

# Settings of Protenix that have a key of their own here, through which alone they reach every part of a run.
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
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2  # aliases of YAML can nest without end
SEQUENTIAL_VARIABLE = "PROTENIX_NOBATCHED_SEEDS"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TemplateConfig(_Strict):
    """Where template structures come from, and the aligner that upstream calls."""

    mmcif_dir: Path | None = Field(
        default=None, description="folder of <pdb id>.cif files; PROTENIX_ROOT_DIR/mmcif if not given"
    )
    kalign: Path | None = Field(default=None, description="the kalign program; looked for on PATH if not given")
    fetch: bool = Field(default=False, description="fetch structures that the folder lacks from PDBe during the run")


class RunConfig(_Strict):
    """Everything a run can be told. The YAML file has these keys."""

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
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = Field(
        default="auto", description="auto, cpu, cuda or cuda:1"
    )
    kernels: Literal["auto", "torch", "cuequivariance"] = Field(default="auto", description="triangle kernels")
    precision: Literal["reference", "fast"] = Field(
        default="reference", description="Protenix's own, or fast: the diffusion network in bfloat16"
    )
    max_seeds_per_batch: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="at most this many seeds in one batch"
    )
    stop_when_stable: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="end a job when its last N seeds brought no better ranking score"
    )
    assume_free: int | None = Field(
        default=None, description="plan for this much free device memory, such as 24GiB, instead of asking the device"
    )
    force: bool = Field(default=False, description="try jobs that seem too large for the device")
    sequential: bool = Field(default=False, description="one seed at a time through Protenix's own modules")
    msa: bool | None = Field(default=None, description="use MSAs; the model's own default")
    rna_msa: bool = Field(default=False, description="use RNA MSAs")
    template: bool = Field(default=False, description="use templates")
    templates: TemplateConfig = TemplateConfig()
    full_confidence: bool = Field(default=False, description="write per-atom and per-pair confidence of every sample")
    pae: Literal["none", "json", "npz"] = Field(
        default="none", description="write each sample's predicted aligned error in a file of its own, as json or npz"
    )
    store: Annotated[str, Field(pattern=r"^(full|slim|top:[1-9]\d{0,3})$")] = Field(
        default="full",
        description="full; top:K, all scores, other files of each seed's K best samples only; slim, as top:1, no pairs",
    )
    guidance: bool = Field(default=False, description="training-free guidance (TFG)")
    offline: bool = Field(default=False, description="never touch the network")
    overwrite: bool = Field(default=False, description="replace results that were made in another way")
    verify: bool = Field(default=False, description="compare the contents of results that are there already")
    grace: Annotated[float, Field(ge=0, le=86_400)] = Field(
        default=20.0, description="seconds that work in hand has to finish after SIGINT or SIGTERM"
    )
    log_file: Path | None = Field(default=None, description="log; <out>/protenix-ms/run.log by default")
    log_format: Literal["text", "json"] = Field(default="text", description="lines of the log")
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

    @field_validator("assume_free", mode="before")
    @classmethod
    def _assume_free(cls, value: Any) -> Any:
        return parse_bytes(value) if isinstance(value, str) else value

    @property
    def model_preset(self) -> ModelPreset:
        """The model's preset."""
        return preset(self.model)

    @property
    def kept_samples(self) -> int | None:
        """How many of a seed's samples keep more than their scores; None for all."""
        if self.store == "full":
            return None
        return 1 if self.store == "slim" else int(self.store.removeprefix("top:"))

    @property
    def reference_reason(self) -> str | None:
        """Why every seed of a run goes through Protenix's own modules, one by one; None if none has to."""
        if self.sequential:
            return "--sequential"
        if self.guidance:
            return "guidance"
        if self.model_preset.esm_model:
            return "an ESM model"
        if self.model_preset.constraint:
            return "a constraint model"
        return None

    @property
    def is_demo(self) -> bool:
        """Whether the weights are made up."""
        return self.model == DEMO_MODEL


_UNITS = {"": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def parse_bytes(text: str) -> int:
    """Bytes from what people write: ``24GiB``, ``500 MB``.

    Raises:
        ValueError: saying how to write it.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if not match or match[2] not in _UNITS or float(match[1]) <= 0:
        raise ValueError(f"write for example 24GiB or 500MB, found {text!r}")
    return int(float(match[1]) * _UNITS[match[2]])


def load_config(options: Mapping[str, Any], file: Path | None = None) -> RunConfig:
    """Put the configuration together and check it.

    Args:
        options: Command-line options by key; those not given are None.
        file: A YAML file, or None.

    Raises:
        ConfigError: naming file, key, what was found and what to do.
    """
    content = _read_yaml(file) if file else {}
    if os.environ.get(SEQUENTIAL_VARIABLE, "").strip().lower() in {"1", "true", "yes"}:
        content = {**content, "sequential": True}
    given = {key: value for key, value in options.items() if value is not None}
    try:
        config = RunConfig.model_validate({**content, **given})
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(problem, given, file) for problem in error.errors())) from None
    known = model_names()
    if config.model not in known:
        near = difflib.get_close_matches(config.model, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"model {config.model!r} is not known; {hint}known models: {', '.join(known)}")
    return _resolve(config)


def _resolve(config: RunConfig) -> RunConfig:
    """Fill in the model's preset and refuse what the model cannot do."""
    model = config.model_preset
    for switch, name in ((config.template, "template"), (config.rna_msa, "rna_msa")):
        if switch and not model.template:
            raise ConfigError(
                f"{name}: {config.model} was not trained with it; choose protenix_base_default_v1.0.0, "
                f"protenix_base_20250630_v1.0.0 or protenix-v2, or leave --{name.replace('_', '-')} out"
            )
    for path in config.upstream:
        if path in OWN_KEYS:
            raise ConfigError(f"upstream.{path}: set it with {OWN_KEYS[path]}, which tells every part of the run")
        if path.startswith("data.") or path == "sorted_by_ranking_score":
            raise ConfigError(f"upstream.{path}: it has no effect here; template files are set under templates")
    if config.is_demo and config.checkpoint:
        raise ConfigError(
            "checkpoint: the demo model makes its own weights; leave --checkpoint out or choose another --model"
        )
    if config.sequential and config.precision == "fast":
        raise ConfigError("precision: fast is for batches of seeds; leave --sequential out, or --precision fast")
    if config.store == "slim" and (config.full_confidence or config.pae != "none"):
        what = "full_confidence" if config.full_confidence else "pae"
        raise ConfigError(
            f"store: slim keeps no errors of pairs, and {what} asks for them; use top:1, or leave one out"
        )
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
        }
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():  # a pipe or a device may never end
            raise ConfigError(f"{path}: not a file")
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_YAML_BYTES} bytes: not a configuration")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{path.name}: {place}not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path.name}: not valid YAML: {str(error).splitlines()[0]}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path.name}: expected lines of 'key: value'")
    return content


def _explain(problem: Any, options: Mapping[str, Any], file: Path | None) -> str:
    keys = [str(part) for part in problem["loc"]]
    source = (
        f"--{keys[0].replace('_', '-')}"
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
