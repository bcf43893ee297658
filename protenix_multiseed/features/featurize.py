"""Featurize one job for all its seeds. The reference twin does the same through upstream's own featurizer."""

import contextlib
import json
import random
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from biotite.structure import AtomArray
from protenix.data.core import ccd
from protenix.data.core.featurizer import Featurizer
from protenix.data.inference import infer_dataloader, json_parser
from protenix.data.inference.json_to_feature import SampleDictToFeatures

from protenix_multiseed.errors import ConformerError, FeaturizationError
from protenix_multiseed.failures import failure_of
from protenix_multiseed.features import layout
from protenix_multiseed.features.cache import Made, cached
from protenix_multiseed.features.msa_and_templates import (
    HitReporter,
    dataset_configs,
    fetch_whole_files,
    msa_arrays,
    msa_rows,
    template_arrays,
    with_hits,
)
from protenix_multiseed.features.own_templates import with_structures
from protenix_multiseed.features.seed_draws import (
    DrawLog,
    SeededConformers,
    initial_torch_state,
    no_conformer,
    recorded,
    replay_leaving,
    replay_reference,
    smiles_coordinates,
)
from protenix_multiseed.features.tokens import Frames, tokenize
from protenix_multiseed.inputs.content import content_hash, files_read
from protenix_multiseed.inputs.corrections import corrected
from protenix_multiseed.inputs.residues import codes_of
from protenix_multiseed.job_spec import JobSpec, Ligand
from protenix_multiseed.limits import EMPTY_TEMPLATES, TEMPLATE_SLOTS
from protenix_multiseed.packed import Packed
from protenix_multiseed.settings import FeatureSettings
from protenix_multiseed.types import Failure, Features, Job, SeedFeatures
from protenix_multiseed.upstream.environment import overheard, replaced, silenced
from protenix_multiseed.upstream.job_dict import to_upstream
from protenix_multiseed.upstream.job_dictionary import with_components

# Upstream says so of caps before the correction bonds them. No other unbonded residue passes the checks.
_UNBONDED = "No C-N or O3'-P bond"
# Annotations that writing mmCIF needs. The many other annotations of the parser are dropped.
WRITTEN_ANNOTATIONS = (
    "chain_id",
    "res_id",
    "ins_code",
    "res_name",
    "hetero",
    "atom_name",
    "element",
    "label_asym_id",
    "label_entity_id",
    "auth_asym_id",
    "charge",
)


def featurize(job: Job, settings: FeatureSettings) -> list[Features | Failure]:
    """Featurize a job for all its seeds. A seed with which a ligand has no conformer is a failure of its own.

    Features that seeds share are made once. Some seeds need ``Features`` of their own:

    - seeds that remove different leaving groups, because their atoms differ;
    - every seed under guidance, because the guidance features contain random conformers;
    - every seed of a job with constraints, because upstream picks at random which token represents a residue of several
      tokens.

    Raises:
        FeaturizationError: if the job cannot be featurized.
    """
    start = time.perf_counter()
    _refuse_changed(job, settings)
    with with_components(job.spec.components), overheard(codes_of(job.spec)) as heard:
        made, failed = _featurize(job, settings)
    _refuse_changed(job, settings)
    seconds = (time.perf_counter() - start) / max(1, len(made))
    told = _told_by_upstream([text for text in heard if settings.reads.exact or _UNBONDED not in text])
    # Each warning once, though each seed may have Features of its own.
    warnings = dict.fromkeys([*(text for features in made for text in features.warnings), *told])
    made = [replace(features, seconds=seconds, warnings=()) for features in made]
    if made:
        made[0] = replace(made[0], warnings=tuple(warnings))
    return [*failed, *made]  # failures first: early stopping must know of them


def _refuse_changed(job: Job, settings: FeatureSettings) -> None:
    """Refuse a job whose files are not those of the checks any more: its record would name other ones.

    Raises:
        FeaturizationError: if a file has changed.
    """
    with contextlib.suppress(OSError):  # a file that cannot be read is named where it is read
        if job.content and any(files_read(job.spec, settings.reads)):
            if content_hash(job.spec, settings.reads) == job.content:
                return
            raise FeaturizationError(
                f"{job.where}: one of its files has changed since the run began",
                "put it back and run the same command again, or run again with --overwrite",
            )


def _featurize(job: Job, settings: FeatureSettings) -> tuple[list[Features], list[Failure]]:
    made, failed = list[Features](), list[Failure]()
    waiting = list(job.seeds)
    while waiting:
        seed = waiting[0]
        try:
            if settings.guidance or job.spec.has_constraint:
                made.append(featurize_reference(job, settings, seed))
                same = [seed]
            else:
                shared = _share(job, settings, seed)
                same = [seed for seed in waiting if shared.has_atoms_of(seed)]
                features, without = shared.features(same)
                made.append(features)
                failed += without
        except ConformerError as error:
            failed.append(failure_of(job, seed, "featurize", error))
            same = [seed]
        waiting = [seed for seed in waiting if seed not in same]
    return made, failed


