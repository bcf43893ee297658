"""The plots that a report writes as PNG files: what their axes and legends say, and where."""

import numpy as np
from matplotlib.figure import Figure

from protenix_multiseed.analysis.compact import Tokens
from protenix_multiseed.page import plots


def axes_of(n_residue, n_ligand):
    n = n_residue + n_ligand + 1
    kind = np.repeat(["protein", "ligand"], [n_residue, n_ligand + 1])
    tokens = Tokens(
        chain=np.repeat(["A", "B", "C"], [n_residue, n_ligand, 1]),
        residue=np.concatenate([np.arange(n_residue) + 1, np.ones(n_ligand + 1, dtype=int)]),
        component=np.repeat(["ALA", "GTP", "MG"], [n_residue, n_ligand, 1]), kind=kind, is_residue=kind == "protein",
    )  # fmt: skip
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    plots._plddt(axes, np.full((2, n), 20.0), tokens)
    figure.draw_without_rendering()
    return axes


def test_an_axis_has_the_component_of_a_ligand_and_no_numbers_of_its_atoms():
    axes = axes_of(59, 32)
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert "A 1" in names
    assert [name for name in names if name[0] != "A"] == ["B GTP", "C MG"]
    assert axes.get_xlabel() == "residue or ligand atom"


def test_the_legend_covers_no_curve():
    axes = axes_of(59, 32)
    legend = axes.get_legend().get_window_extent()
    assert legend.y0 >= axes.get_window_extent().y1 - 1
