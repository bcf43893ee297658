"""mmCIF and PDB files as inputs."""

import json

import gemmi
import pytest

from protenix_multiseed.errors import RefusedInputsError
from protenix_multiseed.inputs import structures
from protenix_multiseed.inputs.content import content_of
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.job_spec import Ligand
from protenix_multiseed.settings import InputRules, ReadSettings
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

READS = ReadSettings(msa=True)


@pytest.fixture(scope="module")
def dictionary():
    return EmbeddedDictionary()


@pytest.fixture
def read(tmp_path, dictionary):
    def read(content, name="in.json", **rules):
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return read_jobs([tmp_path / name], (1,), InputRules(**{"model": "m", "reads": READS, **rules}), dictionary)

    return read


def residue(name, number, atoms, kind, subchain, x):
    made = gemmi.Residue()
    made.name, made.seqid, made.entity_type, made.subchain = name, gemmi.SeqId(number, " "), kind, subchain
    for index, atom_name in enumerate(atoms):
        atom = gemmi.Atom()
        atom.name, atom.element = atom_name, gemmi.Element(atom_name[0] if atom_name != "MG" else "MG")
        atom.pos = gemmi.Position(x, 1.4 * index, 0)
        made.add_atom(atom)
    return made


def structure():
    """Two equal protein chains of which one lacks a residue, DNA, two sugars bonded to the protein, an ion, water."""
    made = gemmi.Structure()
    made.name = "X"
    model = gemmi.Model(1) if gemmi.__version__ >= "0.7" else gemmi.Model("1")
    backbone = ["N", "CA", "C", "O"]
    polymer, single, water = gemmi.EntityType.Polymer, gemmi.EntityType.NonPolymer, gemmi.EntityType.Water
    for place, (name, missing) in enumerate((("A", None), ("B", 3))):
        chain = gemmi.Chain(name)
        for number, code in enumerate(("MET", "ASN", "GLY", "SEP", "LYS"), start=1):
            if number != missing:
                atoms = [*backbone, "CB", "CG", "ND2"] if code == "ASN" else backbone
                chain.add_residue(residue(code, number, atoms, polymer, f"{name}p", 4 * number + 100 * place))
        if name == "A":
            chain.add_residue(residue("NAG", 101, ["C1", "O4"], single, "An", 5))
            chain.add_residue(residue("MG", 102, ["MG"], single, "Am", 50))
            chain.add_residue(residue("HOH", 201, ["O"], water, "Aw", 60))
            chain.add_residue(residue("HOH", 202, ["O"], water, "Aw", 64))
        model.add_chain(chain)
    dna = gemmi.Chain("C")
    for number, code in enumerate(("DA", "DC", "DG"), start=1):
        dna.add_residue(residue(code, number, ["P", "O5'", "C5'", "C3'", "O3'"], polymer, "Cp", 6 * number + 300))
    model.add_chain(dna)
    made.add_model(model)
    made.setup_entities()
    for entity in made.entities:
        if {"Ap", "Bp"} & set(entity.subchains):
            entity.full_sequence = ["MET", "ASN", "GLY", "SEP", "LYS"]
    made.assign_label_seq_id()
    bond = gemmi.Connection()
    bond.type, bond.name = gemmi.ConnectionType.Covale, "covale1"
    for end, (chain, number, code, atom) in (
        ("partner1", ("A", 2, "ASN", "ND2")), ("partner2", ("A", 101, "NAG", "C1")),
    ):  # fmt: skip
        address = getattr(bond, end)
        address.chain_name, address.atom_name = chain, atom
        address.res_id.name, address.res_id.seqid = code, gemmi.SeqId(number, " ")
    made.connections.append(bond)
    return made


BY_HAND = [{
    "name": "in",
    "sequences": [
        {"proteinChain": {"sequence": "MNGSK", "count": 2, "id": ["A", "B"],
                          "modifications": [{"ptmType": "CCD_SEP", "ptmPosition": 4}]}},
        {"dnaSequence": {"sequence": "ACG", "count": 1, "id": ["C"]}},
        {"ligand": {"ligand": "CCD_NAG", "count": 1}},
        {"ligand": {"ligand": "CCD_MG", "count": 1}},
    ],
    "covalent_bonds": [{"entity1": 1, "copy1": 1, "position1": 2, "atom1": "ND2",
                        "entity2": 3, "copy2": 1, "position2": 1, "atom2": "C1"}],
}]  # fmt: skip


