"""The paths of checkpoints and data files, and their addresses on upstream's servers."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path

from protenix_multiseed.upstream.models import MODELS, ModelSpec


def download_urls() -> Mapping[str, str]:
    """Return the addresses of checkpoints and data files: upstream's own table, plus the ``url`` of each model."""
    table: Mapping[str, str] = importlib.import_module("protenix.web_service.dependency_url").URL
    return {**table, **{spec.name: spec.url for spec in MODELS if spec.url}}


def default_checkpoint_dir() -> Path:
    """Return upstream's folder of checkpoints: ``PROTENIX_ROOT_DIR/checkpoint``, else ``~/checkpoint``."""
    return Path(os.environ.get("PROTENIX_ROOT_DIR") or Path.home()) / "checkpoint"


def template_data_dir() -> Path:
    """Return upstream's folder with the release dates of template structures: ``PROTENIX_ROOT_DIR/common``."""
    return default_checkpoint_dir().parent / "common"


def checkpoint_path(spec: ModelSpec, given: Path | None) -> Path | None:
    """Return the checkpoint of a run; None for a model with made-up weights.

    Args:
        given: The file that the user named, if any.
    """
    if spec.made_up_weights:
        return None
    return given or default_checkpoint_dir() / f"{spec.name}.pt"


def fetch_hint(model: str) -> str:
    """Return how to get a model's checkpoint, as the last part of a message. The address is last: it is a long word."""
    url = download_urls().get(model)
    if url is None:
        return "give the file with --checkpoint"
    return f"run 'protenix-ms fetch {model}', or give the file with --checkpoint; its address is {url}"
