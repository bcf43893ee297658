"""The same complex in several formats is the same job as in Protenix's own JSON, and what cannot be done is refused."""

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from support.generated import jobs, write_files
from support.inputs import bond, job, ligand, protein

from protenix_multiseed.errors import InputError, RefusedInputsError
from protenix_multiseed.inputs.content import content_of
from protenix_multiseed.inputs.convert import to_alphafold3, to_protenix
from protenix_multiseed.inputs.dialects.glycans import parse_glycan
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.settings import InputRules, ReadSettings
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

EXAMPLES = int(os.environ.get("PROTENIX_MS_EXAMPLES", "40"))
READS = ReadSettings(msa=True, rna_msa=True)
RULES = InputRules(model="m", reads=READS)
SEQUENCE, OTHER = "MKTAYIAKQR", "GHKLMNPQRS"


@pytest.fixture(scope="module")
def dictionary():
    return EmbeddedDictionary()


@pytest.fixture
def read(tmp_path, dictionary):
    (tmp_path / "a.a3m").write_text(f">query\n{SEQUENCE}\n>hit\nMK--YIAKQR\n")

    def read(content, name="in.json"):
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return read_jobs([tmp_path / name], None, RULES, dictionary)

    return read


def contents(jobs):
    """What the predictions depend on."""
    return [content_of(one.spec, READS) for one in jobs]


def refused(read, content, says, name="in.json"):
    with pytest.raises(RefusedInputsError) as error:
        read(content, name)
    assert says in str(error.value)


def numbered(*ends):
    """A bond in Protenix's form, between the first copies of two entities."""
    keys = [f"{key}{end}" for end in (1, 2) for key in ("entity", "position", "atom")]
    return {**dict(zip(keys, ends, strict=True)), "copy1": 1, "copy2": 1}


# AlphaFold 3


def alphafold3(*sequences, **more):
    return {
        "dialect": "alphafold3",
        "version": 4,
        "name": "a",
        "modelSeeds": [3, 5],
        "sequences": list(sequences),
        **more,
    }


EVERYTHING = alphafold3(
    {"protein": {"id": ["A", "B"], "sequence": SEQUENCE, "unpairedMsaPath": "a.a3m", "pairedMsa": "",
                 "modifications": [{"ptmType": "SEP", "ptmPosition": 3}], "templates": []}},
    {"dna": {"id": "C", "sequence": "ACGT", "modifications": [{"modificationType": "5CM", "basePosition": 2}]}},
    {"rna": {"id": "D", "sequence": "ACGU", "unpairedMsa": ">q\nACGU\n"}},
    {"ligand": {"id": "E", "ccdCodes": ["NAG", "NAG"]}},
    {"ligand": {"id": ["F", "G"], "smiles": "CCO"}},
    bondedAtomPairs=[[["A", 4, "CA"], ["E", 1, "C1"]], [["E", 1, "O4"], ["E", 2, "C1"]]],
)  # fmt: skip
BY_HAND = job(
    protein(count=2, id=["A", "B"], unpairedMsaPath="a.a3m", pairedMsa="",
            modifications=[{"ptmType": "CCD_SEP", "ptmPosition": 3}]),
    {"dnaSequence": {"sequence": "ACGT", "count": 1, "id": ["C"],
                     "modifications": [{"modificationType": "CCD_5CM", "basePosition": 2}]}},
    {"rnaSequence": {"sequence": "ACGU", "count": 1, "id": ["D"], "unpairedMsa": ">q\nACGU\n"}},
    ligand("CCD_NAG_NAG", id=["E"]),
    ligand("CCO", count=2, id=["F", "G"]),
    covalent_bonds=[
        numbered(1, 4, "CA", 4, 1, "C1"), numbered(4, 1, "O4", 4, 2, "C1"),
    ],
)  # fmt: skip


def test_an_alphafold_3_job_is_the_job_written_by_hand(read):
    (made,) = read(EVERYTHING)
    assert contents([made]) == contents(read(BY_HAND))
    assert (made.name, made.seeds) == ("a", (3, 5))


