"""The input format of Protenix, key by key.

Field names are upstream's. Their sources are Protenix's ``docs/infer_json_format.md`` and the code that reads them:
``json_parser.py``, ``json_to_feature.py``, ``msa_featurizer.py``, ``template_featurizer.py`` and
``constraint_featurizer.py``. Keys that upstream's converters write but its inference never reads are accepted and
ignored. Any other unknown key is an error, because a misspelt key would silently change the prediction.
"""

from typing import Annotated, Any

from pydantic import AliasChoices, Field, field_validator, model_validator

from protenix_multiseed.inputs.dialects.schema import Choice, Item, Position, Strict, TemplateIndices, one_of

Count = Annotated[int, Field(ge=1, le=10_000)]


class Entity(Strict):
    """Fields of every kind of entity: the number of copies and their chain IDs."""

    count: Count | None = None
    id: list[str] | None = None
    label_entity_id: Any = None  # written by `protenix json`, never read
    label_asym_id: Any = None

    @field_validator("id")
    @classmethod
    def _no_ids(cls, ids: list[str] | None) -> list[str] | None:
        return ids or None  # upstream treats an empty list as absent

    @model_validator(mode="after")
    def _count_matches_ids(self) -> "Entity":
        if self.id is not None and self.count is not None and len(self.id) != self.count:
            raise ValueError(f"{len(self.id)} ids for count {self.count}: give one id per copy")
        if self.id is not None and len(set(self.id)) != len(self.id):
            raise ValueError(f"an id is given twice in {self.id}")
        return self

    @property
    def copies(self) -> int:
        """Number of chains of this entity."""
        return self.count or (len(self.id) if self.id else 1)


class ProteinModification(Strict):
    """A residue replaced by a component of the dictionary."""

    ptmType: Annotated[str, Field(pattern=r"^CCD_.+")]
    ptmPosition: Position


class NucleotideModification(Strict):
    """A base replaced by a component of the dictionary."""

    modificationType: Annotated[str, Field(pattern=r"^CCD_.+")]
    basePosition: Position


class OldMsa(Strict):
    """The MSA field of older inputs: a folder with ``pairing.a3m`` and ``non_pairing.a3m``."""

    precomputed_msa_dir: str | None = None
    pairing_db: str | None = None


class TemplateStructure(TemplateIndices):
    """A structure that is a template of a protein, aligned or with indices. This object is ours, not Protenix's."""

    structure: str | None = None
    structurePath: str | None = None
    chain: str | None = None

    @model_validator(mode="after")
    def _one(self) -> "TemplateStructure":
        one_of(self.structure, self.structurePath, "structure or structurePath")
        return self


class ProteinChain(Entity):
    """A protein, with its MSAs as paths or as text, and its template hits."""

    sequence: Annotated[str, Field(min_length=1)]
    modifications: list[Item[ProteinModification]] | None = None
    pairedMsa: str | None = None
    unpairedMsa: str | None = None
    pairedMsaPath: str | None = None
    unpairedMsaPath: str | None = None
    msa: OldMsa | None = None
    templatesPath: str | None = None
    templates: list[Item[TemplateStructure]] | None = None
    glycans: list[Any] | None = None  # this key and the next two are the AlphaFold Server's
    maxTemplateDate: str | None = None
    useStructureTemplate: bool | None = None

    @field_validator("glycans")
    @classmethod
    def _no_glycans(cls, glycans: list[Any] | None) -> None:
        if glycans:
            raise ValueError(
                "Protenix ignores glycans, and the AlphaFold Server's notation names no bonds: write the sugars as one "
                "ligand, such as CCD_NAG_NAG, and bond them with covalent_bonds"
            )


class DnaSequence(Entity):
    """A DNA strand."""

    sequence: Annotated[str, Field(min_length=1)]
    modifications: list[Item[NucleotideModification]] | None = None


