"""Find input files, parse each in its dialect, check the jobs, their names and their seeds."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from protenix_multiseed.errors import InputError, RefusedInputsError
from protenix_multiseed.inputs import dialects, molecules
from protenix_multiseed.inputs.checks import check_job
from protenix_multiseed.inputs.components import component_notes
from protenix_multiseed.inputs.content import files_read
from protenix_multiseed.inputs.document import Document, ParsedJob, absolute
from protenix_multiseed.inputs.names import job_name_problems
from protenix_multiseed.inputs.notes import notes_of
from protenix_multiseed.inputs.seeds import DEFAULT_SEED
from protenix_multiseed.inputs.words import Words, field_of
from protenix_multiseed.job_spec import JobSpec, Ligand, Polymer, TemplateStructure
from protenix_multiseed.paths import RUN_FOLDER
from protenix_multiseed.settings import InputRules, ReadSettings
from protenix_multiseed.types import Job
from protenix_multiseed.units import counted
from protenix_multiseed.upstream.dictionary import Dictionary

MAX_JOBS = 100_000  # of one file
MAX_PROBLEMS = 50
MAX_PATH = 1000
MAX_NAMES = 3  # of skipped files in a message
_AMBIGUOUS = (".yaml", ".yml")
_ALL_FILES = ReadSettings(msa=True, rna_msa=True, template=True)


def read_jobs(
    inputs: Sequence[Path | Document],
    seeds: tuple[int, ...] | None,
    rules: InputRules,
    dictionary: Dictionary,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Job]:
    """Read and check every job of every file.

    Args:
        inputs: Input files, folders to search for input files, or documents.
        seeds: Seeds for every job. None: each job uses its own seeds, or upstream's default of 101 if it has none.
        rules: What the run's model and switches accept.
        dictionary: Components that inputs may name.
        tell: Receives a sentence on the files in folders that are no inputs.

    Raises:
        RefusedInputsError: if there are problems. The error lists them; each names file, position, job and field.
    """
    jobs: list[Job] = []
    sound: list[Job] = []  # of which each alone is accepted
    problems: list[str] = []
    words: dict[Path, Words] = {}  # of each file
    skipped: list[Path] = []
    paths = _find_files([one for one in inputs if isinstance(one, Path)], problems, skipped)
    sources: list[Path | Document] = [*paths, *(one for one in inputs if isinstance(one, Document))]
    n_same = Counter(path.name for path in paths)
    for source in sources:
        n_before = len(problems)
        try:
            document = Document.read(source) if isinstance(source, Path) else source
            if not document.text.strip():
                raise InputError(f"{document.path}: the file is empty")
            for count, parsed in enumerate(dialects.dialect_of(document).parse(document)):
                if count == MAX_JOBS:
                    raise InputError(f"{document.path.name}: more than {MAX_JOBS} jobs: split it into several files")
                words[document.path] = parsed.words
                n_problem = len(problems)
                found = list(_check(document, parsed, seeds, rules, dictionary, problems))
                jobs += found
                sound += found if len(problems) == n_problem else []
        except InputError as error:
            problems.append(str(error))
        if isinstance(source, Path) and n_same[source.name] > 1:
            problems[n_before:] = [_with_folder(source, problem) for problem in problems[n_before:]]
    problems.extend(_duplicate_names(jobs))
    problems.extend(_without_conformer(sound, words))  # a search may take all memory for a molecule that is refused
    if skipped:
        _tell_skipped(skipped, jobs, tell)
    if problems:
        hidden = len(problems) - MAX_PROBLEMS
        raise RefusedInputsError(
            [*problems[:MAX_PROBLEMS], *([f"... and {hidden} more problems"] if hidden > 0 else [])]
        )
    return jobs


def _with_folder(path: Path, problem: str) -> str:
    """Name the folder of the file in a problem, which starts with the file's name."""
    if not problem.startswith(path.name):
        return problem
    shown = os.path.relpath(path)
    return (str(path) if shown.startswith("..") else shown) + problem.removeprefix(path.name)


def _tell_skipped(skipped: Sequence[Path], jobs: Sequence[Job], tell: Callable[[str], None]) -> None:
    """Name the skipped files once, except those that jobs name."""
    named = {file.path.resolve() for job in jobs for file in files_read(job.spec, _ALL_FILES)}
    if left := [path for path in skipped if path.resolve() not in named]:
        names = ", ".join(sorted(path.name for path in left)[:MAX_NAMES]) + (", ..." if len(left) > MAX_NAMES else "")
        tell(f"skipped {counted(len(left), 'file')} in the input folders (not inputs): {names}")