def test_a_description_has_no_effect_and_says_so(read):
    with_text = alphafold3({"protein": {"id": "A", "sequence": SEQUENCE, "description": "a chain"}})
    without = alphafold3({"protein": {"id": "A", "sequence": SEQUENCE}})
    assert contents(read(with_text)) == contents(read(without))
    assert "sequences[0].protein.description has no effect" in read(with_text)[0].notes


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (alphafold3({"protein": {"id": "A", "sequence": SEQUENCE, "templates": [{}]}}), "templates[0]: expected"),
        (alphafold3({"ligand": {"id": "A", "ccdCodes": ["X1"]}}, userCCD="data_X1"), "userCCD: "),
        (alphafold3({"ligand": {"id": "A"}}), "expected either ccdCodes or smiles"),
        (alphafold3({"ligand": {"id": "A", "ccdCodes": ["ATP"], "smiles": "C"}}), "expected either ccdCodes or smiles"),
        (alphafold3({"protein": {"id": "A", "sequence": "M"}, "dna": {"id": "B", "sequence": "A"}}), "exactly one"),
        (alphafold3({"protein": {"id": "A", "seqence": SEQUENCE}}), "unknown key; did you mean 'sequence'"),
        (alphafold3({"ligand": {"id": ["A", "A"], "smiles": "C"}}), "'A' is also an id of sequences[0].ligand"),
        (alphafold3({"ligand": {"id": "A", "smiles": "CC"}}, bondedAtomPairs=[[["A", 1, "C1"], ["B", 1, "C1"]]]),
         "bondedAtomPairs[0][1]: no chain is called 'B'; chains: A"),
        (alphafold3({"protein": {"id": "A", "sequence": SEQUENCE}}, bondedAtomPairs=[[["A", 11, "C"], ["A", 1, "N"]]]),
         "bondedAtomPairs[0][0]: 11: chain A has positions 1 to 10"),
        ({**alphafold3({"ligand": {"id": "A", "smiles": "C"}}), "version": 5}, "version: "),
        (alphafold3({"protein": {"id": "A", "sequence": SEQUENCE, "unpairedMsa": "", "unpairedMsaPath": "a.a3m"}}),
         "sequences[0].protein: unpairedMsa and unpairedMsaPath are both given"),
        (alphafold3({"protein": {"id": "A", "sequence": SEQUENCE, "pairedMsa": "", "pairedMsaPath": "a.a3m"}}),
         "sequences[0].protein: pairedMsa and pairedMsaPath are both given"),
        (alphafold3({"rna": {"id": "A", "sequence": "ACGU", "unpairedMsa": "", "unpairedMsaPath": "a.a3m"}}),
         "sequences[0].rna: unpairedMsa and unpairedMsaPath are both given"),
        (alphafold3({"protein": {"id": "A", "sequence": SEQUENCE, "templates": [
            {"mmcif": "data_x", "mmcifPath": "a.cif", "queryIndices": [0], "templateIndices": [0]}]}}),
         "templates[0]: expected either mmcif or mmcifPath"),
        (alphafold3({"ligand": {"id": "A", "ccdCodes": ["X1"]}}, userCCD="data_X1", userCCDPath="a.cif"),
         "userCCD: userCCDPath is given too"),
        ({**alphafold3({"ligand": {"id": "A", "smiles": "C"}}), "modelSeeds": [1, 1]}, "seed 1 is given twice"),
    ],
)  # fmt: skip
def test_what_an_alphafold_3_job_cannot_have_is_refused(read, content, says):
    refused(read, content, says)


# The AlphaFold Server, whose jobs are those of Protenix with some keys more


def server(**more):
    sequences = [{"proteinChain": {"sequence": SEQUENCE, "count": 2, **more}}, {"ion": {"ion": "MG", "count": 1}}]
    return [{"name": "a", "modelSeeds": [], "sequences": sequences, "dialect": "alphafoldserver", "version": 1}]


def test_a_job_of_the_alphafold_server_is_the_job_written_by_hand(read):
    (made,) = read(server(maxTemplateDate="2018-01-20", useStructureTemplate=True))
    assert contents([made]) == contents(read(job(protein(count=2), {"ion": {"ion": "MG", "count": 1}})))
    assert made.seeds == (101,)
    assert any("no templates are searched" in note for note in made.notes)
    assert not any(
        "templates" in note for note in read(server(useStructureTemplate=False))[0].notes if "ion" not in note
    )


def test_glycans_of_the_alphafold_server_are_refused_with_the_way_out(read):
    refused(read, server(glycans=[{"residues": "NAG(NAG)(BMA)", "position": 3}]), "glycans: Protenix ignores glycans")
    assert read(server(glycans=[]))


