"""Kinds of inputs that once gave a wrong answer in silence: each is read as it is meant, or refused.

What becomes of an accepted input in the features is in ``tests/parity/test_differences.py``.
"""

import json
from pathlib import Path

import pytest
from support.inputs import SEQUENCE, bond, job, ligand, protein

from protenix_multiseed.errors import RefusedInputsError
from protenix_multiseed.features.featurize import featurize
from protenix_multiseed.features.sizes import count_sizes
from protenix_multiseed.inputs.alignments import facts_of, rewritten
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.job_spec import Alignment
from protenix_multiseed.settings import FeatureSettings, InputRules, ReadSettings
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

RULES = InputRules(model="m", reads=ReadSettings(msa=True, rna_msa=True))
MOLECULE = Path(__file__).parents[1] / "support" / "files" / "interleaved.sdf"


@pytest.fixture(scope="module")
def dictionary():
    made = EmbeddedDictionary()
    environment.prepare(made)
    return made


@pytest.fixture
def read(tmp_path, dictionary):
    (tmp_path / "mol.sdf").write_text(MOLECULE.read_text())
    (tmp_path / "two.sdf").write_text(2 * MOLECULE.read_text())
    (tmp_path / "dummy.sdf").write_text(MOLECULE.read_text().replace(" O   0", " *   0"))

    def read(*jobs, exact=False):
        (tmp_path / "in.json").write_text(json.dumps([one for made in jobs for one in made]))
        rules = RULES if not exact else InputRules(model="m", reads=ReadSettings(exact=True))
        return read_jobs([tmp_path / "in.json"], (1,), rules, dictionary)

    return read


def refused(read, content, says, **more):
    with pytest.raises(RefusedInputsError) as error:
        read(content, **more)
    assert says in str(error.value)


def alignment(*rows, end="\n"):
    return "\n".join(f">row{number}\n{row}" for number, row in enumerate((SEQUENCE, *rows), start=1)) + end


def rna(*rows, sequence="GGCUAAGC"):
    text = "\n".join(f">row{number}\n{row}" for number, row in enumerate((sequence, *rows), start=1))
    return {"rnaSequence": {"sequence": sequence, "count": 1, "unpairedMsa": text}}


# Alignments


@pytest.mark.parametrize("sign", ["*", "~", "?", "1", " ", "\t", "_", "/", "=", ">", "@"])
def test_a_sign_inside_a_row_is_refused_with_record_and_column(read, sign):
    row = SEQUENCE[:5] + sign + SEQUENCE[6:]
    shown = f"record 2 (row2): {sign!r} in column 6 is not a residue"
    refused(read, job(protein(unpairedMsa=alignment(row))), shown)
    refused(read, job(protein(pairedMsa=alignment("A" * 10, row))), shown.replace("2", "3"))


def test_the_column_of_a_sign_counts_no_insertions(read):
    refused(read, job(protein(unpairedMsa=alignment("MKaacTA*IAKQR"))), "'*' in column 5")


def test_the_file_of_a_wrong_row_is_named(read, tmp_path):
    (tmp_path / "x.a3m").write_text(alignment("MKTA*IAKQR"))
    refused(read, job(protein(unpairedMsaPath="x.a3m")), "unpairedMsaPath: x.a3m: record 2 (row2)")


