"""Made-up results with structures: the samples of one job form two conformers, those of the other job agree."""

import io
import json
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
N = 60


def write(out: Path, names: tuple[str, str] = ("hinge", "rigid")) -> None:
    random = np.random.default_rng(0)
    turn = np.deg2rad(100.0) * np.arange(N)
    helix = np.stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 1.5 * np.arange(N)], axis=-1)
    bent = helix.copy()
    bent[N // 2 :] = helix[N // 2 :] @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]).T
    bent[N // 2 :] += helix[N // 2] - bent[N // 2]
    for name, conformers in zip(names, ((helix, bent), (helix, helix)), strict=True):
        for seed in (1, 2, 3):
            coordinates = np.stack([one + random.normal(size=one.shape) * 0.2 for one in conformers])
            _write_seed(
                out / name.replace("/", "_") / f"seed_{seed}", name.replace("/", "_"), seed, coordinates, random
            )


def pixels(png: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def _write_seed(folder: Path, name: str, seed: int, coordinates: np.ndarray, random: np.random.Generator) -> None:
    (folder / "predictions").mkdir(parents=True)
    chain = np.repeat(["A", "B"], N // 2)
    plddt = np.repeat([95.0, 60.0], N // 2)
    letters = np.array([f"X{number}" for number in range(N)])  # all different: no chain is a copy of another
    tokens = Tokens(
        chain=chain, residue=np.tile(np.arange(N // 2), 2) + 1, component=letters, kind=np.full(N, "protein"),
        is_residue=np.ones(N, dtype=bool),
    )  # fmt: skip
    pair = Interface(chain_1="A", chain_2="B", ipsae=0.4, pdockq2=0.2, lis=0.3, n_contact=12)
    made = Compact(
        tokens=tokens, coordinates=coordinates.astype(np.float32), plddt=np.tile(plddt, (2, 1)),
        pae=random.uniform(0, 31, (2, N, N)), interfaces=((pair,), (pair,)),
    )  # fmt: skip
    write_compact(folder / "ensemble.npz", made)
    for place in range(2):
        atoms = AtomArray(N)
        atoms.coord, atoms.chain_id, atoms.res_id = coordinates[place], chain, tokens.residue
        atoms.atom_name[:], atoms.element[:], atoms.res_name[:] = "CA", "C", "ALA"
        atoms.set_annotation("b_factor", plddt)
        atoms.set_annotation("label_asym_id", chain)
        atoms.set_annotation("label_entity_id", np.full(N, "1"))
        file = CIFFile()
        set_structure(file, atoms, data_block="x")
        more = model_categories(atoms, {"1": "polypeptide(L)"}, plddt, {"protenix": "2.0.0"})
        (folder / "predictions" / f"{name}_sample_{place}.cif").write_text(file.serialize() + more)
        score = 0.9 - 0.3 * place - 0.01 * seed
        summary = {
            "ranking_score": score, "plddt": 67.5, "ptm": score, "iptm": score, "has_clash": 0.0,
            "chain_ptm": [score, 0.5], "chain_pair_iptm": [[0, score], [score, 0]],
        }  # fmt: skip
        stem = folder / "predictions" / f"{name}_summary_confidence_sample_{place}.json"
        stem.write_text(json.dumps(summary))
    record = {
        "fingerprint": "x", "made_from": {"steps": 200}, "files": {"x": {"bytes": 1, "sha256": ""}},
        "run": {"seconds": 1.5 * seed, "path": "batched", "batch": [1, 2, 3]},
    }  # fmt: skip
    (folder / "record.json").write_text(json.dumps(record))
