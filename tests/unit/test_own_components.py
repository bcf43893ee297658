"""Components that a job defines itself: read, checked, featurized as the dictionary's, unseen by other jobs."""

import gzip
import json
import lzma
import re
import zlib
from dataclasses import replace
from types import SimpleNamespace

import gemmi
import numpy as np
import pytest
from backports import zstd
from biotite.structure.io import pdbx
from support.components import ACRYLAMIDE, renamed
from support.inputs import SEQUENCE, bond, job, ligand, protein

from protenix_multiseed.errors import RefusedInputsError
from protenix_multiseed.features import cache as feature_cache
from protenix_multiseed.features.featurize import featurize, featurize_reference
from protenix_multiseed.features.sizes import count_sizes
from protenix_multiseed.inputs.content import content_of
from protenix_multiseed.inputs.convert import to_alphafold3, to_protenix
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.settings import FeatureSettings, InputRules, ReadSettings
from protenix_multiseed.upstream import own_components
from protenix_multiseed.upstream.job_dictionary import with_components

READS = ReadSettings()
SETTINGS = FeatureSettings(reads=READS)


@pytest.fixture
def read(tmp_path, prepared_dictionary):
    def read(content, name="in.json"):
        (tmp_path / name).write_text(json.dumps(content))
        return read_jobs([tmp_path / name], None, InputRules(model="m", reads=READS), prepared_dictionary)

    return read


def alphafold3(*sequences, **more):
    return {"dialect": "alphafold3", "version": 4, "name": "a", "modelSeeds": [1], "sequences": [*sequences], **more}


def modified(code, **more):
    return protein(modifications=[{"ptmType": f"CCD_{code}", "ptmPosition": 3}], **more)


def refused(read, content, *says):
    with pytest.raises(RefusedInputsError) as error:
        read(content)
    for text in says:
        assert text in str(error.value)


def assert_same_features(ours, theirs):
    """All arrays and the seeds' reference conformers are equal, bit for bit."""
    assert ours.arrays.keys() == theirs.arrays.keys()
    for name in ours.arrays:
        assert np.array_equal(np.asarray(ours.arrays[name]), np.asarray(theirs.arrays[name])), name
    for mine, other in zip(ours.seeds, theirs.seeds, strict=True):
        assert np.array_equal(mine.ref_pos, other.ref_pos)
        assert np.array_equal(mine.has_frame, other.has_frame)
        assert mine.python_state == other.python_state
    assert ours.entity_poly_type == theirs.entity_poly_type
    assert ours.atom_array.value.atom_name.tolist() == theirs.atom_array.value.atom_name.tolist()


# The same as a component of the dictionary


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("ATP", lambda code: job(protein(), ligand(f"CCD_{code}", count=2), covalent_bonds=None)),
        ("NAG", lambda code: job(protein(), ligand(f"CCD_{code}_{code}"),
                                 covalent_bonds=[bond(atom2="C1"), bond(entity1=2, position1=1, atom1="O4", position2=2,
                                                                        atom2="C1")])),
        ("SEP", lambda code: job(modified(code, count=2))),
        ("5MC", lambda code: job(protein(), {"rnaSequence": {"sequence": "ACGU", "count": 1, "modifications": [
            {"modificationType": f"CCD_{code}", "basePosition": 2}]}})),
        ("ZN", lambda code: job(protein(), {"ion": {"ion": code, "count": 1}})),
    ],
    ids=["ligand", "bonded sugars", "modification", "nucleotide", "ion"],
)  # fmt: skip
def test_a_component_under_another_code_gives_the_same_features(read, prepared_dictionary, monkeypatch, code, content):
    """Only RDKit's seed is made equal: the dictionary's follows from the code, a job's own from its content."""
    seed = zlib.crc32(code.encode())
    monkeypatch.setattr(own_components, "zlib", SimpleNamespace(crc32=lambda _: seed))
    own_components.read_component.cache_clear()
    (theirs,) = read(content(code))
    own = f"{code}-OWN"  # in the order of names at the same place, because features of guidance are in this order
    (ours,) = read([{**one, "userCCD": renamed(prepared_dictionary, code, own)} for one in content(own)])
    theirs, ours = (replace(one, seeds=(1, 5)) for one in (theirs, ours))
    assert_same_features(*(featurize(one, SETTINGS)[0] for one in (ours, theirs)))
    assert_same_features(*(featurize_reference(one, SETTINGS, 5) for one in (ours, theirs)))
    assert_same_features(*(featurize(one, replace(SETTINGS, guidance=True))[0] for one in (ours, theirs)))
    assert count_sizes(ours.spec, SETTINGS) == count_sizes(theirs.spec, SETTINGS)
    own_components.read_component.cache_clear()


