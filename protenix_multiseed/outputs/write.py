"""Write one seed's prediction through upstream's own writer, with upstream's layout, file names and numbers."""

import json
import multiprocessing
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from protenix_multiseed import __version__
from protenix_multiseed.analysis.compact import NAME as COMPACT
from protenix_multiseed.analysis.compact import compact, write_compact
from protenix_multiseed.errors import RunError
from protenix_multiseed.files import check_inside, make_scratch, publish_folder
from protenix_multiseed.hashes import sha256
from protenix_multiseed.outputs.identity import fingerprint
from protenix_multiseed.outputs.modelcif import bond_category, model_categories, without_ligand_numbers
from protenix_multiseed.outputs.seed_files import RECORD, seed_folder
from protenix_multiseed.settings import WriteSettings
from protenix_multiseed.types import Identity, Prediction
from protenix_multiseed.upstream.environment import data_dumper, silenced
from protenix_multiseed.upstream.job_dictionary import with_components
from protenix_multiseed.versions import version_of


def write_prediction(prediction: Prediction, settings: WriteSettings, identity: Identity) -> None:
    """Write one seed's samples and its record. The complete folder appears in one atomic step.

    Args:
        prediction: The prediction of the seed.
        settings: How results are written.
        identity: The identity of the job, for the record.

    Raises:
        OSError: if the files cannot be written. In this case no file of the seed is left behind.
        RunError: if the run was killed meanwhile.
    """
    name, target = prediction.job.name, seed_folder(settings.out, prediction.job.name, prediction.seed)
    check_inside(target.parent, settings.out)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = make_scratch(target)
    try:
        _dump(prediction, settings, scratch)
        record = {
            "job": name,
            "seed": prediction.seed,
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "fingerprint": fingerprint(identity, prediction.seed),
            "made_from": dict(identity),
            "run": dict(prediction.run),
            "chains": chains_of(prediction, reads_msa=bool(identity.get("msa"))),
            "versions": {name: version_of(name) for name in ("protenix", "torch", "rdkit", "biotite")},
            "files": {
                str(file.relative_to(scratch)): {"bytes": file.stat().st_size, "sha256": sha256(file)}
                for file in sorted(scratch.rglob("*"))
                if file.is_file()
            },
            **({"notice": settings.notice} if settings.notice else {}),
        }
        (scratch / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if _is_orphan():  # another process may have claimed the seed
            raise RunError("the run that predicted it was killed")
        publish_folder(scratch, target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _is_orphan() -> bool:
    """Return whether this is a worker whose run was killed."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _dump(prediction: Prediction, settings: WriteSettings, folder: Path) -> None:
    """Write the files into ``folder`` with upstream's DataDumper, which ranks the samples by ranking score."""
    import torch

    notice = {"notice": settings.notice} if settings.notice else {}
    raw: dict[str, Any] = {
        "coordinate": torch.from_numpy(prediction.coordinates),
        "summary_confidence": [_tensors(sample) | notice for sample in prediction.summary],
        "full_data": [_tensors(sample) for sample in prediction.full],
    }
    atoms = prediction.atom_array.value
    dumper = data_dumper(folder, full_confidence=settings.full_confidence)
    with silenced(), with_components(prediction.job.spec.components):
        dumper.dump_predictions(
            pred_dict=raw,
            dump_dir=str(folder),
            pdb_id=prediction.job.name,
            atom_array=atoms.copy(),
            entity_poly_type=dict(prediction.entity_poly_type),
            seed=prediction.seed,
        )
    ranks = [int(rank) for rank in dumper._get_ranker_indices(raw)]
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    write_compact(folder / COMPACT, compact(prediction, order))
    software = {"protenix": version_of("protenix"), "protenix-ms": __version__}
    predictions = folder / "predictions"
    has_ligands = not set(atoms.label_entity_id.tolist()) <= set(prediction.entity_poly_type)
    is_known = settings.as_protenix or not prediction.job.spec.has_own_molecules
    bonds = "" if is_known else bond_category(atoms)
    for rank, index in enumerate(order):
        structure = predictions / f"{prediction.job.name}_sample_{rank}.cif"
        if settings.kept is not None and rank >= settings.kept:
            structure.unlink()
            (predictions / f"{prediction.job.name}_full_data_sample_{rank}.json").unlink(missing_ok=True)
            continue
        pae = prediction.full[index]["token_pair_pae"]
        write_pae(predictions / f"{prediction.job.name}_pae_sample_{rank}", pae, settings.pae, notice)
        plddt = 100 * np.asarray(prediction.full[index]["atom_plddt"], dtype=np.float64)
        confidence = model_categories(atoms, prediction.entity_poly_type, plddt, software)
        text = structure.read_text(encoding="utf-8")
        text = _named(text, prediction.job.name, settings.notice)
        if not settings.as_protenix and (has_ligands or "_struct_conn." in text):
            text = without_ligand_numbers(text)
        structure.write_text(text + confidence + bonds, encoding="utf-8")
    if settings.notice:
        for full in predictions.glob("*_full_data_sample_*.json"):
            full.write_text(json.dumps(notice | json.loads(full.read_text(encoding="utf-8"))), encoding="utf-8")


def write_pae(path: Path, pae: np.ndarray, kind: str, more: Mapping[str, str]) -> None:
    """Write a sample's predicted aligned error (PAE).

    Args:
        path: The file without its extension.
        pae: PAE [N_token, N_token], Angstrom.
        kind: ``none``, ``json`` or ``npz``; also the file's extension.
        more: Other entries of the file.
    """
    if kind == "npz":
        arrays: dict[str, Any] = {"pae": np.asarray(pae, dtype=np.float16), **more}
        np.savez_compressed(path.with_name(f"{path.name}.npz"), **arrays)
    elif kind == "json":
        rows = [[round(value, 2) for value in row] for row in np.asarray(pae, dtype=np.float64).tolist()]
        content = [{"predicted_aligned_error": rows, "max_predicted_aligned_error": 31.75, **more}]
        path.with_name(f"{path.name}.json").write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")


def chains_of(prediction: Prediction, *, reads_msa: bool) -> list[dict[str, Any]]:
    """Return a description of each chain: its name in the files and its position in the input.

    The chains have the same order as in all confidence values per chain.

    Args:
        reads_msa: Whether the model read MSAs. Then ``msa`` of a protein is ``yes`` or ``no``; else it is empty.
            ``msa_rows`` counts the rows of any MSA that the chain had in the model, its sequence included.
    """
    proteins = dict(prediction.job.spec.polymers("protein")) if reads_msa else {}
    atoms = prediction.atom_array.value
    made: list[dict[str, Any]] = []
    for chain in dict.fromkeys(atoms.chain_id.tolist()):
        part = atoms[atoms.chain_id == chain]
        entity = str(part.label_entity_id[0])
        names = list(dict.fromkeys(zip(part.res_id.tolist(), part.res_name.tolist(), strict=True)))
        kind = prediction.entity_poly_type.get(entity, "ligand")
        made.append(
            {
                "chain": chain,
                "index": len(made),
                "entity": int(entity),
                "copy": 1 + sum(other["entity"] == int(entity) for other in made),
                "kind": kind,
                "residues": len(names),
                "first_component": names[0][1],
                "msa": ("yes" if proteins[int(entity)].has_msa else "no") if int(entity) in proteins else "",
                "msa_rows": int(part.msa_rows[0]) if kind != "ligand" else None,
                "tokens": len(np.unique(part.token)),
                "atoms": len(part),
            }
        )
    return made


def _named(text: str, job: str, notice: str | None) -> str:
    """Make the name of an mmCIF file's data block valid, and add the notice as title."""
    first, _, rest = text.partition("\n")
    block = re.sub(r"[^\x21-\x7e]", "_", first)  # upstream writes spaces, and a space ends the name
    title = f"#\n_struct.entry_id\n;{job}\n;\n_struct.title\n;{notice}\n;\n" if notice else ""
    return f"{block}\n{title}{rest}"


def _tensors(sample: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    return {
        key: torch.from_numpy(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value
        for key, value in sample.items()
    }
