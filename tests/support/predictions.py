"""A made-up prediction of two residues, to write."""

import numpy as np
from biotite.structure import AtomArray, BondList
from support.jobs import job_of

from protenix_multiseed.outputs.seed_files import read_seed, seed_folder
from protenix_multiseed.outputs.write import write_prediction
from protenix_multiseed.packed import Packed
from protenix_multiseed.types import Prediction

NAMES = ["N", "CA", "C", "O", "CB"]


def prediction(scores=(0.2, 0.9, 0.5), name='it\'s a "job" 1.2', chain="A", atom_array=None, **changes):
    atoms = AtomArray(2 * len(NAMES))
    atoms.set_annotation("chain_id", np.full(len(atoms), chain))
    atoms.res_id[:] = np.repeat([1, 2], len(NAMES))
    atoms.res_name[:] = "ALA"
    atoms.atom_name[:] = NAMES * 2
    atoms.element[:] = [name[0] for name in NAMES] * 2
    for annotation in ("label_asym_id", "auth_asym_id"):
        atoms.set_annotation(annotation, atoms.chain_id)
    atoms.set_annotation("label_entity_id", np.full(len(atoms), "1"))
    atoms.set_annotation("token", atoms.res_id - 1)
    atoms.set_annotation("msa_rows", np.full(len(atoms), 7))
    atoms.bonds = BondList(len(atoms), np.array([[0, 1], [1, 2]]))
    coordinates = np.random.default_rng(0).normal(size=(len(scores), len(atoms), 3)).astype(np.float32) * 20
    fixed = {"iptm": np.float32(0), "has_clash": np.float32(0)}
    summary = tuple(
        {**fixed, "ranking_score": np.float32(s), "plddt": np.float32(50 + s), "ptm": np.float32(s)} for s in scores
    )
    pae = np.full((2, 2), 4, dtype=np.float32)
    full = tuple({"atom_plddt": np.full(len(atoms), s, dtype=np.float32), "token_pair_pae": pae} for s in scores)
    made = {
        "job": job_of(name=name, seeds=(3,)),
        "seed": 3,
        "coordinates": coordinates,
        "summary": summary,
        "full": full,
        "atom_array": Packed(atoms if atom_array is None else atom_array),
    }
    run = {"path": "reference", "seconds": 1.5}
    return Prediction(**{**made, "entity_poly_type": {"1": "polypeptide(L)"}, "run": run, **changes})


def written(made, settings, identity):
    """Write a prediction. Returns its samples as they are read back, best first."""
    write_prediction(made, settings, identity)
    folder = seed_folder(settings.out, made.job.name, made.seed)
    return read_seed(folder, made.job.name, made.seed)[1]
