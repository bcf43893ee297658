"""What determines a prediction. Results are reused, and ranked together, only if all of it agrees."""

import hashlib
import json
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from protenix_multiseed import __version__
from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.inputs.content import content_of
from protenix_multiseed.types import Identity, Job
from protenix_multiseed.upstream.dictionary import Dictionary


def identify(config: RunConfig, job: Job, dictionary: Dictionary, checkpoint_sha256: str | None) -> Identity:
    """Everything but the seed that a job's predictions depend on, by name: the record of each seed holds it.

    Not part of it, since they change no answer: devices, kernels, workers, batches, and the folder of template
    structures, which is taken to be a copy of the PDB.

    Raises:
        ConfigError: if a file of the job cannot be read any more.
    """
    try:
        content = content_of(job.spec, config.read_settings)
    except OSError as error:
        raise ConfigError(f"{job.where}: {error.filename}: cannot be read: {error.strerror}") from None
    return {
        "input": _digest(content),
        **config.answer_settings,
        "checkpoint_sha256": checkpoint_sha256,
        "dictionary": dictionary.identity,
        "protenix": metadata.version("protenix"),
        "protenix_ms": __version__,
    }


def fingerprint(identity: Identity, seed: int) -> str:
    """A hash that names one unit of work, (job, seed)."""
    return _digest({**identity, "seed": seed})


def differences(then: Identity, now: Identity) -> Iterator[str]:
    """What differs, in words: ``steps was 200, is 20``."""
    for name in dict.fromkeys([*now, *then]):
        before, after = then.get(name), now.get(name)
        if before == after:
            continue
        if name == "input":
            yield "the job or one of its files has changed"
        elif name == "checkpoint_sha256":
            yield "the checkpoint is another file"
        else:
            yield f"{name} was {before}, is {after}"


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