@pytest.mark.parametrize(
    "text",
    [
        alignment("MK--YIAKQR", end="\n\0"),
        alignment("MK--YIAKQR", end="\0"),
        alignment("MK--YIAKQR", end="\n\0\n"),
        alignment("MK--YIAKQR*"),
        alignment("MK--YIAKQR*", end="\0\0"),
        alignment("M.K--YI...AKQR"),
        alignment("MK--\nYIAKQR").replace("\n", "\r\n"),
        alignment("MK--YIAKQR").replace("\n", "\r"),
        "#A3M#\n# comment\n" + alignment("MK--YIAKQR"),
        " " + alignment("MK--YIAKQR").replace("\n>", "\n  >"),
        alignment("  MK--\n\n\tYIAKQR  "),
    ],
)
def test_what_aligners_write_is_read_as_it_is_meant(read, text):
    (made,) = read(job(protein(unpairedMsa=text)))
    given = made.spec.entities[0].unpaired
    assert rewritten(given, "protein", SEQUENCE) == f">row1\n{SEQUENCE}\n>row2\nMK--YIAKQR\n"
    assert facts_of(given, "protein", SEQUENCE).n_row == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("MKTAYIAKQR\n" + alignment(), "the first line does not start with '>'"),
        (alignment("MK--YIAKQR", end="\0>other\nMK--YIAKQR\n"), "the control character '\\x00'"),
        (alignment("MK--YIAKQR", end="\0\n>other\nMK--YIAKQR\n"), "text after a NUL byte"),
        (alignment("MK--\x0bYIAKQR"), "control character"),
        (alignment("MK--\x1cYIAKQR"), "control character"),
        (alignment("MK--YIAKQÄ"), "not ASCII"),
        (alignment(""), "record 2 has 0 aligned columns"),
        (alignment("MK.TAYIAK.R"), "record 2 has 9 aligned columns, the first 10"),
        (alignment().lower(), "the first row has no column"),
        ("", None),
    ],
)
def test_what_has_no_single_meaning_is_refused(read, text, says):
    if says is None:
        assert read(job(protein(unpairedMsa=text)))
    else:
        refused(read, job(protein(unpairedMsa=text)), says)


def test_letters_of_an_alignment_belong_to_the_kind_of_chain(read):
    assert read(job(protein(unpairedMsa=alignment("BZJUOX-KQR"))))
    assert read(job(rna("GGCTAAGC", "RYSWKMBD", "N--XI--V")))
    refused(read, job(rna("GGCEAAGC")), "'E' in column 4 is not a residue")


def test_thymine_in_an_rna_alignment_becomes_uracil():
    given = Alignment(text=">q\nGGCU\n>r\nTtT-T\n")
    assert rewritten(given, "rna", "GGCU") == ">q\nGGCU\n>r\nUtU-U\n"


# Modifications


def modified(code, position, sequence=SEQUENCE, kind="proteinChain"):
    keys = ("ptmType", "ptmPosition") if kind == "proteinChain" else ("modificationType", "basePosition")
    change = dict(zip(keys, (f"CCD_{code}", position), strict=True))
    return job({kind: {"sequence": sequence, "count": 1, "modifications": [change]}})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (modified("NAG", 3), "'NAG' (d-saccharide, beta linking) cannot take the place of a residue in a protein"),
        (modified("MG", 3), "'MG' (non-polymer) cannot take the place"),
        (modified("SEP", 3, "ACGT", "dnaSequence"), "'SEP' (l-peptide linking) cannot take the place"),
        (modified("DA", 3), "'DA' (dna linking) cannot take the place"),
        (modified("NAG", 1, "A"), "cannot take the place"),
        (modified("NH2", 3), "'NH2' caps a chain: it can only be the last residue"),
        (modified("NH2", 1), "'NH2' caps a chain"),
        (modified("ACE", 10), "'ACE' caps a chain: it can only be the first residue"),
        (modified("NME", 1, "A"), "'NME' caps a chain"),
        (modified("ACE", 1, "ACGU", "rnaSequence"), "cannot take the place"),
        (modified("IAS", 3), "joins a chain through its side chain"),
        (modified("DDG", 2, "ACGT", "dnaSequence"), "'DDG' has no atom O3' for the bond to its neighbour"),
        (modified("ASX", 3), "has an atom 'X', which is not an element"),
        (
            modified("THX", 3, "ACGTA", "dnaSequence"),
            "Protenix cannot tell which atoms of 'THX' leave when it is bonded to the residues",
        ),
    ],
)
def test_a_component_that_cannot_take_a_residues_place_is_refused(read, content, says):
    refused(read, content, says)


