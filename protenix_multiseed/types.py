"""The types that pass through a run, from the input to the files. They are frozen: no later part can change them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from protenix_multiseed.job_spec import JobSpec
from protenix_multiseed.limits import TEMPLATE_SLOTS
from protenix_multiseed.packed import Packed

if TYPE_CHECKING:
    import numpy as np
    from biotite.structure import AtomArray

Identity: TypeAlias = Mapping[str, Any]
"""Everything that determines a job's predictions, except the seed, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One complex to predict with some seeds.

    Attributes:
        name: Name of the job and of its output folder, unique within a run.
        seeds: Seeds in the order in which the user gave them.
        source: The input file.
        index: Position of the job in the input file, from 0.
        notes: Remarks on the input that the user should read before the run.
        n_token: Number of tokens, counted before featurization. Atoms that leave because of the job's bonds count too,
            so the true number may be smaller.
        content: Hash of the job and its files when the run began; empty if nobody has to notice a change.
    """

    name: str
    seeds: tuple[int, ...]
    source: Path
    index: int
    spec: JobSpec
    notes: tuple[str, ...] = ()
    n_token: int = 0
    content: str = ""

    @property
    def where(self) -> str:
        """The job's name in messages: ``a.json[3] 'kras'``."""
        return f"{self.source.name}[{self.index}] {self.name!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A job, its identity, and the seeds that are still to be predicted.

    Attributes:
        identity: Everything that determines the job's predictions, except the seed.
        todo: The job's seeds that are still to be predicted; empty if all are done.
    """

    job: Job
    identity: Identity
    todo: tuple[int, ...]

    @property
    def remaining(self) -> Job:
        """The job with the seeds to do, for featurization: its files must still be those of the identity."""
        return replace(self.job, seeds=self.todo, content=str(self.identity.get("input", "")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes that a job's memory depends on.

    Attributes:
        n_msa: Number of MSA rows.
        n_template: Number of template slots that may differ from each other.
    """

    n_token: int
    n_atom: int
    n_msa: int
    n_template: int = TEMPLATE_SLOTS


