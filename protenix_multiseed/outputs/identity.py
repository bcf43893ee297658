"""What determines a prediction. Results are reused, and ranked side by side, only where all of it agrees."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from protenix_multiseed import __version__
from protenix_multiseed.config import RunConfig
from protenix_multiseed.dictionary import Dictionary
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.hashes import sha256
from protenix_multiseed.types import Job

Identity = Mapping[str, Any]

_SETTINGS = (
    "model", "samples", "cycles", "steps", "precision", "msa", "rna_msa", "template", "guidance", "full_confidence",
    "pae", "store", "upstream",
)  # fmt: skip
_MSA_KEYS = ("pairedMsa", "unpairedMsa", "pairedMsaPath", "unpairedMsaPath")


def identify(config: RunConfig, job: Job, dictionary: Dictionary, checkpoint_sha256: str | None) -> Identity:
    """Everything that a job's predictions depend on but the seed, by name: what the record of each seed holds.

    Not among it, since it changes no answer: devices, kernels, workers, batches, and the folder of template structures,
    which is taken to be a copy of the PDB.

    Raises:
        ConfigError: if a file of the job cannot be read any more.
    """
    settings = config.model_dump(mode="json", include=set(_SETTINGS))
    return {
        "input": _digest(_content(job, config)),
        **{name: settings[name] for name in _SETTINGS},
        "checkpoint_sha256": checkpoint_sha256,
        "dictionary": dictionary.identity,
        "protenix": metadata.version("protenix"),
        "protenix_ms": __version__,
    }


def fingerprint(identity: Identity, seed: int) -> str:
    """One number for a unit of work, (job, seed)."""
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


def _content(job: Job, config: RunConfig) -> dict[str, Any]:
    """The job with its files' contents in the place of their names, without what this run does not read."""
    sequences = []
    for item in job.spec["sequences"]:
        ((kind, entity),) = item.items()
        reads_msa = config.msa and (kind != "rnaSequence" or config.rna_msa)
        dropped = (*(() if reads_msa else _MSA_KEYS), *(() if config.template else ("templatesPath",)))
        sequences.append({kind: {key: _value(job, key, entity[key]) for key in entity if key not in dropped}})
    return {**{key: value for key, value in job.spec.items() if key != "name"}, "sequences": sequences}


def _value(job: Job, key: str, value: Any) -> Any:
    path = value if key.endswith("Path") else None
    if key == "ligand" and isinstance(value, str) and value.startswith("FILE_"):
        path = value.removeprefix("FILE_")
    if not path:
        return value
    try:
        return f"sha256:{sha256(Path(path))}"
    except OSError as error:
        raise ConfigError(f"{job.where}: {path}: cannot be read: {error.strerror}") from None


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
