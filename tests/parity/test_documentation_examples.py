"""Inputs as the documentations of AlphaFold 3, Boltz and Chai show them give the tensors of the job written by hand.

The inputs are small ones of our own with the same keys. The job written by hand is in Protenix's JSON.
"""

import json

import numpy as np
import pytest
from support import cases
from support.components import ACRYLAMIDE
from support.inputs import bond

from protenix_multiseed.errors import RefusedInputsError
from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.settings import FeatureSettings, InputRules, ReadSettings

READS = ReadSettings(msa=True, rna_msa=True, template=True)
RULES = InputRules(model="m", reads=READS, constraint=True)
SETTINGS = FeatureSettings(reads=READS, constraint=True)
A, B = "PVLSCGEWQL", "RPACQLWNDE"
A3M = f">query\n{A}\n>hit\nPVL--GEWQL\n>other\nPVLaaSAGEWQL\n"
RNA_A3M = ">query\nAGCUAG\n>hit\nAGC-AG\n"
SMILES = "CC(=O)OC1C[NH+]2CCC1CC2"


@pytest.fixture
def read(tmp_path, prepared_dictionary):
    (tmp_path / "a.a3m").write_text(A3M)
    (tmp_path / "a.csv").write_text(f"key,sequence\n0,{A}\n1,PVL--GEWQL\n-1,PVLaaSAGEWQL\n")
    (tmp_path / "b.csv").write_text(f"key,sequence\n0,{B}\n1,RPAC--WNDE\n")
    (tmp_path / "own.cif").write_text(ACRYLAMIDE)
    cases.write_template(tmp_path / "template.cif")

    def read(content, name="in.json"):
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        (job,) = read_jobs([tmp_path / name], (7,), RULES, prepared_dictionary)
        return job

    return read


def assert_same_tensors(ours, theirs):
    ours, theirs = featurize(ours, SETTINGS), featurize(theirs, SETTINGS)
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.arrays.keys() == other.arrays.keys()
        for name, value in other.arrays.items():
            assert np.array_equal(np.asarray(mine.arrays[name]), np.asarray(value)), name
        (seed,), (of_other,) = mine.seeds, other.seeds
        assert np.array_equal(seed.ref_pos, of_other.ref_pos)
        assert np.array_equal(seed.has_frame, of_other.has_frame)
        assert np.array_equal(seed.torch_state, of_other.torch_state)
        atoms, others = mine.atom_array.value, other.atom_array.value
        for name in atoms.get_annotation_categories():
            assert np.array_equal(atoms.get_annotation(name), others.get_annotation(name)), name


def alphafold3(*sequences, **more):
    return {"dialect": "alphafold3", "version": 4, "name": "a", "modelSeeds": [10, 42], "sequences": [*sequences],
            **more}  # fmt: skip


def by_hand(*sequences, **more):
    return [{"name": "a", "sequences": [*sequences], **more}]


def protein(sequence, *ids, **more):
    return {"proteinChain": {"sequence": sequence, "count": len(ids), "id": [*ids], **more}}


def nucleic(kind, sequence, *ids, **more):
    return {f"{kind}Sequence": {"sequence": sequence, "count": len(ids), "id": [*ids], **more}}


def ligand(text, *ids):
    return {"ligand": {"ligand": text, "count": len(ids), "id": [*ids]}}


def changed(kind, *changes):
    keys = ("ptmType", "ptmPosition") if kind == "protein" else ("modificationType", "basePosition")
    return {"modifications": [dict(zip(keys, (f"CCD_{code}", place), strict=True)) for code, place in changes]}


def joined(*ends):
    """A bond between first copies: entity, position and atom of both ends."""
    keys = ("entity1", "position1", "atom1", "entity2", "position2", "atom2")
    return bond(copy1=1, copy2=1, **dict(zip(keys, ends, strict=True)))


NOTHING = {"unpairedMsa": "", "pairedMsa": ""}
INDICES = {"queryIndices": [0, 1, 2, 4, 5, 6], "templateIndices": [0, 1, 2, 3, 4, 8]}

