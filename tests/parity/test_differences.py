"""Where Protenix misreads an input: what the features are by default, and that ``--protenix-exact`` keeps Protenix's.

Protenix's own side comes from its ``InferenceDataset.process_one``, which is called with the job as it is written.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.jobs import job_of

from protenix_multiseed.features.featurize import featurize, featurize_reference
from protenix_multiseed.features.sizes import count_sizes
from protenix_multiseed.inputs.corrections import differences_of
from protenix_multiseed.settings import FeatureSettings, ReadSettings
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

# Upstream's own, when its parser is called without anything around it.
pytestmark = pytest.mark.filterwarnings("ignore:No C-N or O3'-P bond")
FILES = Path(__file__).parents[1] / "support" / "files"
LETTERS = dict(enumerate("ARNDCQEGHILKMFPSTWYVX")) | {21: "A", 22: "G", 23: "C", 24: "U", 25: "n", 31: "-"}
SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQLE"
HIT = "MKTAYIAKQR-----KSHFSRQLE"
MSA = f">query\n{SEQUENCE}\n>hit\n{HIT}\n"
ION = {"ion": {"ion": "MG", "count": 1}}
OURS, EXACT = (FeatureSettings(reads=ReadSettings(msa=True, rna_msa=True, exact=exact)) for exact in (False, True))


@pytest.fixture(scope="module", autouse=True)
def prepared():
    environment.prepare(EmbeddedDictionary())


def protein(sequence=SEQUENCE, msa=MSA, **more):
    return {"proteinChain": {"sequence": sequence, "count": 1, "unpairedMsa": msa, **more}}


def capped(code, position):
    return protein(
        "GHKLM" + "A" * (position == 6), "", modifications=[{"ptmType": f"CCD_{code}", "ptmPosition": position}]
    )


def rows(job, settings):
    (features,) = featurize(job, settings)
    return ["".join(LETTERS.get(int(value), "?") for value in row) for row in features.arrays["msa"]]


def bonds(job, settings):
    """Bonds between residues, and the atoms of each residue."""
    (features,) = featurize(job, settings)
    atoms = features.atom_array.value
    names = [f"{chain}{residue}{name}" for chain, residue, name in zip(
        atoms.chain_id, atoms.res_id, atoms.atom_name, strict=True)]  # fmt: skip
    pairs = {
        f"{names[first]}-{names[second]}"
        for first, second, _ in atoms.bonds.as_array()
        if names[first][:2] != names[second][:2]
    }
    return pairs, set(names)


def differences(job):
    return [one.name for one in differences_of(job.spec, OURS.reads)]


CASES = {
    "ion before a protein": {"sequences": [ION, protein()]},
    "ion after a protein": {"sequences": [protein(), ION]},
    "NUL": {"sequences": [protein(msa=MSA + ">again\n" + SEQUENCE + "\n\0")]},
    "dots": {"sequences": [protein(msa=MSA + ">again\n" + SEQUENCE[:9] + "..." + SEQUENCE[9:] + "\n")]},
    "query second": {"sequences": [protein(msa=f">hit\n{HIT}\n>query\n{SEQUENCE}\n")]},
    "T in RNA": {"sequences": [{"rnaSequence": {"sequence": "GGCUAAGC", "count": 1,
                                                "unpairedMsa": ">q\nGGCUAAGC\n>r\nGGTTAAGC\n"}}]},
    "NH2": {"sequences": [capped("NH2", 6)]},
    "NME": {"sequences": [capped("NME", 6)]},
    "FOR": {"sequences": [capped("FOR", 1)]},
    "atom number": {
        "sequences": [protein("GCKLM", ""), {"ligand": {"ligand": "FILE_interleaved.sdf", "count": 1}}],
        "covalent_bonds": [{"entity1": 1, "position1": 2, "atom1": "SG", "entity2": 2, "position2": 1, "atom2": 3}],
    },
}  # fmt: skip


@pytest.mark.parametrize("content", CASES.values(), ids=CASES)
def test_exact_features_are_those_that_protenix_makes_of_the_job_as_written(content):
    job = job_of(content, folder=FILES)
    assert differences(job)
    (ours,), theirs = featurize(job, EXACT), featurize_reference(job, EXACT, 1)
    for name, value in theirs.arrays.items():
        assert np.array_equal(ours.arrays[name], value), name
    assert np.array_equal(ours.seeds[0].ref_pos, theirs.seeds[0].ref_pos)
    assert ours.atom_array.value.bonds == theirs.atom_array.value.bonds


@pytest.mark.parametrize("content", CASES.values(), ids=CASES)
def test_corrected_features_are_the_same_on_both_paths_and_differ_from_protenix(content):
    job = job_of(content, folder=FILES)
    (ours,), reference, (exact,) = featurize(job, OURS), featurize_reference(job, OURS, 1), featurize(job, EXACT)
    for name, value in reference.arrays.items():
        assert np.array_equal(ours.arrays[name], value), name
    assert ours.atom_array.value.bonds == reference.atom_array.value.bonds
    same = all(np.array_equal(value, exact.arrays[name]) for name, value in ours.arrays.items())
    assert not same or ours.atom_array.value.bonds != exact.atom_array.value.bonds
    for settings, features in ((OURS, ours), (EXACT, exact)):
        sizes = count_sizes(job.spec, settings)
        assert (features.n_token, features.n_atom, features.n_msa) == (sizes.n_token, sizes.n_atom, sizes.n_msa)


def test_an_ion_takes_no_chains_alignment():
    first, last = (job_of(CASES[f"ion {place} a protein"]) for place in ("before", "after"))
    assert rows(first, OURS) == ["X" + SEQUENCE, "X" + SEQUENCE, "X" + HIT]
    assert rows(first, EXACT) == ["MEEEEEEEEEEEEEEEEEEEEEEEE"] * 3
    assert rows(last, OURS) == [SEQUENCE + "X", SEQUENCE + "X", HIT + "X"]
    assert rows(last, EXACT) == [SEQUENCE + "E", SEQUENCE + "E", HIT + "E"]
    assert differences(first) == ["ions are chains in alignments and templates"]


@pytest.mark.parametrize("case", ["NUL", "dots"])
def test_signs_of_an_alignment_make_no_row_and_no_insertion(case):
    job = job_of(CASES[case])
    (ours,), (exact,) = featurize(job, OURS), featurize(job, EXACT)
    assert rows(job, OURS) == [SEQUENCE, SEQUENCE, HIT]
    assert rows(job, EXACT) == [SEQUENCE, SEQUENCE, HIT, SEQUENCE]
    assert not ours.arrays["deletion_matrix"].any()
    assert exact.arrays["deletion_matrix"].any() == (case == "dots")


def test_thymine_in_an_rna_alignment_is_uracil():
    job = job_of(CASES["T in RNA"])
    assert rows(job, OURS)[-1] == "GGUUAAGC"
    assert rows(job, EXACT)[-1] == "GGnnAAGC"


@pytest.mark.parametrize(("code", "bond"), [("NH2", "A5C-A6N"), ("NME", "A5C-A6N"), ("FOR", "A1C-A2N")])
def test_a_cap_is_bonded_and_its_neighbour_loses_the_leaving_oxygen(code, bond):
    job = job_of(CASES[code])
    pairs, names = bonds(job, OURS)
    assert bond in pairs
    assert "A5OXT" not in names or code == "FOR"
    exact_pairs, exact_names = bonds(job, EXACT)
    assert (bond in exact_pairs) == (code == "NME")
    assert ("A5OXT" in exact_names) == (code in ("NME", "FOR"))


def test_an_acetyl_cap_is_the_same_on_both_sides():
    job = job_of({"sequences": [capped("ACE", 1)]})
    assert differences(job) == []
    assert bonds(job, OURS) == bonds(job, EXACT)
    assert "A1C-A2N" in bonds(job, OURS)[0]


def test_an_atom_number_is_the_position_in_the_file():
    """Atom 3 of the file is its second carbon. Without its hydrogens it would be the oxygen."""
    job = job_of(CASES["atom number"], folder=FILES)
    assert "A2SG-B1C2" in bonds(job, OURS)[0]
    assert "A2SG-B1O1" in bonds(job, EXACT)[0]


def test_the_warnings_of_protenix_reach_the_features():
    job = job_of(CASES["NH2"])
    assert "No C-N or O3'-P bond between residue MET(5) and residue NH2(6)" in featurize(job, EXACT)[0].warnings[0]
    assert featurize(job, OURS)[0].warnings == ()  # the cap is bonded after the warning
    twice = [{"entity1": 1, "position1": 3, "atom1": "NZ", "entity2": 2, "position2": 1, "atom2": "C1"},
             {"entity1": 1, "position1": 1, "atom1": "N", "entity2": 2, "position2": 1, "atom2": "C1"}]  # fmt: skip
    over = {"sequences": [protein("GHKLM", ""), {"ligand": {"ligand": "CCD_NAG", "count": 1}}], "covalent_bonds": twice}
    for _ in range(2):  # also if the process has met the component before
        (features,) = featurize(replace(job_of(over), name="over"), OURS)
        assert any("greater than number of leaving groups" in text for text in features.warnings)
