"""The types that carry a run from input to files. Frozen: what one part hands over, no later part changes."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from protenix_multiseed.job_spec import JobSpec

if TYPE_CHECKING:
    import numpy as np
    from biotite.structure import AtomArray

Identity: TypeAlias = Mapping[str, Any]
"""Everything but the seed that determines a job's predictions, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One complex to predict with some seeds.

    Attributes:
        name: Unique within a run; the name of its output folder.
        seeds: In the order asked for.
        source: The input file.
        index: Its position in that file, from 0.
        notes: What its author should know before the run, in words.
        n_token: Tokens counted before featurization, where a modified residue counts as one: there may be more.
    """

    name: str
    seeds: tuple[int, ...]
    source: Path
    index: int
    spec: JobSpec
    notes: tuple[str, ...] = ()
    n_token: int = 0

    @property
    def where(self) -> str:
        """How messages name the job: ``a.json[3] 'kras'``."""
        return f"{self.source.name}[{self.index}] {self.name!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A job, what determines its answer, and the seeds still to do.

    Attributes:
        todo: Of the job's seeds; empty if all are done.
    """

    job: Job
    identity: Identity
    todo: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a job's memory depends on."""

    n_token: int
    n_atom: int
    n_msa: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """Seeds of one job that are to go through the model together. Integers only, so that planning needs no features.

    Attributes:
        sample_chunk: How many samples of each seed are denoised and scored at once.
        estimated_bytes: Of the device's memory.
    """

    seeds: tuple[int, ...]
    sample_chunk: int
    estimated_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedFeatures:
    """What the seed decides, and the state of the generators after featurization, where the model's draws begin.

    Attributes:
        ref_pos: Reference conformers, each centred, rotated and shifted at random [N_atom, 3], Angstrom. Like
            ``has_frame`` a numpy array from the workers, a tensor once uploaded.
        has_frame: Whether each token has a frame [N_token]; a ligand's frame is found from ``ref_pos``.
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
    """A job's features in compact form: what its seeds share once, what differs once per seed.

    Attributes:
        seeds: The seeds these features serve. Usually all of the job's; a job whose leaving groups are chosen
            differently by different seeds has several features.
        arrays: Shared features in the compact layout of :mod:`protenix_multiseed.features.layout`: numpy arrays from
            the workers, tensors once uploaded.
        atom_array: Atoms in the order of ``ref_pos``, with the annotations that writing needs.
        entity_poly_type: Polymer type of each polymer entity, by entity number from 1.
        warnings: What the user should know about this job.
        seconds: Time spent on featurization.
    """

    job: Job
    seeds: tuple[SeedFeatures, ...]
    arrays: Mapping[str, Any]
    atom_array: "AtomArray"
    entity_poly_type: Mapping[str, str]
    n_token: int
    n_atom: int
    n_msa: int
    n_asym: int
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def sizes(self) -> Sizes:
        """What the job's memory depends on."""
        return Sizes(n_token=self.n_token, n_atom=self.n_atom, n_msa=self.n_msa)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays without the atoms."""
        shared = sum(int(getattr(value, "nbytes", 0)) for value in self.arrays.values())
        return shared + sum(int(seed.ref_pos.nbytes + seed.has_frame.nbytes) for seed in self.seeds)

    def only(self, seeds: Collection[int]) -> Self:
        """The same features with these seeds of them."""
        return replace(self, seeds=tuple(one for one in self.seeds if one.seed in seeds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Seeds of one job that go through the model together, with their features.

    Attributes:
        features: Of the batch's seeds and no others, on the device or on their way to it.
        sample_chunk: How many samples of each seed run at once. It changes memory, not the answer: all draws are made
            before.
    """

    features: Features
    sample_chunk: int
    estimated_bytes: int = 0

    @property
    def seeds(self) -> tuple[int, ...]:
        """Numbers of the seeds."""
        return tuple(one.seed for one in self.features.seeds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The samples of one (job, seed).

    Attributes:
        coordinates: [N_sample, N_atom, 3], Angstrom.
        summary: Upstream's summary confidence, one dictionary per sample.
        full: Upstream's full data, one dictionary per sample, ``atom_plddt`` [N_atom] among it.
        run: How it was run, for the record: precision, kernels, seconds per stage, peak bytes.
    """

    job: Job
    seed: int
    coordinates: "np.ndarray"
    summary: tuple[Mapping[str, Any], ...]
    full: tuple[Mapping[str, Any], ...]
    atom_array: "AtomArray"
    entity_poly_type: Mapping[str, str]
    run: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A job, or one seed of it, that could not be finished.

    Attributes:
        seed: None if the whole job failed.
        stage: ``featurize``, ``predict``, ``write`` or ``rank``.
        advice: What to try.
    """

    job: Job
    seed: int | None
    stage: str
    message: str
    advice: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One row of a job's ranking.

    Attributes:
        structure: None if only the scores of the sample were kept.
    """

    job: str
    seed: int
    sample: int
    ranking_score: float
    plddt: float
    ptm: float
    iptm: float
    has_clash: bool
    structure: Path | None
    confidence: Path

    @property
    def folder(self) -> Path:
        """The folder of its seed."""
        return self.confidence.parent.parent
