"""Inputs of other formats, predicted by the command: own components, and chain names up to the last file."""

import json

import gemmi
from biotite.structure.io import pdbx
from support.command import QUICK, run
from support.components import ACRYLAMIDE, renamed

from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

SEQUENCE = "MKTAYIAKQR"


def predicted(folder, name, content, *options):
    """Predict one input and return the output folder of its job."""
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    (folder / "quick.yaml").write_text(QUICK)
    done = run("predict", name, "--config", "quick.yaml", "--out", "out", *options, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out"


def names_of(path):
    """The components of each chain of a written structure, as gemmi and biotite read them."""
    structure = gemmi.read_structure(str(path))
    found = {chain.name: [residue.name for residue in chain] for chain in structure[0]}
    atoms = pdbx.get_structure(pdbx.CIFFile.read(path), model=1)
    assert len(atoms) == structure[0].count_atom_sites()
    assert list(dict.fromkeys(atoms.chain_id.tolist())) == list(found)
    return found


def test_own_components_are_predicted_as_ligand_and_as_residue(tmp_path):
    """In one run with a job that gives another molecule the same code."""
    residue = renamed(EmbeddedDictionary(), "SEP", "MY-SEP")
    job = {
        "dialect": "alphafold3",
        "version": 4,
        "name": "own",
        "modelSeeds": [1, 2],
        "sequences": [
            {"protein": {"id": "P", "sequence": SEQUENCE, "modifications": [{"ptmType": "MY-SEP", "ptmPosition": 3}]}},
            {"ligand": {"id": ["X", "Y"], "ccdCodes": ["LIG-1"]}},
        ],
        "bondedAtomPairs": [[["P", 5, "CA"], ["X", 1, "C1"]]],
        "userCCD": ACRYLAMIDE + residue,
    }
    other = ACRYLAMIDE.replace("LIG-1 O1 O", "LIG-1 S1 S").replace("O1", "S1")
    chains = [{"proteinChain": {"sequence": SEQUENCE, "count": 1}}, {"ligand": {"ligand": "CCD_LIG-1", "count": 1}}]
    second = {"name": "second", "userCCDPath": "own.cif", "modelSeeds": [1], "sequences": chains}
    (tmp_path / "own.cif").write_text(other)
    (tmp_path / "second.json").write_text(json.dumps([second]))
    out = predicted(tmp_path, "own.json", job, "second.json")
    for path in (out / "own").rglob("*.cif"):
        found = names_of(path)
        assert list(found) == ["P", "X", "Y"]
        assert found["P"][2] == "MY-SEP"
        assert found["X"] == found["Y"] == ["LIG-1"]
        ligand = gemmi.read_structure(str(path))[0]["Y"][0]
        assert [atom.name for atom in ligand] == ["C1", "C2", "C3", "O1", "N1"]
    written = gemmi.read_structure(str(out / "second" / "best.cif"))[0]["B"][0]
    assert [atom.name for atom in written] == ["C1", "C2", "C3", "S1", "N1"]
    (tmp_path / "own.cif").write_text(ACRYLAMIDE)
    changed = run("predict", "second.json", "--config", "quick.yaml", "--out", "out", cwd=tmp_path)
    assert changed.returncode == 2
    assert "the job or one of its files has changed" in changed.stdout + changed.stderr
