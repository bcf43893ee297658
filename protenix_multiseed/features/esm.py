"""ESM embeddings for the models that read them: one file per protein sequence, in the user's cache folder.

Upstream embeds all inputs of a file together at the start, and uses zeros if an embedding fails. Here each sequence is
embedded alone, so its embedding depends only on the sequence, and a failure is an error.
"""

import argparse
import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from biotite.structure import AtomArray

from protenix_multiseed.errors import FeaturizationError, WeightsError
from protenix_multiseed.job_spec import JobSpec
from protenix_multiseed.limits import ESM_MAX_RESIDUES
from protenix_multiseed.types import Job
from protenix_multiseed.upstream.environment import call_quietly


def embed_proteins(jobs: Iterable[Job], esm_model: str, checkpoint_dir: Path, folder: Path) -> int:
    """Embed every protein sequence of the jobs that has no file in ``folder`` yet.

    Upstream: ``protenix.data.esm.compute_esm`` with the limits of ``ESMFeaturizer.precompute_esm_embedding``.

    Args:
        jobs: Jobs whose proteins are embedded.
        esm_model: Upstream's name of the ESM model.
        checkpoint_dir: Folder with the weights of the ESM model.
        folder: Folder for the embeddings.

    Returns:
        The number of new embeddings.

    Raises:
        WeightsError: if the weights of the ESM model are missing.
        FeaturizationError: if the ESM model makes no embedding for a sequence.
    """
    from protenix.data.esm import compute_esm

    sequences = {sequence for job in jobs for sequence in _proteins(job.spec).values()}
    missing = sorted(sequence for sequence in sequences if not _file(folder, sequence).exists())
    if not missing:
        return 0
    weights = checkpoint_dir / compute_esm.ESM_CONFIG[esm_model]["model_path"]
    for file in (weights, weights.with_name(f"{weights.stem}-contact-regression.pt")):
        if not file.is_file():
            raise WeightsError(f"{esm_model} needs {file}, which is missing; run 'protenix-ms fetch {file.stem}'")
    folder.mkdir(parents=True, exist_ok=True)
    # fair-esm's checkpoints hold their settings as a Namespace, which torch's loader of weights refuses by default.
    with torch.serialization.safe_globals([argparse.Namespace]):
        model, alphabet = call_quietly(compute_esm.load_esm_model, esm_model, local_esm_dir=str(checkpoint_dir))
    for sequence in missing:
        target = _file(folder, sequence)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            call_quietly(
                compute_esm.compute_ESM_embeddings,
                esm_model,
                model,
                alphabet,
                [target.stem],
                [sequence],
                scratch,
                truncation_seq_length=ESM_MAX_RESIDUES,
                toks_per_batch=16384,
            )
            made = Path(scratch) / target.name
            if not made.exists():
                raise FeaturizationError(f"no ESM embedding was made for a protein of {len(sequence)} residues")
            os.replace(made, target)
    return len(missing)


def token_embeddings(job: Job, atom_array: AtomArray, folder: Path) -> np.ndarray:
    """Return the ESM embeddings of a job's tokens [N_token, 2560]. They are zero for tokens outside proteins.

    Upstream: ``ESMFeaturizer.__call__``.
    """
    centres = atom_array[atom_array.centre_atom_mask == 1]
    embeddings: np.ndarray | None = None
    for entity, sequence in _proteins(job.spec).items():
        of_sequence = torch.load(_file(folder, sequence), weights_only=True).float().numpy()
        if embeddings is None:
            embeddings = np.zeros((len(centres), of_sequence.shape[1]), dtype=np.float32)
        tokens = centres.label_entity_id == entity
        embeddings[tokens] = of_sequence[centres.res_id[tokens] - 1]
    return np.zeros((len(centres), 2560), dtype=np.float32) if embeddings is None else embeddings


def _proteins(spec: JobSpec) -> dict[str, str]:
    """Return the sequence of each protein, by its entity number."""
    return {str(number): protein.sequence for number, protein in spec.polymers("protein")}


def _file(folder: Path, sequence: str) -> Path:
    return folder / f"{hashlib.sha256(sequence.encode()).hexdigest()[:32]}.pt"