# Boltz


BOLTZ = f"""\
# a comment
version: 1
sequences:
  - protein:
      id: [A, B]
      sequence: {SEQUENCE}
      msa: a.a3m
      modifications:
        - position: 3
          ccd: SEP
  - protein:
      id: P
      sequence: {OTHER}
      msa: empty
  - dna:
      id: C
      sequence: ACGT
  - ligand:
      id: [F, G]
      smiles: '[CH3:1]CO'
  - ligand:
      id: E
      ccd: NAG
constraints:
  - bond:
      atom1: [A, 4, CA]
      atom2: [E, 1, C1]
  - pocket:
      binder: E
      contacts: [[A, 1], [B, 2]]
  - contact:
      token1: [A, 1]
      token2: [E, O3]
      max_distance: 8
properties:
  - affinity:
      binder: E
"""


def test_a_boltz_job_is_the_job_written_by_hand(read):
    (made,) = read(BOLTZ, "in.yaml")
    bond = numbered(1, 4, "CA", 5, 1, "C1")
    contact = {"entity1": 1, "copy1": 1, "position1": 1, "entity2": 5, "copy2": 1, "position2": 1, "atom2": "O3",
               "max_distance": 8}  # fmt: skip
    pocket = {"binder_chain": {"entity": 5, "copy": 1}, "max_distance": 6, "contact_residues": [
        {"entity": 1, "copy": 1, "position": 1}, {"entity": 1, "copy": 2, "position": 2}]}  # fmt: skip
    by_hand = job(
        protein(count=2, id=["A", "B"], unpairedMsaPath="a.a3m",
                modifications=[{"ptmType": "CCD_SEP", "ptmPosition": 3}]),
        {"proteinChain": {"sequence": OTHER, "count": 1, "id": ["P"], "unpairedMsa": ""}},
        {"dnaSequence": {"sequence": "ACGT", "count": 1, "id": ["C"]}},
        ligand("[CH3:1]CO", count=2, id=["F", "G"]),
        ligand("CCD_NAG", id=["E"]),
        covalent_bonds=[bond],
        constraint={"contact": [contact], "pocket": pocket},
    )  # fmt: skip
    assert contents([made]) == contents(read(by_hand))
    assert (made.name, made.seeds) == ("in", (101,))
    assert "properties have no effect: Protenix predicts no affinity" in made.notes


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            f"sequences:\n  - protein: {{id: A, sequence: {SEQUENCE}, cyclic: true}}",
            "cyclic: Protenix's models know no",
        ),
        (f"sequences:\n  - protein: {{id: A, sequence: {SEQUENCE}}}\ntemplates:\n  - c: x.cif", "templates[0].c: "),
        ("sequences:\n  - ligand: {id: A}", "expected either smiles or ccd"),
        ("sequences:\n  - ligand: {id: A, smile: C}", "unknown key; did you mean 'smiles'"),
        ("version: 2\nsequences:\n  - ligand: {id: A, smiles: C}", "version: "),
        ("sequences:\n  - ligand: {id: A, smiles: C\n", "in.yaml: line 3, column 1: not valid YAML"),
        ("sequences:\n  - ligand: {id: A, smiles: C, smiles: CC}", "the key 'smiles' is given twice"),
        ("sequences:\n  - ligand: {id: A, smiles: C}\n? [a]\n: b\n", "not valid YAML: found unhashable key"),
        ("sequences: &x\n  - ligand: {id: A, smiles: C}\nproperties: *x", "aliases are not allowed"),
        (BOLTZ.replace("binder: E\n      contacts", "binder: Z\n      contacts"), "no chain is called 'Z'"),
        (BOLTZ.replace("[[A, 1], [B, 2]]", "[[A, 1], [F, C1]]"), "takes residues, no atoms"),
        (BOLTZ.replace("token2: [E, O3]", "token2: [A, 3]"), "joins two different chains"),
    ],
)
def test_what_a_boltz_job_cannot_have_is_refused(read, content, says):
    refused(read, content, says, "in.yaml")


# FASTA


def test_the_records_of_a_fasta_file_are_the_chains_of_one_complex(read):
    (made,) = read(
        f">first chain\n{SEQUENCE[:5]}\n{SEQUENCE[5:]}\n\n>b\n{OTHER.lower()}\n>c\n{SEQUENCE}\n", "my job.fasta"
    )
    second = {"proteinChain": {"sequence": OTHER, "count": 1}}
    assert contents([made]) == contents(read(job(protein(count=2), second)))
    assert made.name == "my job"


