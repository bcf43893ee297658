"""JSON files to jobs: reading, the format, names and seeds. What the chemistry means is checked in :mod:`.check`."""

import difflib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from protenix_multiseed.dictionary import Dictionary
from protenix_multiseed.errors import ConfigError, InputError, RefusedInputsError
from protenix_multiseed.inputs import schema
from protenix_multiseed.inputs.check import InputRules, check_job
from protenix_multiseed.seeds import DEFAULT_SEED, check_seeds
from protenix_multiseed.types import RUN_FOLDER, Job

MAX_NAME_BYTES = 150  # file names add up to 60 bytes to it, and file systems stop at 255
MAX_PROBLEMS = 50
MAX_PATH = 1000
MAX_JSON_BYTES = 2**28


def read_jobs(
    paths: Sequence[Path], seeds: tuple[int, ...] | None, rules: InputRules, dictionary: Dictionary
) -> list[Job]:
    """Read and check every job of every file.

    Args:
        paths: JSON files, or folders that are searched for them.
        seeds: Seeds for every job; None for each job's own ``modelSeeds``, else upstream's default of 101.
        rules: What the run's model and switches accept.
        dictionary: Components that may be named.

    Raises:
        RefusedInputsError: with all problems found, each naming file, position, job and field.
    """
    jobs: list[Job] = []
    problems: list[str] = []
    for path in _find_files(paths, problems):
        for index, raw in enumerate(_read_list(path, problems)):
            jobs.extend(_read_job(path, index, raw, seeds, rules, dictionary, problems))
    problems.extend(_duplicate_names(jobs))
    if problems:
        hidden = len(problems) - MAX_PROBLEMS
        raise RefusedInputsError(
            [*problems[:MAX_PROBLEMS], *([f"... and {hidden} more problems"] if hidden > 0 else [])]
        )
    return jobs


def _find_files(paths: Sequence[Path], problems: list[str]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if len(str(path)) > MAX_PATH or "\0" in str(path):
            problems.append(f"{str(path)[:60]!r}...: not a path")
        elif path.is_dir():
            results = [record.parent.parent for record in path.rglob(f"{RUN_FOLDER}/run.json")]  # of earlier runs
            found = sorted(
                file
                for file in path.rglob("*.json")
                if file.is_file() and not any(file.is_relative_to(folder) for folder in results)
            )
            if not found:
                problems.append(f"{path}: the folder holds no .json file")
            files.extend(found)
        elif path.is_file():
            files.append(path)
        elif path.exists():
            problems.append(f"{path}: neither a file nor a folder")  # a pipe or a device may never end
        else:
            problems.append(f"{path}: no such file or folder")
    distinct = list(dict.fromkeys(file.resolve() for file in files))
    if len(distinct) < len(files):
        problems.append("an input file is named twice: name each file once")
    return distinct


def _read_list(path: Path, problems: list[str]) -> list[Any]:
    try:
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            raise InputError(f"{size} bytes, at most {MAX_JSON_BYTES} are read: split it into several files")
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text, object_pairs_hook=_no_duplicate_keys, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        problems.append(f"{path.name}: line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}")
    except UnicodeDecodeError as error:
        problems.append(f"{path.name}: not UTF-8 text (byte {error.start}): save the file as UTF-8")
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
    except (InputError, ValueError) as error:
        problems.append(f"{path.name}: {error}")
    except RecursionError:
        problems.append(f"{path.name}: nested too deeply to be an input file")
    else:
        if isinstance(content, list) and content:
            return content
        found = "an empty list" if content == [] else f"one {_json_type(content)}"
        problems.append(
            f'{path.name}: the top level is {found}: expected a list of jobs, [{{"name": ..., "sequences": ...}}]'
        )
    return []


def _read_job(
    path: Path,
    index: int,
    raw: Any,
    seeds: tuple[int, ...] | None,
    rules: InputRules,
    dictionary: Dictionary,
    problems: list[str],
) -> Iterable[Job]:
    name = raw.get("name") if isinstance(raw, dict) else None
    where = f"{path.name}[{index}] {name!r}" if isinstance(name, str) else f"{path.name}[{index}]"
    try:
        spec = schema.JobSpec.model_validate(raw)
    except ValidationError as error:
        problems.extend(f"{where}: {_explain(problem)}" for problem in error.errors(include_url=False))
        return
    found = [*_name_problems(spec.name)]
    own_seeds: tuple[int, ...] = (DEFAULT_SEED,)
    if seeds is None and spec.modelSeeds:
        try:
            own_seeds = check_seeds([_seed(value) for value in spec.modelSeeds], "modelSeeds")
        except ConfigError as error:
            found.append(str(error))
    resolved, n_token, chemistry = check_job(spec, path.parent, rules, dictionary)
    found.extend(chemistry)
    if found:
        problems.extend(f"{where}: {problem}" for problem in found)
        return
    yield Job(
        name=spec.name,
        seeds=own_seeds if seeds is None else seeds,
        source=path,
        index=index,
        spec=resolved,
        n_token=n_token,
    )


def _seed(value: int | str) -> int:
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) <= 12):
        raise ConfigError(f"modelSeeds: {value!r} is not a whole number")
    return int(value)