def _find_files(paths: Sequence[Path], problems: list[str], skipped: list[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if str(path) == "-":
            problems.append("-: standard input is not read: name a file")
        elif len(str(path)) > MAX_PATH or "\0" in str(path):
            problems.append(f"{str(path)[:60]!r}...: not a path")
        elif path.is_dir():
            found = sorted(_files_in(path, skipped))
            if not found:
                problems.append(
                    f"{path}: the folder holds no input file ({', '.join(_suffixes())}); structure files are inputs if "
                    "they are named one by one, such as folder/*.cif"
                )
            files.extend(found)
        elif path.is_file():
            files.append(path)
        elif path.exists():
            problems.append(f"{path}: neither a file nor a folder")  # reading a pipe or a device may never end
        else:
            problems.append(f"{path}: no such file or folder")
    distinct = list(dict.fromkeys(map(absolute, files)))
    if len(distinct) < len(files):
        count = Counter(map(absolute, files))
        problems.extend(f"{path}: named twice: name each input file once" for path in distinct if count[path] > 1)
    return distinct


def _files_in(folder: Path, skipped: list[Path]) -> Iterator[Path]:
    """Input files in a folder and its subfolders, without result folders of earlier runs. Other files are skipped.

    Hidden ones are no inputs: editors and operating systems keep copies and notes in them.
    """
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            is_loop = entry.is_symlink() and folder.resolve().is_relative_to(entry.resolve())
            if not is_loop and not _is_results(entry):
                yield from _files_in(entry, skipped)
        elif entry.suffix.lower() in _suffixes() and entry.is_file() and _is_input(entry):
            yield entry
        else:
            skipped.append(entry)


def _is_input(path: Path) -> bool:
    """Whether a file of a folder is an input. Only a YAML file may be something else, such as a configuration."""
    suffix = path.suffix.lower()
    if suffix not in _AMBIGUOUS:
        return True
    try:
        document = Document.read(path)
    except InputError:  # reading it again gives the message
        return True
    # The last dialect first: it takes every file with its ending and parses nothing for that.
    return any(suffix in one.SUFFIXES and one.recognizes(document) for one in reversed(dialects.DIALECTS))


def _is_results(folder: Path) -> bool:
    """Whether a run wrote this folder: the run's own files, or the results of one job."""
    if folder.name == RUN_FOLDER:
        return (folder / "run.json").exists()
    return (folder / "ensemble.json").exists() or any(folder.glob("seed_*/record.json"))


def _suffixes() -> tuple[str, ...]:
    return tuple(dict.fromkeys(suffix for dialect in dialects.DIALECTS for suffix in dialect.SUFFIXES))


def _check(
    document: Document,
    parsed: ParsedJob,
    seeds: tuple[int, ...] | None,
    rules: InputRules,
    dictionary: Dictionary,
    problems: list[str],
) -> Iterable[Job]:
    """Yield the job, also if it has problems: then the jobs are compared with each other, but none is returned."""
    where = f"{document.path.name}[{parsed.index}]" + (f" {parsed.name!r}" if parsed.name is not None else "")
    spec, found = parsed.spec, list(parsed.problems)
    n_token = 0
    if spec is not None and rules.template_from_input:
        spec = _with_coordinates(spec, parsed.coordinates)
    if seeds is None and parsed.seed_problem:
        found.extend(parsed.seed_problem.splitlines())
    if spec is not None:
        found = [*job_name_problems(spec.name), *found]
        n_token, chemistry = check_job(spec, rules, dictionary, parsed.words)
        found.extend(chemistry)
    problems.extend(f"{where}: {problem}" for problem in found)
    if spec is None:
        return
    notes = () if found else (*parsed.notes, *component_notes(spec, dictionary), *notes_of(spec, rules))
    yield Job(
        name=(parsed.name or "") if found else spec.name,
        seeds=seeds or parsed.seeds or (DEFAULT_SEED,),
        source=document.path,
        index=parsed.index,
        spec=spec,
        notes=notes,
        n_token=n_token,
    )


def with_spec(job: Job, spec: JobSpec, rules: InputRules, dictionary: Dictionary) -> Job:
    """Return a job with another form of its complex, checked as if the input file had it.

    Raises:
        RefusedInputsError: if there are problems.
    """
    n_token, problems = check_job(spec, rules, dictionary)
    if problems:
        raise RefusedInputsError(f"{job.where}: {problem}" for problem in problems)
    of_dialect = job.notes[: len(job.notes) - len(tuple(notes_of(job.spec, rules)))]
    return replace(job, spec=spec, n_token=n_token, notes=(*of_dialect, *notes_of(spec, rules)))


def _with_coordinates(spec: JobSpec, coordinates: Mapping[int, TemplateStructure]) -> JobSpec:
    """Make the coordinates of an input the templates of its proteins."""
    entities = [
        replace(entity, structures=(coordinates[number],))
        if isinstance(entity, Polymer) and number in coordinates
        else entity
        for number, entity in enumerate(spec.entities, start=1)
    ]
    return replace(spec, entities=tuple(entities))


def _without_conformer(jobs: Sequence[Job], words: Mapping[Path, Words]) -> Iterator[str]:
    ligands = [
        (job, one, one.smiles) for job in jobs for one in job.spec.entities if isinstance(one, Ligand) and one.smiles
    ]
    hopeless = set(molecules.without_conformer(smiles for _, _, smiles in ligands))
    for job, ligand, smiles in ligands:
        if smiles in hopeless:
            of_file = words[job.source]
            field = field_of(ligand.place, of_file.smiles)
            yield f"{job.where}: {field}: RDKit finds no 3D conformer for {smiles!r}; write {of_file.ligand_forms}"


def _duplicate_names(jobs: Sequence[Job]) -> Iterable[str]:
    first: dict[str, Job] = {}
    for job in jobs:
        if not job.name:  # it is refused already
            continue
        other = first.setdefault(job.name.casefold(), job)
        if other is not job:
            yield (
                f"{_apart(job, other)}: name: also the name of {_apart(other, job)}, and both would write to the same "
                "result folder: rename one, or its file if the file names it"
            )


def _apart(job: Job, from_: Job) -> str:
    """Return a job's name in messages, with the whole path if the other job's file has the same name."""
    is_clear = job.source == from_.source or job.source.name != from_.source.name
    return job.where if is_clear else f"{job.source}[{job.index}] {job.name!r}"