class RnaSequence(DnaSequence):
    """An RNA strand, with its MSA."""

    unpairedMsa: str | None = None
    unpairedMsaPath: str | None = None


class Ligand(Entity):
    """A ligand: ``CCD_ATP``, several components joined as ``CCD_NAG_BMA``, a SMILES string, or ``FILE_path``."""

    ligand: Annotated[str, Field(min_length=1)]


class Ion(Entity):
    """An ion, given by its component code."""

    ion: Annotated[str, Field(min_length=1)]


class EntityBox(Choice):
    """One item of ``sequences``: exactly one entity under the key of its kind."""

    proteinChain: ProteinChain | None = None
    dnaSequence: DnaSequence | None = None
    rnaSequence: RnaSequence | None = None
    ligand: Ligand | None = None
    ion: Ion | None = None


def _either(new: str, old: str) -> Any:
    return Field(validation_alias=AliasChoices(new, old), default=None)


class CovalentBond(Strict):
    """A bond between two atoms, with upstream's current names or the older ``left_``/``right_`` names."""

    entity1: int | str = Field(validation_alias=AliasChoices("entity1", "left_entity"))
    copy1: int | str | None = _either("copy1", "left_copy")
    position1: int | str = Field(validation_alias=AliasChoices("position1", "left_position"))
    atom1: int | str = Field(validation_alias=AliasChoices("atom1", "left_atom"))
    entity2: int | str = Field(validation_alias=AliasChoices("entity2", "right_entity"))
    copy2: int | str | None = _either("copy2", "right_copy")
    position2: int | str = Field(validation_alias=AliasChoices("position2", "right_position"))
    atom2: int | str = Field(validation_alias=AliasChoices("atom2", "right_atom"))

    @model_validator(mode="after")
    def _numbers(self) -> "CovalentBond":
        for end in (1, 2):
            for key in ("entity", "copy", "position"):
                value = getattr(self, f"{key}{end}")
                if isinstance(value, str) and not (value.isascii() and value.isdigit()):
                    raise ValueError(f"{key}{end} is {value!r}: expected a number")
        return self


class Contact(Strict):
    """A distance between two residues or two atoms of different chains."""

    entity1: int
    copy1: int
    position1: int
    atom1: int | str | None = None
    entity2: int
    copy2: int
    position2: int
    atom2: int | str | None = None
    max_distance: float | int
    min_distance: float | int = 0


class ChainReference(Strict):
    """A chain, given by entity number and copy number, both counted from 1."""

    entity: int
    copy_: int = Field(validation_alias="copy")


class ResidueReference(ChainReference):
    """A residue of a chain, given by its position, counted from 1."""

    position: int


class Pocket(Strict):
    """Residues that line the pocket of one binder chain."""

    binder_chain: ChainReference
    contact_residues: list[Item[ResidueReference]]
    max_distance: float | int


class Constraint(Strict):
    """Constraints on the complex, which only ``protenix_base_constraint_v0.5.0`` uses."""

    contact: list[Item[Contact]] | None = None
    pocket: Pocket | None = None

    @field_validator("pocket", mode="before")
    @classmethod
    def _no_pocket(cls, pocket: Any) -> Any:
        return pocket or None  # upstream treats an empty object as absent

    structure: dict[Any, Any] | None = None  # upstream accepts this key but does not read it


class ProtenixJob(Strict):
    """One job: one complex to predict."""

    name: Annotated[str, Field(min_length=1)]
    sequences: Annotated[list[Item[EntityBox]], Field(min_length=1)]
    modelSeeds: list[int | str] | None = None
    covalent_bonds: list[Item[CovalentBond]] | None = None
    constraint: Constraint | None = None
    userCCD: str | None = None  # this key and the next are ours, named as in AlphaFold 3's format
    userCCDPath: str | None = None
    assembly_id: Any = None  # written by `protenix json`, never read
    dialect: Any = None  # AlphaFold server keys, which upstream does not read
    version: Any = None