@pytest.mark.parametrize(
    "content",
    [
        modified("SEP", 3), modified("MSE", 1), modified("DAL", 10), modified("ACE", 1), modified("FOR", 1),
        modified("NME", 10), modified("NH2", 10), modified("5MC", 2, "ACGU", "rnaSequence"),
        modified("5CM", 2, "ACGU", "rnaSequence"), modified("DDG", 4, "ACGT", "dnaSequence"),
    ],
)  # fmt: skip
def test_a_component_that_fits_is_accepted(read, content):
    assert read(content)


def test_two_modifications_of_one_residue_are_refused(read):
    changes = [{"ptmType": f"CCD_{code}", "ptmPosition": 3} for code in ("SEP", "TPO")]
    refused(read, job(protein(modifications=changes)), "modifications[1].ptmPosition: residue 3 is modified already")


# Bonds


def bonded(other, **more):
    return job(protein(), other, covalent_bonds=[bond(**more)])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (bonded(ligand("FILE_mol.sdf"), atom2=57), "no atom 57 in mol.sdf, or a hydrogen: atoms are counted from 0 to"),
        (bonded(ligand("FILE_mol.sdf"), atom2=1), "no atom 1 in mol.sdf, or a hydrogen"),
        (bonded(ligand("FILE_mol.sdf"), atom2="C9"), "atom 'C9' does not exist"),
        (bonded(ligand("CCO"), atom2=3), "no atom 3 in the SMILES string"),
        (bonded(ligand("[2H]CO"), atom2=0), "no atom 0 in the SMILES string"),
        (bonded(ligand("[CH3:1][CH2:1]O"), atom2=1), "several atoms of the SMILES string have the number 1"),
        (bonded(ligand("CCO"), entity2=1, position2=3, atom2="CA"), "both ends are the same atom"),
        (job(ligand("CCO"), covalent_bonds=[bond(position1=1, atom1=0, entity2=1, atom2="C1")]), "the same atom"),
        (job(protein(), ligand("CCO"), covalent_bonds=[bond(atom2=0), bond(atom2="C1")]), "the same bond as"),
        (bonded(ligand("CCO"), position1=3, atom1="OXT", atom2=0), "'OXT' leaves position 3 of entity 1 when 'C'"),
        (bonded(ligand("CCD_NAG"), atom2="O1"), None),
        (
            job(
                protein(count=1), ligand("CCD_NAG"),
                covalent_bonds=[bond(atom2="C1"), bond(position1=4, atom2="O1")],
            ),
            "'O1' leaves position 1 of entity 2 when 'C1' there is bonded",
        ),
        (bonded({"dnaSequence": {"sequence": "ACG", "count": 1}}, position2=2, atom2="OP3"), "'OP3' leaves position 2"),
        (bonded({"dnaSequence": {"sequence": "ACG", "count": 1}}, position2=1, atom2="OP3"), None),
    ],
)  # fmt: skip
def test_the_atoms_of_a_bond_are_checked_before_the_run(read, content, says):
    if says is None:
        assert read(content)
    else:
        refused(read, content, says)


def test_atom_numbers_of_a_file_count_its_hydrogens_only_if_they_mean_the_file(read):
    """``--protenix-exact`` numbers the atoms as Protenix does, so an atom may exist under one meaning only."""
    assert read(bonded(ligand("FILE_mol.sdf"), atom2=12))
    refused(read, bonded(ligand("FILE_mol.sdf"), atom2=12), "no atom 12 in mol.sdf", exact=True)
    assert read(bonded(ligand("FILE_mol.sdf"), atom2=1), exact=True)


