"""Prepare a process for the package ``protenix``, and call it without its prints.

Call :func:`prepare_imports` before the first import of ``protenix.data`` or ``protenix.model`` in a process, because
these modules read environment variables when they are imported. A process that uses the dictionary calls
:func:`prepare`.
"""

import contextlib
import functools
import importlib.util
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from protenix_multiseed.upstream.cif_text import speed_up
from protenix_multiseed.upstream.dictionary import Dictionary, EmbeddedDictionary, MoleculeTable


def prepare(dictionary: Dictionary) -> None:
    """Prepare the imports of upstream, and give it the dictionary. It is safe to call this again."""
    prepare_imports()
    if isinstance(dictionary, EmbeddedDictionary):
        _embed(dictionary)


def prepare_imports() -> None:
    """Set upstream's environment, and silence its log."""
    # Upstream's fused layer norm compiles CUDA code at its first call, a known cause of failed starts. PyTorch's layer
    # norm needs no compiler.
    os.environ.setdefault("LAYERNORM_TYPE", "torch")
    # Upstream's modules, when they are imported, give the root logger a handler and the level INFO. It is the caller's.
    upstream_logger: Any = importlib.import_module("protenix.utils.logger")
    upstream_logger.add_handlers = _leave_root_logger
    logging.getLogger("protenix").setLevel(logging.ERROR)
    for name in ("rdkit", "pdbeccdutils", "absl", "graphviz"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"biotite|protenix|torch|pdbeccdutils|cuequivariance.*")


def _leave_root_logger(logger: logging.Logger, *_: Any) -> logging.Logger:
    return logger


def _embed(dictionary: EmbeddedDictionary) -> None:
    """Put the embedded dictionary into the variables where upstream keeps the contents of its two files."""
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


class _Later:
    """Stands for an object of a module that is imported when the object is used."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._load(), name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._load()(*arguments, **named)

    def _load(self) -> Any:
        return getattr(importlib.import_module(self._module), self._name)


@contextlib.contextmanager
def without(module: str, name: str) -> Iterator[None]:
    """Import upstream's modules inside the ``with`` block, and the slow module of one object only when it is used.

    scikit-learn takes a quarter of a worker's start, and only ligands and modified residues need its KD tree. SciPy's
    statistics take a second of the model's start, and only weights that a checkpoint lacks are drawn with them.

    A package above the module that is not imported yet is empty inside the block.
    """
    if module in sys.modules:
        yield
        return
    parts = module.split(".")
    names = [".".join(parts[: stop + 1]) for stop in range(len(parts))]
    made = {one: ModuleType(one) for one in names if one not in sys.modules}
    vars(made[module])[name] = _Later(module, name)
    sys.modules |= made
    try:
        yield
    finally:
        for one in made:
            del sys.modules[one]


class _Placeholder:
    """Stands in annotations for a type of a module that is not imported. Nothing else can be done with it."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *arguments: Any, **named: Any) -> Any:  # types may be combined with callable objects only
        raise TypeError("a module is used while it is postponed")


class _LateModule(ModuleType):
    """Stands for a module: placeholders at first, and the attributes of the module itself once ``is_over``."""

    is_over = False

    def __getattr__(self, name: str) -> Any:
        if self.is_over:
            return getattr(importlib.import_module(self.__name__), name)
        if name.startswith("__"):
            raise AttributeError(name)
        return _Placeholder()


@contextlib.contextmanager
def postponed(module: str) -> Iterator[None]:
    """Import upstream's modules inside the ``with`` block, and this module when they first use it after the block.

    Pandas takes an eighth of a worker's start. Upstream names its types in annotations, and uses it for tables that
    inference does not read.
    """
    spec = None if module in sys.modules else importlib.util.find_spec(module)
    if spec is None:
        yield
        return
    stand_in = sys.modules[module] = _LateModule(module)
    stand_in.__spec__ = spec
    try:
        yield
    finally:
        del sys.modules[module]
        stand_in.is_over = True


@contextlib.contextmanager
def hidden(module: str) -> Iterator[None]:
    """Import modules inside the ``with`` block as if this one were not installed. They must be able to do without it.

    biotite imports matplotlib for its plots if it is there, which takes a fourteenth of a worker's start.
    """
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # Python's mark for a module that cannot be imported
    try:
        yield
    finally:
        del sys.modules[module]


@contextlib.contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute of an upstream module inside the ``with`` block."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


class _Collector(logging.Handler):
    """Collects the messages of upstream's loggers."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message."""
        self.messages.append(record.getMessage())


_OWN_NAME = re.compile(r"can not parse l\d\d$")  # upstream looks up even the names that it gives SMILES ligands
_of_components: dict[str, None] = {}  # upstream warns of a component once in a process: these are all its warnings


@contextlib.contextmanager
def overheard(components: Collection[str]) -> Iterator[list[str]]:
    """Collect upstream's warnings inside the ``with`` block, each once and on one line. The list is full at its end.

    Args:
        components: Codes of the components in use. Warnings of earlier blocks that name one of them count again.
    """
    logger, collector, made = logging.getLogger("protenix"), _Collector(), list[str]()
    level = logger.level
    logger.addHandler(collector)
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield made
    finally:
        logger.removeHandler(collector)
        logger.setLevel(level)
        texts = collector.messages + [
            str(one.message) for one in caught if Path(one.filename).is_relative_to(_upstream())
        ]
        fresh = [text for text in (" ".join(one.split()) for one in texts) if not _OWN_NAME.search(text)]
        _of_components.update((text, None) for text in fresh if "ccd" in text.lower() or "component" in text)
        known = [text for text in _of_components if not set(components).isdisjoint(re.split(r"[^\w-]+", text))]
        made.extend(dict.fromkeys([*fresh, *known]))


@functools.cache
def _upstream() -> Path:
    """Return the folder of upstream's package."""
    spec = importlib.util.find_spec("protenix")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def forget_warnings(codes: Collection[str]) -> None:
    """Forget upstream's warnings of components, if they name one of these codes."""
    for text in [text for text in _of_components if not set(codes).isdisjoint(re.split(r"[^\w-]+", text))]:
        del _of_components[text]


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Discard upstream's prints inside the ``with`` block."""
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
        yield


def call_quietly(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call a function of upstream and discard its prints."""
    with silenced():
        return function(*arguments, **named)


def load_data_dumper() -> Any:
    """Import and return the class of upstream's writer."""
    speed_up()
    return importlib.import_module("runner.dumper").DataDumper


def data_dumper(folder: Path, *, full_confidence: bool) -> Any:
    """Return upstream's writer of mmCIF and confidence files."""
    return load_data_dumper()(base_dir=str(folder), need_atom_confidence=full_confidence, sorted_by_ranking_score=True)
