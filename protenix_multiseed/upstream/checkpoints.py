"""Where checkpoints and data files are, on disk and on upstream's servers."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path

from protenix_multiseed.upstream.models import MODELS, ModelSpec


def download_urls() -> Mapping[str, str]:
    """Addresses of checkpoints and data files: upstream's own table, and those that a model's entry names."""
    table: Mapping[str, str] = importlib.import_module("protenix.web_service.dependency_url").URL
    return {**table, **{spec.name: spec.url for spec in MODELS if spec.url}}


def default_checkpoint_dir() -> Path:
    """Where upstream keeps checkpoints: ``PROTENIX_ROOT_DIR/checkpoint``; the root is the home folder by default."""
    return Path(os.environ.get("PROTENIX_ROOT_DIR") or Path.home()) / "checkpoint"


def template_data_dir() -> Path:
    """Where upstream keeps the release dates of template structures: ``PROTENIX_ROOT_DIR/common``."""
    return default_checkpoint_dir().parent / "common"


def checkpoint_path(spec: ModelSpec, given: Path | None) -> Path | None:
    """The checkpoint of a run; None for a model whose weights are made up.

    Args:
        given: The file that the user named, if any.
    """
    if spec.made_up_weights:
        return None
    return given or default_checkpoint_dir() / f"{spec.name}.pt"


def fetch_hint(model: str) -> str:
    """How to get a model's checkpoint, as the end of a sentence."""
    url = download_urls().get(model)
    if url is None:
        return "give the file with --checkpoint"
    return f"run 'protenix-ms fetch {model}' (from {url}), or give the file with --checkpoint"