def test_colons_separate_the_chains_of_colabfolds_complexes(read):
    first, second = read(f">sp|P1|A_B complex\n{SEQUENCE}:{OTHER}:{SEQUENCE}\n>two\n{OTHER}\n", "in.fa")
    assert contents([first]) == contents(read(job(protein(count=2), {"proteinChain": {"sequence": OTHER, "count": 1}})))
    assert contents([second]) == contents(read(job({"proteinChain": {"sequence": OTHER, "count": 1}})))
    assert [first.name, second.name] == ["sp_P1_A_B", "two"]


def test_boltz_headers_name_chain_kind_and_alignment(read):
    text = f">A|protein|a.a3m\n{SEQUENCE}\n>B|protein|empty\n{OTHER}\n>C|smiles\nCCO\n>D|ccd\nATP\n>E|rna\nACGU\n"
    by_hand = job(
        protein(id=["A"], unpairedMsaPath="a.a3m"),
        {"proteinChain": {"sequence": OTHER, "count": 1, "id": ["B"], "unpairedMsa": ""}},
        ligand("CCO", id=["C"]),
        ligand("CCD_ATP", id=["D"]),
        {"rnaSequence": {"sequence": "ACGU", "count": 1, "id": ["E"]}},
    )
    assert contents(read(text, "in.fasta")) == contents(read(by_hand))


def test_chai_headers_name_the_kind(read):
    text = f">protein|name=a\n{SEQUENCE}\n>ligand|name=b\nCCO\n>dna|name=c\nACG\n>protein|name=d\n{SEQUENCE}\n"
    by_hand = job(protein(count=2), ligand("CCO"), {"dnaSequence": {"sequence": "ACG", "count": 1}})
    assert contents(read(text, "in.fasta")) == contents(read(by_hand))


def test_chai_headers_need_no_name_and_chains_may_be_modified(read):
    text = ">protein|example\nMKTA(SEP)(MSE)K\n>dna|name\nACGA\n>rna\nAC(PSU)GA\n>ligand|a ligand\nCCO\n"
    changes = [{"ptmType": "CCD_SEP", "ptmPosition": 5}, {"ptmType": "CCD_MSE", "ptmPosition": 6}]
    by_hand = job(
        {"proteinChain": {"sequence": "MKTASMK", "count": 1, "modifications": changes}},
        {"dnaSequence": {"sequence": "ACGA", "count": 1}},
        {"rnaSequence": {"sequence": "ACUGA", "count": 1,
                         "modifications": [{"modificationType": "CCD_PSU", "basePosition": 3}]}},
        ligand("CCO"),
    )  # fmt: skip
    (made,) = read(text, "in.fasta")
    assert contents([made]) == contents(read(by_hand))
    assert not any("only letters of nucleotides" in note for note in made.notes)


@pytest.mark.parametrize(
    ("text", "sugars", "links"),
    [
        ("NAG", "NAG", []),
        ("NAG(4-1 NAG)", "NAG NAG", ["1 O4 2 C1"]),
        (" nag( 4-1  NAG ( 4-1 BMA(3-1 MAN)(6-1 MAN)))", None, None),
        ("NAG(4-1 NAG(4-1 BMA(3-1 MAN)(6-1 MAN)))", "NAG NAG BMA MAN MAN",
         ["1 O4 2 C1", "2 O4 3 C1", "3 O3 4 C1", "3 O6 5 C1"]),
        ("NAG(4-1 NAG)(6-2 FUC)", "NAG NAG FUC", ["1 O4 2 C1", "1 O6 3 C2"]),
        ("", None, None), ("NAG(", None, None), ("NAG)", None, None), ("NAG(4-1 )", None, None),
        ("NAG(NAG)", None, None), ("NAG NAG", None, None), ("(4-1 NAG)", None, None), ("NAG(4-1 NAG))", None, None),
        ("NAG()", None, None), ("NAG(4-1NAG)", None, None), ("NAG" + "(4-1 NAG" * 300 + ")" * 300, None, None),
    ],
)  # fmt: skip
def test_chais_notation_of_glycans(text, sugars, links):
    if sugars is None:
        with pytest.raises(InputError, match="is not a glycan at position"):
            parse_glycan(text)
        return
    made = parse_glycan(text)
    assert made.sugars == tuple(sugars.split())
    assert [" ".join(map(str, one)) for one in made.links] == links


