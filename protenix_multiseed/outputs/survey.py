"""What an output folder holds already: which units of work are done, and which must not be mixed with."""

import glob
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from protenix_multiseed.errors import ConfigError
from protenix_multiseed.hashes import sha256
from protenix_multiseed.outputs.identity import Identity, differences, fingerprint
from protenix_multiseed.types import Job, Sample

RECORD = "record.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One unit's folder.

    Attributes:
        state: ``missing``; ``done``; ``damaged``, where a file is not as it was written; ``different``, where it was
            made in another way than this run would.
        detail: What is damaged or different.
    """

    state: Literal["missing", "done", "damaged", "different"]
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is left to do.

    Attributes:
        todo: Jobs with the seeds that are missing, damaged or to be replaced.
        n_done: Units that are there already, of those asked for.
        damaged: What is redone because it is damaged, in words.
        others: Folders of seeds that were not asked for and were made in another way; with ``--overwrite`` they go.
    """

    todo: tuple[Job, ...]
    n_done: int
    damaged: tuple[str, ...]
    others: tuple[Path, ...]


def seed_folder(out: Path, job: str, seed: int) -> Path:
    """Where one seed's files stand: ``<out>/<job>/seed_<seed>``."""
    return out / job / f"seed_{seed}"


def seed_folders(job_folder: Path) -> dict[int, Path]:
    """The seeds that a job's folder holds something of."""
    found = ((path.name.removeprefix("seed_"), path) for path in job_folder.glob("seed_*"))
    return {int(number): path for number, path in found if number.isascii() and number.isdigit()}


def inspect(folder: Path, identity: Identity, seed: int, *, verify: bool = False) -> Found:
    """Look at one unit's folder.

    Args:
        verify: Compare the contents of all files, not only that they are there and as long as they were.
    """
    if not folder.exists():
        return Found(state="missing")
    if not (folder / RECORD).exists():
        return Found(state="different", detail="it has no record of how it was made: another program wrote it")
    record = read_record(folder)
    if record is None:
        return Found(state="damaged", detail=f"{RECORD} cannot be read")
    if record["fingerprint"] != fingerprint(identity, seed):
        return Found(state="different", detail="; ".join(differences(record["made_from"], identity)) or "the seed")
    for name, written in record["files"].items():
        path = folder / name
        try:
            if path.stat().st_size != written["bytes"]:
                return Found(state="damaged", detail=f"{name} has another length than was written")
            if verify and sha256(path) != written["sha256"]:
                return Found(state="damaged", detail=f"{name} has other content than was written")
        except OSError as error:
            return Found(state="damaged", detail=f"{name}: {error.strerror}")
    return Found(state="done")


def survey(
    out: Path, jobs: Sequence[Job], identities: Mapping[str, Identity], *, verify: bool, overwrite: bool
) -> Survey:
    """Look at all that is there of some jobs.

    Seeds that were not asked for count too where they were made in another way, since one ranking holds all.

    Raises:
        ConfigError: if results were made in another way and are not to be overwritten, with the differences.
    """
    todo: list[Job] = []
    damaged: list[str] = []
    others: list[Path] = []
    problems: list[str] = []
    n_done = 0
    for job in jobs:
        identity = identities[job.name]
        there = seed_folders(out / job.name)
        found = {seed: inspect(path, identity, seed, verify=verify) for seed, path in sorted(there.items())}
        other = {seed: one.detail for seed, one in found.items() if one.state == "different"}
        others += [there[seed] for seed in other if seed not in job.seeds]
        for detail in dict.fromkeys(other.values()):
            seeds = [seed for seed in other if other[seed] == detail]
            problems.append(
                f"{out / job.name}: seed {', '.join(map(str, seeds[:5]))}{'...' * (len(seeds) > 5)}: {detail}"
            )
        left = tuple(seed for seed in job.seeds if seed not in found or found[seed].state != "done")
        damaged += [f"{there[s].relative_to(out)}: {found[s].detail}" for s in left if s in found and s not in other]
        n_done += len(job.seeds) - len(left)
        if left:
            todo.append(replace(job, seeds=left))
    if problems and not overwrite:
        raise ConfigError(
            "\n".join(f"{problem}" for problem in problems)
            + "\nresults made in different ways are not mixed: choose another --out, or replace them with --overwrite"
        )
    return Survey(todo=tuple(todo), n_done=n_done, damaged=tuple(damaged), others=tuple(others))


def read_record(folder: Path) -> dict[str, Any] | None:
    """A seed's record; None if there is none that can be read."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        written = [(str(name), int(file["bytes"]), str(file["sha256"])) for name, file in record["files"].items()]
        is_whole = bool(written) and isinstance(record["made_from"], dict) and isinstance(record["fingerprint"], str)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if is_whole else None


def read_samples(folder: Path, job: str, seed: int) -> list[Sample]:
    """The samples of one seed from its summary confidence files.

    Raises:
        OSError, ValueError, KeyError: if a file cannot be read or lacks a score.
    """
    samples = []
    predictions = folder / "predictions"
    written = (read_record(folder) or {}).get("files", {})
    for path in predictions.glob(f"{glob.escape(job)}_summary_confidence_sample_*.json"):
        rank = int(path.stem.rpartition("_")[2])
        summary = json.loads(path.read_text(encoding="utf-8"))
        structure = predictions / f"{job}_sample_{rank}.cif"
        is_kept = structure.exists() or f"predictions/{structure.name}" in written
        try:
            scores = {name: float(summary[name]) for name in ("ranking_score", "plddt", "ptm", "iptm")}
        except TypeError as error:
            raise ValueError(f"{path}: a score is no number") from error
        samples.append(
            Sample(
                job=job,
                seed=seed,
                sample=rank,
                **scores,
                has_clash=bool(summary["has_clash"]),
                structure=structure if is_kept else None,
                confidence=path,
            )
        )
    return sorted(samples, key=lambda sample: sample.sample)


def done_samples(out: Path, job: str, identity: Identity) -> list[Sample]:
    """The samples of every seed of a job that is done, whichever run made it."""
    return [
        sample
        for seed, folder in sorted(seed_folders(out / job).items())
        if inspect(folder, identity, seed).state == "done"
        for sample in read_samples(folder, job, seed)
    ]
