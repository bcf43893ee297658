"""The demo model shows the fold of its example. Its fit holds only with the weights that it was made with."""

import csv

import numpy as np
import pytest
from biotite.structure.io import pdbx
from support import cases
from support.command import run

# Distances of CA atoms in PDB entry 1BRS (chains C and F), Angstrom, by chain and residue number of the example.
DEPOSITED = {
    (("A", 1), ("A", 108)): 20.6,
    (("A", 57), ("B", 35)): 5.7,
    (("A", 100), ("B", 39)): 8.9,
    (("B", 1), ("B", 89)): 17.5,
    (("A", 25), ("B", 76)): 15.2,
    (("A", 10), ("A", 90)): 15.1,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    options = ("--seeds", "1-2", "--samples", "2", "--model", "demo", "--out", "results")
    return folder, run("predict", str(cases.REPOSITORY / "examples" / "1brs.json"), *options, cwd=folder)


def test_the_best_sample_has_the_deposited_fold(finished):
    folder, done = finished
    assert done.returncode == 0, done.stdout + done.stderr
    atoms = pdbx.get_structure(pdbx.CIFFile.read(folder / "results" / "1brs" / "best.cif"), model=1)
    alphas = {(atom.chain_id, int(atom.res_id)): atom.coord for atom in atoms[atoms.atom_name == "CA"]}
    assert len(alphas) == 197
    for (first, second), distance in DEPOSITED.items():
        assert np.linalg.norm(alphas[first] - alphas[second]) == pytest.approx(distance, abs=3)
    neighbours = [
        np.linalg.norm(alphas[chain, number] - alphas[chain, number + 1])
        for chain, number in alphas
        if (chain, number + 1) in alphas
    ]
    assert np.median(neighbours) == pytest.approx(3.8, abs=0.4)


def test_the_samples_agree_and_the_scores_say_so(finished):
    folder, done = finished
    assert "All 4 samples agree" in done.stdout
    with (folder / "results" / "1brs" / "ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row in rows:
        assert float(row["plddt"]) > 75
        assert float(row["iptm"]) > 0.7