def test_the_conformer_does_not_depend_on_the_code(read):
    names = ("LIG-1", "OTHER")
    made = [
        featurize(read(job(ligand(f"CCD_{name}"), userCCD=ACRYLAMIDE.replace("LIG-1", name)))[0], SETTINGS)[0]
        for name in names
    ]
    assert [one.atom_array.value.res_name[0] for one in made] == list(names)
    assert_same_features(*made)


def test_a_component_without_coordinates_gets_rdkits(read):
    (made,) = featurize(read(job(protein(), ligand("CCD_LIG-1"), userCCD=ACRYLAMIDE))[0], SETTINGS)
    is_own = made.atom_array.value.res_name == "LIG-1"
    assert made.atom_array.value.atom_name[is_own].tolist() == ["C1", "C2", "C3", "O1", "N1"]
    positions = made.seeds[0].ref_pos[is_own]
    assert 1.25 < np.linalg.norm(positions[0] - positions[1]) < 1.45  # a double bond, Angstrom


# Every door


def test_all_dialects_and_files_give_the_same_job(read, tmp_path):
    (tmp_path / "own.cif").write_text(ACRYLAMIDE)
    (tmp_path / "own.cif.gz").write_bytes(gzip.compress(b"# a comment\n" + ACRYLAMIDE.encode()))
    chains = ({"protein": {"id": "A", "sequence": SEQUENCE}}, {"ligand": {"id": "B", "ccdCodes": ["LIG-1"]}})
    by_hand = (protein(id=["A"]), ligand("CCD_LIG-1", id=["B"]))
    made = [
        read(content)[0]
        for content in (
            alphafold3(*chains, userCCD=ACRYLAMIDE),
            alphafold3(*chains, userCCDPath="own.cif"),
            alphafold3(*chains, userCCDPath=str(tmp_path / "own.cif.gz")),
            job(*by_hand, userCCD=ACRYLAMIDE),
            job(*by_hand, userCCDPath="own.cif"),
        )
    ]
    assert made[0].spec.components
    assert all(content_of(one.spec, READS) == content_of(made[0].spec, READS) for one in made)
    for write in (to_protenix, to_alphafold3):
        written = write(made[0])
        (again,) = read([written] if write is to_protenix else written)
        assert content_of(again.spec, READS) == content_of(made[0].spec, READS)


def test_components_that_nothing_names_are_left_out_and_said(read):
    other = ACRYLAMIDE.replace("LIG-1", "LIG-2")
    (made,) = read(job(protein(), ligand("CCD_LIG-2"), userCCD=ACRYLAMIDE + other))
    assert [one.code for one in made.spec.components] == ["LIG-2"]
    assert "userCCD: nothing in the job names the component LIG-1" in made.notes


def test_a_component_without_hydrogens_gets_a_note(read):
    text = re.sub(r"^(LIG-1 H|\w+ H)\d .*\n", "", ACRYLAMIDE, flags=re.MULTILINE)
    (made,) = read(job(ligand("CCD_LIG-1"), userCCD=text))
    assert any("no hydrogen atom is given" in note for note in made.notes)
    (made,) = read(job(ligand("CCD_LIG-1"), userCCD=ACRYLAMIDE))
    assert not any("no hydrogen atom is given" in note for note in made.notes)


def test_a_component_replaces_one_of_the_dictionary_and_says_so(read):
    """As AlphaFold 3 does it."""
    (made,) = read(job(ligand("CCD_ATP"), userCCD=ACRYLAMIDE.replace("LIG-1", "ATP")))
    assert "userCCD: the job's own 'ATP' replaces the component 'ATP' of the dictionary" in made.notes
    assert featurize(made, SETTINGS)[0].n_atom == 5
    (usual,) = read(job(ligand("CCD_ATP")))
    assert featurize(usual, SETTINGS)[0].n_atom == 31
    assert count_sizes(made.spec, SETTINGS).n_atom == 5
    assert count_sizes(usual.spec, SETTINGS).n_atom == 31


