"""biotite's copy of the Chemical Component Dictionary as memory-mapped arrays in the user's cache folder.

The arrays are made on the first use. After that, reading a component only slices them.
"""

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from protenix_multiseed.errors import DictionaryError
from protenix_multiseed.files import file_size, make_scratch, publish_folder, read_text, remove_leftovers
from protenix_multiseed.hashes import sha256
from protenix_multiseed.paths import cache_dir
from protenix_multiseed.versions import version_of

if TYPE_CHECKING:
    from biotite.structure.io.pdbx import CIFBlock

LAYOUT = 3  # increase it when the meaning of the arrays or of the stored molecules changes
MISSING = np.iinfo(np.int32).min  # a missing value in a coordinate column

_ARRAYS = ("components", "atoms", "bonds", "text")
_COMPLETE = "complete"  # the file that lists the length, time and SHA-256 of the index's other files
_ABANDONED_SECONDS = 3600  # a temporary folder of this age belongs to a process that was killed
_OPEN_ATTEMPTS = 3  # another process may replace a damaged index at the same moment
COMPONENT_COLUMNS = (
    "type",
    "name",
    "one_letter_code",
    "pdbx_synonyms",
    "formula",
    "formula_weight",
    "pdbx_release_status",
    "pdbx_modified_date",
    "mon_nstd_parent_comp_id",
)
ATOM_TEXT = {
    "atom_id": "atom_id",
    "alt_atom_id": "alt_atom_id",
    "pdbx_component_atom_id": "component_atom_id",
    "type_symbol": "type_symbol",
    "pdbx_leaving_atom_flag": "leaving",
    "pdbx_aromatic_flag": "aromatic",
    "pdbx_stereo_config": "stereo",
}
BOND_TEXT = {
    "atom_id_1": "atom_id_1",
    "atom_id_2": "atom_id_2",
    "value_order": "value_order",
    "pdbx_aromatic_flag": "aromatic",
    "pdbx_stereo_config": "stereo",
}
COORDINATES = {"ideal": "pdbx_model_Cartn_{}_ideal", "model": "model_Cartn_{}"}


def index_folder() -> Path:
    """Return the folder of the index in the user's cache. Another version of biotite has another folder."""
    size = _source().stat().st_size
    key = hashlib.sha256(f"{LAYOUT}:{version_of('biotite')}:{size}".encode()).hexdigest()[:12]
    return cache_dir() / f"dictionary-{key}"


def _source() -> Path:
    spec = importlib.util.find_spec("biotite")  # does not import biotite, which would take most of a second
    folders = spec.submodule_search_locations if spec else None
    source = Path(*folders, "structure/info/components.bcif") if folders else None
    if source is None or not source.exists():
        raise DictionaryError(
            "biotite's components.bcif is missing: reinstall biotite, or run 'python -m biotite.setup_ccd'"
        )
    return source


def open_index(folder: Path) -> tuple[str | None, list[np.ndarray]]:
    """Return a note for the user if the index was damaged, and the memory-mapped arrays of the index.

    An index that is missing or damaged is made again.
    """
    note = None
    for attempt in range(_OPEN_ATTEMPTS):
        damage = _damage(folder)
        if damage is not None:
            if os.path.lexists(folder):
                note = f"the index of the chemical dictionary in {folder} was damaged ({damage}); it was made again"
            _build_index(folder)
        try:
            return note, [np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS]
        except (OSError, ValueError) as error:
            if attempt + 1 == _OPEN_ATTEMPTS:
                raise _unusable(folder, error, "read") from error
    raise AssertionError


