"""The Chemical Component Dictionary without a download, read from the copy in biotite's wheel.

Protenix downloads two files, ``components.cif`` and ``components.cif.rdkit_mol.pkl``, and every process reads them
completely. This module provides the same content one component at a time. Its source is the copy of the dictionary that
biotite ships as ``structure/info/components.bcif``. On the first use the columns of this copy are decoded into
memory-mapped arrays in the user's cache folder. After that, reading a component only slices these arrays.

Reference conformers are made as in Protenix's ``scripts/gen_ccd_cache.py``: the PDBe component reader, then RDKit's
ETKDGv3. Here RDKit's seed follows from the component's code, so that all machines get the same conformer.
"""

import contextlib
import errno
import hashlib
import importlib.util
import io
import json
import mmap
import os
import re
import shutil
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from protenix_multiseed.errors import DictionaryError
from protenix_multiseed.files import (
    file_size,
    make_scratch,
    publish_folder,
    read_bytes,
    read_text,
    remove_leftovers,
    write_bytes,
)
from protenix_multiseed.hashes import sha256, sketch
from protenix_multiseed.paths import cache_dir
from protenix_multiseed.upstream.component import ComponentFacts, component_facts
from protenix_multiseed.versions import version_of

if TYPE_CHECKING:
    from biotite.structure.io.pdbx import CIFBlock
    from rdkit import Chem

LAYOUT = 3  # increase it when the meaning of the arrays or of the stored molecules changes
CONFORMER_TIMEOUT_SECONDS = 120
UPSTREAM_FILES = ("components.cif", "components.cif.rdkit_mol.pkl")
MISSING = np.iinfo(np.int32).min  # a missing value in a coordinate column
_DIGEST_BYTES = 32  # a stored molecule begins with its SHA-256

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


class EmbeddedDictionary(Mapping[str, "CIFBlock"]):
    """biotite's copy of the dictionary, as a mapping from component code to mmCIF block.

    Membership tests and :meth:`facts` read only the index. A block is built when it is requested.

    Args:
        folder: Folder of the index; None for the user's cache folder.

    Attributes:
        folder: Folder of the index.
        note: A sentence for the user if the index was damaged and made again, else None.

    Raises:
        DictionaryError: if the index cannot be read from the cache folder, or cannot be written to it.
    """

    name = "biotite"

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or _index_folder()
        self.note, arrays = _open_index(self.folder)
        self._components, self._atoms, self._bonds, self._text = arrays
        self._codes = np.asarray(self._components["id"])
        # Upstream's writer requests each block six times per structure.
        self._block = lru_cache(maxsize=256)(self._make_block)
        self.facts = lru_cache(maxsize=4096)(self._facts)
        self._molecules: dict[str, Chem.Mol] = {}

    @property
    def identity(self) -> str:
        """The versions that the conformers depend on: biotite's, which includes the dictionary, and RDKit's."""
        return f"biotite {version_of('biotite')}, rdkit {_rdkit_version()}"

    def _row(self, code: str) -> int:
        row = int(np.searchsorted(self._codes, code))
        if not code or row == len(self._codes) or self._codes[row] != code:
            raise KeyError(code)
        return row

    def __contains__(self, code: object) -> bool:
        try:
            self._row(str(code))
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return (str(code) for code in self._codes)

    def __len__(self) -> int:
        return len(self._codes)

    def _facts(self, code: str) -> ComponentFacts:
        """Return what the input checks need to know about a component.

        Raises:
            KeyError: if the component is unknown.
        """
        row = self._row(code)
        component = self._components[row]
        atoms = self._atoms[component["first_atom"] : component["last_atom"]]
        bonds = self._bonds[component["first_bond"] : component["last_bond"]]
        columns = (atoms[name].tolist() for name in ("atom_id", "type_symbol", "leaving"))
        ends = (bonds[name].tolist() for name in ("atom_id_1", "atom_id_2"))
        return component_facts(
            self._summary(row)["type"],
            ((name.decode(), symbol.decode(), leaves == b"Y") for name, symbol, leaves in zip(*columns, strict=True)),
            ((first.decode(), second.decode()) for first, second in zip(*ends, strict=True)),
        )

    def _summary(self, row: int) -> dict[str, str]:
        component = self._components[row]
        text = bytes(self._text[component["first_text"] : component["last_text"]])
        return dict(zip(COMPONENT_COLUMNS, json.loads(text), strict=True))

    def __getitem__(self, code: str) -> "CIFBlock":
        return self._block(str(code))

    def _make_block(self, code: str) -> "CIFBlock":
        row = self._row(code)
        component = self._components[row]
        atoms = self._atoms[component["first_atom"] : component["last_atom"]]
        bonds = self._bonds[component["first_bond"] : component["last_bond"]]
        return cif_block(code, self._summary(row), atoms, bonds)

    def molecule(self, code: str) -> Any:
        """Return the component as an RDKit molecule with its reference conformer, as Protenix stores it.

        The molecule has the attributes that ``scripts/gen_ccd_cache.py`` sets: ``atom_map``, ``name``, ``sanitized``,
        ``ref_conf_id``, ``ref_conf_type`` and ``ref_mask``. It is stored in the cache folder once it is made.

        Returns:
            The molecule; None if the component is unknown.
        """
        if code in self._molecules:
            return self._molecules[code]
        if code not in self:
            return None
        stored = self.folder / "molecules" / _rdkit_version() / f"{code}.mol"
        molecule = _load_molecule(stored)
        if molecule is None:
            molecule = make_molecule(code, self[code])
            with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
                _store_molecule(molecule, stored)
        self._molecules[code] = molecule
        return molecule


