"""Put a job's own components before the chemical dictionary, for this job only.

Protenix has no components but those of its dictionary. Here a job's own components are put before the dictionary while
Protenix works on this job, and are taken away after it. So two jobs of one run may give different components the same
code.
"""

import contextlib
import functools
import importlib
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from protenix_multiseed.job_spec import OwnComponent
from protenix_multiseed.upstream.component import ComponentFacts
from protenix_multiseed.upstream.dictionary import Dictionary
from protenix_multiseed.upstream.environment import forget_warnings, replaced
from protenix_multiseed.upstream.own_components import ReadComponent, read_component

_P = ParamSpec("_P")
_R = TypeVar("_R")


class JobDictionary:
    """The components that one job may name: its own, and those of the dictionary.

    Raises:
        InputError: if one of the job's own components is read and is wrong.
    """

    def __init__(self, own: Sequence[OwnComponent], dictionary: Dictionary) -> None:
        self._own = {component.code: component for component in own}
        self._dictionary = dictionary

    def __contains__(self, code: object) -> bool:
        return code in self._own or code in self._dictionary

    def is_own(self, code: str) -> bool:
        """Whether a component is the job's own."""
        return code in self._own

    def facts(self, code: str) -> ComponentFacts | None:
        """Return what the input checks need to know about a component; None if it is not known."""
        if code in self._own:
            return read_component(self._own[code]).facts
        return self._dictionary.facts(code)


@contextlib.contextmanager
def with_components(own: Sequence[OwnComponent]) -> Iterator[None]:
    """Give upstream a job's own components, beside its dictionary, inside the ``with`` block."""
    if not own:
        yield
        return
    ccd: Any = importlib.import_module("protenix.data.core.ccd")
    users: dict[str, tuple[Any, ...]] = {  # the modules that import these functions by name
        "biotite_load_ccd_cif": (ccd, importlib.import_module("protenix.data.utils")),
        "get_component_rdkit_mol": (ccd, importlib.import_module("protenix.data.core.geometry_featurizer")),
    }
    load, find = ccd.biotite_load_ccd_cif, ccd.get_component_rdkit_mol
    read = {component.code: read_component(component) for component in own}
    blocks = {code: component.block for code, component in read.items()}
    replacements: dict[str, Callable[..., Any]] = {
        "biotite_load_ccd_cif": lambda: ChainMap(blocks, load()),
        "get_component_rdkit_mol": lambda code: read[code].molecule if code in read else find(code),
    }
    with contextlib.ExitStack() as stack:
        stack.callback(_forget, ccd, read)
        _forget(ccd, read)
        for name, modules in users.items():
            for module in modules:
                stack.enter_context(replaced(module, name, replacements[name]))
        yield


_clear: list[Callable[[], None]] = []


def cached_of_components(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Cache the results of a function that depend on components, until other components take their codes."""
    cached = functools.cache(function)
    clear_with_components(cached.cache_clear)
    return cached  # type: ignore[return-value]


def clear_with_components(clear: Callable[[], None]) -> None:
    """Call ``clear`` whenever a job's own components come or go."""
    _clear.append(clear)


def _forget(ccd: Any, codes: Mapping[str, ReadComponent]) -> None:
    for cached in (ccd.get_component_atom_array, ccd.get_one_letter_code, ccd.get_mol_type, ccd.get_ccd_ref_info):
        cached.cache_clear()
    for clear in _clear:
        clear()
    forget_warnings(codes)
