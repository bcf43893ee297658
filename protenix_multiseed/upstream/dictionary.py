"""The Chemical Component Dictionary without a download, read from the copy in biotite's wheel.

Protenix downloads two files, ``components.cif`` and ``components.cif.rdkit_mol.pkl``, and every process reads them
completely. This module provides the same content one component at a time. Its source is the copy of the dictionary that
biotite ships as ``structure/info/components.bcif`` (:mod:`.dictionary_index`); :mod:`.molecules` makes the reference
conformers.
"""

import contextlib
import json
import mmap
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from protenix_multiseed.hashes import sketch
from protenix_multiseed.upstream.component import ComponentFacts, component_facts
from protenix_multiseed.upstream.dictionary_index import COMPONENT_COLUMNS, cif_block, index_folder, open_index
from protenix_multiseed.upstream.molecules import load_molecule, make_molecule, rdkit_version, store_molecule
from protenix_multiseed.versions import version_of

if TYPE_CHECKING:
    from biotite.structure.io.pdbx import CIFBlock
    from rdkit import Chem

UPSTREAM_FILES = ("components.cif", "components.cif.rdkit_mol.pkl")


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
        self.folder = folder or index_folder()
        self.note, arrays = open_index(self.folder)
        self._components, self._atoms, self._bonds, self._text = arrays
        self._codes = np.asarray(self._components["id"])
        # Upstream's writer requests each block six times per structure.
        self._block = lru_cache(maxsize=256)(self._make_block)
        self.facts = lru_cache(maxsize=4096)(self._facts)
        self._molecules: dict[str, Chem.Mol] = {}

    @property
    def identity(self) -> str:
        """The versions that the conformers depend on: biotite's, which includes the dictionary, and RDKit's."""
        return f"biotite {version_of('biotite')}, rdkit {rdkit_version()}"

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
        stored = self.folder / "molecules" / rdkit_version() / f"{code}.mol"
        molecule = load_molecule(stored)
        if molecule is None:
            molecule = make_molecule(code, self[code])
            with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
                store_molecule(molecule, stored)
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
