"""Jobs of the parity tests: four that are written here, and the example 7r6r.

The jobs share a small dictionary, a template and a small architecture.
"""

import json
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "examples" / "7r6r.json"
SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQLE"
TEMPLATE_SEQUENCE = SEQUENCE[2:22]
# Every chemical component that the jobs name: amino acids, nucleotides, ligands, modifications.
CODES = [
    "ALA",
    "ARG",
    "ASN",
    "ASP",
    "CYS",
    "GLN",
    "GLU",
    "GLY",
    "HIS",
    "ILE",
    "LEU",
    "LYS",
    "MET",
    "PHE",
    "PRO",
    "SER",
    "THR",
    "TRP",
    "TYR",
    "VAL",
    "UNK",
    "DA",
    "DC",
    "DG",
    "DT",
    "A",
    "C",
    "G",
    "U",
    "ATP",
    "MG",
    "SEP",
    "NAG",
    "GOL",
    "5MC",
    "MSE",
]

SMALL = {
    "model.template_embedder.n_blocks": 1,
    "model.msa_module.n_blocks": 1,
    "model.pairformer.n_blocks": 1,
    "model.diffusion_module.atom_encoder.n_blocks": 1,
    "model.diffusion_module.transformer.n_blocks": 1,
    "model.diffusion_module.atom_decoder.n_blocks": 1,
    "model.confidence_head.n_blocks": 1,
}
MODEL = "protenix_base_default_v1.0.0"