ALPHAFOLD3 = {
    "a protein with modifications and an MSA in the file": (
        alphafold3({"protein": {"id": "A", "sequence": A, "description": "10 residues with 2 modifications",
                                "modifications": [{"ptmType": "HY3", "ptmPosition": 1},
                                                  {"ptmType": "P1L", "ptmPosition": 5}],
                                "unpairedMsa": A3M, "pairedMsa": "", "templates": []}}),
        by_hand(protein(A, "A", unpairedMsa=A3M, pairedMsa="", **changed("protein", ("HY3", 1), ("P1L", 5)))),
    ),
    "an MSA by path": (
        alphafold3({"protein": {"id": "A", "sequence": A, "unpairedMsaPath": "a.a3m", "pairedMsa": ""}}),
        by_hand(protein(A, "A", unpairedMsaPath="a.a3m", pairedMsa="")),
    ),
    "a homomer by several ids": (
        alphafold3({"protein": {"id": ["A", "B", "C"], "sequence": B, **NOTHING}}),
        by_hand(protein(B, "A", "B", "C", **NOTHING)),
    ),
    "DNA and RNA with modifications and an MSA": (
        alphafold3({"dna": {"id": "C", "sequence": "GACCTCT",
                            "modifications": [{"modificationType": "6OG", "basePosition": 1},
                                              {"modificationType": "6MA", "basePosition": 2}]}},
                   {"rna": {"id": "E", "sequence": "AGCUAG", "unpairedMsa": RNA_A3M,
                            "modifications": [{"modificationType": "2MG", "basePosition": 2},
                                              {"modificationType": "5MC", "basePosition": 3}]}}),
        by_hand(nucleic("dna", "GACCTCT", "C", **changed("dna", ("6OG", 1), ("6MA", 2))),
                nucleic("rna", "AGCUAG", "E", unpairedMsa=RNA_A3M, **changed("rna", ("2MG", 2), ("5MC", 3)))),
    ),
    "ligands by code and by SMILES, and an ion": (
        alphafold3({"protein": {"id": "A", "sequence": A, **NOTHING}},
                   {"ligand": {"id": ["F", "G", "H"], "ccdCodes": ["ATP"]}},
                   {"ligand": {"id": "Z", "smiles": SMILES}}, {"ligand": {"id": "M", "ccdCodes": ["MG"]}}),
        by_hand(protein(A, "A", **NOTHING), ligand("CCD_ATP", "F", "G", "H"), ligand(SMILES, "Z"),
                {"ion": {"ion": "MG", "count": 1, "id": ["M"]}}),
    ),
    "a covalent ligand, and a glycan of four sugars": (
        alphafold3({"protein": {"id": "A", "sequence": B, **NOTHING}},
                   {"ligand": {"id": "I", "ccdCodes": ["NAG", "NAG", "BMA", "FUC"]}},
                   bondedAtomPairs=[[["A", 8, "ND2"], ["I", 1, "C1"]], [["I", 1, "O4"], ["I", 2, "C1"]],
                                    [["I", 2, "O4"], ["I", 3, "C1"]], [["I", 1, "O6"], ["I", 4, "C1"]]]),
        by_hand(protein(B, "A", **NOTHING), ligand("CCD_NAG_NAG_BMA_FUC", "I"),
                covalent_bonds=[joined(1, 8, "ND2", 2, 1, "C1"), joined(2, 1, "O4", 2, 2, "C1"),
                                joined(2, 2, "O4", 2, 3, "C1"), joined(2, 1, "O6", 2, 4, "C1")]),
    ),
    "a component of the user's own, bonded": (
        alphafold3({"protein": {"id": "A", "sequence": A, **NOTHING}},
                   {"ligand": {"id": "L", "ccdCodes": ["LIG-1"]}}, userCCD=ACRYLAMIDE,
                   bondedAtomPairs=[[["A", 5, "SG"], ["L", 1, "C1"]]]),
        by_hand(protein(A, "A", **NOTHING), ligand("CCD_LIG-1", "L"), userCCDPath="own.cif",
                covalent_bonds=[joined(1, 5, "SG", 2, 1, "C1")]),
    ),
    "a template": (
        alphafold3({"protein": {"id": "B", "sequence": A, "templates": [{"mmcifPath": "template.cif", **INDICES}]}}),
        by_hand(protein(A, "B", templates=[{"structurePath": "template.cif", **INDICES}])),
    ),
    "all keys": (
        alphafold3({"protein": {"id": "A", "sequence": A, "unpairedMsa": A3M, "pairedMsa": ""}},
                   {"protein": {"id": "B", "sequence": B, "pairedMsa": None}},
                   {"dna": {"id": "C", "sequence": "GACCTCT"}}, {"rna": {"id": "E", "sequence": "AGCU"}},
                   {"ligand": {"id": ["F", "G"], "ccdCodes": ["ATP"]}},
                   {"ligand": {"id": "I", "ccdCodes": ["NAG", "FUC"]}}, {"ligand": {"id": "Z", "smiles": SMILES}},
                   bondedAtomPairs=[[["A", 1, "CA"], ["F", 1, "C8"]], [["I", 1, "O6"], ["I", 2, "C1"]]]),
        by_hand(protein(A, "A", unpairedMsa=A3M, pairedMsa=""), protein(B, "B"), nucleic("dna", "GACCTCT", "C"),
                nucleic("rna", "AGCU", "E"), ligand("CCD_ATP", "F", "G"), ligand("CCD_NAG_FUC", "I"),
                ligand(SMILES, "Z"),
                covalent_bonds=[joined(1, 1, "CA", 5, 1, "C8"), joined(6, 1, "O6", 6, 2, "C1")]),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "hand"), ALPHAFOLD3.values(), ids=ALPHAFOLD3)