@pytest.mark.parametrize(
    "write", [lambda made: made.make_mmcif_document().as_string(), lambda made: made.make_pdb_string()]
)
def test_a_structure_is_the_job_written_by_hand(read, write):
    (made,) = read(write(structure()), "in.cif")
    (by_hand,) = read(BY_HAND)
    assert content_of(made.spec, READS) == content_of(by_hand.spec, READS)
    assert made.name == "in"
    assert "2 water molecules of the structure are left out" in made.notes


def test_a_ligand_of_several_components_is_one_ligand_again(read):
    """Regression: it was read as copies of one component, and the bond inside it as a bond between copies."""
    made = structure()
    single = gemmi.EntityType.NonPolymer
    glycan, ions = gemmi.Chain("G"), gemmi.Chain("I")
    for number in (1, 2):
        glycan.add_residue(residue("NAG", number, ["C1", "O4"], single, "G", 400 + 3 * number))
        ions.add_residue(residue("MG", number, ["MG"], single, "I", 500 + 9 * number))
    for chain in (glycan, ions):
        made[0].add_chain(chain)
    made.setup_entities()
    bond = gemmi.Connection()
    bond.type, bond.name = gemmi.ConnectionType.Covale, "covale2"
    for end, number, atom in (("partner1", 1, "O4"), ("partner2", 2, "C1")):
        address = getattr(bond, end)
        address.chain_name, address.atom_name = "G", atom
        address.res_id.name, address.res_id.seqid = "NAG", gemmi.SeqId(number, " ")
    made.connections.append(bond)
    (found,) = read(made.make_mmcif_document().as_string(), "in.cif")
    (job,) = BY_HAND
    ions, glycan = ({"ligand": {"ligand": code, "count": n}} for code, n in (("CCD_MG", 3), ("CCD_NAG_NAG", 1)))
    inside = {"entity1": 5, "copy1": 1, "position1": 1, "atom1": "O4",
              "entity2": 5, "copy2": 1, "position2": 2, "atom2": "C1"}  # fmt: skip
    sequences, bonds = [*job["sequences"][:3], ions, glycan], [*job["covalent_bonds"], inside]
    (by_hand,) = read([{**job, "sequences": sequences, "covalent_bonds": bonds}])
    assert content_of(found.spec, READS) == content_of(by_hand.spec, READS)


@pytest.mark.parametrize("is_ours", [False, True])
def test_molecules_of_one_subchain_that_nothing_connects_are_apart_but_in_a_file_of_protenix(read, is_ours):
    made, single = structure(), gemmi.EntityType.NonPolymer
    if is_ours:
        made.name = "in_sample_0_predicted_by_protenix"
    chain = gemmi.Chain("L")
    for number, code in enumerate(("SO4", "SO4", "GOL"), start=1):
        subchain = "Ls" if code == "SO4" else "Lg"
        chain.add_residue(residue(code, number, ["S1", "O1"], single, subchain, 500 + 9 * number))
    made[0].add_chain(chain)
    made.setup_entities()
    (found,) = read(made.make_mmcif_document().as_string(), "in.cif")
    ligands = [(one.components, one.copies) for one in found.spec.entities if isinstance(one, Ligand)][2:]
    sulfates = (("SO4", "SO4"), 1) if is_ours else (("SO4",), 2)
    assert ligands == [sulfates, (("GOL",), 1)]


@pytest.mark.parametrize("kind", ["cif", "pdb"])
def test_a_bond_to_a_symmetry_mate_is_left_out(read, kind):
    """Regression: it became a bond of the atom inside the job that has the same name."""
    made = structure()
    made.cell, made.spacegroup_hm, made.connections[0].asu = (
        gemmi.UnitCell(30, 30, 30, 90, 90, 90),
        "P 1",
        gemmi.Asu.Same,
    )
    text = made.make_mmcif_document().as_string() if kind == "cif" else made.make_pdb_string()
    (inside,) = read(text, f"in.{kind}")
    assert len(inside.spec.bonds) == 1
    changed = text.replace("101 ? 1_555", "101 ? 1_655").replace("101     1555   1555", "101     1555   1655")
    assert changed != text
    (made,) = read(changed, f"in.{kind}")
    assert made.spec.bonds == ()
    assert "bonds of the structure are left out: 1 to atoms that are not in the job" in made.notes


