"""Write finished samples as other programs write them: the files of AlphaFold 3, or PDB files.

AlphaFold 3's files and keys are those of its ``docs/output.md``.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gemmi
import numpy as np

from protenix_multiseed.analysis.compact import NAME as COMPACT
from protenix_multiseed.analysis.compact import Tokens, read_compact
from protenix_multiseed.errors import ConfigError, DamagedError
from protenix_multiseed.files import read_text
from protenix_multiseed.outputs.modelcif import without_ligand_numbers
from protenix_multiseed.outputs.seed_files import read_summary
from protenix_multiseed.types import Sample

MAX_PDB_ATOMS = 99_999  # the format's columns hold no larger number


def alphafold3_files(name: str, samples: Sequence[Sample]) -> Iterator[tuple[str, str]]:
    """Yield the path and the content of every file that AlphaFold 3 would write for a job.

    Args:
        name: Name of the job.
        samples: Its samples, best first.

    Raises:
        ConfigError: if a sample lacks what the files need.
        DamagedError: if a file of a sample cannot be read.
    """
    scores = [(one.seed, one.sample, repr(one.ranking_score)) for one in sorted(samples, key=_place)]
    rows = [("seed", "sample", "ranking_score"), *scores]
    yield f"{name}_ranking_scores.csv", "".join(f"{seed},{sample},{score}\n" for seed, sample, score in rows)
    for place, sample in enumerate(samples):
        files = dict(_alphafold3_sample(sample))
        folder = f"seed-{sample.seed}_sample-{sample.sample}"
        for kind, content in files.items():
            yield f"{folder}/{name}_{folder}_{kind}", content
            if place == 0:
                yield f"{name}_{kind}", content


def pdb_files(name: str, samples: Sequence[Sample]) -> Iterator[tuple[str, str]]:
    """Yield the name and the content of a PDB file for every sample. Each has its structure.

    Raises:
        ConfigError: if a structure does not fit into the format.
        DamagedError: if a file of a sample cannot be read.
    """
    for sample in samples:
        yield f"{name}_seed_{sample.seed}_sample_{sample.sample}.pdb", _pdb(_block_of(sample))


def _place(sample: Sample) -> tuple[int, int]:
    return sample.seed, sample.sample


def _alphafold3_sample(sample: Sample) -> Iterator[tuple[str, str]]:
    block, full = _block_of(sample), _full_data(sample)
    tokens = read_compact(sample.folder / COMPACT).tokens
    pae = np.asarray(full["token_pair_pae"], dtype=np.float64)
    yield "model.cif", without_ligand_numbers(block.as_string())
    yield "summary_confidences.json", json.dumps(_summary(read_summary(sample.confidence), pae, tokens), indent=1)
    atoms = block.find("_atom_site.", ["label_asym_id", "B_iso_or_equiv"])  # Protenix rounds its own pLDDT to 1 %
    confidences = {
        "atom_chain_ids": [row[0] for row in atoms],
        "atom_plddts": [float(row[1]) for row in atoms],
        "contact_probs": [[round(value, 2) for value in row] for row in full["contact_probs"]],
        "pae": np.round(pae, 1).tolist(),
        "token_chain_ids": tokens.chain.tolist(),
        "token_res_ids": tokens.residue.tolist(),
    }
    yield "confidences.json", json.dumps(confidences)


def _summary(summary: Mapping[str, Any], pae: np.ndarray, tokens: Tokens) -> dict[str, Any]:
    names, alone = tokens.chains, summary["chain_ptm"]
    of_chain = [np.flatnonzero(tokens.chain == name) for name in names]
    pairs = [
        [alone[i] if i == j else value for j, value in enumerate(row)]
        for i, row in enumerate(summary["chain_pair_iptm"])
    ]
    return {
        "chain_iptm": [_number(value) for value in summary["chain_iptm"]],
        "chain_pair_iptm": [[_number(value) for value in row] for row in pairs],
        "chain_pair_pae_min": [[round(float(pae[np.ix_(a, b)].min()), 2) for b in of_chain] for a in of_chain],
        "chain_ptm": [_number(value) for value in alone],
        "fraction_disordered": _number(summary["disorder"]),
        "has_clash": float(summary["has_clash"]),
        "iptm": _number(summary["iptm"]) if len(names) > 1 else None,
        "ptm": _number(summary["ptm"]),
        "ranking_score": _number(summary["ranking_score"]),
    }


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 4)


def _block_of(sample: Sample) -> gemmi.cif.Block:
    if sample.structure is None:
        raise ConfigError(
            "the structures of some samples were not kept: predict all seeds again with --store full, with --overwrite "
            "or into another --out"
        )
    try:
        return gemmi.cif.read_string(read_text(sample.structure, sample.folder)).sole_block()
    except (OSError, ValueError, RuntimeError) as error:
        raise DamagedError(sample.folder, f"{sample.structure.name}: {' '.join(str(error).split())}") from error


def _full_data(sample: Sample) -> dict[str, Any]:
    path = sample.confidence.with_name(sample.confidence.name.replace("_summary_confidence_", "_full_data_"))
    try:
        made: dict[str, Any] = json.loads(read_text(path, sample.folder))
    except FileNotFoundError:
        raise ConfigError(
            "AlphaFold 3's files need the errors of all pairs, which were not written: predict all seeds again with "
            "--full-confidence, with --overwrite or into another --out"
        ) from None
    except (OSError, ValueError) as error:
        raise DamagedError(sample.folder, f"{path.name}: {' '.join(str(error).split())}") from error
    return made


def _pdb(block: gemmi.cif.Block) -> str:
    structure = gemmi.make_structure_from_block(block)
    if (count := structure[0].count_atom_sites()) > MAX_PDB_ATOMS:
        raise ConfigError(f"{count} atoms: PDB files hold at most {MAX_PDB_ATOMS}; use the mmCIF files")
    if long := [chain.name for chain in structure[0] if len(chain.name) > 1]:
        raise ConfigError(f"chain {long[0]}: PDB files have names of one character; use the mmCIF files")
    if long := [residue.name for chain in structure[0] for residue in chain if len(residue.name) > 3]:
        raise ConfigError(f"component {long[0]}: PDB files have codes of three characters; use the mmCIF files")
    box = structure.calculate_box()
    if min(*box.minimum.tolist()) <= -1000 or max(*box.maximum.tolist()) >= 10_000:
        raise ConfigError("coordinates over 9,999 A do not fit into PDB files: use the mmCIF files")
    made: str = structure.make_pdb_string()
    return made