def _damage(folder: Path) -> str | None:
    """Return what is wrong with the files of an index; None if they are as they were written.

    The check must be fast, because every start makes it. Contents are compared only if a file has another time than was
    recorded: it was written to, or the folder was copied.

    Raises:
        DictionaryError: if this account must not read the files.
    """
    name = _COMPLETE
    try:
        written = json.loads(read_text(folder / name, folder))
        touched = []
        for name, (size, seconds, digest) in ((f"{name}.npy", written[name]) for name in _ARRAYS):
            path = folder / name
            if file_size(path, folder) != size:
                return f"{name} has another length than was written"
            if not os.access(path, os.R_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            if int(path.stat().st_mtime) != seconds:
                if sha256(path) != digest:
                    return f"{name} has other content than was written"
                touched.append((path, seconds))
        for path, seconds in touched:
            with contextlib.suppress(OSError):  # a cache of another account stays as it is
                os.utime(path, (seconds, seconds))
    except PermissionError as error:
        raise _unusable(folder, error, "read") from error
    except OSError as error:
        return f"{name}: {error.strerror}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"{_COMPLETE} is damaged"
    return None


def _build_index(folder: Path) -> None:
    """Decode the dictionary's columns into memory-mappable arrays. The user's umask decides who may read them.

    Several processes may do this at once; the first to finish wins.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder, older_than=_ABANDONED_SECONDS)
        scratch = make_scratch(folder)
        try:
            # A time in the past: whoever writes to a file later gives it another one.
            seconds = int(time.time()) - 24 * 3600
            written = {}
            for name, array in _decode(_source()).items():
                path = scratch / f"{name}.npy"
                np.save(path, array)
                os.utime(path, (seconds, seconds))
                written[name] = (path.stat().st_size, seconds, sha256(path))
            (scratch / _COMPLETE).write_text(json.dumps(written), encoding="utf-8")
            if _damage(folder) is not None:
                publish_folder(scratch, folder)
        except OSError:
            if _damage(folder) is not None:
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise _unusable(folder, error, "written") from error


def _unusable(folder: Path, error: Exception, verb: str) -> DictionaryError:
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    return DictionaryError(
        f"the index of the chemical dictionary in {folder} cannot be {verb}: {reason}; set PROTENIX_MS_CACHE to "
        f"a folder that can be {verb}"
    )


def _decode(source: Path) -> dict[str, np.ndarray]:
    from biotite.structure.io.pdbx import BinaryCIFFile

    block = BinaryCIFFile.read(source).block
    atoms, bonds, components = block["chem_comp_atom"], block["chem_comp_bond"], block["chem_comp"]

    def text(category: Any, column: str) -> np.ndarray:
        values, mask = category[column].data.array, category[column].mask
        if mask is not None:
            values = np.where(mask.array == 0, values, "?")
        width = values.dtype.itemsize // 4  # numpy stores text as 4-byte code points; these columns are ASCII
        characters = np.ascontiguousarray(values).view(np.uint32).astype(np.uint8)
        return characters.view(f"S{width}")

    def milliangstroms(column: str) -> np.ndarray:
        values, mask = atoms[column].data.array, atoms[column].mask
        return np.where(mask.array == 0, np.rint(values * 1000), MISSING).astype(np.int32)

    atom_columns = {ours: text(atoms, theirs) for theirs, ours in ATOM_TEXT.items()}
    atom_columns["charge"] = atoms["charge"].data.array
    for kind, pattern in COORDINATES.items():
        atom_columns |= {f"{kind}_{axis}": milliangstroms(pattern.format(axis)) for axis in "xyz"}
    bond_columns = {ours: text(bonds, theirs) for theirs, ours in BOND_TEXT.items()}

    ids = components["id"].data.array
    order = np.argsort(ids)
    component_columns = {"id": ids[order]}
    for name, category in (("atom", atoms), ("bond", bonds)):
        first, last = _runs(category["comp_id"].data.array, component_columns["id"])
        component_columns |= {f"first_{name}": first, f"last_{name}": last}
    summaries = zip(
        *(components[c].as_array(str, masked_value="?")[order].tolist() for c in COMPONENT_COLUMNS), strict=True
    )
    texts = [json.dumps(summary).encode() for summary in summaries]
    ends = np.cumsum([len(entry) for entry in texts])
    component_columns |= {"first_text": np.r_[0, ends[:-1]], "last_text": ends}
    return {
        "atoms": records(atom_columns),
        "bonds": records(bond_columns),
        "components": records(component_columns),
        "text": np.frombuffer(b"".join(texts), dtype=np.uint8),
    }


def _runs(keys: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first row and the end row (exclusive) of each code; (0, 0) if the code is absent.

    Equal keys must be adjacent in the column.
    """
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    stops = np.r_[starts[1:], len(keys)]
    where = {key: index for index, key in enumerate(keys[starts].tolist())}
    at = np.array([where.get(code, -1) for code in codes.tolist()])
    return np.where(at >= 0, starts[at], 0), np.where(at >= 0, stops[at], 0)


def records(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return one array of records whose fields are the columns."""
    records = np.empty(
        len(next(iter(columns.values()))), dtype=[(name, array.dtype) for name, array in columns.items()]
    )
    for name, array in columns.items():
        records[name] = array
    return records


def cif_block(code: str, summary: Mapping[str, str], atoms: np.ndarray, bonds: np.ndarray) -> "CIFBlock":
    """Return one component's mmCIF block with the columns that Protenix and its ``gen_ccd_cache.py`` read."""
    from biotite.structure.io.pdbx import CIFBlock, CIFCategory, CIFColumn

    def category(name: str, columns: Mapping[str, np.ndarray]) -> CIFCategory:
        return CIFCategory({column: _column(CIFColumn, array) for column, array in columns.items()}, name=name)

    block = {
        "chem_comp": category("chem_comp", {"id": np.array([code])} | {k: np.array([v]) for k, v in summary.items()})
    }
    if len(atoms):
        columns = {"comp_id": np.full(len(atoms), code)}
        columns |= {theirs: atoms[ours].astype(str) for theirs, ours in ATOM_TEXT.items()}
        columns["charge"] = atoms["charge"].astype(str)
        for kind, pattern in COORDINATES.items():
            for axis in "xyz":
                values = atoms[f"{kind}_{axis}"].tolist()
                columns[pattern.format(axis)] = np.array(["?" if v == MISSING else f"{v / 1000:.3f}" for v in values])
        columns["pdbx_ordinal"] = np.arange(1, len(atoms) + 1).astype(str)
        block["chem_comp_atom"] = category("chem_comp_atom", columns)
    if len(bonds):
        columns = {"comp_id": np.full(len(bonds), code)}
        columns |= {theirs: bonds[ours].astype(str) for theirs, ours in BOND_TEXT.items()}
        columns["pdbx_ordinal"] = np.arange(1, len(bonds) + 1).astype(str)
        block["chem_comp_bond"] = category("chem_comp_bond", columns)
    return CIFBlock(block)


def _column(column_type: Any, values: np.ndarray) -> Any:
    missing = values == "?"
    return column_type(values, np.where(missing, 2, 0).astype(np.uint8) if missing.any() else None)