@pytest.mark.parametrize("kind", ["cif", "pdb"])
def test_a_bond_of_atoms_with_alternative_positions_is_one_bond(read, kind):
    """Regression: the file has a row for each alternative, and the job was refused for giving one bond twice."""
    made = structure()
    made.connections.append(made.connections[0])
    for bond, place in zip(made.connections, "AB", strict=True):
        bond.name, bond.partner1.altloc, bond.partner2.altloc = f"covale{place}", place, place
    (found,) = read(made.make_mmcif_document().as_string() if kind == "cif" else made.make_pdb_string(), f"in.{kind}")
    assert [(one.first.atom, one.second.atom) for one in found.spec.bonds] == [("ND2", "C1")]
    assert not any("bonds" in note for note in found.notes)


def test_a_residue_that_the_stated_sequence_lacks_is_left_out_with_its_bonds(read):
    """Regression: its bond became one of another residue."""
    made = structure()
    residue_id = made.connections[0].partner1.res_id
    made.connections[0].partner1.atom_name, residue_id.name, residue_id.seqid = "N", "MET", gemmi.SeqId(1, " ")
    text = made.make_pdb_string()
    for chain in "AB":
        text = text.replace(f"{chain}    5  MET ASN GLY SEP LYS", f"{chain}    4  ASN GLY SEP LYS    ")
    (found,) = read(text, "in.pdb")
    assert (found.spec.entities[0].sequence, found.spec.bonds) == ("NGSK", ())
    assert "bonds of the structure are left out: 1 to atoms that are not in the job" in found.notes
    left_out = "1 residues with coordinates are not in the sequence that the file states, and are left out"
    assert {f"chain {chain}: {left_out}" for chain in "AB"} <= set(found.notes)


@pytest.mark.parametrize("kind", ["cif", "pdb"])
def test_of_alternative_ligands_the_first_is_read(read, kind):
    """Regression: both anomers of a sugar became ligands, bonded to one atom of the protein."""
    made = structure()
    chain = made[0]["A"]
    place = next(number for number, one in enumerate(chain) if one.name == "NAG")
    chain.add_residue(residue("NDG", 101, ["C1", "O4"], gemmi.EntityType.NonPolymer, "Ax", 5), place + 1)
    for one, alternative in ((chain[place], "A"), (chain[place + 1], "B")):
        for atom in one:
            atom.altloc = alternative
    made.setup_entities()
    made.connections.append(made.connections[0])
    for bond, code, alternative in zip(made.connections, ("NAG", "NDG"), "AB", strict=True):
        bond.name, bond.partner2.res_id.name, bond.partner2.altloc = f"covale{alternative}", code, alternative
    (found,) = read(made.make_mmcif_document().as_string() if kind == "cif" else made.make_pdb_string(), f"in.{kind}")
    assert [one.components for one in found.spec.entities if isinstance(one, Ligand)] == [("NAG",), ("MG",)]
    assert len(found.spec.bonds) == 1
    assert "chain A: NDG 101 is an alternative of NAG, and is left out" in found.notes
    assert "bonds of the structure are left out: 1 to atoms that are not in the job" in found.notes


def test_signs_that_are_not_ascii_do_no_harm(read):
    """Regression: gemmi divides the fixed columns of a PDB file between bytes, which ended in a traceback."""
    text = structure().make_pdb_string()
    assert read("REMARK   1 Café\n" + text, "in.pdb")
    assert read(text.replace("SEQRES   1 A    5  MET", "SEQRES   1 A    5 éMET"), "in.pdb")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("data_x\nloop_\n", "not a structure"),
        ("data_x\n_a.b 1\n", "has no atoms"),
        ("HEADER    X\n", "has no atoms"),
    ],
)
def test_what_is_no_structure_is_refused(read, text, says):
    with pytest.raises(RefusedInputsError, match=says):
        read(text, "in.cif")


