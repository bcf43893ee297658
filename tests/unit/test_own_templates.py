"""Template structures of a job: every dialect, the checks, the notes, and the identity."""

import gzip
import json
from dataclasses import replace

import gemmi
import pytest
from support import cases
from support.inputs import job, ligand, protein

from protenix_multiseed.commands.convert import convert
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.errors import InputError, RefusedInputsError
from protenix_multiseed.inputs import structures
from protenix_multiseed.inputs.content import content_of, files_read
from protenix_multiseed.inputs.convert import to_alphafold3, to_protenix
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.settings import InputRules, ReadSettings
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

READS = ReadSettings(template=True)
SEQUENCE = cases.SEQUENCE
PAIRS = {"queryIndices": [2, 3, 5], "templateIndices": [0, 1, 3]}


@pytest.fixture(scope="module")
def dictionary():
    return EmbeddedDictionary()


@pytest.fixture
def folder(tmp_path):
    """A folder with one chain (``one.cif``), and with two different chains (``two.cif``, ``two.pdb``)."""
    cases.write_template(tmp_path / "one.cif")
    two = gemmi.read_structure(str(tmp_path / "one.cif"))
    chain = two[0][0].clone()
    chain.name = "B"
    for residue in chain:
        residue.name, residue.subchain = "GLY", "B"
    two[0].add_chain(chain)
    two[0][0].name = "C"
    two.entities.clear()
    two.setup_entities()
    two.make_mmcif_document().write_file(str(tmp_path / "two.cif"))
    two.write_pdb(str(tmp_path / "two.pdb"))
    return tmp_path


@pytest.fixture
def read(folder, dictionary):
    def read(content, name="in.json", reads=READS):
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return read_jobs([folder / name], (1,), InputRules(model="m", reads=reads), dictionary)

    return read


def own(*templates, **more):
    return job({"proteinChain": {"sequence": SEQUENCE, "count": 1, "templates": list(templates), **more}})


def alphafold3(*templates):
    chain = {"id": "A", "sequence": SEQUENCE, "templates": list(templates)}
    return {"dialect": "alphafold3", "version": 4, "name": "a", "modelSeeds": [1], "sequences": [{"protein": chain}]}


def boltz(template, *more, ids="[A, B]"):
    sequences = [{"protein": {"id": ids, "sequence": SEQUENCE, "msa": "empty"}}, *more]
    lines = ["version: 1", f"sequences: {json.dumps(sequences)}".replace(json.dumps(ids), ids)]
    return "\n".join([*lines, f"templates: [{template}]"])


def refused(read, content, *says, name="in.json"):
    with pytest.raises(RefusedInputsError) as error:
        read(content, name)
    for text in says:
        assert text in str(error.value)


def template_of(made, entity=0):
    (one,) = made.spec.entities[entity].structures
    return structures.place(one, made.spec.entities[entity].sequence)


# Dialects


def test_alphafold_3s_templates_are_those_written_by_hand(read, folder):
    text = (folder / "one.cif").read_text()
    (folder / "one.cif.gz").write_bytes(gzip.compress(text.encode()))
    made = [
        read(content)[0]
        for content in (
            alphafold3({"mmcif": text, **PAIRS}),
            alphafold3({"mmcifPath": "one.cif", **PAIRS}),
            own({"structurePath": "one.cif", **PAIRS}, id=["A"]),
            own({"structure": text, **PAIRS}, id=["A"]),
        )
    ]
    assert all(content_of(one.spec, READS) == content_of(made[0].spec, READS) for one in made)
    assert template_of(made[0]).pairs == ((2, 0), (3, 1), (5, 3))
    (packed,) = read(alphafold3({"mmcifPath": "one.cif.gz", **PAIRS}))
    assert template_of(packed) == template_of(made[0])


def test_boltz_templates_are_those_written_by_hand(read):
    (made,) = read(boltz("{cif: one.cif}"), "in.yaml")
    (named,) = read(boltz("{cif: two.cif, chain_id: [B, A], template_id: [C, C]}"), "in.yaml")
    (pdb,) = read(boltz("{pdb: two.pdb, chain_id: [A, B]}"), "in.yaml")
    (numbered,) = read(boltz("{pdb: two.pdb, chain_id: [A, B], template_id: [C1, C1]}"), "in.yaml")
    (by_hand,) = read(own({"structurePath": "one.cif"}, count=2, id=["A", "B"], unpairedMsa=""))
    assert content_of(made.spec, READS) == content_of(by_hand.spec, READS)
    assert template_of(made).pairs == tuple((place + 2, place) for place in range(20))
    assert template_of(named).chain.name == template_of(numbered).chain.name == "C"
    assert template_of(pdb).chain.name == "C", "the chain that aligns best"