Entry: TypeAlias = tuple[int, int]
"""An entry of a batch: the number of a job, from 0, in the group of jobs that are run together, and a seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """The plan of one batch: seeds of one or several jobs that go through the model together.

    It holds only integers, so that planning needs no features.

    Attributes:
        entries: Job and seed of each entry, in the order of the jobs.
        sample_chunk: Number of samples of each seed that are denoised and scored at once.
        estimated_bytes: Estimated peak device memory, bytes; 0 if there is no estimate.
        roomy: Whether the memory allows larger chunks of the pair representation, to capture a larger Pairformer as a
            CUDA graph, and to keep larger graphs for the next batch. All are faster.
    """

    entries: tuple[Entry, ...]
    sample_chunk: int
    estimated_bytes: int
    roomy: bool = False

    @property
    def jobs(self) -> tuple[int, ...]:
        """The numbers of the batch's jobs."""
        return tuple(dict.fromkeys(job for job, _ in self.entries))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each entry."""
        return tuple(seed for _, seed in self.entries)

    def seeds_of(self, job: int) -> tuple[int, ...]:
        """The seeds of one of the batch's jobs."""
        return tuple(seed for number, seed in self.entries if number == job)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedFeatures:
    """The features that depend on the seed, and the states of the random generators after featurization.

    The model's draws continue from these states. ``ref_pos`` and ``has_frame`` are numpy arrays when they come from
    the workers, and tensors after the upload.

    Attributes:
        ref_pos: Reference conformers, each centred, shifted and rotated at random [N_atom, 3], Angstrom.
        has_frame: Whether each token has a frame [N_token]. The frame of a ligand token depends on ``ref_pos``.
        python_state: ``random.getstate()`` after featurization.
        numpy_state: ``numpy.random.get_state()`` after featurization.
        torch_state: ``torch.get_rng_state()`` of the CPU generator after featurization, as bytes.
    """

    seed: int
    ref_pos: Any
    has_frame: Any
    python_state: tuple[Any, ...]
    numpy_state: tuple[Any, ...]
    torch_state: "np.ndarray"


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """A job's features in compact form. Features that all seeds share are stored once, the others once per seed.

    Attributes:
        seeds: The seeds that these features belong to, usually all seeds of the job. If seeds remove different
            leaving groups, the job has several ``Features``.
        arrays: Shared features in the compact layout of :mod:`protenix_multiseed.features.layout`. They are numpy
            arrays when they come from the workers, and tensors after the upload.
        atom_array: Atoms in the order of ``ref_pos``, with the annotations that writing needs. Only workers unpack it.
        entity_poly_type: Polymer type of each polymer entity, by entity number from 1.
        warnings: Warnings about this job for the user.
        seconds: Time spent on featurization, seconds.
    """

    job: Job
    seeds: tuple[SeedFeatures, ...]
    arrays: Mapping[str, Any]
    atom_array: Packed["AtomArray"]
    entity_poly_type: Mapping[str, str]
    n_token: int
    n_atom: int
    n_msa: int
    n_asym: int
    n_template: int = TEMPLATE_SLOTS
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def sizes(self) -> Sizes:
        """The sizes that the job's memory depends on."""
        return Sizes(n_token=self.n_token, n_atom=self.n_atom, n_msa=self.n_msa, n_template=self.n_template)

    @property
    def nbytes(self) -> int:
        """Total bytes of the feature arrays, without ``atom_array``."""
        shared = sum(int(getattr(value, "nbytes", 0)) for value in self.arrays.values())
        return shared + sum(int(seed.ref_pos.nbytes + seed.has_frame.nbytes) for seed in self.seeds)

    def only(self, seeds: Collection[int]) -> Self:
        """Return the same features, restricted to the given seeds."""
        return replace(self, seeds=tuple(one for one in self.seeds if one.seed in seeds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Seeds of one or several jobs that go through the model together, with their features.

    An entry of a batch is one seed of one job. Entries are in the order of ``parts``, then of the seeds of a part.

    Attributes:
        parts: Features of exactly the batch's seeds, on the device or on their way to it: one part for each job. A job
            whose seeds have several ``Features`` may be several parts.
        sample_chunk: Number of samples of each seed that run at once. It changes the memory, not the result, because
            all random numbers are drawn beforehand.
        estimated_bytes: Estimated peak device memory, bytes; 0 if there is no estimate.
        roomy: See :class:`BatchPlan`. It changes the memory, not the result.
    """

    parts: tuple[Features, ...]
    sample_chunk: int
    estimated_bytes: int = 0
    roomy: bool = False

    @property
    def entries(self) -> "tuple[tuple[Features, SeedFeatures], ...]":
        """The features and the seed of each entry."""
        return tuple((part, seed) for part in self.parts for seed in part.seeds)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each entry, as an integer. Seeds of two jobs may be equal."""
        return tuple(seed.seed for _, seed in self.entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The samples of one seed of a job.

    Attributes:
        coordinates: Atom coordinates [N_sample, N_atom, 3], Angstrom.
        summary: Upstream's summary confidence, one dictionary per sample.
        full: Upstream's full data, one dictionary per sample. It includes ``atom_plddt`` [N_atom].
        run: How the seed was run, for the seed's record: precision, kernels, seconds per stage, peak bytes.
    """

    job: Job
    seed: int
    coordinates: "np.ndarray"
    summary: tuple[Mapping[str, Any], ...]
    full: tuple[Mapping[str, Any], ...]
    atom_array: Packed["AtomArray"]
    entity_poly_type: Mapping[str, str]
    run: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scores(self) -> tuple[float, ...]:
        """The ranking score of each sample."""
        return tuple(float(sample["ranking_score"]) for sample in self.summary)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A job, or one seed of it, that could not be finished.

    Attributes:
        seed: None if the whole job failed.
        stage: ``featurize``, ``predict``, ``write`` or ``rank``.
        advice: What the user can try.
        ends_run: Whether no later result could be written either, so that no more seeds should begin.
    """

    job: Job
    seed: int | None
    stage: str
    message: str
    advice: str = ""
    traceback: str = ""
    ends_run: bool = False

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that could not be finished."""
        return self.job.seeds if self.seed is None else (self.seed,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One row of a job's ranking.

    Attributes:
        iptm: None for a job with one chain, where Protenix writes 0.
        structure: The mmCIF file; None if only the scores of the sample were kept.
        confidence: The file of the summary confidence.
    """

    job: str
    seed: int
    sample: int
    ranking_score: float
    plddt: float
    ptm: float
    iptm: float | None
    has_clash: bool
    structure: Path | None
    confidence: Path

    @property
    def folder(self) -> Path:
        """The folder of the sample's seed."""
        return self.confidence.parent.parent
