"""Parts that the schemas of several dialects share."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Position = Annotated[int, Field(ge=1)]
Sequence = Annotated[str, Field(min_length=1)]
# An atom: its chain, the position of its residue, its name. Not strict, because it is a list in JSON and YAML.
Atom = Annotated[tuple[str, Position, str], Field(strict=False)]


class Strict(BaseModel):
    """Base class: unknown keys are errors, and values are not converted from one type to another."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


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
