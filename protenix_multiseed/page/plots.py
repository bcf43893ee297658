"""Plots of one job as PNG files, for papers and notebooks (matplotlib)."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from protenix_multiseed.analysis.compact import NAME, read_compact
from protenix_multiseed.analysis.findings import Findings

if TYPE_CHECKING:
    from protenix_multiseed.analysis.compact import Tokens
    from protenix_multiseed.analysis.comparison import Agreement

_DPI = 300
_MOST_SAMPLES = 100  # samples in the plot of RMSD, as on the page


def draw(findings: Findings) -> dict[str, bytes]:
    """Return the plots of a job as PNG, by name: ``plddt``, ``pae``, ``rmsd``, ``convergence``.

    A plot whose data is missing is left out.

    Raises:
        DamagedError: if the predicted aligned error of the best sample cannot be read.
    """
    made = {"convergence": _png((5, 3.5), lambda axes: _convergence(axes, findings))}
    found, tokens = findings.agreement, findings.tokens
    if found is not None and tokens is not None:
        best = findings.best
        held = read_compact(best.folder / NAME, with_pae=True)
        assert held.pae is not None
        pae = held.pae[best.sample]
        plddt = findings.matched_plddt()
        made["plddt"] = _png((8, 3), lambda axes: _plddt(axes, plddt, tokens))
        made["pae"] = _png((5, 4.4), lambda axes: _pae(axes, pae, tokens))
        made["rmsd"] = _png((5, 4.4), lambda axes: _rmsd(axes, found))
    return made


def _png(inches: tuple[float, float], fill: Callable[[Any], None]) -> bytes:
    from matplotlib.figure import Figure  # imported late: most reports draw no files; without pyplot no display is used

    figure = Figure(figsize=inches, dpi=_DPI, layout="constrained")
    fill(figure.subplots())
    held = io.BytesIO()
    figure.savefig(held, format="png")
    return held.getvalue()


def _plddt(axes: Any, plddt: np.ndarray, tokens: "Tokens") -> None:
    places = np.arange(len(tokens.chain)) + 0.5
    label = f"range of {len(plddt)} samples"
    axes.fill_between(places, plddt.min(axis=0), plddt.max(axis=0), color="0.85", label=label)
    axes.plot(places, plddt[0], color="#0b6bcb", linewidth=1.2, label="best sample")
    axes.set(ylim=(0, 100), xlim=(0, len(places)), ylabel="pLDDT", xlabel=_token_word(tokens))
    _add_legend(axes)
    _name_residues(axes, axes.xaxis, axes.axvline, tokens)


def _pae(axes: Any, pae: np.ndarray, tokens: "Tokens") -> None:
    n = len(tokens.chain)
    image = axes.imshow(pae, cmap="Greens_r", vmin=0, vmax=31.75, extent=(0, n, n, 0), interpolation="nearest")
    axes.figure.colorbar(image, label="predicted aligned error, Å")
    axes.set(xlabel=f"scored {_token_word(tokens)}", ylabel=f"aligned {_token_word(tokens)}")
    _name_residues(axes, axes.xaxis, axes.axvline, tokens)
    _name_residues(axes, axes.yaxis, axes.axhline, tokens)


def _rmsd(axes: Any, found: "Agreement") -> None:
    n = min(len(found.rmsd), _MOST_SAMPLES)
    order = [place for cluster in found.clusters for place in cluster.members if place < n]
    image = axes.imshow(found.rmsd[np.ix_(order, order)], cmap="Blues_r", vmin=0, interpolation="nearest")
    axes.figure.colorbar(image, label="RMSD, Å")
    step = -(-n // 15)
    axes.set_xticks(range(0, n, step), [str(place + 1) for place in order[::step]])
    axes.set_yticks(range(0, n, step), [str(place + 1) for place in order[::step]])
    axes.set(xlabel="rank of sample, sorted by cluster", ylabel="rank of sample, sorted by cluster")


def _convergence(axes: Any, findings: Findings) -> None:
    curve = findings.convergence
    counts = np.arange(len(curve.seeds)) + 1
    axes.plot(counts, curve.best, color="#0b6bcb", marker="o", markersize=3, label="in the order of the seeds")
    axes.plot(counts, curve.expected, color="0.5", linestyle=":", label="mean over all choices of seeds")
    axes.set(xlabel="number of seeds", ylabel="best ranking score")
    axes.locator_params(axis="x", integer=True)
    _add_legend(axes)


def _add_legend(axes: Any) -> None:
    """Put the legend above the plot, where it covers no curve."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize="small", frameon=False)


def _token_word(tokens: "Tokens") -> str:
    return "residue or ligand atom" if "ligand" in tokens.kind else "residue"


def _name_residues(axes: Any, axis: Any, line: Callable[..., Any], tokens: "Tokens") -> None:
    """Label an axis of tokens with chain names and residue numbers, and separate the chains by lines.

    A ligand has its component instead of a number for each atom.
    """
    starts = [0, *(np.flatnonzero(tokens.chain[1:] != tokens.chain[:-1]) + 1).tolist()]
    for start in starts[1:]:
        line(start, color="#d1495b", linewidth=0.8)
    n = len(tokens.chain)
    is_ligand = tokens.kind == "ligand"
    numbered = [place for place in range(0, n, max(1, n // 8)) if not is_ligand[place]]
    shown = [*starts, *(place for place in numbered if all(abs(place - one) > n / 20 for one in starts))]
    axis.set_ticks(
        [place + 0.5 for place in shown],
        [f"{tokens.chain[at]} {(tokens.component if is_ligand[at] else tokens.residue)[at]}" for at in shown],
        rotation=45 if axis is axes.xaxis else 0,
        fontsize="small",
        parse_math=False,  # a name is shown as it is
    )