def test_a_boltz_template_goes_to_the_chains_that_it_names(read):
    more = [
        {"protein": {"id": "P", "sequence": "GHKLMNPQRS", "msa": "empty"}},
        {"ligand": {"id": "L", "smiles": "CCO"}},
    ]
    (made,) = read(boltz("{cif: one.cif, chain_id: P}, {cif: one.cif, chain_id: [A, B]}", *more), "in.yaml")
    assert [len(getattr(one, "structures", ())) for one in made.spec.entities] == [1, 1, 0]
    for template, says in (
        ("{cif: one.cif}", "templates[0]: the job has 2 proteins: name the chains of one in chain_id"),
        ("{cif: one.cif, chain_id: A}", "templates[0].chain_id: Protenix gives all copies of a protein the same"),
        ("{cif: two.cif, chain_id: [A, B], template_id: [B, C]}", "name all of A, B with one chain of the template"),
        ("{cif: one.cif, chain_id: [A, B, L]}", "templates[0].chain_id: no protein chain is called 'L'"),
        ("{cif: one.cif, chain_id: [A, B], template_id: C}", "template_id needs chain_id with as many chains"),
        ("{cif: one.cif, pdb: two.pdb}", "expected either cif or pdb"),
        ("{cif: one.cif, force: true, threshold: 2}", "force and threshold need a potential"),
        ("{cif: two.cif, chain_id: [A, B], template_id: [Z, Z]}", "no protein chain 'Z'; protein chains: C, B"),
    ):
        refused(read, boltz(template, *more), says, name="in.yaml")


@pytest.mark.parametrize(("more", "says"), [({}, True), ({"unpairedMsa": ""}, False)])
def test_a_job_with_templates_and_no_alignment_gets_empty_ones_for_alphafold_3_and_a_note(folder, capsys, more, says):
    (folder / "in.json").write_text(json.dumps(own({"structurePath": "one.cif", **PAIRS}, id=["A"], **more)))
    convert(load_config({}), [folder / "in.json"], "alphafold3", folder / f"converted{says}.json")
    assert ("entity 1 has templates and no alignment" in capsys.readouterr().err) == says


@pytest.mark.parametrize("write", [to_protenix, to_alphafold3])
def test_a_converted_job_has_the_same_templates(read, write):
    (made,) = read(own({"structurePath": "one.cif", **PAIRS}, id=["A"]))
    written = write(made)
    (again,) = read([written] if write is to_protenix else written)
    if write is to_alphafold3:  # it takes templates only with alignments, so the job without any gets empty ones
        polymer = again.spec.entities[0]
        assert (polymer.paired.text, polymer.unpaired.text) == ("", "")
        again = replace(again, spec=replace(again.spec, entities=(replace(polymer, paired=None, unpaired=None),)))
    assert content_of(again.spec, READS) == content_of(made.spec, READS)


def test_what_alphafold_3_cannot_hold_is_refused(read):
    for one in ({"structurePath": "one.cif"}, {"structurePath": "two.cif", "chain": "C", **PAIRS}):
        with pytest.raises(InputError, match=r"templates\[0\]: AlphaFold 3's format needs an mmCIF file of one chain"):
            to_alphafold3(read(own(one))[0])
    assert to_protenix(read(own({"structurePath": "two.cif", "chain": "C"}))[0])["sequences"][0]["proteinChain"][
        "templates"
    ][0]["chain"] == "C"  # fmt: skip