def _no_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"the key {twice!r} is given twice in one object: only one of the two would be read")
    return result


def _no_constant(text: str) -> Any:
    raise InputError(f"{text} is not JSON: write a number")


def _name_problems(name: str) -> Iterable[str]:
    if name.casefold() == RUN_FOLDER:
        yield f"name: {name!r} is the folder where the run keeps its own files: choose another"
    if "/" in name or "\\" in name or name in {".", ".."} or name.startswith("."):
        yield f"name: {name!r} would leave its place in the output folder: use letters, digits, '-' and '_'"
    elif any(unicodedata.category(letter)[0] == "C" for letter in name) or name != name.strip():
        yield f"name: {name!r} has control characters, or spaces at an end: use letters, digits, '-' and '_'"
    if (length := len(name.encode(errors="replace"))) > MAX_NAME_BYTES:
        yield f"name: {length} bytes long: at most {MAX_NAME_BYTES}, as files are named after it"


def _duplicate_names(jobs: Sequence[Job]) -> Iterable[str]:
    first: dict[str, Job] = {}
    for job in jobs:
        other = first.setdefault(job.name.casefold(), job)
        if other is not job:
            yield f"{job.where}: name: also the name of {other.where}, and results are kept by name: rename one"


def _explain(problem: Any) -> str:
    """One pydantic error as a sentence: field, what was found, what to do."""
    field = _path(problem["loc"])
    found = problem.get("input")
    match problem["type"]:
        case "extra_forbidden":
            known = _keys_at(problem["loc"][:-1])
            key = str(problem["loc"][-1])
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
            return f"{field}: unknown key; " + (
                f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            )
        case "missing":
            return f"{field}: missing"
        case "value_error":
            return f"{field or 'job'}: {problem['ctx']['error']}"
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"{field or 'job'}: expected an object, found {_json_type(found)}"
        case "too_short" | "string_too_short":
            return f"{field}: empty"
        case _:
            message = problem["msg"][0].lower() + problem["msg"][1:]
            return f"{field}: {message}, found {_shorten(found)}"


def _path(location: Sequence[int | str]) -> str:
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part not in {"int", "str", "float"}:  # pydantic names the branch of a union, which is not a key
            text += f".{part}" if text else part
    return text


def _keys_at(location: Sequence[int | str]) -> list[str]:
    model: Any = schema.JobSpec
    for part in location:
        if isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation)
    return [
        str(field.validation_alias or name) if isinstance(field.validation_alias, str) else name
        for name, field in model.model_fields.items()
    ]


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for argument in getattr(annotation, "__args__", ()) if (model := _model_in(argument))), None)


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
