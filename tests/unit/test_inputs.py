import json
import os
import re
from pathlib import Path

import pytest
from support.inputs import SEQUENCE, bond, job, ligand, protein

from protenix_multiseed.errors import RefusedInputsError
from protenix_multiseed.inputs import alignments
from protenix_multiseed.inputs import read as read_module
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.settings import InputRules, ReadSettings
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary
from protenix_multiseed.upstream.job_dict import to_upstream


@pytest.fixture(scope="module")
def dictionary():
    return EmbeddedDictionary()


@pytest.fixture
def read(tmp_path, dictionary):
    def read(content, seeds=(1,), rules=None, name="in.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_jobs([path], seeds, rules or InputRules(model="m"), dictionary)

    (tmp_path / "good.a3m").write_text(f">query\n{SEQUENCE}\n>hit\nMK--yYIAKQRgg\n")
    (tmp_path / "short.a3m").write_text(f">query\n{SEQUENCE}\n>hit\nMKT\n")
    (tmp_path / "other.a3m").write_text(">query\nWWYYFFLLII\n")
    (tmp_path / "bytes.a3m").write_bytes(b">query\nMK\xff\n")
    (tmp_path / "plain.a3m").write_text("MKTAYIAKQR\n")
    (tmp_path / "flat.sdf").write_text("nothing")
    return read


ATP = ligand("CCD_ATP")
BAD = {
    "not JSON": ('[{"name": "a",]', "in.json: line 1, column 15: not valid JSON"),
    "not a list": ({"name": "a"}, "the top level is one object: expected a list of jobs"),
    "empty list": ([], "the top level is an empty list"),
    "nested too deeply": ("[" * 100_000, "in.json: "),
    "NaN": ('[{"name": NaN}]', "NaN is not JSON"),
    "comma in a list": ('[{"name": "a", "sequences": [1, 2,\n]}]', "not valid JSON: a comma too many before ']'"),
    "comma in an object": ('[{"name": "a",\n }]', "not valid JSON: a comma too many before '}'"),
    "end": ('[{"name": ', "not valid JSON: Expecting value"),
    "key twice": ('[{"name": "a", "name": "b"}]', "the key 'name' is given twice"),
    "job not an object": ([3], "in.json[0]: job: expected an object, found number"),
    "no sequences": ([{"name": "a"}], "in.json[0] 'a': sequences: missing"),
    "no entities": (job(), "sequences: empty"),
    "unknown key": (
        job(protein(modification=[])),
        "proteinChain.modification: unknown key; did you mean 'modifications'",
    ),
    "unknown key of the job": ([{"name": "a", "sequences": [ATP], "seeds": [1]}], "seeds: unknown key; "),
    "two kinds": (job({**protein(), **ATP}), "sequences[0]: expected exactly one of proteinChain"),
    "count of zero": (job(protein(count=0)), "count: input should be greater than or equal to 1, found 0"),
    "ids and count": (job(protein(count=2, id=["A"])), "1 ids for count 2"),
    "id twice": (job(protein(id=["A"]), ligand("CCD_ATP", id=["A"])), "'A' is also an id of sequences[0].proteinChain"),
    "wrong letter": (job({"proteinChain": {"sequence": "MKB", "count": 1}}), "'B' at position 3 is not a letter"),
    "lower case": (
        job({"dnaSequence": {"sequence": "ACgT", "count": 1}}),
        "'g' at position 3 is not a letter of a dna sequence; write it in upper case",
    ),
    "T in RNA": (job({"rnaSequence": {"sequence": "ACT", "count": 1}}), "'T' at position 3"),
    "unknown component": (job(ligand("CCD_QQQQQ")), "component 'QQQQQ' is not in the chemical dictionary"),
    "empty component": (job(ligand("CCD_UNL")), "component 'UNL' has no atoms"),
    "ion with prefix": (job({"ion": {"ion": "CCD_MG", "count": 1}}), "did you mean 'MG'"),
    "ion in lower case": (job({"ion": {"ion": "mg", "count": 1}}), "did you mean 'MG'"),
    "SMILES syntax": (job(ligand("C1CC(")), "is not a SMILES string RDKit can read"),
    "SMILES valence": (job(ligand("C(C)(C)(C)(C)C")), "Explicit valence"),
    "ligand file missing": (job(ligand("FILE_no.sdf")), "no.sdf: no such file"),
    "ligand file kind": (job(ligand("FILE_good.a3m")), "expected a file ending in .mol, .sdf, .pdb, .mol2"),
    "ligand file broken": (job(ligand("FILE_flat.sdf")), "flat.sdf cannot be read as a molecule"),
    "modification past the end": (
        job(protein(modifications=[{"ptmType": "CCD_SEP", "ptmPosition": 11}])),
        "ptmPosition: 11 is past the end",
    ),
    "unknown modification": (
        job(protein(modifications=[{"ptmType": "CCD_QQQQQ", "ptmPosition": 1}])),
        "modifications[0].ptmType: component 'QQQQQ'",
    ),
    "MSA missing": (job(protein(pairedMsaPath="no.a3m")), "pairedMsaPath: no.a3m: no such file"),
    "MSA of another sequence": (job(protein(unpairedMsaPath="other.a3m")), "none is similar to it"),
    "MSA not text": (job(protein(unpairedMsaPath="bytes.a3m")), "line 2 has a character that is not ASCII"),
    "MSA not a3m": (job(protein(unpairedMsaPath="plain.a3m")), "does not start with '>'"),
    "MSA cut short": (job(protein(unpairedMsaPath="short.a3m")), "record 2 has 3 aligned columns, the first 10"),
    "MSA text as a path": (job(protein(unpairedMsaPath=">q\n" + "MKTAYIAKQR" * 500)), "no such file"),
    "path of an unknown user": (job(protein(unpairedMsaPath="~nobody-of-that-name/x.a3m")), "no such file"),
    "path with a NUL": (job(protein(unpairedMsaPath="a\0b")), "no such file"),
    "inline MSA of another": (
        job(protein(unpairedMsa=">q\nMKT\n")),
        "differs from it at position 4 (3 and 10 residues)",
    ),
    "old MSA folder": (
        job(protein(msa={"precomputed_msa_dir": "nowhere"})),
        "pairing.a3m or non_pairing.a3m in nowhere: no such file",
    ),
    "bond to no entity": (
        job(protein(), ATP, covalent_bonds=[bond(entity2=3)]),
        "entity2: 3: the job has entities 1 to 2",
    ),
    "bond to no copy": (job(protein(), ATP, covalent_bonds=[bond(copy1=2)]), "copy1: 2: entity 1 has copies 1 to 1"),
    "bond to no residue": (
        job(protein(), ATP, covalent_bonds=[bond(position1=99)]),
        "position1: 99: entity 1 has positions 1 to 10",
    ),
    "bond to no atom": (
        job(protein(), ATP, covalent_bonds=[bond(atom2="PX")]),
        "atom 'PX' does not exist at position 1 of entity 2; it has P",
    ),
    "bond to atom number": (
        job(protein(), ATP, covalent_bonds=[bond(atom2=3)]),
        "atoms are numbered only in a SMILES or FILE_ ligand",
    ),
    "bond to unmapped atom": (
        job(protein(), ligand("[C:1]CO"), covalent_bonds=[bond(atom2=2)]),
        "no atom 2 in the SMILES string",
    ),
    "bond of unequal counts": (
        job(protein(count=2), ATP, covalent_bonds=[bond()]),
        "entity1 has 2 chains and entity2 1",
    ),
    "contact in one chain": (
        job(
            protein(),
            constraint={
                "contact": [
                    {
                        "entity1": 1,
                        "copy1": 1,
                        "position1": 1,
                        "entity2": 1,
                        "copy2": 1,
                        "position2": 2,
                        "max_distance": 8,
                    }
                ]
            },
        ),
        "joins two different chains",
    ),
    "pocket on its binder": (
        job(
            protein(),
            ATP,
            constraint={
                "pocket": {
                    "binder_chain": {"entity": 2, "copy": 1},
                    "max_distance": 6,
                    "contact_residues": [{"entity": 2, "copy": 1, "position": 1}],
                }
            },
        ),
        "lies on the binder chain itself",
    ),
    "name of a parent": ([{"name": "../a", "sequences": [ATP]}], "is no name that every program reads back"),
    "hidden name": ([{"name": ".a", "sequences": [ATP]}], "is no name that every program reads back"),
    "name with a newline": ([{"name": "a\nb", "sequences": [ATP]}], "is no name that every program reads back"),
    "name of the run's folder": ([{"name": "protenix-ms", "sequences": [ATP]}], "choose another"),
    "long name": ([{"name": "a" * 151, "sequences": [ATP]}], "at most 150"),
    "names that clash": ([*job(ATP), {"name": "A", "sequences": [ATP]}], "also the name of in.json[0] 'a'"),
    "negative seed": (job(ATP, modelSeeds=[-1]), "modelSeeds: seed -1 is outside 0..4294967295"),
    "seed twice": (job(ATP, modelSeeds=[1, "1"]), "modelSeeds: seed 1 is given twice"),
    "seed not a number": (job(ATP, modelSeeds=["x"]), "modelSeeds: 'x' is not a whole number"),
}


@pytest.mark.parametrize(("content", "says"), BAD.values(), ids=BAD)
def test_invalid_jobs_are_refused_with_a_message(read, content, says):
    with pytest.raises(RefusedInputsError) as error:
        read(content, seeds=None)
    assert says in str(error.value)
    assert "in.json" in str(error.value)


def test_all_problems_are_reported_at_once(read):
    with pytest.raises(RefusedInputsError) as error:
        read([*job(protein(pairedMsaPath="no.a3m"), ligand("CCD_QQQQQ")), {"name": "b"}])
    assert len(error.value.problems) == 3


def test_a_job_with_too_many_tokens_for_the_model_is_refused(read):
    rules = InputRules(model="protenix-v2", max_tokens=20)
    assert read(job(protein(count=2)), rules=rules)
    with pytest.raises(RefusedInputsError, match="about 30 tokens: protenix-v2 takes at most 20"):
        read(job(protein(count=3)), rules=rules)


def test_everything_that_upstream_accepts_is_read(read, tmp_path):
    content = [
        {
            "name": "all kinds-1.2_3",
            "modelSeeds": [7, "8"],
            "assembly_id": "1",
            "sequences": [
                protein(
                    unpairedMsaPath="good.a3m",
                    count=2,
                    id=["A", "B2"],
                    label_entity_id="1",
                    label_asym_id=["A", "B"],
                    modifications=[{"ptmType": "CCD_SEP", "ptmPosition": 3}],
                ),
                {"dnaSequence": {"sequence": "ACGTXIN", "count": 1}},
                {
                    "rnaSequence": {
                        "sequence": "ACGUXIN",
                        "count": 1,
                        "modifications": [{"modificationType": "CCD_PSU", "basePosition": 1}],
                    }
                },
                ligand("CCD_NAG_BMA"),
                ligand("[CH3:1]CO"),
                {"ion": {"ion": "NA", "count": 3}},
            ],
            "covalent_bonds": [
                {
                    "left_entity": "1",
                    "left_position": "3",
                    "left_atom": "OG",
                    "left_copy": 1,
                    "right_entity": 5,
                    "right_position": 1,
                    "right_atom": 1,
                },
                {"entity1": 4, "position1": 1, "atom1": "O4", "entity2": 4, "position2": 2, "atom2": "C1"},
            ],
            "constraint": {
                "contact": [
                    {
                        "entity1": 1,
                        "copy1": 1,
                        "position1": 1,
                        "entity2": 2,
                        "copy2": 1,
                        "position2": 2,
                        "max_distance": 8,
                        "atom1": "CA",
                        "atom2": "P",
                    }
                ]
            },
        }
    ]
    (made,) = read(content, seeds=None)
    assert made.seeds == (7, 8)
    spec = to_upstream(made.spec)
    assert spec["sequences"][0]["proteinChain"]["unpairedMsaPath"] == str(tmp_path / "good.a3m")
    assert (spec["covalent_bonds"][0]["entity1"], spec["covalent_bonds"][0]["copy1"]) == (1, 1)
    assert "label_entity_id" not in spec["sequences"][0]["proteinChain"]


def test_count_defaults_to_the_number_of_ids(read):
    (made,) = read(job({"proteinChain": {"sequence": SEQUENCE, "id": ["X", "Y"]}}, {"ion": {"ion": "NA"}}))
    assert [entity.copies for entity in made.spec.entities] == [2, 1]
    assert made.spec.entities[0].chain_ids == ("X", "Y")


def test_seeds_of_the_run_override_seeds_of_the_job(read):
    assert read(job(ATP, modelSeeds=[5]), seeds=(1, 2))[0].seeds == (1, 2)
    assert read(job(ATP, modelSeeds=[5]), seeds=None)[0].seeds == (5,)
    assert read(job(ATP, modelSeeds=[]), seeds=None)[0].seeds == (101,)


def test_the_old_msa_field_is_read(read, tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "non_pairing.a3m").write_text(f">query\n{SEQUENCE}\n")
    (made,) = read(job(protein(msa={"precomputed_msa_dir": "old", "pairing_db": "uniref100"})))
    assert to_upstream(made.spec)["sequences"][0]["proteinChain"] == {
        "sequence": SEQUENCE,
        "count": 1,
        "unpairedMsaPath": str(folder / "non_pairing.a3m"),
    }


def test_files_must_exist_only_if_they_are_read(read):
    assert read(
        job(protein(pairedMsaPath="no.a3m", templatesPath="no.hhr")),
        rules=InputRules(model="m", reads=ReadSettings(msa=False)),
    )
    with pytest.raises(RefusedInputsError, match=r"templatesPath: no.hhr: no such file"):
        read(job(protein(templatesPath="no.hhr")), rules=InputRules(model="m", reads=ReadSettings(template=True)))


def test_paths_are_tried_from_the_file_then_from_the_working_folder(read, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.a3m").write_text(f">query\n{SEQUENCE}\n")
    monkeypatch.chdir(elsewhere)
    (made,) = read(job(protein(pairedMsaPath="mine.a3m")))
    assert made.spec.entities[0].paired.file.path == elsewhere / "mine.a3m"


def test_folders_are_searched_and_missing_or_repeated_files_are_refused(tmp_path, dictionary):
    (tmp_path / "sub").mkdir()
    for name in ("b", "a"):
        (tmp_path / "sub" / f"{name}.json").write_text(json.dumps([{"name": name, "sequences": [ATP]}]))
    rules = InputRules(model="m")
    assert [made.name for made in read_jobs([tmp_path], (1,), rules, dictionary)] == ["a", "b"]
    with pytest.raises(RefusedInputsError, match="no such file or folder"):
        read_jobs([tmp_path / "no.json"], (1,), rules, dictionary)
    with pytest.raises(RefusedInputsError, match="named twice"):
        read_jobs([tmp_path, tmp_path / "sub" / "a.json"], (1,), rules, dictionary)


@pytest.mark.parametrize(("text", "message"), [
    ("", "empty.fasta: the file is empty"), ("MKTAYIAKQR\n", "empty.fasta: not an input: neither JSON, nor FASTA"),
    (">a\nMKT-AYI\n", "is it an alignment?"),
], ids=["empty", "no header", "alignment"])  # fmt: skip
def test_a_file_of_a_folder_with_the_ending_of_an_input_is_read_or_an_error(tmp_path, dictionary, text, message):
    (tmp_path / "good.fasta").write_text(f">protein\n{SEQUENCE}\n")
    (tmp_path / "empty.fasta").write_text(text)
    (tmp_path / "README").write_text("about these files")
    told = []
    with pytest.raises(RefusedInputsError, match=re.escape(message)):
        read_jobs([tmp_path], (1,), InputRules(model="m"), dictionary, told.append)
    assert told == ["skipped 1 file in the input folders (not inputs): README"]


def test_jobs_of_one_name_are_told_apart_by_the_paths_of_their_files(tmp_path, dictionary):
    for folder in ("d1", "d2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.fasta").write_text(f">protein\n{SEQUENCE}\n")
    with pytest.raises(RefusedInputsError, match=re.escape(f"also the name of {tmp_path / 'd1' / 'x.fasta'}[0] 'x'")):
        read_jobs([tmp_path / "d1", tmp_path / "d2"], (1,), InputRules(model="m"), dictionary)


def test_a_link_has_its_own_name_and_folder(tmp_path, dictionary):
    """Nextflow and DVC stage inputs as links. Regression: the name and the folder were those of the file behind it."""
    (tmp_path / "store").mkdir()
    (tmp_path / "jobs").mkdir()
    stored = {
        "blob1": f">protein\n{SEQUENCE}\n",
        "blob2": json.dumps(job(protein(templatesPath="hits.a3m"), name="own name")),
        "blob3": f">{SEQUENCE}\n{SEQUENCE}\n",
    }
    for name, text in stored.items():
        (tmp_path / "store" / name).write_text(text)
    for name, target in (("kras.fasta", "blob1"), ("hras.fasta", "blob1"), ("x.json", "blob2"), ("hits.a3m", "blob3")):
        (tmp_path / "jobs" / name).symlink_to(tmp_path / "store" / target)
    rules = InputRules(model="m")
    made = read_jobs([tmp_path / "jobs"], (1,), rules, dictionary)
    assert [one.name for one in made] == ["hras", "kras", "own name"]
    assert made[2].spec.entities[0].templates.file.path == tmp_path / "jobs" / "hits.a3m"
    (tmp_path / "other").symlink_to("jobs")  # the same entries of the same folder
    for twice in (tmp_path / "jobs" / ".." / "jobs" / "x.json", tmp_path / "other" / "x.json"):
        with pytest.raises(RefusedInputsError, match="named twice"):
            read_jobs([tmp_path / "jobs" / "x.json", twice], (1,), rules, dictionary)


def test_an_a3m_as_colabfold_writes_it_is_read(read):
    text = f"#10\t1\n>101\n{SEQUENCE[:5]}\n{SEQUENCE[5:]}\n\n>hit\nMKTggAYIAK--\n".replace("--\n", "Q-\n")
    assert read(job(protein(unpairedMsa=text)))


def test_empty_values_count_as_missing_like_upstream(read):
    assert read(job(protein(id=[]), constraint={"pocket": {}}))


def test_a_contacts_atom_number_reaches_upstream_as_a_number(read):
    contact = {"entity1": 1, "copy1": 1, "position1": 1, "atom1": "CA"}
    contact |= {"entity2": 2, "copy2": 1, "position2": 1, "atom2": "1", "max_distance": 5}
    (made,) = read(job(protein(), ligand("[CH3:1]CO"), constraint={"contact": [contact]}))
    assert to_upstream(made.spec)["constraint"]["contact"][0]["atom2"] == 1


def test_an_inline_msa_overrides_the_old_folder(read, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "pairing.a3m").write_text(f">query\n{SEQUENCE}\n")
    (made,) = read(job(protein(unpairedMsa=f">query\n{SEQUENCE}\n", msa={"precomputed_msa_dir": "old"})))
    assert made.spec.entities[0].paired is None
    assert "sequences[0].proteinChain: msa has no effect, because unpairedMsa is given" in made.notes


def test_a_path_that_protenix_does_not_read_is_said(read):
    text = f">query\n{SEQUENCE}\n"
    (made,) = read(job(protein(unpairedMsa=text, unpairedMsaPath="good.a3m", pairedMsaPath="good.a3m")))
    note = "sequences[0].proteinChain: unpairedMsaPath has no effect, because unpairedMsa is given"
    assert [one for one in made.notes if "no effect" in one] == [note]


def test_results_of_earlier_runs_are_not_read_as_inputs(tmp_path, dictionary):
    (tmp_path / "in.json").write_text(json.dumps([{"name": "a", "sequences": [ATP]}]))
    results = tmp_path / "output"
    for path in (results / "protenix-ms" / "run.json", results / "a" / "seed_1" / "record.json"):
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    assert [made.name for made in read_jobs([tmp_path], (1,), InputRules(model="m"), dictionary)] == ["a"]


def test_inputs_are_found_among_results_in_the_same_folder(tmp_path, dictionary):
    """Regression: ``predict jobs --out jobs`` worked only once. Then the whole folder counted as results."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps([{"name": name, "sequences": [ATP]}]))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "c.json").write_text(json.dumps([{"name": "c", "sequences": [ATP]}]))
    for path in ("protenix-ms/run.json", "protenix-ms/runs/1.json", "a/seed_1/record.json", "b/ensemble.json",
                 "b/best_summary_confidence.json"):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("{}")
    names = [made.name for made in read_jobs([tmp_path], (1,), InputRules(model="m"), dictionary)]
    assert names == ["a", "b", "c"]


def test_a_configuration_in_a_folder_of_inputs_is_no_input(tmp_path, dictionary):
    (tmp_path / "in.json").write_text(json.dumps([{"name": "a", "sequences": [ATP]}]))
    (tmp_path / "run.yaml").write_text("# settings\nmodel: demo\nseeds: 1-5\n")
    (tmp_path / "boltz.yaml").write_text("version: 1\nsequences:\n  - ligand: {id: A, ccd: ATP}\n")
    (tmp_path / "b.fasta").write_text(">x\nMKT\n")
    names = {made.name for made in read_jobs([tmp_path], (1,), InputRules(model="m"), dictionary)}
    assert names == {"a", "boltz", "b"}


def test_files_of_a_folder_that_are_no_inputs_are_named_once(tmp_path, dictionary):
    alignment = {"sequence": SEQUENCE, "count": 1, "unpairedMsaPath": "used.a3m"}
    (tmp_path / "in.json").write_text(json.dumps([{"name": "a", "sequences": [{"proteinChain": alignment}]}]))
    (tmp_path / "used.a3m").write_text(f">q\n{SEQUENCE}\n")
    told = []
    read_jobs([tmp_path], (1,), InputRules(model="m"), dictionary, told.append)
    assert told == []
    for name in ("d.txt", "c.a3m", "b.yaml", "e.png"):
        (tmp_path / name).write_text("steps: 2\n")
    read_jobs([tmp_path], (1,), InputRules(model="m"), dictionary, told.append)
    assert told == ["skipped 4 files in the input folders (not inputs): b.yaml, c.a3m, d.txt, ..."]
    read_jobs([tmp_path / "in.json"], (1,), InputRules(model="m"), dictionary, told.append)
    assert len(told) == 1


def test_inputs_of_a_folder_in_capital_letters_are_read_and_hidden_ones_are_not(tmp_path, dictionary):
    """Regression: FASTA files named .FASTA were skipped, and an editor's hidden copy was a second job."""
    for name in ("a.FASTA", "b.Fa", ".c.fasta", "._a.FASTA", ".copies/d.fasta", "sub/e.YAML"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f">x\n{SEQUENCE}\n")
    (tmp_path / "sub" / "e.YAML").write_text(f"sequences:\n- protein: {{id: A, sequence: {SEQUENCE}, msa: empty}}\n")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    told = []
    made = read_jobs([tmp_path], (1,), InputRules(model="m"), dictionary, told.append)
    assert sorted(one.name for one in made) == ["a", "b", "e"]
    assert told == []
    (tmp_path / "run.YML").write_text("steps: 2\n")
    read_jobs([tmp_path], (1,), InputRules(model="m"), dictionary, told.append)
    assert told == ["skipped 1 file in the input folders (not inputs): run.YML"]


def test_a_named_pipe_is_refused(tmp_path, dictionary, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RefusedInputsError, match="pipe: neither a file nor a folder"):
        read_jobs([tmp_path / "pipe"], None, InputRules(model="m"), dictionary)
    with pytest.raises(RefusedInputsError, match="pipe: no such file"):
        read(job(protein(unpairedMsaPath="pipe")))


def test_files_that_are_too_large_are_refused(tmp_path, dictionary, read):
    for name, size in (("big.json", 2**28 + 1), ("big.a3m", 2**31 + 1), ("big.sdf", 2**24 + 1)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    with pytest.raises(RefusedInputsError, match=r"big.json: 268435457 bytes, at most .* split it"):
        read_jobs([tmp_path / "big.json"], None, InputRules(model="m"), dictionary)
    with pytest.raises(RefusedInputsError, match=r"big.a3m: 2147483649 bytes, at most"):
        read(job(protein(unpairedMsaPath="big.a3m")))
    with pytest.raises(RefusedInputsError, match=r"big.sdf: 16777217 bytes, at most"):
        read(job(ligand("FILE_big.sdf")))


def test_content_over_its_limits_is_refused_with_the_limit(tmp_path, read, monkeypatch):
    refusals = {
        "[" + "{}," * 2_000_001 + "{}]": "values, at most 2000000 are allowed",
        json.dumps(
            job(protein(unpairedMsa=f">q\n{SEQUENCE}\n>r\n{'a' * 3 * 2**20}\n"))
        ): "line 4 is longer than 1048576",
    }
    for content, says in refusals.items():
        with pytest.raises(RefusedInputsError, match=says):
            read(content)
    monkeypatch.setattr(read_module, "MAX_JOBS", 2)
    with pytest.raises(RefusedInputsError, match="more than 2 jobs: split it into several files"):
        read([{**one, "name": name} for name in "abc" for one in job(ATP)])
    monkeypatch.setattr(alignments, "MAX_ROWS", 3)
    with pytest.raises(RefusedInputsError, match="more than 3 rows"):
        read(job(protein(unpairedMsa=f">q\n{SEQUENCE}\n" * 4)))
    assert read(job(protein(unpairedMsa=">q[{,:\n" + SEQUENCE + "\n")))  # signs in a string are no values


def test_files_of_the_same_name_are_told_apart_by_their_folders(tmp_path, monkeypatch):
    """Regression: a message named in.fasta, and the folder held two of them."""
    for folder, text in (("one", ">a\nMKT\n"), ("two", ">a\nMBT\n"), ("three", ">b\nMKT\n")):
        (tmp_path / "all" / folder).mkdir(parents=True)
        (tmp_path / "all" / folder / "in.fasta").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RefusedInputsError) as refused:
        read_jobs([Path("all")], None, InputRules(model="m"), EmbeddedDictionary())
    wrong, *doubles = refused.value.problems
    assert wrong.startswith("all/two/in.fasta[0] 'in': record 1.sequence: 'B' at position 2")
    assert all("all/one/in.fasta[0]" in double and "three/in.fasta" in doubles[0] for double in doubles)
