"""Give upstream's template featurizer the structures that a job names, beside the hits of a search."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from protenix.data.constants import ATOM37_NUM, ATOM37_ORDER, PROTEIN_CHAIN
from protenix.data.template.template_featurizer import TemplateFeatureAssemblyLine
from protenix.data.template.template_parser import encode_template_restype

from protenix_multiseed.inputs.structures import PlacedTemplate, Position, place
from protenix_multiseed.job_spec import JobSpec
from protenix_multiseed.upstream.environment import replaced

_ARGININE = tuple(ATOM37_ORDER[name] for name in ("CD", "NH1", "NH2"))


@contextmanager
def with_structures(spec: JobSpec) -> Iterator[None]:
    """Put a job's own structures before the hits of each protein, inside the ``with`` block."""
    own = {
        number - 1: [features_of(place(one, polymer.sequence), polymer.sequence) for one in polymer.structures]
        for number, polymer in spec.polymers("protein")
        if polymer.structures
    }
    if not own:
        yield
        return
    assemble = TemplateFeatureAssemblyLine.assemble

    def assemble_with_own(line: Any, bioassembly: Mapping[int, dict[str, Any]], indices: np.ndarray) -> Any:
        for chain in bioassembly.values():
            chain["templates"] = [*own.get(chain["entity_id"], ()), *chain["templates"]]
        return assemble(line, bioassembly, indices)

    with replaced(TemplateFeatureAssemblyLine, "assemble", assemble_with_own):
        yield


def features_of(placed: PlacedTemplate, sequence: str) -> dict[str, Any]:
    """Return the arrays of one template, as upstream's ``TemplateHitProcessor`` makes them of a hit.

    Returns:
        Among others the residue types [N_residue], the positions [N_residue, 37, 3] in Angstrom, and their mask
        [N_residue, 37]. The atoms of the whole chain are centred at zero.
    """
    chain = placed.chain
    positions = np.zeros((len(chain.components), ATOM37_NUM, 3), dtype=np.float32)
    mask = np.zeros(positions.shape[:2], dtype=np.float32)
    for number, (component, atoms) in enumerate(zip(chain.components, chain.atoms, strict=True)):
        for atom, position in _atoms(component, atoms):
            positions[number, atom], mask[number, atom] = position, 1
        if component == "ARG" and mask[number, _ARGININE].all():
            _order_arginine(positions[number])
    present = mask.astype(bool)
    if present.any():
        positions[present] -= positions[present].mean(axis=0)
    chain_sequence, letters = chain.sequence, ["-"] * len(sequence)
    made_positions = np.zeros((len(sequence), ATOM37_NUM, 3), dtype=np.float32)
    made_mask = np.zeros(made_positions.shape[:2], dtype=np.float32)
    for query, source in placed.pairs:
        made_positions[query], made_mask[query] = positions[source], mask[source]
        letters[query] = chain_sequence[source]
    text = "".join(letters)
    return {
        "template_all_atom_positions": made_positions,
        "template_all_atom_masks": made_mask,
        "template_sequence": text.encode(),
        "template_aatype": np.array(encode_template_restype(PROTEIN_CHAIN, text), dtype=np.int32),
        "template_domain_names": np.array(chain.name.encode(), dtype=object),
        "template_release_date": np.array(b"1970-01-01", dtype=object),  # read, but without an effect in inference
    }


def _atoms(component: str, atoms: Mapping[str, Position]) -> Iterator[tuple[int, Position]]:
    for name, position in atoms.items():
        if name in ATOM37_ORDER:
            yield ATOM37_ORDER[name], position
        elif component == "MSE" and name.upper() == "SE":
            yield ATOM37_ORDER["SD"], position


def _order_arginine(positions: np.ndarray) -> None:
    """Exchange NH1 and NH2 of an arginine if NH2 is closer to CD: by definition, NH1 is."""
    cd, nh1, nh2 = (positions[place].copy() for place in _ARGININE)
    if np.linalg.norm(nh1 - cd) > np.linalg.norm(nh2 - cd):
        positions[_ARGININE[1]], positions[_ARGININE[2]] = nh2, nh1
