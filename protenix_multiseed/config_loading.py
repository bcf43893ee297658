"""Build the configuration of a run from options and a YAML file, and refuse settings that do not go together.

Precedence, highest first: command-line option, YAML file, the model's default, the program's default.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError, yaml_problem
from protenix_multiseed.inputs import strict_yaml
from protenix_multiseed.inputs.explain import Location, explain, path_of
from protenix_multiseed.upstream.configs import build_configs
from protenix_multiseed.upstream.models import model_names, model_spec

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
SEQUENTIAL_VARIABLE = "PROTENIX_NOBATCHED_SEEDS"


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

    def source(location: Location) -> str:
        key = str(location[0])
        if key in given and prefix:
            return f"{prefix}{key.replace('_', '-')}"
        return path_of(location) if key in given else f"{file.name if file else 'configuration'}: {path_of(location)}"

    try:
        config = RunConfig.model_validate({**content, **given})
    except ValidationError as error:
        problems = explain(error, RunConfig, source)
        if len(problems) > MAX_PROBLEMS:  # each one may list all keys
            problems[MAX_PROBLEMS:] = [f"... and {len(problems) - MAX_PROBLEMS} more problems"]
        raise ConfigError("\n".join(problems)) from None
    known = model_names()
    if config.model not in known:
        near = [name for name in known if name.startswith(config.model)]
        near = near or difflib.get_close_matches(config.model, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"{source(('model',))}: {config.model!r} is not known; {hint}known models: {', '.join(known)}"
        )
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
        what = "--full-confidence" if config.full_confidence else "--pae"
        raise ConfigError(
            f"--store slim keeps no per-pair errors, but {what} asks for them; use --store top:1, or leave {what} out"
        )
    _check_search(config)
    config = _with_executor(config)
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


def _with_executor(config: RunConfig) -> RunConfig:
    """Choose the executor, and refuse settings that do not go together with several GPUs.

    Raises:
        ConfigError: if there is one.
    """
    option = "ray" if config.ray else "gpus" if config.gpus else "executor"
    if option != "executor" and config.executor not in ("local", "ray"):
        raise ConfigError(f"executor: {config.executor!r} does not use {option}; leave one of the two out")
    if config.ray or config.gpus not in (None, "1"):
        config = config.model_copy(update={"executor": "ray"})
    if config.executor != "ray" and config.gpus is None:
        return config
    if config.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device: {config.device} is one GPU; leave it out, or leave {option} out")
    if config.ray and config.gpus and not config.gpus.isdigit():
        raise ConfigError(
            f"gpus: {config.gpus} names GPUs of this machine, but --ray uses a cluster; give a number, or leave it out"
        )
    if config.spec.esm and config.executor == "ray":
        raise ConfigError(
            f"{option}: {config.model} embeds its proteins with a language model on one GPU; leave {option} out"
        )
    return config


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
        content = strict_yaml.load(path.read_text(encoding="utf-8"))
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