class UpstreamDictionary:
    """The two files that Protenix downloads to ``PROTENIX_ROOT_DIR/common``. Protenix itself reads them.

    This class provides only the data that the input checks need. A component counts as present in both files if
    ``components.cif`` has its data block. Facts come from the embedded dictionary, so they are unknown for components
    that it lacks.
    """

    name = "upstream"

    def __init__(self, root: Path) -> None:
        self.components, self.molecules = (root / "common" / name for name in UPSTREAM_FILES)
        self._known: dict[str, bool] = {}
        self._embedded = EmbeddedDictionary()
        self.note = self._embedded.note

    @property
    def identity(self) -> str:
        """A hash of the lengths, the first MiB and the last MiB of both files."""
        return f"upstream {sketch(self.components)} {sketch(self.molecules)}"

    def __contains__(self, code: object) -> bool:
        if code not in self._known:
            marker = f"data_{code}".encode()
            with self.components.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                pattern = rb"(?m)^" + re.escape(marker) + rb"\s"
                self._known[str(code)] = re.search(pattern, content) is not None
        return self._known[str(code)]

    def facts(self, code: str) -> ComponentFacts | None:
        """Return what the input checks need to know; None if the embedded dictionary lacks the component."""
        return self._embedded.facts(code) if code in self._embedded else None


Dictionary = EmbeddedDictionary | UpstreamDictionary


def find_dictionary() -> Dictionary:
    """Return upstream's dictionary if ``PROTENIX_ROOT_DIR`` holds both of its files, else the embedded dictionary."""
    root = os.environ.get("PROTENIX_ROOT_DIR")
    if root and all((Path(root) / "common" / name).is_file() for name in UPSTREAM_FILES):
        return UpstreamDictionary(Path(root))
    return EmbeddedDictionary()


class MoleculeTable(dict[str, Any]):
    """Replaces Protenix's unpickled table of molecules, and makes each molecule on demand."""

    def __init__(self, dictionary: EmbeddedDictionary) -> None:
        super().__init__()
        self._dictionary = dictionary

    def __bool__(self) -> bool:
        return True

    def get(self, code: str, default: Any = None) -> Any:
        """Return the component's molecule, or ``default`` if the component is unknown."""
        molecule = self._dictionary.molecule(code)
        return default if molecule is None else molecule


def make_molecule(code: str, block: "CIFBlock", seed: int | None = None) -> Any:
    """Make one component's RDKit molecule and reference conformer, as ``scripts/gen_ccd_cache.py`` does.

    Args:
        code: The component's code.
        block: The component's mmCIF block.
        seed: RDKit's seed; None for the seed that follows from the code.
    """
    import gemmi

    _replace_missing_drawing_module()
    from pdbeccdutils.core import ccd_reader
    from rdkit import RDLogger
    from rdkit.Chem import rdDistGeom

    document = gemmi.cif.read_string(serialize(code, block))
    with _quiet(RDLogger):
        parsed = ccd_reader._parse_pdb_mmcif(document.sole_block(), sanitize=True)
        molecule: Any = parsed.component.mol
        molecule.name = code
        molecule.sanitized = parsed.sanitized
        molecule.ref_conf_id, molecule.ref_conf_type = 0, "idea"  # upstream's spelling
        molecule.atom_map = {atom.GetProp("name"): atom.GetIdx() for atom in molecule.GetAtoms()}
        if molecule.GetNumAtoms() == 0:
            molecule.ref_mask = np.zeros(0, dtype=bool)
            return molecule
        ideal_x = block["chem_comp_atom"]["pdbx_model_Cartn_x_ideal"]
        present = np.ones(molecule.GetNumAtoms(), dtype=bool) if ideal_x.mask is None else ideal_x.mask.array == 0
        molecule.ref_mask = np.zeros(molecule.GetNumAtoms(), dtype=bool)
        for name, is_present in zip(block["chem_comp_atom"]["atom_id"].as_array(), present, strict=True):
            molecule.ref_mask[molecule.atom_map[str(name)]] = is_present
        if not molecule.sanitized:
            return molecule
        options: Any = rdDistGeom.ETKDGv3()
        options.clearConfs = False
        options.randomSeed = zlib.crc32(code.encode()) & 0x7FFFFFFF if seed is None else seed
        options.timeout = CONFORMER_TIMEOUT_SECONDS
        with contextlib.suppress(Exception):  # as upstream: if embedding raises, the ideal conformer stays
            molecule.ref_conf_id = rdDistGeom.EmbedMolecule(molecule, options)
            molecule.ref_conf_type = "rdkit"
            molecule.ref_mask[:] = True
    return molecule


