"""Finished results as Python objects: the samples of a seed, and the ranked samples of an output folder.

The objects hold names, scores and paths. Their methods read structures and errors from the files when they are called.
"""

import csv
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protenix_multiseed.analysis.compact import NAME as COMPACT
from protenix_multiseed.analysis.compact import read_compact
from protenix_multiseed.errors import ConfigError, DamagedError, warn
from protenix_multiseed.failures import advice_for
from protenix_multiseed.files import check_inside, read_text
from protenix_multiseed.outputs.seed_files import RECORD, job_names, read_seed, read_summary, seed_folder, seed_folders
from protenix_multiseed.paths import RANKING
from protenix_multiseed.types import Sample

if TYPE_CHECKING:
    import numpy as np
    from biotite.structure import AtomArray, AtomArrayStack

_NUMBERS = (
    "ipsae", "pdockq2", "lis", "rmsd_to_best", "lddt_to_best", "interface_lddt_to_best", "dockq_to_best",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleResult(Sample):
    """One sample: its scores, its files, and methods that read them."""

    def atoms(self) -> "AtomArray":
        """Return the structure. ``b_factor`` is the pLDDT, 0 to 100.

        Raises:
            ConfigError: if only the scores of the sample were kept.
            DamagedError: if the file cannot be read.
        """
        return _read_structure(self, ["b_factor"])

    def summary(self) -> Mapping[str, Any]:
        """Return Protenix's summary confidence: scores of the sample, of chains and of pairs of chains.

        Raises:
            DamagedError: if the file cannot be read.
        """
        return read_summary(self.confidence)

    def pae(self) -> "np.ndarray":
        """Return the predicted aligned error [M, M], Angstrom, in steps of 1/8 A.

        M is the number of tokens. Above 256 tokens the values are means over blocks of tokens, and M is at most 256;
        predict with ``pae="npz"`` for a file with all values.

        Raises:
            DamagedError: if the file cannot be read.
        """
        errors = read_compact(self.folder / COMPACT, with_pae=True).pae
        assert errors is not None
        made: np.ndarray = errors[self.sample]
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedSample(SampleResult):
    """One row of a job's ``ranking.csv``. ``docs/metrics.md`` defines the scores.

    Attributes:
        rank: Place in the job's ranking, from 1.
        cluster: Number of the sample's cluster; None if the samples were not compared.
        chains_without_msa: Names of the proteins that were predicted without an MSA.

    A score that does not apply, such as that of an interface in a single chain, is None.
    """

    rank: int
    ipsae: float | None
    pdockq2: float | None
    lis: float | None
    cluster: int | None
    rmsd_to_best: float | None
    lddt_to_best: float | None
    interface_lddt_to_best: float | None
    dockq_to_best: float | None
    chains_without_msa: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    """The samples of one seed of a job, best first. All arrays are in this order.

    Attributes:
        folder: The folder of the seed, with the record of how it was predicted.
    """

    job: str
    seed: int
    folder: Path
    samples: tuple[SampleResult, ...]

    @property
    def scores(self) -> tuple[float, ...]:
        """The ranking score of each sample."""
        return tuple(sample.ranking_score for sample in self.samples)

    @property
    def best(self) -> SampleResult:
        """The sample with the highest ranking score."""
        return self.samples[0]

    def atoms(self) -> "AtomArrayStack":
        """Return the structures of all samples. The pLDDT of the atoms is in the structure of each sample.

        Raises:
            ConfigError: if the structures of some samples were not kept.
            DamagedError: if a file cannot be read.
        """
        from biotite.structure import stack

        return stack([_read_structure(sample, []) for sample in self.samples])

    def coordinates(self) -> "np.ndarray":
        """Return the coordinates of all samples [N_sample, N_atom, 3], Angstrom. Errors are those of :meth:`atoms`."""
        coordinates: np.ndarray = self.atoms().coord
        return coordinates

    def summary(self) -> tuple[Mapping[str, Any], ...]:
        """Return Protenix's summary confidence of each sample. Errors are those of :meth:`SampleResult.summary`."""
        return tuple(sample.summary() for sample in self.samples)


def read_seed_result(out: Path, job: str, seed: int) -> SeedResult:
    """Read a finished seed.

    Raises:
        DamagedError: if a file is not as it was written.
    """
    folder = seed_folder(out.absolute(), job, seed)
    _, samples = read_seed(folder, job, seed)
    names = [field.name for field in fields(Sample)]
    made = tuple(SampleResult(**{name: getattr(one, name) for name in names}) for one in samples)
    return SeedResult(job=job, seed=seed, folder=folder, samples=made)


def load_results(out: str | os.PathLike[str]) -> list[RankedSample]:
    """Return the ranked samples of all jobs of an output folder: job by job, best first.

    The list is a table: ``pandas.DataFrame(load_results(out))`` has a row for each sample. Finished seeds that the
    ranking lacks, for instance of a run that was killed, are named in a warning.

    Args:
        out: Output folder of a run.

    Raises:
        ConfigError: if the folder holds no ranked results.
        DamagedError: if a table is not as it was written.
    """
    place = Path(out).absolute()
    try:
        jobs = [place / name for name in job_names(place)]
    except OSError as error:
        raise ConfigError(f"{place}: {error.strerror}; give the folder that predict wrote") from None
    rows: list[RankedSample] = []
    for folder in jobs:
        try:
            if not folder.is_dir():
                continue
            check_inside(folder, place)
            has_ranking = (folder / RANKING).is_file()
        except PermissionError as error:
            warn(f"{folder}: left out: {error.strerror}; {advice_for(error)}")
            continue
        of_job = list(_read_ranking(folder)) if has_ranking else []
        _warn_of_unranked(folder, place, {row.seed for row in of_job})
        rows.extend(of_job)
    if not rows:
        raise ConfigError(f"{place}: no ranked results; give the folder that predict wrote, or rank it: {_rank(place)}")
    return rows


def _rank(out: Path) -> str:
    return f"protenix-ms rank {out}"


def _warn_of_unranked(folder: Path, out: Path, ranked: set[int]) -> None:
    found = {seed for seed, path in seed_folders(folder, out).items() if (path / RECORD).is_file()}
    if left := sorted(found - ranked):
        warn(f"{folder}: {RANKING} lacks {len(left)} finished seeds, such as {left[0]}; {_rank(out)}")


def _read_ranking(folder: Path) -> Iterator[RankedSample]:
    try:
        for row in csv.DictReader(read_text(folder / RANKING, folder).splitlines()):
            yield _ranked(folder, row)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        reason = f"{RANKING}: no table of this version: {' '.join(str(error).split())}"
        raise DamagedError(folder, reason, _rank(folder.parent)) from error


def _ranked(folder: Path, row: Mapping[str, str]) -> RankedSample:
    numbers = {name: float(row[name]) if row[name] else None for name in _NUMBERS}
    return RankedSample(
        **numbers,
        rank=int(row["rank"]),
        job=row["job"],
        seed=int(row["seed"]),
        sample=int(row["sample"]),
        ranking_score=float(row["ranking_score"]),
        plddt=float(row["plddt"]),
        ptm=float(row["ptm"]),
        iptm=float(row["iptm"]) if row["iptm"] else None,
        has_clash=row["has_clash"] == "1",
        cluster=int(row["cluster"]) if row["cluster"] else None,
        chains_without_msa=tuple(row["chains_without_msa"].split()),
        structure=Path(os.path.normpath(folder / row["structure"])) if row["structure"] else None,
        confidence=Path(os.path.normpath(folder / row["confidence"])),
    )


def _read_structure(sample: Sample, fields: list[str]) -> "AtomArray":
    if sample.structure is None:
        raise ConfigError(
            f"{sample.job} seed {sample.seed} sample {sample.sample}: the structure was not kept; "
            'predict with store="full"'
        )
    from biotite.structure.io import pdbx

    try:
        content = pdbx.CIFFile.read(io.StringIO(read_text(sample.structure, sample.folder)))
        return pdbx.get_structure(content, model=1, extra_fields=fields)
    except Exception as error:  # the file may hold anything
        reason = f"{sample.structure.name}: {' '.join(str(error).split())}"
        raise DamagedError(sample.folder, reason) from error