def test_equal_glycans_are_copies_and_others_are_not(read):
    glycans = ["NAG(4-1 NAG)", "NAG(6-1 NAG)", "NAG(4-1 NAG)"]
    text = "".join(f">glycan|g{number}\n{glycan}\n" for number, glycan in enumerate(glycans))
    (made,) = read(f">protein|a\n{SEQUENCE}\n{text}", "in.fasta")
    assert [one.copies for one in made.spec.entities] == [1, 2, 1]
    assert [(one.first.entity, one.first.atom, one.second.atom) for one in made.spec.bonds] == [
        (2, "O4", "C1"), (3, "O6", "C1")
    ]  # fmt: skip
    assert any("record 2: the glycan is bonded to no protein" in note for note in made.notes)


def test_a_chain_of_nucleotide_letters_is_a_nucleic_acid_and_says_so(read):
    (made,) = read(">a\nACGT\n>b\nACGU\n>c\nACGA\n>protein|name=d\nACGT\n", "in.fasta")
    assert [one.kind for one in made.spec.entities] == ["dna", "rna", "protein", "protein"]
    assert [note for note in made.notes if "only letters of nucleotides" in note] == [
        "record 1 has only letters of nucleotides and is read as DNA; '>protein|name' forbids it",
        "record 2 has only letters of nucleotides and is read as RNA; '>protein|name' forbids it",
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (">a\n>b\nMKT\n", "record 1 ('a') has no sequence"),
        (">a\nMKT\n>b\n", "record 2 ('b') has no sequence"),
        (">a\nMKTO\n", "record 1.sequence: 'O' at position 4 is not a letter of a protein sequence"),
        (">protein|a\nMK(SEP\n", "record 1.sequence: '(' at position 3 is not a letter"),
        (">protein|a\nMK(ZZZZZ)K\n", "component 'ZZZZZ' is not in the chemical dictionary"),
        (">glycan|name=a\nNAG(4-1 ZZZZZ)\n", "record 1: component 'ZZZZZ' is not in the chemical dictionary"),
        (">glycan|name=a\nNAG(9-1 NAG)\n", "atom 'O9' does not exist"),
        (">A|protein|no.a3m\nMKT\n", "no.a3m: no such file"),
        (">a\nMKT:\n>b\nMKT\n", "in.fasta[0] 'a': record 1 ('a') has no sequence beside a colon"),
    ],
)
def test_what_a_fasta_file_cannot_have_is_refused(read, content, says):
    refused(read, content, says, "in.fasta")


# Recognition


@pytest.mark.parametrize("name", ["in.json", "in.txt", "in.fasta", "in.yaml"])
def test_the_content_decides_the_format_not_the_name(read, name):
    for content, kind in ((json.dumps(EVERYTHING), 5), (BOLTZ, 5), (f">a\n{SEQUENCE}\n", 1), (json.dumps(BY_HAND), 5)):
        (made,) = read(content, name)
        assert len(made.spec.entities) == kind


# Conversion


@pytest.fixture
def converted(read):
    """Write jobs in a format, and read them again."""

    def convert(jobs, write):
        made = [write(job) for job in jobs]
        if write is to_protenix:
            return read(made)
        return [job for one in made for job in read(one)]

    return convert


@pytest.mark.parametrize("write", [to_protenix, to_alphafold3])
def test_a_converted_job_is_the_same_job(read, converted, write):
    jobs = read(EVERYTHING)
    again = converted(jobs, write)
    assert contents(again) == contents(jobs)
    assert [(one.name, one.seeds) for one in again] == [(one.name, one.seeds) for one in jobs]