def test_alphafold_3(read, content, hand):
    assert_same_tensors(read(content), read(hand, "hand.json"))


CONTACT = {"entity1": 1, "copy1": 1, "position1": 2, "entity2": 2, "copy2": 1, "position2": 3, "max_distance": 8}
LINING = [{"entity": 1, "copy": 1, "position": position} for position in (2, 5)]
POCKET = {"binder_chain": {"entity": 2, "copy": 1}, "max_distance": 6, "contact_residues": LINING}
TEMPLATES = [{"structurePath": "template.cif"}, {"structurePath": "template.cif", "chain": "A"}]
BOLTZ = {
    "a dimer with two kinds of ligands": (
        f"""\
version: 1
sequences:
  - protein:
      id: [A, B]
      sequence: {A}
      msa: ./a.a3m
  - ligand:
      id: [C, D]
      ccd: SAH
  - ligand:
      id: [E, F]
      smiles: 'N[C@@H](Cc1ccc(O)cc1)C(=O)O'
""",
        by_hand(protein(A, "A", "B", unpairedMsaPath="a.a3m"), ligand("CCD_SAH", "C", "D"),
                ligand("N[C@@H](Cc1ccc(O)cc1)C(=O)O", "E", "F")),
    ),
    "single sequence, DNA, RNA and modifications": (
        f"""\
version: 1
sequences:
    - protein:
        id: A
        sequence: {A}
        msa: empty
        modifications:
          - position: 4
            ccd: SEP
    - dna: {{id: B, sequence: GACCT, modifications: [{{position: 2, ccd: 6MA}}]}}
    - rna: {{id: C, sequence: AGCUA}}
""",
        by_hand(protein(A, "A", unpairedMsa="", **changed("protein", ("SEP", 4))),
                nucleic("dna", "GACCT", "B", **changed("dna", ("6MA", 2))), nucleic("rna", "AGCUA", "C")),
    ),
    "a covalent ligand": (
        f"""\
sequences:
  - protein: {{id: A, sequence: {B}, msa: empty}}
  - ligand: {{id: L, ccd: NAG}}
constraints:
  - bond:
      atom1: [A, 8, ND2]
      atom2: [L, 1, C1]
""",
        by_hand(protein(B, "A", unpairedMsa=""), ligand("CCD_NAG", "L"),
                covalent_bonds=[joined(1, 8, "ND2", 2, 1, "C1")]),
    ),
    "a contact of two proteins": (
        f"""\
sequences:
  - protein: {{id: A, sequence: {A}, msa: empty}}
  - protein: {{id: B, sequence: {B}, msa: empty}}
constraints:
  - contact: {{token1: [A, 2], token2: [B, 3], max_distance: 8, force: false}}
""",
        by_hand(protein(A, "A", unpairedMsa=""), protein(B, "B", unpairedMsa=""), constraint={"contact": [CONTACT]}),
    ),
    "a pocket of a ligand": (
        f"""\
sequences:
  - protein: {{id: A, sequence: {A}, msa: empty}}
  - ligand: {{id: L, ccd: ATP}}
constraints:
  - pocket: {{binder: L, contacts: [[A, 2], [A, 5]]}}
""",
        by_hand(protein(A, "A", unpairedMsa=""), ligand("CCD_ATP", "L"), constraint={"pocket": POCKET}),
    ),
    "templates": (
        f"""\
sequences:
  - protein: {{id: [A, B], sequence: {A}, msa: empty}}
templates:
  - cif: template.cif
  - cif: template.cif
    chain_id: [A, B]
    template_id: [A, A]
""",
        by_hand(protein(A, "A", "B", unpairedMsa="", templates=TEMPLATES)),
    ),
    "alignments with keys": (
        f"""\
sequences:
  - protein: {{id: A, sequence: {A}, msa: a.csv}}
  - protein: {{id: B, sequence: {B}, msa: b.csv}}
""",
        by_hand(protein(A, "A", pairedMsa=f">q\n{A}\n>UniRef100_1_HUMAN/\nPVL--GEWQL\n",
                        unpairedMsa=f">q\n{A}\n>1\nPVLaaSAGEWQL\n"),
                protein(B, "B", pairedMsa=f">q\n{B}\n>UniRef100_2_HUMAN/\nRPAC--WNDE\n", unpairedMsa=f">q\n{B}\n")),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "hand"), BOLTZ.values(), ids=BOLTZ)
def test_boltz(read, content, hand):
    assert_same_tensors(read(content, "in.yaml"), read(hand, "hand.json"))


