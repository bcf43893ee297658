"""Components that an input file defines itself: ``userCCD`` and ``userCCDPath``, as in AlphaFold 3's input."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from protenix_multiseed.errors import InputError
from protenix_multiseed.inputs.document import Document, read_text
from protenix_multiseed.inputs.modifications import FIRST_CAPS, LAST_CAPS
from protenix_multiseed.inputs.residues import COMPONENTS, codes_of
from protenix_multiseed.job_spec import Entity, Ion, JobSpec, OwnComponent
from protenix_multiseed.upstream.dictionary import Dictionary
from protenix_multiseed.upstream.own_components import read_component

MAX_BYTES = 2**24
_MOST_ION_ATOMS = 6  # more than sulfate has
TEXT, PATH = "userCCD", "userCCDPath"
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,15}")
SMILES_CODE = re.compile(r"l\d\d")  # Protenix's names of SMILES and file ligands
# Codes that Protenix's own code names: residues of unmodified chains, selenomethionine, caps, unknown ligands.
_FIXED = {code for letters in COMPONENTS.values() for code in letters.values()}
_FIXED |= {"MSE", "UNL", *FIRST_CAPS, *LAST_CAPS}


def components_of(
    document: Document, text: str | None, path: str | None, entities: Sequence[Entity], notes: list[str]
) -> tuple[OwnComponent, ...]:
    """Return the components of an input that its entities name.

    Args:
        document: The input file.
        text: Its ``userCCD``.
        path: Its ``userCCDPath``.
        entities: The entities of the job.
        notes: Receives a sentence about components that no entity names.

    Raises:
        InputError: if the components cannot be read. The message starts with the field.
    """
    if text is None and path is None:
        return ()
    if text is not None and path is not None:
        raise InputError(f"{TEXT}: {PATH} is given too: keep one of the two")
    place = TEXT if path is None else PATH
    try:
        blocks = _blocks(_read(document, path) if path is not None else text or "")
        for code in blocks:
            if problem := _code_problem(code):
                raise InputError(problem)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    used = codes_of(JobSpec(name="", entities=tuple(entities)))
    if unused := [code for code in blocks if code not in used]:
        notes.append(f"{place}: nothing in the job names the component {', '.join(unused[:10])}")
    return tuple(OwnComponent(code=code, text=blocks[code], place=place) for code in sorted(used & set(blocks)))


def component_notes(spec: JobSpec, dictionary: Dictionary) -> Iterator[str]:
    """Yield a sentence for each component that is not what it seems.

    It replaces one of the dictionary, has carbon and no hydrogen, or is given as an ion and is none.
    """
    for component in spec.components:
        elements = set(read_component(component).atoms["type_symbol"].tolist())
        if b"C" in elements and not elements & {b"H", b"D"}:
            text = "no hydrogen atom is given, so its conformer is made without them: add them if it has any"
            yield f"{component.place}: {text}"
        if component.code in dictionary:
            code = component.code
            yield f"{component.place}: the job's own {code!r} replaces the component {code!r} of the dictionary"
    own = {component.code for component in spec.components}
    for number, entity in enumerate(spec.entities, start=1):
        if isinstance(entity, Ion) and entity.component not in own:
            facts = dictionary.facts(entity.component)
            if facts and len(facts.atoms) > _MOST_ION_ATOMS:
                yield f"ion {number}: {entity.component} is a molecule of {len(facts.atoms)} atoms, and is read as one"


def component_problems(spec: JobSpec) -> Iterator[tuple[OwnComponent, str]]:
    """Yield each component of a job that cannot be used, with what is wrong."""
    for component in spec.components:
        try:
            read = read_component(component)
            if not read.has_coordinates:
                _ = read.molecule  # RDKit must find a conformer
        except InputError as error:
            yield component, str(error)


def text_of(components: Sequence[OwnComponent]) -> str:
    """Return the components as one text, for ``userCCD``."""
    return "".join(component.text for component in components)


def _read(document: Document, written: str) -> str:
    path = document.find(written).path
    if not path.is_file():
        raise InputError(f"{written[:100]}: no such file, neither beside the input file nor in the working folder")
    try:
        return read_text(path, MAX_BYTES)
    except OSError as error:
        raise InputError(f"{written[:100]}: cannot be read: {error.strerror}") from None


@lru_cache(maxsize=4)  # all jobs of a file may have the same components
def _blocks(text: str) -> Mapping[str, str]:
    """Split mmCIF text into its data blocks. Each is written anew, so layout and comments do not matter."""
    import gemmi  # imported late: few inputs have components of their own

    if len(text) > MAX_BYTES:
        raise InputError(f"{len(text)} characters: at most {MAX_BYTES} are allowed")
    try:
        document = gemmi.cif.read_string(text)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"not mmCIF: {str(error).splitlines()[0][:200]}") from None
    if not len(document):
        raise InputError("holds no component: each is a data block, which begins with data_ and its code")
    blocks: dict[str, str] = {}
    for block in document:
        if block.name in blocks:
            raise InputError(f"the component {block.name!r} is given twice")
        if _id_of(block) not in (None, block.name):
            raise InputError(f"_chem_comp.id is {_id_of(block)!r} in the data block of {block.name!r}")
        alone = gemmi.cif.Document()
        alone.add_copied_block(block)
        blocks[block.name] = alone.as_string()
    return blocks


def _id_of(block: Any) -> str | None:
    import gemmi

    found = block.find_value("_chem_comp.id")
    return None if found is None else gemmi.cif.as_string(found)


def _code_problem(code: str) -> str | None:
    if not _CODE.fullmatch(code):
        return f"the code {code[:40]!r} is not allowed: a code has at most 16 letters, digits and '-', such as LIG-1"
    if code in _FIXED or SMILES_CODE.fullmatch(code):
        return f"Protenix itself gives the code {code!r} a meaning: choose another one"
    return None
