"""Components as RDKit molecules with a reference conformer: made as Protenix makes them, and stored in files.

The conformers are those of Protenix's ``scripts/gen_ccd_cache.py``: the PDBe component reader, then RDKit's ETKDGv3.
Here RDKit's seed follows from the component's code, so that all machines get the same conformer.
"""

import contextlib
import hashlib
import importlib
import io
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from protenix_multiseed.files import read_bytes, write_bytes
from protenix_multiseed.process import interrupt_kept
from protenix_multiseed.versions import version_of

if TYPE_CHECKING:
    from biotite.structure.io.pdbx import CIFBlock
    from rdkit import Chem

CONFORMER_TIMEOUT_SECONDS = 120
_DIGEST_BYTES = 32  # a stored molecule begins with its SHA-256


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
        with (
            interrupt_kept(),
            contextlib.suppress(Exception),
        ):  # as upstream: if embedding raises, the ideal conformer stays
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


def load_molecule(path: Path) -> Any:
    """Read a stored molecule; None if the file is missing or damaged."""
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


def store_molecule(molecule: "Chem.Mol", path: Path) -> None:
    """Write a molecule with the attributes that Protenix reads."""
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


def rdkit_version() -> str:
    """Return RDKit's version, on which the conformers depend."""
    return version_of("rdkit")
