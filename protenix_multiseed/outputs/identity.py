"""The identity of a prediction: everything that determines its result.

Results are reused, and ranked together, only if their identities are equal.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from protenix_multiseed import __version__
from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.inputs.content import content_hash
from protenix_multiseed.inputs.corrections import differences_of
from protenix_multiseed.types import Identity, Job
from protenix_multiseed.upstream.dictionary import Dictionary
from protenix_multiseed.versions import version_of


def identify(config: RunConfig, job: Job, dictionary: Dictionary, checkpoint_sha256: str | None) -> Identity:
    """Return everything that a job's predictions depend on, except the seed, by name. Each seed's record contains it.

    Devices, kernels, workers and batches are not part of the identity, because they do not change the result. The
    folder of template structures is not part of it either: it is assumed to be a copy of the PDB.

    Args:
        config: The configuration of the run.
        job: The job.
        dictionary: The chemical dictionary of the run.
        checkpoint_sha256: SHA-256 of the checkpoint; None for a model with made-up weights.

    Raises:
        ConfigError: if a file of the job can no longer be read.
    """
    reads = config.read_settings
    try:
        content = content_hash(job.spec, reads)
    except OSError as error:
        raise ConfigError(f"{job.where}: {error.filename}: cannot be read: {error.strerror}") from None
    return {
        "input": content,
        "corrections": [] if reads.exact else [one.name for one in differences_of(job.spec, reads)],
        **({"language_model": config.esm_folder.name} if config.esm_folder else {}),
        **config.answer_settings,
        "checkpoint_sha256": checkpoint_sha256,
        "dictionary": dictionary.identity,
        "protenix": version_of("protenix"),
        "protenix_ms": __version__,
    }


def digest(identity: Identity) -> str:
    """Return a short hash of an identity. A job has the same one in all runs whose results can be ranked together."""
    return _digest(dict(identity))[:16]  # each run's record has one for each job


def fingerprint(identity: Identity, seed: int) -> str:
    """Return a hash that identifies one seed of a job."""
    return _digest({**identity, "seed": seed})


def differences(then: Identity, now: Identity) -> Iterator[str]:
    """Yield each difference between two identities as text: ``--steps was 200, is 20``."""
    for name in dict.fromkeys([*now, *then]):
        before, after = then.get(name), now.get(name)
        if before == after:
            continue
        if name == "input":
            yield "the job or one of its files has changed"
        elif name == "checkpoint_sha256":
            yield "the checkpoint is another file"
        else:
            option = f"--{name.replace('_', '-')}" if name in RunConfig.model_fields.keys() - {"upstream"} else name
            yield f"{option} was {_said(before)}, is {_said(after)}"


def _said(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
