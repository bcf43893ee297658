"""Prepares a process for ``protenix``, and calls it without its prints.

:func:`prepare` must run before the first import of ``protenix.data`` or ``protenix.model`` in a process, since upstream
reads its environment there.
"""

import contextlib
import importlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from protenix_multiseed.upstream.dictionary import Dictionary, EmbeddedDictionary, MoleculeTable


def prepare(dictionary: Dictionary) -> None:
    """Set upstream's environment, quieten it and give it the dictionary. Safe to call again."""
    # The fused layer norm compiles CUDA at the first call, a known cause of failed starts; torch's needs no compiler.
    os.environ.setdefault("LAYERNORM_TYPE", "torch")
    logging.getLogger("protenix").setLevel(logging.ERROR)
    for name in ("rdkit", "pdbeccdutils", "absl", "graphviz"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"biotite|protenix|torch|pdbeccdutils|cuequivariance.*")
    if isinstance(dictionary, EmbeddedDictionary):
        _embed(dictionary)


def _embed(dictionary: EmbeddedDictionary) -> None:
    """Put the embedded dictionary where upstream keeps its two files once it has read them."""
    ccd: Any = importlib.import_module("protenix.data.core.ccd")
    data_utils: Any = importlib.import_module("protenix.data.utils")

    def load() -> EmbeddedDictionary:
        return dictionary

    ccd.biotite_load_ccd_cif = load
    data_utils.biotite_load_ccd_cif = load
    if not isinstance(ccd._ccd_rdkit_mols, MoleculeTable):
        ccd._ccd_rdkit_mols = MoleculeTable(dictionary)
        for cached in (ccd.get_component_atom_array, ccd.get_one_letter_code, ccd.get_mol_type, ccd.get_ccd_ref_info):
            cached.cache_clear()


@contextlib.contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute of upstream for the length of a block."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keep upstream's prints off the terminal."""
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
        yield


def call_quietly(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call a function of upstream that prints."""
    with silenced():
        return function(*arguments, **named)


def load_data_dumper() -> Any:
    """The class of upstream's writer, with all that it imports."""
    return importlib.import_module("runner.dumper").DataDumper


def data_dumper(folder: Path, *, full_confidence: bool) -> Any:
    """Upstream's writer of mmCIF and confidence files."""
    return load_data_dumper()(base_dir=str(folder), need_atom_confidence=full_confidence, sorted_by_ranking_score=True)
