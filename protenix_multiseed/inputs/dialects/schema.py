"""Parts that the schemas of several dialects share, and the reading of inputs that have mistakes."""

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Items
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from protenix_multiseed.inputs.explain import explain

_Part = TypeVar("_Part")
_Model = TypeVar("_Model", bound=BaseModel)
_WITHOUT_KEYS, _WITHOUT_ITEMS = "keys", "items"  # contexts of validations that leave out what they cannot read
Position: TypeAlias = int  # the checks of a job compare it with the chain
Sequence = Annotated[str, Field(min_length=1)]
# An atom: its chain, the position of its residue, its name. Not strict, because it is a list in JSON and YAML.
Atom = Annotated[tuple[str, Position, str], Field(strict=False)]


class Strict(BaseModel):
    """Base class: unknown keys are errors, and values are not converted from one type to another."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    @model_validator(mode="wrap")
    @classmethod
    def _without_unknown(cls, value: Any, handler: ModelWrapValidatorHandler[Any], info: ValidationInfo) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            locations = [one["loc"] for one in error.errors() if one["type"] == "extra_forbidden"]
            unknown = {location[0] for location in locations if len(location) == 1}
            if info.context is None or not unknown:
                raise
            return handler({key: part for key, part in value.items() if key not in unknown})


def _or_none(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    try:
        return handler(value)
    except ValidationError:
        if info.context == _WITHOUT_ITEMS:
            return None
        raise


# An item of a list. It is None if it cannot be read, and the rest of the list keeps its numbers: see `readable`.
Item = Annotated[_Part, WrapValidator(_or_none)]


def read(model: type[_Model], raw: Any, stand_ins: Mapping[str, Any]) -> tuple[_Model | None, list[str]]:
    """Read an object, also if parts of it cannot be read, so that the mistakes in the other parts are found too.

    Args:
        model: Schema of the object.
        raw: The object.
        stand_ins: What takes the place of a key's value if that cannot be read.

    Returns:
        The object, and what is wrong with it. If something is, unknown keys are left out, and items of lists that
        cannot be read are None. The object itself is None if too little of it can be read.
    """
    try:
        return model.model_validate(raw), []
    except ValidationError as error:
        problems = explain(error, model)
    try:  # pydantic looks at an object as a whole only if its keys are known
        return model.model_validate(raw, context=_WITHOUT_KEYS), problems
    except ValidationError as error:
        problems += [problem for problem in explain(error, model) if problem not in problems]
        locations = [one["loc"] for one in error.errors()]
    if not isinstance(raw, dict):
        return None, problems
    wrong = {location[0] for location in locations if location}
    left = {key: value for key, value in raw.items() if (key,) not in locations}
    try:
        known = left | {key: value for key, value in stand_ins.items() if key in wrong}
        return model.model_validate(known, context=_WITHOUT_ITEMS), problems
    except ValidationError:
        return None, problems


def readable(items: Items[_Part] | None, place: str) -> Iterator[tuple[str, _Part]]:
    """Yield the place and the value of each item of a list, without those that cannot be read."""
    return ((f"{place}[{number}]", one) for number, one in enumerate(items or ()) if one is not None)


class Choice(Strict):
    """Base class of an object that has exactly one of its keys."""

    @model_validator(mode="after")
    def _exactly_one(self) -> "Choice":
        if len(self.model_fields_set) != 1 or self.kind is None:
            raise ValueError(f"expected exactly one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def kind(self) -> str | None:
        """The key in use."""
        return next((name for name in type(self).model_fields if getattr(self, name) is not None), None)

    @property
    def chosen(self) -> Any:
        """The value under this key."""
        return getattr(self, str(self.kind))


class NamedChains(Strict):
    """Base class of an entity that names its chains: one name, or a list with one name for each copy."""

    id: str | Annotated[list[str], Field(min_length=1)]

    @property
    def ids(self) -> tuple[str, ...]:
        """The names of the chains."""
        return (self.id,) if isinstance(self.id, str) else tuple(self.id)


class TemplateIndices(Strict):
    """The residues of a template that belong to residues of the chain. Both lists count from 0."""

    queryIndices: list[int] | None = None
    templateIndices: list[int] | None = None

    @model_validator(mode="after")
    def _pairs(self) -> "TemplateIndices":
        lengths = [None if one is None else len(one) for one in (self.queryIndices, self.templateIndices)]
        if lengths[0] != lengths[1]:
            raise ValueError("queryIndices and templateIndices must have the same number of indices")
        return self

    @property
    def mapping(self) -> tuple[tuple[int, int], ...] | None:
        """Pairs of an index of the chain and an index of the template."""
        if self.queryIndices is None or self.templateIndices is None:
            return None
        return tuple(zip(self.queryIndices, self.templateIndices, strict=True))


def one_of(first: object, second: object, names: str) -> None:
    """Refuse two keys of which not exactly one is given."""
    if (first is None) == (second is None):
        raise ValueError(f"expected either {names}")
