"""Inputs of other formats, predicted by the command: own components, and chain names up to the last file."""

import csv
import json

import gemmi
import pytest
from biotite.structure.io import pdbx
from support.cases import write_root
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


def test_own_components_work_beside_protenixs_own_dictionary(tmp_path, monkeypatch):
    """The two files that Protenix downloads; here small ones, which do not hold the job's component."""
    write_root(tmp_path / "root")
    monkeypatch.setenv("PROTENIX_ROOT_DIR", str(tmp_path / "root"))
    sequences = [{"proteinChain": {"sequence": SEQUENCE, "count": 1}}, {"ligand": {"ligand": "CCD_LIG-1", "count": 1}}]
    job = [{"name": "own", "userCCD": ACRYLAMIDE, "modelSeeds": [1], "sequences": sequences}]
    out = predicted(tmp_path, "own.json", job)
    assert json.loads((out / "protenix-ms" / "run.json").read_text())["dictionary"] == "upstream"
    assert names_of(out / "own" / "best.cif")["B"] == ["LIG-1"]


def protein(id, **more):
    return {"protein": {"id": id, "sequence": SEQUENCE, **more}}


def structure_text(suffix):
    """A protein of two chains with names that are not the automatic ones."""
    structure = gemmi.Structure()
    structure.name = "X"
    model = gemmi.Model(1) if gemmi.__version__ >= "0.7" else gemmi.Model("1")
    for place, name in enumerate(("H", "L")):
        chain = gemmi.Chain(name)
        for number, code in enumerate(gemmi.expand_one_letter_sequence(SEQUENCE, gemmi.ResidueKind.AA), start=1):
            residue = gemmi.Residue()
            residue.name, residue.seqid, residue.entity_type = code, gemmi.SeqId(number, " "), gemmi.EntityType.Polymer
            residue.subchain = name
            for x, atom_name in enumerate(("N", "CA", "C", "O")):
                atom = gemmi.Atom()
                atom.name, atom.element = atom_name, gemmi.Element(atom_name[0])
                atom.pos = gemmi.Position(x, 3.8 * number, 30 * place)
                residue.add_atom(atom)
            chain.add_residue(residue)
        model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    structure.assign_label_seq_id()
    return structure.make_pdb_string() if suffix == "pdb" else structure.make_mmcif_document().as_string()


ALPHAFOLD3 = {"dialect": "alphafold3", "version": 4, "name": "alphafold3", "modelSeeds": [1], "sequences": [
    {"ligand": {"id": ["Z", "B2"], "ccdCodes": ["GOL"]}}, protein(["Q", "A"]),
    {"rna": {"id": "r", "sequence": "ACGUA"}}, {"ligand": {"id": ["X", "Y", "W"], "smiles": "CCO"}},
    {"ligand": {"id": "M", "ccdCodes": ["MG"]}}]}  # fmt: skip
PROTENIX = [{"name": "protenix", "modelSeeds": [1], "sequences": [
    {"ion": {"ion": "MG", "count": 2, "id": ["M1", "M2"]}},
    {"proteinChain": {"sequence": SEQUENCE, "count": 2, "id": ["d", "C"]}},
    {"ligand": {"ligand": "CCD_NAG_NAG", "count": 1, "id": ["G"]}}]}]  # fmt: skip
BOLTZ = (
    f"sequences:\n  - protein: {{id: [B, A], sequence: {SEQUENCE}, msa: empty}}\n"
    "  - ligand: {id: [LIG1, LIG2], smiles: CCO}\n  - dna: {id: D, sequence: ACGTA}\n"
    "templates:\n  - cif: mmcif.cif\n    chain_id: [A, B]\n    template_id: [L, L]\n"
)
INPUTS = {
    "alphafold3.json": (ALPHAFOLD3, ["Z", "B2", "Q", "A", "r", "X", "Y", "W", "M"]),
    "protenix.json": (PROTENIX, ["M1", "M2", "d", "C", "G"]),
    "boltz.yaml": (BOLTZ, ["B", "A", "LIG1", "LIG2", "D"]),
    "typed.fasta": (f">K|protein|empty\n{SEQUENCE}\n>J|smiles\nCCO\n>I|protein|empty\n{SEQUENCE}\n", ["K", "I", "J"]),
    "plain.fasta": (f">one\n{SEQUENCE}\n>two\nGHKLMNPQRS\n", ["A", "B"]),
    "mmcif.cif": (structure_text("cif"), ["H", "L"]),
    "pdb.pdb": (structure_text("pdb"), ["H", "L"]),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One run over an input of each format, with templates."""
    folder = tmp_path_factory.mktemp("formats")
    for name, (content, _) in INPUTS.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    (folder / "quick.yaml").write_text(QUICK)
    done = run(
        "predict",
        *INPUTS,
        "--config",
        "quick.yaml",
        "--out",
        "out",
        "--seeds",
        "1",
        "--template-from-input",
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out", done.stdout + done.stderr


@pytest.mark.parametrize("name", INPUTS)
def test_chains_keep_their_names_up_to_the_last_file(written, name):
    job, expected = written[0] / name.split(".")[0], INPUTS[name][1]
    for path in (job / "best.cif", *job.rglob("*_sample_*.cif")):
        assert list(names_of(path)) == expected
        block = gemmi.cif.read(str(path)).sole_block()
        assert list(dict.fromkeys(block.find_values("_atom_site.label_asym_id"))) == expected
        assert list(dict.fromkeys(block.find_values("_ma_qa_metric_local.label_asym_id"))) == expected
    with (job / "chains.csv").open() as file:
        assert [row["chain"] for row in csv.DictReader(file)] == expected
    record = json.loads((job / "seed_1" / "record.json").read_text())
    assert [chain["chain"] for chain in record["chains"]] == expected


def test_the_run_says_how_templates_are_placed(written):
    said = " ".join(written[1].split())
    assert "boltz: protein 1: template mmcif.cif, chain L: 10 of 10 residues aligned, 100% of them identical" in said
    for name in ("mmcif.cif", "pdb.pdb"):
        assert f"protein 1: template {name}, chain H: 10 of 10 residues mapped, 100% of them identical" in said
