"""Turn pydantic errors into sentences: the field, the value found, and the fix."""

import difflib
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

Location = Sequence[int | str]
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2  # YAML aliases can nest without end
_SHORT.maxstring = _SHORT.maxother = 1000


def explain(
    error: ValidationError, model: type[BaseModel], source: Callable[[Location], str] | None = None
) -> list[str]:
    """Return one sentence for every error of a validation.

    Args:
        error: Error that pydantic raised.
        model: Model that was validated. Its keys are suggested for a misspelt key.
        source: Returns what a sentence calls the place of an error; None: :func:`path_of`.
    """
    return [_explain(problem, model, (source or path_of)(problem["loc"])) for problem in error.errors()]


def json_type(value: Any) -> str:
    """Return the JSON name of a value's type."""
    names = {dict: "object", list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def shorten(value: Any) -> str:
    """Return the ``repr`` of a value, cut to 60 characters."""
    text = _SHORT.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _explain(problem: Any, model: type[BaseModel], field: str) -> str:
    found = problem.get("input")
    match problem["type"]:
        case "extra_forbidden":
            known = _keys_at(problem["loc"][:-1], model)
            near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.6)
            return f"{field}: unknown key; " + (
                f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            )
        case "missing":
            return f"{field}: missing"
        case "value_error":
            return "\n".join(f"{field or 'job'}: {line}" for line in str(problem["ctx"]["error"]).splitlines())
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"{field or 'job'}: expected an object, found {json_type(found)}"
        case "too_short" | "string_too_short":
            return f"{field}: empty"
        case "string_pattern_mismatch" if text := _description(problem["loc"], model):
            return f"{field}: write {text}; found {shorten(found)}"
        case _:
            message = problem["msg"][0].lower() + problem["msg"][1:]
            return f"{field}: {message}, found {shorten(found)}"


def _description(location: Location, model: type[BaseModel]) -> str | None:
    """Return what a key of the model itself is for; None if the model does not say, or for a key further inside."""
    known = model.model_fields.get(str(location[0])) if len(location) == 1 else None
    return known.description if known else None


def path_of(location: Location) -> str:
    """Return the path of a field, such as ``sequences[0].protein``."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part not in {"int", "str", "float"}:  # pydantic adds the branch of a union, which is not a key
            text += f".{part}" if text else part
    return text


def _keys_at(location: Location, model: Any) -> list[str]:
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
