"""Made-up results with structures: the samples of one job form two conformers, those of the other job agree.

Each job has two protein chains and a ligand whose first atom clashes with chain A.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from biotite.structure import AtomArray
from biotite.structure.io.pdbx import CIFFile, set_structure

from protenix_multiseed.analysis.compact import Compact, Tokens, write_compact
from protenix_multiseed.analysis.interfaces import Interface
from protenix_multiseed.outputs.modelcif import model_categories

CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
]  # fmt: skip
N, N_LIGAND = 60, 3  # residues of both proteins, atoms of the ligand
RESIDUES = ["ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE", "LEU", "LYS", "MET", "PHE", "PRO"]


def write(out: Path, names: Sequence[str] = ("hinge", "rigid")) -> None:
    random = np.random.default_rng(0)
    turn = np.deg2rad(100.0) * np.arange(N)
    helix = np.stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 1.5 * np.arange(N)], axis=-1)
    bent = helix.copy()
    bent[N // 2 :] = helix[N // 2 :] @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]).T
    bent[N // 2 :] += helix[N // 2] - bent[N // 2]
    ligand = np.array([[2.3, 0, 0.5], [4.0, 0, 0.5], [5.4, 0, 0.5]])
    for place, name in enumerate(names):
        conformers = (helix, bent) if place == 0 else (helix, helix)
        for seed in (1, 2, 3):
            coordinates = np.stack([
                np.concatenate([one + random.normal(size=one.shape) * 0.2, ligand]) for one in conformers
            ])  # fmt: skip
            folder = name.replace("/", "_")
            _write_seed(out / folder / f"seed_{seed}", folder, seed, coordinates, random)


def pixels(png: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def _write_seed(folder: Path, name: str, seed: int, coordinates: np.ndarray, random: np.random.Generator) -> None:
    (folder / "predictions").mkdir(parents=True)
    n = N + N_LIGAND
    chain = np.repeat(["A", "B", "L"], [N // 2, N // 2, N_LIGAND])
    kind = np.repeat(["protein", "ligand"], [N, N_LIGAND])
    component = np.array([*RESIDUES, *RESIDUES, *reversed(RESIDUES), *reversed(RESIDUES), *["LIG"] * N_LIGAND])
    plddt = np.repeat([95.0, 60.0, 80.0], [N // 2, N // 2, N_LIGAND])
    tokens = Tokens(
        chain=chain, residue=np.concatenate([np.tile(np.arange(N // 2), 2) + 1, np.ones(N_LIGAND, dtype=int)]),
        component=component, kind=kind, is_residue=kind == "protein",
    )  # fmt: skip
    pair = Interface(chain_1="A", chain_2="B", ipsae=0.4, pdockq2=0.2, lis=0.3, n_contact=12)
    made = Compact(
        tokens=tokens, coordinates=coordinates.astype(np.float32), plddt=np.tile(plddt, (2, 1)),
        pae=random.uniform(0, 31, (2, n, n)), interfaces=((pair,), (pair,)),
    )  # fmt: skip
    write_compact(folder / "ensemble.npz", made)
    for place in range(2):
        atoms = AtomArray(n)
        atoms.coord, atoms.chain_id, atoms.res_id = coordinates[place], chain, tokens.residue
        atoms.atom_name[:], atoms.element[:], atoms.res_name = "CA", "C", component
        atoms.atom_name[N:] = ["C1", "C2", "C3"]
        atoms.hetero = kind == "ligand"
        atoms.set_annotation("b_factor", plddt)
        atoms.set_annotation("label_asym_id", chain)
        atoms.set_annotation("label_entity_id", np.repeat(["1", "2", "3"], [N // 2, N // 2, N_LIGAND]))
        file = CIFFile()
        set_structure(file, atoms, data_block="x")
        more = model_categories(atoms, {"1": "polypeptide(L)", "2": "polypeptide(L)"}, plddt, {"protenix": "2.0.0"})
        (folder / "predictions" / f"{name}_sample_{place}.cif").write_text(file.serialize() + more)
        score = 0.9 - 0.3 * place - 0.01 * seed
        summary = {
            "ranking_score": score, "plddt": 67.5, "ptm": score, "iptm": score, "has_clash": 0.0,
            "chain_ptm": [score, 0.5, None], "chain_pair_iptm": [[0, score, 0.2], [score, 0, 0.1], [0.2, 0.1, None]],
        }  # fmt: skip
        stem = folder / "predictions" / f"{name}_summary_confidence_sample_{place}.json"
        stem.write_text(json.dumps(summary))
    chains = [
        {"chain": "A", "index": 0, "entity": 1, "copy": 1, "kind": "polypeptide(L)", "msa_rows": 812,
         "msa": "yes"},
        {"chain": "B", "index": 1, "entity": 2, "copy": 1, "kind": "polypeptide(L)", "msa_rows": 1,
         "msa": "no"},
        {"chain": "L", "index": 2, "entity": 3, "copy": 1, "kind": "ligand", "msa_rows": None,
         "msa": ""},
    ]  # fmt: skip
    record = {
        "fingerprint": "x",
        "made_from": {
            "model": "demo", "steps": 200, "corrections": ["no ion", "T is U"], "upstream": {"a.b": True},
        },
        "files": {"x": {"bytes": 1, "sha256": ""}},
        "chains": chains, "versions": {"torch": "2.7"}, "date": f"2026-11-28T10:00:0{seed - 1}Z",
        "run": {"seconds": 1.5 * seed, "path": "batched", "batch": [1, 2, 3]},
    }  # fmt: skip
    (folder / "record.json").write_text(json.dumps(record))