# Whatever cannot be featurized


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (job(ligand("*CCO")), "atom 0 ('*') is not an element"),
        (job(ligand("FILE_dummy.sdf")), "is not an element"),
        (job(ligand("[H][H]")), "has no atom but hydrogen"),
        (job(ligand("CCD_UNX")), "has an atom 'X', which is not an element"),
        (job(ligand("CCD_D8U")), "has no atoms but hydrogens"),
        (job(ligand("FILE_two.sdf")), "two.sdf holds 2 molecules"),
        (job({"ion": {"ion": "MG", "count": 2}}), "only single atoms (MG)"),
        (job(protein(), ligand("O=c1cccc2n1C[C@@H]1CNC[C@@H]2C1")), "finds no 3D conformer for 'O=c1cccc2n1C[C@@H]"),
        (job(*[ligand("C" * count) for count in range(1, 101)]), "100 ligands given as SMILES or files"),
    ],
)
def test_what_cannot_be_featurized_is_refused(read, content, says):
    refused(read, content, says)


def test_ions_alone_are_refused_only_where_protenix_fails_on_them(read):
    ions = job({"ion": {"ion": "NH4", "count": 1}})
    assert read(ions)
    refused(read, ions, "only ions, which Protenix cannot predict; leave --protenix-exact out", exact=True)


@pytest.mark.parametrize(
    ("kind", "sequence", "component", "position", "n_token"),
    [
        ("proteinChain", "MKTSAYIAK", "SEP", 4, 8 + 10),  # without OXT, which leaves
        ("proteinChain", "MKTSAYIAS", "SEP", 9, 8 + 11),
        ("proteinChain", "MKMT", "MSE", 3, 4),
        ("dnaSequence", "ACGT", "5CM", 2, 3 + 20),
        ("dnaSequence", "CACG", "5CM", 1, 3 + 21),
    ],
)
def test_a_modified_residue_has_a_token_for_each_atom(read, kind, sequence, component, position, n_token):
    keys = ("ptmType", "ptmPosition") if kind == "proteinChain" else ("modificationType", "basePosition")
    change = dict(zip(keys, (f"CCD_{component}", position), strict=True))
    (made,) = read(job({kind: {"sequence": sequence, "count": 2, "modifications": [change]}}))
    assert made.n_token == 2 * n_token


@pytest.mark.parametrize(("kind", "sequence"), [("rnaSequence", "AIIG"), ("dnaSequence", "AIUG"), ("dnaSequence", "I")])
def test_a_letter_without_a_token_of_its_own_has_a_token_for_each_atom(read, kind, sequence):
    """Regression: each counted as one, so that a model's largest size was found only after it was loaded."""
    (made,) = read(job({kind: {"sequence": sequence, "count": 2}}))
    (features,) = featurize(made, FeatureSettings())
    assert made.n_token == features.n_token == count_sizes(made.spec, FeatureSettings()).n_token > 20


def test_a_component_of_which_upstream_cannot_say_what_leaves_is_not_bonded(read):
    """Regression: the checks passed, and featurization failed without a reason."""
    content = job(protein(), {"ligand": {"ligand": "CCD_LAS", "count": 1}})
    assert read(content)
    atom = EmbeddedDictionary().facts("LAS").atoms[0]
    ends = {"entity1": 1, "copy1": 1, "position1": 5, "atom1": "CB", "entity2": 2, "copy2": 1, "position2": 1}
    content[0]["covalent_bonds"] = [{**ends, "atom2": atom}]
    refused(read, content, "Protenix cannot tell which atoms of 'LAS' leave when it is bonded: give it as SMILES")


def test_a_molecule_that_is_given_as_an_ion_counts_its_atoms_and_gets_a_note(read):
    """Magnesium is MG. MG2 is a molecule of 26 atoms, and counted as one token."""
    (made,) = read(job(*({"ion": {"ion": code, "count": 1}} for code in ("MG2", "SO4"))))
    assert made.n_token == 26 + 5
    assert "ion 1: MG2 is a molecule of 26 atoms, and is read as one" in made.notes
    assert not any("SO4" in note for note in made.notes)