# Checks


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ({"structurePath": "no.cif"}, "templates[0]: no.cif: no such file"),
        ({"structurePath": "in.json"}, "templates[0]: "),
        ({"structure": "data_a\n_a.b c\n"}, "templates[0]: the structure has no atoms"),
        ({"structure": "data_a\nloop_\n_a.b\n_a.c\n1\n"}, "templates[0]: not a structure: "),
        ({"structurePath": "one.cif", "structure": "data_a"}, "expected either structure or structurePath"),
        ({}, "expected either structure or structurePath"),
        ({"structurePath": "two.cif", "chain": "Z"}, "no protein chain 'Z'; protein chains: C, B"),
        ({"structurePath": "two.cif", **PAIRS}, "the structure has the protein chains C, B: indices belong to one"),
        ({"structurePath": "one.cif", "queryIndices": [1]}, "must have the same number of indices"),
        ({"structurePath": "one.cif", "queryIndices": [], "templateIndices": []}, "are empty: leave both out"),
        ({"structurePath": "one.cif", "queryIndices": [24], "templateIndices": [0]}, "has the indices 0 to 23"),
        ({"structurePath": "one.cif", "queryIndices": [-1], "templateIndices": [0]}, "has the indices 0 to 23"),
        ({"structurePath": "one.cif", "queryIndices": [1, 1], "templateIndices": [0, 1]}, "1 is given twice"),
        ({"structurePath": "one.cif", "queryIndices": [1], "templateIndices": [20]}, "has the indices 0 to 19"),
        ({"structurePath": "one.cif", "queryIndices": [1, 2], "templateIndices": [-1, 0]}, "has the indices 0 to 19"),
        ({"structurePath": "dna.cif"}, "the structure has no protein chain"),
        ({"structurePath": "one.cif", "chian": "A"}, "unknown key; did you mean 'chain'"),
    ],
    ids=str,
)
def test_what_a_template_cannot_be_is_refused(read, folder, template, says):
    structure = gemmi.read_structure(str(folder / "one.cif"))
    for residue in structure[0][0]:
        residue.name = "DA"
    structure.entities.clear()
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(folder / "dna.cif"))
    refused(read, own(template), "in.json[0] 'a': sequences[0].proteinChain.templates[0]", says)


def test_a_wrong_sequence_is_refused_before_a_template_is_aligned_to_it(read):
    refused(read, own({"structurePath": "one.cif"}, sequence="MKTA1é"), "sequence: '1' at position 5 is not a letter")


def test_a_chain_has_the_authors_name_but_in_boltz_its_label(read, folder):
    document = gemmi.cif.read(str(folder / "two.cif"))
    labels = document[0].find("_atom_site.", ["label_asym_id", "auth_asym_id"])
    for row in labels:
        row[1] = "A" if row[0] == "B" else "H"
    assert {row[0] for row in labels} == {"A", "B"}
    document.write_file(str(folder / "mixed.cif"))
    by_author = {name: template_of(read(own({"structurePath": "mixed.cif", "chain": name}))[0]) for name in "AHB"}
    assert [one.chain.label for one in by_author.values()] == ["B", "A", "B"]
    names = "chain_id: [A, B], template_id"
    by_label = {
        name: template_of(read(boltz(f"{{cif: mixed.cif, {names}: [{name}, {name}]}}"), "in.yaml")[0]) for name in "ABH"
    }
    assert [one.chain.label for one in by_label.values()] == ["A", "B", "A"]


def test_files_of_templates_are_not_needed_if_templates_are_not_read(read):
    (made,) = read(own({"structurePath": "no.cif"}), reads=ReadSettings())
    assert "protein 1: its template structures have no effect without --template" in made.notes
    assert list(files_read(made.spec, ReadSettings())) == []


def test_short_proteins_have_no_template_and_say_so(read):
    short = {"proteinChain": {"sequence": "MKTA", "count": 1, "templates": [{"structurePath": "one.cif"}]}}
    (made,) = read(job(short, ligand("CCO")))
    assert "protein 1: its template structures have no effect, because it has fewer than 5 residues" in made.notes


# Identity


def test_the_content_of_the_files_is_part_of_the_identity(read, folder):
    (made,) = read(own({"structurePath": "one.cif"}))
    before = content_of(made.spec, READS)
    (folder / "renamed.cif").write_bytes((folder / "one.cif").read_bytes())
    (renamed,) = read(own({"structurePath": "renamed.cif"}))
    assert content_of(renamed.spec, READS) == before
    assert [file.path.name for file in files_read(made.spec, READS)] == ["one.cif"]
    (mapped,) = read(own({"structurePath": "one.cif", **PAIRS}))
    (without,) = read(job(protein()))
    text = (folder / "one.cif").read_text()
    (folder / "one.cif").write_text(text.replace("ATOM", "ATOM ", 1) + "# changed\n")
    (changed,) = read(own({"structurePath": "one.cif"}))
    contents = [content_of(one.spec, READS) for one in (mapped, without, changed)]
    assert before not in contents
    assert "structures" not in json.dumps(content_of(made.spec, ReadSettings()))