CHAI = {
    "proteins, a peptide and a ligand": (
        f">protein|example-of-long-protein\n{A}\n{A}\n>protein|example-of-short-protein\n{B}\n"
        ">protein|example-of-peptide\nGAAL\n>ligand|and-example-for-ligand-encoded-as-smiles\nCCCCCC(=O)O\n",
        by_hand({"proteinChain": {"sequence": A + A, "count": 1}}, {"proteinChain": {"sequence": B, "count": 1}},
                {"proteinChain": {"sequence": "GAAL", "count": 1}}, {"ligand": {"ligand": "CCCCCC(=O)O", "count": 1}}),
    ),
    "a branched glycan, and one in two copies": (
        f">protein|example-protein\n{B}\n>glycan|branched\nNAG(4-1 NAG(4-1 BMA(3-1 MAN)(6-1 MAN)))\n"
        ">glycan|example-dual-sugar\nNAG(4-1 NAG)\n>glycan|again\nNAG(4-1 NAG)\n",
        by_hand({"proteinChain": {"sequence": B, "count": 1}},
                {"ligand": {"ligand": "CCD_NAG_NAG_BMA_MAN_MAN", "count": 1}},
                {"ligand": {"ligand": "CCD_NAG_NAG", "count": 2}},
                covalent_bonds=[joined(2, 1, "O4", 2, 2, "C1"), joined(2, 2, "O4", 2, 3, "C1"),
                                joined(2, 3, "O3", 2, 4, "C1"), joined(2, 3, "O6", 2, 5, "C1"),
                                joined(3, 1, "O4", 3, 2, "C1"),
                                {**joined(3, 1, "O4", 3, 2, "C1"), "copy1": 2, "copy2": 2}]),
    ),
    "named headers, nucleic acids, a modified residue": (
        ">protein|name=a\nRKDES(MSE)EES\n>dna|name=b\nACGA\n>rna|name=c\nACGA\n",
        by_hand({"proteinChain": {"sequence": "RKDESMEES", "count": 1, **changed("protein", ("MSE", 6))}},
                {"dnaSequence": {"sequence": "ACGA", "count": 1}}, {"rnaSequence": {"sequence": "ACGA", "count": 1}}),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "hand"), CHAI.values(), ids=CHAI)
def test_chai(read, content, hand):
    assert_same_tensors(read(content, "in.fasta"), read(hand, "hand.json"))


def test_the_alphafold_server(read):
    content = [{"name": "a", "modelSeeds": [], "dialect": "alphafoldserver", "version": 1, "sequences": [
        {"proteinChain": {"sequence": A, "count": 2, "modifications": [{"ptmType": "CCD_HY3", "ptmPosition": 1}],
                          "glycans": [], "maxTemplateDate": "2018-01-20"}},
        {"dnaSequence": {"sequence": "GATTACA", "count": 1}}, {"ligand": {"ligand": "CCD_ATP", "count": 1}},
        {"ion": {"ion": "MG", "count": 2}}]}]  # fmt: skip
    hand = by_hand({"proteinChain": {"sequence": A, "count": 2, **changed("protein", ("HY3", 1))}},
                   {"dnaSequence": {"sequence": "GATTACA", "count": 1}}, {"ligand": {"ligand": "CCD_ATP", "count": 1}},
                   {"ion": {"ion": "MG", "count": 2}})  # fmt: skip
    assert_same_tensors(read(content), read(hand, "hand.json"))


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        ([{"name": "a", "dialect": "alphafoldserver", "version": 1, "modelSeeds": [], "sequences": [
            {"proteinChain": {"sequence": B, "count": 1, "glycans": [{"residues": "NAG(NAG)(BMA)", "position": 8}]}}]}],
         "in.json", "notation names no bonds: write the sugars as one ligand"),
        (f"sequences:\n  - protein: {{id: A, sequence: {A}, cyclic: true}}", "in.yaml",
         "cyclic: Protenix's models know no cyclic chains"),
    ],
    ids=["a glycan of the AlphaFold Server", "a cyclic chain of Boltz"],
)  # fmt: skip
def test_what_protenix_cannot_do_is_refused_by_name(read, content, name, says):
    with pytest.raises(RefusedInputsError, match=says):
        read(content, name)


def test_the_comparison_sees_a_difference(read):
    """Another alignment, another bond and another template each change a tensor."""
    one = read(by_hand(protein(A, "A", unpairedMsaPath="a.a3m")))
    for other in (
        by_hand(protein(A, "A", unpairedMsa="")),
        by_hand(protein(A, "A", unpairedMsaPath="a.a3m", templates=[{"structurePath": "template.cif"}])),
        by_hand(protein(A, "B", unpairedMsaPath="a.a3m")),
    ):
        with pytest.raises(AssertionError):
            assert_same_tensors(one, read(other, "hand.json"))
