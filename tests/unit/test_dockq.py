"""Compare DockQ with the published program, and check its special cases."""

from dataclasses import replace

import numpy as np
import pytest
from support import docked

from protenix_multiseed.analysis.dockq import Atoms, dock, read_coordinates

# Scores by DockQ 2.1.3 for the two structures of tests/support/docked.py, each chain mapped to itself.
PUBLISHED = {("A", "B"): 0.51122826, ("A", "C"): 0.9240935}


@pytest.fixture
def structures(tmp_path):
    paths = [tmp_path / name for name in ("best.cif", "other.cif")]
    for path, atoms in zip(paths, docked.pair(), strict=True):
        docked.write(path, atoms)
    return paths


def test_dockq_matches_the_published_program(structures):
    best = Atoms.read(structures[0].read_text())
    other, itself = dock(best, [read_coordinates(structures[1].read_text()), best.coordinates], ["A", "B", "C"])
    assert other == pytest.approx(PUBLISHED, abs=2e-5)  # it read coordinates with three decimals, in single precision
    assert itself == pytest.approx(dict.fromkeys(PUBLISHED, 1.0))


def test_only_polymers_that_touch_have_an_interface(structures):
    best = Atoms.read(structures[0].read_text())
    (scores,) = dock(best, [best.coordinates], ["B", "C"])
    assert scores == {}


def test_moving_a_chain_lowers_dockq_and_moving_the_complex_does_not(structures):
    best = Atoms.read(structures[0].read_text())
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    far = best.coordinates.copy()
    far[best.chain == "B"] += 40
    whole, moved, missing = dock(best, [best.coordinates @ turn.T + 9, far, None], ["A", "B"])
    assert whole == pytest.approx({("A", "B"): 1.0})
    assert moved[("A", "B")] < 0.05
    assert missing == {}


def test_reorder_swaps_chains_only_if_they_have_the_same_atoms(structures):
    best = Atoms.read(structures[0].read_text())
    assert best.reorder({"A": "B", "B": "A", "C": "C"}) is None  # they differ in length
    assert best.reorder({"A": "A", "B": "B", "C": "C"}).tolist() == list(range(len(best.chain)))
    double = Atoms(
        chain=np.array(["A", "A", "B", "B"]), residue=np.arange(4), name=np.array(["CA"] * 4),
        coordinates=np.zeros((4, 3)),
    )  # fmt: skip
    assert double.reorder({"A": "B", "B": "A"}).tolist() == [2, 3, 0, 1]
    other = replace(double, name=np.array(["CA", "CA", "CA", "CB"]))
    assert other.reorder({"A": "B", "B": "A"}) is None


def test_a_chain_without_a_backbone_has_no_score(structures):
    best = Atoms.read(structures[0].read_text())
    unnamed = replace(best, name=np.where(best.chain == "B", "X1", best.name))
    (scores,) = dock(unnamed, [unnamed.coordinates], ["A", "B", "C"])
    assert scores == pytest.approx({("A", "C"): 1.0})