def test_components_of_one_job_are_not_seen_by_another(read):
    sulfur = ACRYLAMIDE.replace("LIG-1 O1 O", "LIG-1 S1 S").replace("O1", "S1")
    first, second = read([
        {**job(ligand("CCD_LIG-1"), userCCD=text)[0], "name": name} for name, text in (("a", ACRYLAMIDE), ("b", sulfur))
    ])  # fmt: skip
    atoms = [featurize(one, SETTINGS)[0].atom_array.value.atom_name.tolist() for one in (first, second, first)]
    assert atoms[0] == atoms[2] == ["C1", "C2", "C3", "O1", "N1"]
    assert atoms[1] == ["C1", "C2", "C3", "S1", "N1"]
    refused(
        read,
        [{**job(ligand("CCD_LIG-1"))[0], "name": "c"}, {**job(ligand("CCD_LIG-1"), userCCD=ACRYLAMIDE)[0]}],
        "in.json[0] 'c': sequences[0].ligand.ligand: component 'LIG-1' is not in the chemical dictionary",
    )


def test_the_text_is_part_of_the_identity_and_of_the_cache_key(read):
    charged = ACRYLAMIDE.replace("LIG-1 N1 N 0", "LIG-1 N1 N 1")
    jobs = [read(job(protein(), ligand("CCD_LIG-1"), userCCD=text))[0] for text in (ACRYLAMIDE, charged)]
    assert content_of(jobs[0].spec, READS) != content_of(jobs[1].spec, READS)
    assert feature_cache._key(jobs[0], SETTINGS, []) != feature_cache._key(jobs[1], SETTINGS, [])
    (spaced,) = read(job(protein(), ligand("CCD_LIG-1"), userCCD=ACRYLAMIDE.replace("\n", "  \n\n") + "# end\n"))
    assert content_of(jobs[0].spec, READS) == content_of(spaced.spec, READS)


def test_atoms_of_a_component_can_be_bonded_and_are_checked(read):
    with_bond = [bond(atom1="CA", atom2="C1")]
    assert read(job(protein(), ligand("CCD_LIG-1"), userCCD=ACRYLAMIDE, covalent_bonds=with_bond))
    refused(
        read,
        job(protein(), ligand("CCD_LIG-1"), userCCD=ACRYLAMIDE, covalent_bonds=[bond(atom2="C9")]),
        "covalent_bonds[0].atom2: atom 'C9' does not exist",
    )
    refused(
        read, job(modified("LIG-1"), userCCD=ACRYLAMIDE), "'LIG-1' (non-polymer) cannot take the place of a residue"
    )


def test_an_atom_that_a_bond_replaces_must_be_marked_as_leaving(read, prepared_dictionary):
    """Else the residue would have both the atom and the bond to its neighbour."""
    residue = renamed(prepared_dictionary, "SEP", "MY-SEP")
    lines = [line[:36].replace(" Y ", " N ") + line[36:] if " OXT " in line else line for line in residue.split("\n")]
    unmarked = "\n".join(lines)
    assert unmarked != residue
    says = "'MY-SEP' keeps its atom OXT although a neighbour is bonded in its place"
    refused(read, job(modified("MY-SEP"), userCCD=unmarked), "modifications[0].ptmType", says)
    last = protein(modifications=[{"ptmType": "CCD_MY-SEP", "ptmPosition": len(SEQUENCE)}])
    assert read(job(last, userCCD=unmarked))
    assert read(job(modified("MY-SEP"), userCCD=residue))


def flat(text, kind="pdbx_model_Cartn_{}_ideal"):
    """The text without coordinates of one kind."""
    document = gemmi.cif.read_string(text)
    for row in document[0].find("_chem_comp_atom.", [kind.format(axis) for axis in "xyz"]):
        row[0] = row[1] = row[2] = "?"
    return document.as_string()