@pytest.mark.parametrize(
    "write", [lambda made: made.make_mmcif_document().as_string(), lambda made: made.make_pdb_string()]
)
def test_coordinates_are_templates_only_on_request(read, write):
    reads = ReadSettings(template=True)
    (plain,) = read(write(structure()), "in.cif", reads=reads)
    assert plain.spec.entities[0].structures == ()
    (made,) = read(write(structure()), "in.cif", reads=reads, template_from_input=True)
    protein, *others = made.spec.entities
    (template,) = protein.structures
    placed = structures.place(template, protein.sequence)
    assert (placed.chain.name, placed.chain.sequence) == ("A", "MNGXK")  # the modified residue is unknown, as upstream
    assert placed.pairs == tuple((number, number) for number in range(5))
    assert sorted(placed.chain.atoms[1]) == ["C", "CA", "CB", "CG", "N", "ND2", "O"]
    assert not any(getattr(one, "structures", ()) for one in others)
    assert any("template in.cif, chain A: 5 of 5 residues mapped" in note for note in made.notes)
    assert content_of(made.spec, reads) != content_of(plain.spec, reads)


def test_a_gap_in_a_chain_without_a_stated_sequence_is_said(read):
    made = structure()
    for entity in made.entities:
        entity.full_sequence = []
    for chain in made[0]:
        if chain.name == "A":
            for number, one in enumerate(chain.get_polymer(), start=1):
                one.seqid.num = number + 26 * (number > 3)
    text = "".join(
        line + "\n" for line in made.make_pdb_string().splitlines() if not line.startswith(("SEQRES", "LINK"))
    )
    (job,) = read(text, "in.pdb")
    gaps = [note.partition(";")[0] for note in job.notes if "no residue between" in note]
    assert gaps == [
        "chain A: the file states no sequence, and no residue between 3 and 30: the two are joined",
        "chain B: the file states no sequence, and no residue between 2 and 4: the two are joined",
    ]
    (whole,) = read(structure().make_pdb_string(), "in.pdb")
    assert not any("no residue between" in note for note in whole.notes)


@pytest.mark.parametrize("kind", ["cif", "pdb"])
def test_a_chain_without_coordinates_is_said(read, kind):
    """Regression: it was dropped without a word."""
    made = structure()
    made.get_entity("C").full_sequence = ["DA", "DC", "DG"]
    whole = made.make_pdb_string()
    made[0].remove_chain("C")
    lines = [line for line in whole.splitlines() if line.startswith("SEQRES")]
    text = made.make_mmcif_document().as_string() if kind == "cif" else "\n".join([*lines, made.make_pdb_string()])
    (job,) = read(text, f"in.{kind}")
    (said,) = (note for note in job.notes if "no coordinates" in note)
    assert said.startswith("chain C: its 3 residues have no coordinates, so it is left out")


def test_names_of_simulation_programs_are_said(read):
    """Regression: the advice was to write them as ligands."""
    text = structure().make_pdb_string().replace("LYS", "HID").replace("ASN", "CYX")
    with pytest.raises(RefusedInputsError) as refused:
        read(text, "in.pdb")
    assert [problem.partition(": ")[2] for problem in refused.value.problems[:2]] == [
        "chain A: CYX is CYS of a simulation program: rename it in the file",
        "chain A: HID is HIS of a simulation program: rename it in the file",
    ]


def test_names_with_two_meanings_get_a_note(read):
    """HSE is homoserine in the PDB's dictionary, and a histidine in CHARMM."""
    (job,) = read(structure().make_pdb_string().replace("LYS", "HSE"), "in.pdb")
    assert job.spec.entities[0].modifications[-1].component == "HSE"
    assert [note for note in job.notes if "HSE" in note] == [
        f"chain {chain}: HSE is read as the component of that name; Amber and CHARMM call HIS so" for chain in "AB"
    ]


@pytest.mark.parametrize("first", ["EXPDTA    THEORETICAL MODEL", "HELIX    1   1 ALA A    1", "SSBOND   1 CYS A    6"])
def test_any_record_may_be_the_first_of_a_pdb_file(read, first):
    """Regression: such files of other programs were no inputs."""
    text = structure().make_pdb_string()
    whole = "".join(f"{line}\n" for line in text.splitlines() if line.startswith(("SEQRES", "ATOM", "HETATM", "TER")))
    (job,) = read(f"{first}\n{whole}", "in.pdb")
    assert job.spec.polymers("protein")


def test_several_structures_in_one_mmcif_file_are_refused(read):
    """Regression: all but the first were dropped without a word."""
    one = structure().make_mmcif_document().as_string()
    two = one.replace("data_", "data_other_", 1)
    with pytest.raises(RefusedInputsError, match="2 structures in one file"):
        read(one + two, "in.cif")
    assert read("data_comment\n_a.b 1\n" + one, "in.cif")
