"""Checks of a run's surroundings that need no torch: the checkpoint's file, the output folder, the aligner."""

import os
import shutil
from pathlib import Path

from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError, WeightsError
from protenix_multiseed.upstream import checkpoint_urls, default_checkpoint_dir, template_data_dir


def check_surroundings(config: RunConfig, *, needs_checkpoint: bool = True) -> RunConfig:
    """Refuse what would fail later, and find the programs the run will call.

    Raises:
        ConfigError, WeightsError: saying what is missing and how to get it.
    """
    checkpoint = checkpoint_path(config)
    if needs_checkpoint and checkpoint is not None and not checkpoint.is_file():
        raise WeightsError(f"no checkpoint at {checkpoint}; {fetch_hint(config.model)}")
    _check_output(config.out)
    if not config.template:
        return config
    config = _find_kalign(config)
    dates = template_data_dir() / "release_date_cache.json"
    if not dates.is_file():  # upstream drops every template whose date it does not know
        raise ConfigError(f"--template: no release dates at {dates}; run 'protenix-ms fetch template-data'")
    structures = config.templates.mmcif_dir or template_data_dir().parent / "mmcif"
    if not structures.is_dir() and not config.templates.fetch:
        raise ConfigError(
            f"--template: no folder of template structures at {structures}; set templates.mmcif_dir in the YAML, or "
            "templates.fetch: true to fetch them from PDBe during the run"
        )
    return config


def checkpoint_path(config: RunConfig) -> Path | None:
    """The checkpoint of a run; None for the demo, whose weights are made up."""
    if config.is_demo:
        return None
    return config.checkpoint or default_checkpoint_dir() / f"{config.model}.pt"


def fetch_hint(model: str) -> str:
    """How to get a model's checkpoint."""
    url = checkpoint_urls().get(model)
    if url is None:
        return "give the file with --checkpoint"
    return f"run 'protenix-ms fetch {model}' (from {url}), or give the file with --checkpoint"


def _check_output(out: Path) -> None:
    try:
        existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    except (OSError, ValueError) as error:
        raise ConfigError(f"--out: not a folder's name ({getattr(error, 'strerror', None) or error})") from None
    if not existing.is_dir():
        raise ConfigError(f"--out {out}: {existing} is a file; choose another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"--out {out}: {existing} cannot be written; choose another folder")


def _find_kalign(config: RunConfig) -> RunConfig:
    kalign = config.templates.kalign or shutil.which("kalign")
    if kalign is None or not os.access(kalign, os.X_OK):
        raise ConfigError(
            f"--template: Protenix aligns templates with the program kalign, which is not "
            f"{'on PATH' if kalign is None else f'at {kalign}'}; install it (apt-get install kalign, or conda install "
            "-c bioconda kalign) or set templates.kalign in the YAML file"
        )
    return config.model_copy(update={"templates": config.templates.model_copy(update={"kalign": Path(kalign)})})