def test_chains_without_names_get_those_that_protenix_gives_them(read):
    content = job(protein(count=2), ligand("CCD_ATP", id=["B"]), {"ion": {"ion": "MG", "count": 1}},
                  covalent_bonds=[bond(atom1="CA", copy1=2, copy2=1)])  # fmt: skip
    made = to_alphafold3(read(content)[0])
    assert [next(iter(one.values()))["id"] for one in made["sequences"]] == [["A", "C"], ["B"], ["D"]]
    assert made["bondedAtomPairs"] == [[["C", 3, "CA"], ["B", 1, "PG"]]]
    assert made["sequences"][2] == {"ligand": {"id": ["D"], "ccdCodes": ["MG"]}}


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ({}, {}),
        ({"unpairedMsa": ""}, {"unpairedMsa": "", "pairedMsa": "", "templates": []}),
        ({"pairedMsa": ">q\nMKTAY\n"}, {"pairedMsa": ">q\nMKTAY\n", "unpairedMsa": "", "templates": []}),
    ],
)
def test_alphafold_3_gets_both_alignments_and_templates_or_none(read, given, written):
    """Regression: AlphaFold 3 refuses a protein that has one of them only."""
    content = [{"name": "a", "sequences": [{"proteinChain": {"sequence": "MKTAY", "count": 1, **given}}]}]
    (made,) = to_alphafold3(read(content)[0])["sequences"]
    assert made["protein"] == {"id": ["A"], "sequence": "MKTAY", **written}


def test_words_and_numbers_of_old_yaml_are_texts(read):
    """Regression: NO was a truth value, and 017 was 15."""
    (made,) = read("""
version: 1
sequences:
  - protein: {id: NO, sequence: MKTAYIAKQRC, msa: empty}
  - ligand: {id: L, ccd: 017}
""")
    assert made.spec.entities[0].chain_ids == ("NO",)
    assert made.spec.entities[1].components == ("017",)


