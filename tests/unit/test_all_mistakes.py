"""All mistakes of an input are told at once, as far as its parts can be read, without what only follows from one."""

import json

import pytest
from support.inputs import bond, job, ligand, protein

from protenix_multiseed.errors import RefusedInputsError
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.settings import InputRules, ReadSettings
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

ATP = ligand("CCD_ATP")
IMPOSSIBLE = "O=c1cccc2n1C[C@@H]1CNC[C@@H]2C1"  # RDKit finds no conformer
RULES = InputRules(model="m", reads=ReadSettings(msa=True, rna_msa=True))


@pytest.fixture(scope="module")
def dictionary():
    return EmbeddedDictionary()


@pytest.fixture
def problems(tmp_path, dictionary):
    """Read files and return what is wrong with them, without the names of file and job."""

    def problems(content, name="in.json"):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text)
        with pytest.raises(RefusedInputsError) as error:
            read_jobs([tmp_path / name], None, RULES, dictionary)
        return [problem.split(": ", 1)[1] for problem in error.value.problems]

    return problems


def assert_starts(found, expected):
    """Each problem starts as expected, in any order, and there is no other."""
    assert [start for start in expected if not any(one.startswith(start) for one in found)] == []
    assert len(found) == len(expected), found


ALPHAFOLD3 = {
    "dialect": "alphafold3",
    "version": 9,
    "name": "a",
    "modelSeeds": [1, -2, -3, 7, 7],
    "sequences": [
        {"protein": {"id": "A", "sequence": "MKT1AYZ", "modificatons": [], "modifications": [
            {"ptmType": "XYZZY", "ptmPosition": 0}, {"ptmType": "XYZZX", "ptmPosition": 70}]}},
        {"ligand": {"id": "A", "ccdCodes": ["ZZZZ"]}},
        {"ligand": {"id": "C", "smiles": "CC("}},
        {"ligand": {"id": "D", "smiles": 5}},
        {"ligand": {"id": "E", "ccdCodes": ["ATP"], "smiles": "C", "colour": "red"}},
        {"dna": {"id": "F", "sequence": "ACGT"}},
    ],
    "bondedAtomPairs": [[["F", 1, "CX"], ["C", 1, "C1"]], [["A", 1], ["F", 1, "P"]], [["D", 1, "X"], ["F", 9, "P"]]],
}  # fmt: skip


def test_mistakes_of_all_kinds_in_an_alphafold_3_file(problems):
    assert_starts(
        problems(ALPHAFOLD3),
        [
            "version:",
            "modelSeeds: seed -2",
            "modelSeeds: seed -3",
            "modelSeeds: seed 7 is given twice",
            "sequences[0].protein.modificatons: unknown key",
            "sequences[0].protein.sequence: '1' at position 4",
            "sequences[0].protein.sequence: 'Z' at position 7",
            "sequences[0].protein.modifications[0].ptmPosition: 0",
            "sequences[0].protein.modifications[0].ptmType: component 'XYZZY'",
            "sequences[0].protein.modifications[1].ptmPosition: 70",
            "sequences[0].protein.modifications[1].ptmType: component 'XYZZX'",
            "sequences[1].ligand.id: 'A' is also",
            "sequences[1].ligand.ccdCodes: component 'ZZZZ'",
            "sequences[2].ligand.smiles: 'CC('",
            "sequences[3].ligand.smiles: input should be",
            "sequences[4].ligand.colour: unknown key",
            "sequences[4].ligand: expected either ccdCodes or smiles",
            "bondedAtomPairs[0][0]: atom 'CX' does not exist at position 1 of chain F; it has C2, C4, C5,",
            "bondedAtomPairs[1][0][2]: missing",
            "bondedAtomPairs[2][1]: 9: chain F has positions 1 to 4",
        ],
    )


def test_chains_of_an_entity_that_cannot_be_read_are_not_called_unknown(problems):
    content = {**ALPHAFOLD3, "version": 1, "modelSeeds": [1], "sequences": ALPHAFOLD3["sequences"][3:4]}
    content["bondedAtomPairs"] = [[["D", 1, "X"], ["D", 2, "X"]]]
    assert_starts(problems(content), ["sequences[3]".replace("3", "0")])