def write_cases(folder: Path) -> dict[str, Path]:
    """Write an input file per job, and the alignment and template files that it names. Returns the paths by job name.

    The jobs differ in every property that matters.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        SEQUENCE,
        SEQUENCE.replace("K", "R"),
        SEQUENCE[:10] + "-" * 5 + SEQUENCE[15:],
        "M" + SEQUENCE[1:].replace("Q", "qqE"),
    ]
    (folder / "protein.a3m").write_text("".join(f">row{i}/\n{row}\n" for i, row in enumerate(rows)))
    rna = "GGCUAAGCCUUGC"
    (folder / "rna.a3m").write_text(f">query\n{rna}\n>other\n{rna.replace('A', 'G')}\n>third\n{rna[:4]}----{rna[8:]}\n")
    write_template(folder / "mmcif" / "9xyz.cif")
    (folder / "hits.a3m").write_text(
        f">9xyz_A/1-20 mol:protein length:20  A HELIX [subseq from] mol:protein length:20\n{TEMPLATE_SEQUENCE}\n"
    )
    protein = {"sequence": SEQUENCE, "count": 1, "unpairedMsaPath": "protein.a3m"}
    jobs = {
        "ligands": {
            "sequences": [
                {"proteinChain": {**protein, "count": 2}},
                {"ligand": {"ligand": "CCD_ATP", "count": 1}},
                {"ligand": {"ligand": "CC(=O)Oc1ccccc1C(=O)O", "count": 2}},
                {"ion": {"ion": "MG", "count": 1}},
            ]
        },
        "rna": {
            "sequences": [
                {
                    "rnaSequence": {
                        "sequence": rna,
                        "count": 1,
                        "unpairedMsaPath": "rna.a3m",
                        "modifications": [{"modificationType": "CCD_5MC", "basePosition": 4}],
                    }
                },
                {"proteinChain": {"sequence": "GHKLMNPQRS", "count": 1}},
            ]
        },
        "bonded": {
            "sequences": [
                {
                    "proteinChain": {
                        "sequence": "MKNASTVGASWYCK",
                        "count": 1,
                        "modifications": [
                            {"ptmType": "CCD_SEP", "ptmPosition": 5},
                            {"ptmType": "CCD_MSE", "ptmPosition": 1},
                        ],
                    }
                },
                {"ligand": {"ligand": "CCD_NAG", "count": 1}},
            ],
            "covalent_bonds": [
                {"entity1": 1, "position1": 3, "atom1": "ND2", "entity2": 2, "position2": 1, "atom2": "C1"}
            ],
        },
        "template": {
            "sequences": [
                {"proteinChain": {**protein, "templatesPath": "hits.a3m"}},
                {"dnaSequence": {"sequence": "ACGTTG", "count": 1}},
            ]
        },
    }
    paths = {}
    for name, job in jobs.items():
        paths[name] = folder / f"{name}.json"
        paths[name].write_text(json.dumps([{"name": name, **job}]))
    return paths


def featurize_cases(folder: Path, seeds: Sequence[int], more: Sequence[Path] = ()) -> dict[str, Any]:
    """Write the jobs, and featurize them and those of the files ``more``. Returns the features by job name."""
    from configs.configs_data import data_configs

    from protenix_multiseed.features.featurize import featurize
    from protenix_multiseed.features.msa_and_templates import _hit_featurizer
    from protenix_multiseed.inputs.read import read_jobs
    from protenix_multiseed.settings import FeatureSettings, InputRules, ReadSettings
    from protenix_multiseed.upstream import environment
    from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

    environment.prepare(EmbeddedDictionary())
    root, reads = folder / "root", ReadSettings(rna_msa=True, template=True)
    write_root(root)
    paths = [*write_cases(folder).values(), *more]
    jobs = read_jobs(paths, seeds, InputRules(model="m", reads=reads), EmbeddedDictionary())
    settings = FeatureSettings(template_mmcif_dir=folder / "mmcif", kalign=root / "bin" / "kalign", reads=reads)
    with pytest.MonkeyPatch.context() as patch:
        for key, name in (
            ("release_dates_path", "release_date_cache.json"),
            ("obsolete_pdbs_path", "obsolete_to_successor.json"),
        ):
            patch.setitem(data_configs["template"], key, str(root / "common" / name))
        _hit_featurizer.cache_clear()
        return {job.name: featurize(job, settings)[0] for job in jobs}


def absolute_copy(path: Path, folder: Path) -> Path:
    """Copy an input file and make its paths absolute, because upstream resolves no relative paths."""
    jobs = json.loads(path.read_text())
    for job in jobs:
        for item in job["sequences"]:
            for entity in item.values():
                for key in ("pairedMsaPath", "unpairedMsaPath", "templatesPath"):
                    if key in entity:
                        entity[key] = str(path.parent / entity[key])
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / path.name
    copy.write_text(json.dumps(jobs))
    return copy


def write_template(path: Path) -> None:
    """Write a made-up structure that upstream's template parser can read: one helix of ``TEMPLATE_SEQUENCE``."""
    names = gemmi.expand_one_letter_sequence(TEMPLATE_SEQUENCE, gemmi.ResidueKind.AA)
    structure = gemmi.Structure()
    structure.name = "9XYZ"
    chain = gemmi.Chain("A")
    offsets = {
        "N": (0.0, 0.0, 0.0),
        "CA": (1.46, 0.0, 0.0),
        "C": (2.0, 1.42, 0.0),
        "O": (1.3, 2.4, 0.2),
        "CB": (2.0, -0.8, 1.2),
    }
    for index, name in enumerate(names):
        residue = gemmi.Residue()
        residue.name, residue.seqid, residue.label_seq = name, gemmi.SeqId(index + 1, " "), index + 1
        residue.entity_type, residue.subchain = gemmi.EntityType.Polymer, "A"
        angle = np.deg2rad(100 * index)
        for atom_name, (x, y, z) in offsets.items():
            if atom_name == "CB" and name == "GLY":
                continue
            atom = gemmi.Atom()
            atom.name, atom.element = atom_name, gemmi.Element(atom_name[0])
            atom.pos = gemmi.Position(
                x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle), z + 1.5 * index
            )
            residue.add_atom(atom)
        chain.add_residue(residue)
    model = gemmi.Model(1) if gemmi.__version__ >= "0.7" else gemmi.Model("1")
    model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    structure.entities[0].full_sequence = names
    document = structure.make_mmcif_document()
    block = document.sole_block()
    block.set_pair("_pdbx_audit_revision_history.revision_date", "2015-01-01")
    block.set_pair("_exptl.method", "'X-RAY DIFFRACTION'")
    loop = block.init_loop("_chem_comp.", ["id", "type"])
    for name in sorted(set(names)):
        loop.add_row([name, "'L-peptide linking'"])
    path.parent.mkdir(parents=True, exist_ok=True)
    document.write_file(str(path))


def write_root(root: Path) -> None:
    """Write the files that upstream expects under PROTENIX_ROOT_DIR: dictionary, template dates, and an aligner."""
    sys.path.insert(0, str(REPOSITORY / "scripts"))
    from write_dictionary import write_dictionary

    write_dictionary(root, CODES)
    (root / "common" / "release_date_cache.json").write_text(json.dumps({"9xyz": {"release_date": "2015-01-01"}}))
    (root / "common" / "obsolete_to_successor.json").write_text("{}")
    kalign = root / "bin" / "kalign"
    kalign.parent.mkdir(exist_ok=True)
    kalign.write_text(f'#!/bin/sh\nexec {sys.executable} {REPOSITORY / "tests" / "support" / "kalign.py"} "$@"\n')
    kalign.chmod(kalign.stat().st_mode | stat.S_IXUSR)


def environment(root: Path, cache: Path) -> dict[str, str]:
    """Environment variables of a child process that uses the small dictionary in ``root``, and no files of the user."""
    return {
        **os.environ,
        "PROTENIX_ROOT_DIR": str(root),
        "LAYERNORM_TYPE": "torch",
        "PROTENIX_MS_CACHE": str(cache),
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "2",
    }