def test_a_bond_of_all_copies_becomes_one_bond_a_copy(read):
    content = job(protein(count=2), ligand("CCD_ATP", count=2), covalent_bonds=[bond()])
    made = to_alphafold3(read(content)[0])
    assert made["bondedAtomPairs"] == [[["A", 3, "CA"], ["C", 1, "PG"]], [["B", 3, "CA"], ["D", 1, "PG"]]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (job(protein(), ligand("[CH3:1]CO"), covalent_bonds=[bond(atom2=1)]), "names atoms and does not number them"),
        (job(protein(), constraint={"contact": []}), "has no contacts and pockets"),
        (job(protein(id=["a"])), "chain 'a': AlphaFold 3's format needs names of letters from A to Z"),
        (job(protein(id=["Zn2"])), "chain 'Zn2': AlphaFold 3's format needs names of letters from A to Z"),
    ],
)
def test_what_alphafold_3_cannot_hold_is_refused(read, content, says):
    with pytest.raises(InputError, match=says):
        to_alphafold3(read(content)[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("generated")
    write_files(made)
    return made


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES < 1000)
@given(content=jobs())
def test_a_generated_job_comes_back_from_each_format_that_can_hold_it(folder, dictionary, content):
    def read(content):
        (folder / "in.json").write_text(json.dumps(content))
        return read_jobs([folder / "in.json"], (1, 2), RULES, dictionary)

    try:
        jobs = read([content])
    except RefusedInputsError:
        return
    assert contents(read([to_protenix(job) for job in jobs])) == contents(jobs)
    try:
        written = to_alphafold3(jobs[0])
    except InputError:
        return
    (again,) = read(written)
    assert to_alphafold3(again) == written


def test_what_is_read_is_summed_up(read):
    (made,) = read(EVERYTHING)
    assert made.spec.summary == (
        "2 x protein 10 (A, B; SEP 3; MSA), DNA 4 (C; 5CM 2), RNA 4 (D; MSA), ligand NAG-NAG (E), "
        "2 x ligand CCO (F, G), 2 bonds"
    )
    contact = {f"{key}{end}": end for key in ("entity", "position") for end in (1, 2)}
    constraint = {
        "contact": [{**contact, "copy1": 1, "copy2": 1, "max_distance": 5}],
        "pocket": {
            "binder_chain": {"entity": 2, "copy": 1},
            "contact_residues": [{"entity": 1, "copy": 1, "position": 3}],
            "max_distance": 6,
        },
    }
    (made,) = read(job(protein(), protein(), constraint=constraint))
    assert made.spec.summary == "protein 10, protein 10, 1 contact, a pocket of 1 residue"


def test_plain_records_are_said_to_be_one_complex(read):
    plain = f">a\n{SEQUENCE}\n>b\n{OTHER}\n"
    (made,) = read(plain, "in.fasta")
    assert "its 2 records are read as 2 chains of one complex" in " ".join(made.notes)
    for text in (
        f">a\n{SEQUENCE}\n",
        f">protein|a\n{SEQUENCE}\n>protein|b\n{OTHER}\n",
        f">a\n{SEQUENCE}:{OTHER}\n>b\n{OTHER}\n",
    ):
        assert all("one complex" not in note for one in read(text, "in.fasta") for note in one.notes)


@pytest.mark.parametrize(("name", "content", "says"), [
    ("in.a3m", f">a\n{SEQUENCE}\n>b\nMK--YIAKQR\n", "an alignment, and not an input: write a job file that names it"),
    ("in.fasta", f"#10\t2\n>101\n{SEQUENCE}\n", "an alignment, and not an input: write a job file that names it"),
    ("in.csv", f"id,sequence\na,{SEQUENCE}\n", "tables are no inputs; write FASTA"),
    ("in.json", {"name": "a", "modelSeeds": [1], "sequences": []}, 'add "dialect": "alphafold3", "version": 2'),
])  # fmt: skip
def test_files_that_are_no_inputs_are_refused_once_with_a_way_out(read, name, content, says):
    with pytest.raises(RefusedInputsError) as refused:
        read(content, name)
    (problem,) = refused.value.problems
    assert says in problem


def test_a_packed_input_is_said_to_be_packed(tmp_path, dictionary):
    (tmp_path / "in.json").write_bytes(gzip.compress(b'[{"name": "a"}]'))
    with pytest.raises(RefusedInputsError, match="it is packed: unpack it"):
        read_jobs([tmp_path / "in.json"], (1,), InputRules(model="m"), dictionary)


def test_a_list_of_alphafold_3s_jobs_is_refused_with_the_way_out(read):
    job = {"dialect": "alphafold3", "version": 2, "name": "a", "modelSeeds": [1], "sequences": []}
    refused(read, [job], "AlphaFold 3's JSON is one job, not a list: give each job its own file")


def test_the_name_of_a_ligand_from_smiles_gets_no_suggestion_of_another_molecule(read):
    with pytest.raises(RefusedInputsError, match="Protenix writes this name for a ligand from SMILES"):
        read([{"name": "a", "sequences": [{"ligand": {"ligand": "CCD_l01", "count": 1}}]}])


def test_standard_input_is_said_not_to_be_read(dictionary):
    with pytest.raises(RefusedInputsError, match="standard input is not read"):
        read_jobs([Path("-")], None, RULES, dictionary)


@pytest.mark.parametrize(
    "constraint",
    [
        "bond:\n      atom1: [A, 4, CA]\n      atom2: [F, 1, C2]",
        "contact:\n      token1: [A, 4]\n      token2: [F, C2]",
    ],
)
def test_names_of_atoms_in_boltzs_smiles_are_refused(read, constraint):
    """Boltz numbers all atoms by canonical rank, Protenix those of each element: C6 of N#Cc1ccc(F)nc1 is two atoms."""
    text = BOLTZ[: BOLTZ.index("constraints:")] + f"constraints:\n  - {constraint}\n"
    refused(read, text, "name the atoms of a SMILES string differently, so 'C2' cannot be found", "in.yaml")


def test_a_complex_with_colons_under_the_name_of_a_type_is_told_so(read):
    says = "record 1: its header is read as the type of one chain (protein), and ':' separates chains"
    refused(read, f">protein\n{SEQUENCE}:{OTHER}\n", says, "in.fasta")


def test_typed_records_and_complexes_with_colons_are_not_mixed(read):
    """Regression: each became a job of its own, a ligand too."""
    text = f">A|protein\n{SEQUENCE}\n>L|smiles\nCCO\n>x\n{SEQUENCE}:{OTHER}\n"
    refused(read, text, "in.fasta: record 1 has a type", "in.fasta")


def test_a_single_job_of_the_alphafold_server_is_said_to_need_a_list(read):
    refused(read, {"dialect": "alphafoldserver", "name": "a", "modelSeeds": [], "sequences": []}, "put it into a list")


def test_bonds_to_smiles_ligands_are_not_written_for_alphafold3(read):
    bonds = [bond(atom2="C1")]
    (made,) = read(job(protein(), ligand("CCO"), covalent_bonds=bonds))
    with pytest.raises(InputError, match="has no bonds to ligands given as SMILES"):
        to_alphafold3(made)