def _told_by_upstream(texts: Iterable[str]) -> tuple[str, ...]:
    """Return sentences for the user from upstream's warnings."""
    return tuple(f"Protenix warns: {text[:300]}" for text in texts)


def featurize_reference(job: Job, settings: FeatureSettings, seed: int) -> Features:
    """Featurize a job for one seed through upstream: the reference twin of :func:`featurize`.

    Calls upstream's ``InferenceDataset.process_one``. The random generators are seeded as upstream's runner seeds them.

    Raises:
        FeaturizationError: if the job cannot be featurized.
        ConformerError: if a ligand has no conformer with this seed.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps([to_upstream(corrected(job.spec, settings.reads))]))
        dataset = infer_dataloader.InferenceDataset(dataset_configs(with_hits(job, settings), path))
        hits = None
        if finder := dataset.online_template_featurizer:
            if settings.fetch_template_structures:
                fetch_whole_files(finder)
            hits = HitReporter(finder)
        dataset.online_template_featurizer = hits
        stack.enter_context(replaced(json_parser, "AllChem", SeededConformers(seed)))
        stack.enter_context(silenced())
        stack.enter_context(with_components(job.spec.components))
        if settings.reads.template:
            stack.enter_context(with_structures(job.spec))
        ccd.get_ccd_ref_info.cache_clear()  # repeat its random draws, as in a process that runs this seed alone
        stack.enter_context(torch.random.fork_rng(devices=[]))
        random.seed(seed)
        np.random.seed(seed)
        torch.set_rng_state(initial_torch_state(seed))
        try:
            data, atom_array, _ = dataset.process_one(dataset.inputs[0])
        except Exception as error:
            raise _explained(job, error) from error
        torch_state = torch.get_rng_state().numpy()
    full = data["input_feature_dict"]
    seed_features = SeedFeatures(
        seed=seed,
        ref_pos=full["ref_pos"].numpy(),
        has_frame=full["has_frame"].numpy().astype(bool),
        python_state=random.getstate(),
        numpy_state=tuple(np.random.get_state(legacy=True)),
        torch_state=torch_state,
    )
    if not settings.constraint:
        full.pop("constraint_feature", None)
    warnings = (*hits.unused, *hits.skipped) if hits else ()
    arrays, entity_poly_type = layout.compact(full), data["entity_poly_type"]
    return _features(job, settings, (seed_features,), arrays, atom_array, entity_poly_type, warnings)


@dataclass(slots=True)
class _Shared:
    """A job, parsed with the draws of one seed, before the reference conformers are placed at random.

    Attributes:
        seed: The seed whose draws were recorded.
        log: The draws of upstream's parser.
        arrays: Shared features in the compact layout.
        conformers: Atom indices of each reference conformer.
        smiles: SMILES of each ligand that has one, by entity number.
    """

    job: Job
    settings: FeatureSettings
    seed: int
    log: DrawLog
    arrays: dict[str, Any]
    atom_array: AtomArray
    entity_poly_type: dict[str, str]
    frames: Frames
    conformers: list[np.ndarray]
    smiles: dict[str, str]  # entity number -> SMILES
    warnings: tuple[str, ...]

    def has_atoms_of(self, seed: int) -> bool:
        """Return whether a seed removes the same leaving groups as the recorded seed."""
        return replay_leaving(self.log, seed)[0] == self.log.chosen

    def features(self, seeds: Sequence[int]) -> tuple[Features, list[Failure]]:
        """Return the features of the given seeds, among them the recorded one, and the seeds without a conformer."""
        made, failed = list[SeedFeatures](), list[Failure]()
        for seed in seeds:
            try:
                made.append(self._seed_features(seed))
            except ConformerError as error:
                failed.append(failure_of(self.job, seed, "featurize", error))
        features = _features(
            self.job, self.settings, tuple(made), self.arrays, self.atom_array, self.entity_poly_type, self.warnings
        )
        return features, failed

    def _seed_features(self, seed: int) -> SeedFeatures:
        reference = self.atom_array.ref_pos
        if self.smiles and seed != self.seed:
            reference = reference.copy()
            for entity, smiles in self.smiles.items():
                atoms = self.atom_array.label_entity_id == entity
                coordinates = smiles_coordinates(smiles, seed)
                reference[atoms] = np.tile(coordinates, (int(atoms.sum()) // len(coordinates), 1))
        ref_pos, numpy_state = replay_reference(self.log, seed, reference, self.conformers)
        return SeedFeatures(
            seed=seed,
            ref_pos=ref_pos,
            has_frame=self.frames.has_frame(ref_pos),
            python_state=replay_leaving(self.log, seed)[1],
            numpy_state=numpy_state,
            torch_state=initial_torch_state(seed).numpy(),
        )


def _share(job: Job, settings: FeatureSettings, seed: int) -> _Shared:
    try:
        with recorded(seed) as log:
            sample = SampleDictToFeatures(to_upstream(corrected(job.spec, settings.reads)))
            atom_array = sample.get_atom_array()
        return _share_atoms(job, settings, seed, log, sample, atom_array)
    except FeaturizationError:
        raise
    except Exception as error:
        raise _explained(job, error) from error


def _share_atoms(
    job: Job, settings: FeatureSettings, seed: int, log: DrawLog, sample: SampleDictToFeatures, atom_array: AtomArray
) -> _Shared:
    tokens = tokenize(atom_array)
    featurizer = Featurizer(tokens, atom_array, include_discont_poly_poly_bonds=True)
    full = featurizer.get_token_features() | featurizer.get_bond_features() | featurizer.get_extra_features()
    element = Featurizer.elem_onehot_encoded(atom_array.element)
    names = Featurizer.ref_atom_name_chars_encoded(atom_array.atom_name)
    arrays: dict[str, Any] = layout.compact_one_hots(full["restype"], element, names)
    full |= {
        "ref_mask": atom_array.ref_mask,
        "ref_charge": atom_array.ref_charge,
        "ref_space_uid": atom_array.ref_space_uid,
        "distogram_rep_atom_mask": atom_array.distogram_rep_atom_mask,
    }
    arrays |= {key: layout.shrink(np.asarray(full[key])) for key in layout.INDEX_FEATURES}
    arrays["token_bonds"] = full["token_bonds"].numpy().astype(bool)

    def make() -> Made:
        with overheard(()) as heard:  # the cache keeps what upstream says
            templates, hits = template_arrays(job, settings, atom_array)
            msa = msa_arrays(job, settings, atom_array, full["restype"])
        said = (*hits.unused, *_told_by_upstream(heard)) if hits else _told_by_upstream(heard)
        return Made(msa | templates, said, tuple(hits.skipped) if hits else ())

    columns = [np.asarray(arrays[name]) for name in ("asym_id", "residue_index", "restype")]
    found = cached(job, settings, columns, make)
    arrays |= found.arrays
    order = np.argsort(atom_array.ref_space_uid, kind="stable")
    starts = np.flatnonzero(np.diff(atom_array.ref_space_uid[order])) + 1
    return _Shared(
        job=job,
        settings=settings,
        seed=seed,
        log=log,
        arrays=arrays,
        atom_array=atom_array,
        entity_poly_type=sample.entity_poly_type,
        frames=Frames(tokens, atom_array),
        conformers=np.split(order, starts),
        smiles=_smiles(job.spec),
        warnings=(*found.warnings, *found.passing),
    )


def _features(
    job: Job,
    settings: FeatureSettings,
    seeds: tuple[SeedFeatures, ...],
    arrays: dict[str, Any],
    atom_array: AtomArray,
    entity_poly_type: Mapping[str, str],
    warnings: tuple[str, ...] = (),
) -> Features:
    if settings.esm_folder is not None:
        from protenix_multiseed.features.esm import token_embeddings

        arrays["esm_token_embedding"] = token_embeddings(job, atom_array, settings.esm_folder)
    n_token, n_msa = len(arrays["residue_index"]), len(arrays["msa"])
    written = AtomArray(len(atom_array))
    present = atom_array.get_annotation_categories()
    for name in WRITTEN_ANNOTATIONS:
        if name in present:
            written.set_annotation(name, atom_array.get_annotation(name))
    written.bonds = atom_array.bonds
    token = np.asarray(arrays["atom_to_token_idx"], dtype=np.int64)
    written.set_annotation("token", token)
    written.set_annotation("msa_rows", msa_rows(np.asarray(arrays["msa"]), np.asarray(arrays["asym_id"]))[token])
    return Features(
        job=job,
        seeds=seeds,
        arrays=arrays,
        atom_array=Packed(written),
        entity_poly_type={key: value for key, value in entity_poly_type.items() if value != "non-polymer"},
        n_token=n_token,
        n_atom=len(atom_array),
        n_msa=n_msa,
        n_asym=len(np.unique(arrays["asym_id"])),
        n_template=TEMPLATE_SLOTS if "template_atom_mask" in arrays else EMPTY_TEMPLATES,
        warnings=warnings,
    )


def _smiles(spec: JobSpec) -> dict[str, str]:
    """Return the SMILES string of each ligand that has one, by its entity number."""
    entities = enumerate(spec.entities, start=1)
    return {str(number): one.smiles for number, one in entities if isinstance(one, Ligand) and one.smiles is not None}


def _explained(job: Job, error: Exception) -> FeaturizationError:
    """Return an error of upstream's as one for the user."""
    text = " ".join(str(error).split())
    return no_conformer(error) or FeaturizationError(f"{job.where}: {text or type(error).__name__}")
