"""Generated jobs in Protenix's JSON, over all kinds of entities. Many are right, and some are wrong in one place."""

import string

from hypothesis import strategies as st

PROTEIN, DNA, RNA = "ARNDCQEGHILKMFPSTWYVX", "ACGTUXIN", "ACGUXIN"
RESIDUES = ["SEP", "MSE", "TPO", "PTR", "ACE", "NME", "NH2", "FOR", "NAG", "MG", "ASX", "UNX", "IAS", "DAL", "HYP",
            "PCA", "5MC", "OMC", "PSU", "5CM", "DDG", "3DR", "2DA", "UNL", "ZZZZZ", "MLY", "CSO", "GGL"]  # fmt: skip
LIGANDS = ["CCD_ATP", "CCD_NAG", "CCD_NAG_NAG_BMA", "CCD_HEM", "CCD_MG", "CCD_HOH", "CCD_SO4", "CCD_UNX", "CCD_UNL",
           "CCD_D8U", "CCD_GOL", "CCD_", "CCD_ATP_", "CC(=O)Oc1ccccc1C(=O)O", "[CH3:1][CH2:2]O", "[CH3:1][CH3:1]",
           "*CC", "[H][H]", "[Na+].[Cl-]", "C[N+](C)(C)C", "O", "[Fe]", "c1ccccc1", "C1CC", "[2H]C([2H])O", "N#N",
           "FILE_no.sdf", "FILE_mol.sdf", "FILE_two.sdf", "FILE_flat.sdf", "F[C@H](Cl)Br", "[U]", "CC[Xx]"]  # fmt: skip
IONS = ["MG", "NA", "ZN", "CL", "CA", "NH4", "SO4", "ATP", "mg", "H", "D8U", "UNX"]
SIGNS = "ARNDCQEGHILKMFPSTWYVXBZJUO-acd.*~? 1\t"

counts = st.integers(1, 2)
# Most of these atoms are there, so that many jobs with bonds are accepted.
ATOMS = {"proteinChain": ["N", "CA", "C", "O", "CB", "OXT"], "dnaSequence": ["P", "OP3", "O3'", "C1'"],
         "rnaSequence": ["P", "OP3", "O2'", "C1'"], "ion": ["MG", "NA", "ZN"],
         "ligand": ["C1", "O1", "C2", "O4", 0, 1, 2, 9]}  # fmt: skip


def polymer(key, letters, longest, code, place):
    changes = st.lists(
        st.fixed_dictionaries({code: st.sampled_from(RESIDUES).map("CCD_{}".format), place: st.integers(1, 3)}),
        max_size=2,
    )
    entity = st.fixed_dictionaries(
        {"sequence": st.text(letters, min_size=1, max_size=longest), "count": counts},
        optional={"modifications": changes},
    )
    return entity.map(lambda made: {key: made})


def with_alignment(draw, entity):
    """Add an alignment whose rows are the sequence with a few other signs."""
    ((kind, made),) = entity.items()
    if kind == "dnaSequence" or not draw(st.booleans()):
        return
    sequence = made["sequence"]
    rows = [sequence]
    for _ in range(draw(st.integers(0, 3))):
        signs = list(sequence)
        for _ in range(draw(st.integers(0, 2))):
            signs[draw(st.integers(0, len(signs) - 1))] = draw(st.sampled_from(SIGNS))
        rows.append("".join(signs) + draw(st.sampled_from(["", "", "*", ".", "aa"])))
    end = draw(st.sampled_from(["", "\n", "\0", "\n\0"]))
    made["unpairedMsa"] = "\n".join(f">r{number}\n{row}" for number, row in enumerate(rows)) + end


def draw_bond(draw, entities):
    bond = {}
    for end in (1, 2):
        number = min(end, len(entities)) if draw(st.booleans()) else draw(st.integers(1, len(entities)))
        ((kind, entity),) = entities[number - 1].items()
        last = len(entity.get("sequence", "A"))
        bond |= {
            f"entity{end}": number,
            f"position{end}": draw(st.integers(1, last)),
            f"atom{end}": draw(st.sampled_from(ATOMS[kind])),
            f"copy{end}": draw(st.integers(1, entity["count"])),
        }
    return bond


@st.composite
def jobs(draw):
    protein = polymer("proteinChain", PROTEIN, 8, "ptmType", "ptmPosition")
    dna = polymer("dnaSequence", DNA, 5, "modificationType", "basePosition")
    rna = polymer("rnaSequence", RNA, 5, "modificationType", "basePosition")
    ligand = st.fixed_dictionaries({"ligand": st.sampled_from(LIGANDS), "count": counts}).map(
        lambda one: {"ligand": one}
    )
    ion = st.fixed_dictionaries({"ion": st.sampled_from(IONS), "count": counts}).map(lambda one: {"ion": one})
    entities = draw(st.lists(st.one_of(protein, protein, dna, rna, ligand, ligand, ion), min_size=1, max_size=3))
    for entity in entities:
        if "sequence" in next(iter(entity.values())):
            with_alignment(draw, entity)
    job = {"name": draw(st.text(string.ascii_letters, min_size=1, max_size=6)), "sequences": entities}
    if draw(st.integers(0, 3)) == 0:
        job["covalent_bonds"] = [draw_bond(draw, entities) for _ in range(draw(st.integers(1, 2)))]
    return job


def write_files(folder):
    """Write the ligand files that generated jobs name."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    molecule = Chem.AddHs(Chem.MolFromSmiles("C=CC(=O)NCC"))
    AllChem.EmbedMolecule(molecule, randomSeed=1)
    block = Chem.MolToMolBlock(molecule)
    (folder / "mol.sdf").write_text(block + "$$$$\n")
    (folder / "two.sdf").write_text(2 * (block + "$$$$\n"))
    (folder / "flat.sdf").write_text(Chem.MolToMolBlock(Chem.MolFromSmiles("CCO")) + "$$$$\n")