def _replace_missing_drawing_module() -> None:
    """Replace RDKit's drawing module by an empty one if it cannot be imported.

    pdbeccdutils imports it but never draws here. It needs X11 libraries, which GPU servers often lack.
    """
    try:
        importlib.import_module("rdkit.Chem.Draw")
    except ImportError:
        chem: Any = importlib.import_module("rdkit.Chem")
        chem.Draw = sys.modules["rdkit.Chem.Draw"] = ModuleType("rdkit.Chem.Draw")


def serialize(code: str, block: "CIFBlock") -> str:
    """Return the component as the text of one mmCIF data block."""
    from biotite.structure.io.pdbx import CIFFile

    text = io.StringIO()
    CIFFile({code: block}).write(text)
    return text.getvalue()


@contextlib.contextmanager
def _quiet(rd_logger: Any) -> Iterator[None]:
    rd_logger.DisableLog("rdApp.*")
    try:
        yield
    finally:
        rd_logger.EnableLog("rdApp.error")


def _load_molecule(path: Path) -> Any:
    from rdkit import Chem

    from_bytes: Any = Chem.Mol
    try:
        content = read_bytes(path, path.parent)
    except OSError:
        return None
    digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        return None
    molecule = from_bytes(content)
    for attribute, read in (
        ("name", molecule.GetProp),
        ("sanitized", molecule.GetBoolProp),
        ("ref_conf_id", molecule.GetIntProp),
        ("ref_conf_type", molecule.GetProp),
    ):
        setattr(molecule, attribute, read(f"_ms_{attribute}"))
    molecule.ref_mask = np.array([flag == "1" for flag in molecule.GetProp("_ms_ref_mask")], dtype=bool)
    molecule.atom_map = {atom.GetProp("name"): atom.GetIdx() for atom in molecule.GetAtoms()}
    return molecule


def _store_molecule(molecule: "Chem.Mol", path: Path) -> None:
    from rdkit import Chem

    copy: Any = Chem.Mol(molecule)
    attributes: Any = molecule
    copy.SetProp("_ms_name", attributes.name)
    copy.SetBoolProp("_ms_sanitized", bool(attributes.sanitized))
    copy.SetIntProp("_ms_ref_conf_id", attributes.ref_conf_id)
    copy.SetProp("_ms_ref_conf_type", attributes.ref_conf_type)
    copy.SetProp("_ms_ref_mask", "".join("1" if flag else "0" for flag in attributes.ref_mask))
    # Coordinates as doubles: else a loaded molecule would differ from the molecule that the first run made.
    kept = Chem.PropertyPickleOptions.AllProps | Chem.PropertyPickleOptions.CoordsAsDouble
    content = copy.ToBinary(int(kept))
    write_bytes(path, hashlib.sha256(content).digest() + content)


def _rdkit_version() -> str:
    return version_of("rdkit")


def _source() -> Path:
    spec = importlib.util.find_spec("biotite")  # does not import biotite, which would take most of a second
    folders = spec.submodule_search_locations if spec else None
    source = Path(*folders, "structure/info/components.bcif") if folders else None
    if source is None or not source.exists():
        raise DictionaryError(
            "biotite's components.bcif is missing: reinstall biotite, or run 'python -m biotite.setup_ccd'"
        )
    return source


def _index_folder() -> Path:
    size = _source().stat().st_size
    key = hashlib.sha256(f"{LAYOUT}:{version_of('biotite')}:{size}".encode()).hexdigest()[:12]
    return cache_dir() / f"dictionary-{key}"


def _open_index(folder: Path) -> tuple[str | None, list[np.ndarray]]:
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