def test_without_coordinates_a_stereocentre_is_refused(read, prepared_dictionary):
    """RDKit reads the configuration from coordinates; without them it would take any."""
    text = renamed(prepared_dictionary, "NAG", "MY-NAG")
    content = job(protein(), ligand("CCD_MY-NAG"))[0]
    assert read([{**content, "userCCD": flat(text)}]), "the other coordinates serve"
    nothing = flat(flat(text), "model_Cartn_{}")
    refused(read, [{**content, "userCCD": nothing}], "the configuration at C1, C2, C3, C4, C5 is not known: add coord")
    fumarate = flat(flat(renamed(prepared_dictionary, "FUM", "MY-FUM")), "model_Cartn_{}")
    refused(read, job(ligand("CCD_MY-FUM"), userCCD=fumarate), "the configuration at C")


# Refusals


def without(text, category):
    """The text without a category."""
    document = gemmi.cif.read_string(text)
    document[0].find_mmcif_category(f"_{category}.").erase()
    return document.as_string()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no component"),
        ("an acrylamide", "not mmCIF: "),
        (ACRYLAMIDE + ACRYLAMIDE, "LIG-1"),
        (ACRYLAMIDE.replace("LIG-1", "LIG_1"), "the code 'LIG_1' is not allowed"),
        (ACRYLAMIDE.replace("data_LIG-1", "data_OTHER"), "_chem_comp.id is 'LIG-1' in the data block of 'OTHER'"),
        (ACRYLAMIDE.replace("LIG-1", "ALA"), "Protenix itself gives the code 'ALA' a meaning"),
        (ACRYLAMIDE.replace("LIG-1", "l01"), "Protenix itself gives the code 'l01' a meaning"),
        (without(ACRYLAMIDE, "chem_comp"), "component 'LIG-1': _chem_comp.type is missing"),
        (without(ACRYLAMIDE, "chem_comp_atom"), "the category chem_comp_atom is missing"),
        (without(ACRYLAMIDE, "chem_comp_bond"), "the category chem_comp_bond is missing"),
        (ACRYLAMIDE.replace("_chem_comp_atom.type_symbol", "_chem_comp_atom.symbol"), "needed are _chem_comp_atom."),
        (ACRYLAMIDE.replace("LIG-1 O1 O 0", "LIG-1 O1 Xx 0"), "type_symbol: 'XX' of atom 'O1' is not an element"),
        (ACRYLAMIDE.replace("LIG-1 O1 O 0", "LIG-1 O1 O many"), "charge: 'many' is not a number"),
        (ACRYLAMIDE.replace("LIG-1 O1 O 0", "LIG-1 O1 O 0.5"), "charge: '0.5' is not a number"),
        (ACRYLAMIDE.replace("LIG-1 O1 O 0 ?", "LIG-1 O1 O 0 nan"), "_ideal: 'nan' is not a number"),
        (ACRYLAMIDE.replace("LIG-1 O1 O", "LIG-1 C1 O"), "atom_id: 'C1' is given twice"),
        (ACRYLAMIDE.replace("LIG-1 O1 O", "ATP O1 O"), "comp_id is 'ATP' in the data block of 'LIG-1'"),
        (ACRYLAMIDE.replace("C3 O1 DOUB", "C3 O2 DOUB"), "'O2' is not in _chem_comp_atom.atom_id"),
        (ACRYLAMIDE.replace("C3 O1 DOUB", "C3 C3 DOUB"), "'C3' is bonded to itself"),
        (ACRYLAMIDE.replace("C3 O1 DOUB N", "C3 O1 DOUB N\nO1 C3 DOUB N"), "the bond of 'O1' and 'C3' is given twice"),
        (ACRYLAMIDE.replace("C3 O1 DOUB", "C3 O1 2"), "value_order: '2' is not one of SING"),
        (ACRYLAMIDE.replace("C3 O1 DOUB", "C3 O1 TRIP"), "RDKit finds no conformer, and the component gives none"),
        (ACRYLAMIDE.replace("an acrylamide", "an acrylamidé"), "_chem_comp.name is not ASCII text"),
        (ACRYLAMIDE.replace("C3 O1 DOUB", "C3 O1 AROM"), "value_order: 'AROM' is not one of"),
        (ACRYLAMIDE.replace("O1", "Ö1"), "not mmCIF"),
        (ACRYLAMIDE.replace("an acrylamide", "#1"), "begins with a sign or word that mmCIF reserves"),
        (ACRYLAMIDE.replace("an acrylamide", "data_x"), "begins with a sign or word that mmCIF reserves"),
        (ACRYLAMIDE.replace("O1", "'#1'"), "begins with a sign or word that mmCIF reserves"),
        (ACRYLAMIDE.replace("O1", "'loop_'"), "atom_id: 'loop_': the model reads"),
        (ACRYLAMIDE.replace("O1", "'O 1'"), "atom_id: 'O 1': the model reads names of at most 4 capital letters"),
        (ACRYLAMIDE.replace("O1", "O1234"), "atom_id: 'O1234': the model reads names of at most 4 capital letters"),
        (ACRYLAMIDE.replace("O1", "Oa"), "atom_id: 'Oa': the model reads names of at most 4 capital letters"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_component_is_said_before_the_run(read, text, says):
    refused(read, job(protein(), ligand("CCD_LIG-1"), userCCD=text), "in.json[0] 'a': userCCD: ", says)


def test_files_and_double_keys_are_checked(read, tmp_path):
    wrong = job(protein(), ligand("CCD_LIG-1"), userCCDPath="no.cif")
    refused(read, wrong, "userCCDPath: no.cif: no such file")
    refused(read, job(protein(), userCCD=ACRYLAMIDE, userCCDPath="no.cif"), "userCCD: userCCDPath is given too")
    (tmp_path / "no.cif").write_bytes(b"\xff\xfe")
    refused(read, wrong, "userCCDPath: no.cif: not text")
    for pack in (gzip.compress, lzma.compress, zstd.compress):
        whole = pack(ACRYLAMIDE.encode())
        (tmp_path / "no.cif").write_bytes(whole)
        assert read(wrong)
        (tmp_path / "no.cif").write_bytes(whole[:-20])
        refused(read, wrong, "userCCDPath: no.cif: damaged: it cannot be unpacked")
        if pack is not zstd.compress:  # its checksum is optional, and off by default
            (tmp_path / "no.cif").write_bytes(whole[:60] + bytes(30) + whole[90:])
            refused(read, wrong, "userCCDPath: no.cif: damaged: it cannot be unpacked")


def test_given_coordinates_serve_if_rdkit_finds_no_conformer(read, tmp_path):
    """A carbon with five bonds, which RDKit refuses: the reference conformer is the given one."""
    rows = iter(f"{0.9 * place:.3f} 0.000 {place % 2}.500" for place in range(10))
    text = ACRYLAMIDE.replace("C3 O1 DOUB", "C3 O1 TRIP")
    text = "\n".join(line.replace("? ? ?", next(rows)) if line.endswith("? ? ?") else line for line in text.split("\n"))
    (made,) = featurize(read(job(ligand("CCD_LIG-1"), userCCD=text))[0], SETTINGS)
    positions = made.seeds[0].ref_pos
    assert np.linalg.norm(positions[0] - positions[1]) == pytest.approx(np.hypot(0.9, 1.0), abs=1e-3)
    assert np.asarray(made.arrays["ref_mask"]).all()


# Written structures


def test_the_written_structure_holds_the_component(read, tmp_path):
    (one,) = read(job(protein(), ligand("CCD_LIG-1", id=["X"]), userCCD=ACRYLAMIDE))
    (made,) = featurize(one, SETTINGS)
    atoms = made.atom_array.value.copy()
    atoms.coord = np.arange(3 * len(atoms), dtype=np.float32).reshape(-1, 3)
    from protenix.data.utils import CIFWriter

    with with_components(one.spec.components):
        CIFWriter(atoms, dict(made.entity_poly_type)).save_to_cif(str(tmp_path / "a.cif"))
    structure = gemmi.read_structure(str(tmp_path / "a.cif"))
    (residue,) = structure[0]["X"]
    assert (residue.name, [atom.name for atom in residue]) == ("LIG-1", ["C1", "C2", "C3", "O1", "N1"])
    content = pdbx.CIFFile.read(tmp_path / "a.cif").block["chem_comp"]
    kinds = dict(zip(content["id"].as_array(), content["type"].as_array(), strict=True))
    assert kinds["LIG-1"] == "non-polymer"