def test_mistakes_of_all_kinds_in_a_protenix_file(problems):
    contact = {f"{key}{end}": 5 for key in ("entity", "copy", "position") for end in (1, 2)} | {"max_distance": 9}
    content = job(
        protein(sequence="MKB", count=2),
        {"ligand": {"ligand": 5}},
        ligand("CCD_ZZZZ", coun=2),
        covalent_bonds=[
            bond(entity1=1, position1=9, entity2=2, position2=7),
            bond(entity1=4, entity2=2),
            {"entity1": 1},
        ],
        constraint={"contact": [contact]},
    )
    found = problems(content)
    expected = [
        "sequences[0].proteinChain.sequence: 'B'",
        "sequences[1].ligand.ligand: input should be",
        "sequences[2].ligand.coun: unknown key",
        "sequences[2].ligand.ligand: component 'ZZZZ'",
        "covalent_bonds[0].position1: 9",
        "covalent_bonds[1].entity1: 4",
        "constraint.contact[0].entity1: 5",
        "constraint.contact[0].entity2: 5",
        "constraint.contact[0]: a contact joins two different chains",
    ]
    assert_starts([one for one in found if not one.startswith("covalent_bonds[2].")], expected)
    assert "covalent_bonds[2].atom1: missing" in found


def test_mistakes_of_all_kinds_in_a_boltz_file(problems):
    text = """
version: 2
sequences:
  - protein: {id: A, sequence: MK1, cyclic: true, msa: none.a3m, modifications: [{position: 1, cdd: SEP, ccd: QQQQ}]}
  - ligand: {id: [B, A], smiles: "C("}
  - ligand: {id: C, ccd: ""}
constraints:
  - bond: {atom1: [X, 1, N], atom2: [A, 9, N]}
  - contact: {token1: [Y, 1], token2: [Y, 1]}
  - pocket: {binder: B, contacts: [[A, 7], [Z, 1], [A]]}
templates:
  - {cif: t.cif, chain_id: W}
"""
    assert_starts(
        problems(text, "in.yaml"),
        [
            "version:",
            "sequences[0].protein.modifications[0].cdd: unknown key",
            "constraints[2].pocket.contacts[2][1]: missing",
            "sequences[0].protein.cyclic:",
            "templates[0].chain_id: no protein chain is called 'W'",
            "constraints[0].bond.atom1: no chain is called 'X'",
            "constraints[1].contact.token1: no chain is called 'Y'",
            "constraints[1].contact.token2: no chain is called 'Y'",
            "constraints[2].pocket.contacts[1]: no chain is called 'Z'",
            "sequences[0].protein.sequence: '1'",
            "sequences[0].protein.modifications[0].ccd: component 'QQQQ'",
            "sequences[0].protein.msa: none.a3m: no such file",
            "sequences[1].ligand.id: 'A'",
            "sequences[1].ligand.smiles: 'C(' is not a SMILES string RDKit can read (syntax error); write a component",
            "sequences[2].ligand.ccd: component ''",
            "constraints[0].bond.atom2: 9: chain A has",
            "constraints[2].pocket.contacts[0]: 7: chain A has",
        ],
    )


def test_mistakes_in_all_records_of_a_fasta_file(problems):
    found = problems(">a\nMK1T\n>b\n>c\nACGTU\n>d|ligand\nC(\n", "in.fasta")
    wrong = ["record 1.sequence: '1'", "record 2 ('b') has no", "record 3.sequence: 'T'", "record 4: 'C('"]
    assert_starts(found, wrong)


def test_jobs_with_mistakes_are_compared_with_the_other_jobs(problems):
    nameless = {"name": 5, "sequences": [ATP]}
    content = [*job(ATP, sample=1), *job(ligand("C(")), {**job(ligand(IMPOSSIBLE))[0], "name": "b"}, nameless, nameless]
    wrong = ["sample: unknown key", "sequences[0].ligand.ligand: 'C('", "name: also the name of"]
    wrong += ["sequences[0].ligand.ligand: RDKit finds no 3D conformer"]
    found = problems(content)
    assert_starts([one for one in found if not one.startswith("name: input should be a valid string")], wrong)
    assert len(found) == len(wrong) + 2
