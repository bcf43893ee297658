"""Inputs of any content are read or refused with a message: no traceback, no hang, no file written.

What is accepted can be featurized.

``PROTENIX_MS_EXAMPLES`` sets how many inputs each test makes; ``make torture`` makes 20,000 in all.
"""

import contextlib
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import gemmi
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.cases import SEQUENCE, write_template
from support.components import ACRYLAMIDE

from protenix_multiseed.config_loading import load_config
from protenix_multiseed.errors import ProtenixMsError
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.inputs.seeds import parse_seeds
from protenix_multiseed.settings import FeatureSettings, InputRules, ReadSettings
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary
from protenix_multiseed.upstream.environment import prepare

EXAMPLES = int(os.environ.get("PROTENIX_MS_EXAMPLES", "60"))
SECONDS = 10
fuzzed = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES < 1000)
RULES = InputRules(model="m", max_tokens=2560, reads=ReadSettings(msa=True, rna_msa=True, template=True))


@pytest.fixture(scope="module")
def dictionary():
    made = EmbeddedDictionary()
    prepare(made)
    return made


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as made:
        inner = Path(made) / "inner"
        inner.mkdir()
        yield inner


def within_time(function, *arguments):
    """Call a function. Returns its result, and the message if it refused; fails if it was slow."""
    start = time.monotonic()
    result, message = None, None
    with contextlib.suppress(ProtenixMsError):
        try:
            result = function(*arguments)
        except ProtenixMsError as error:
            message = str(error)
            raise
    assert time.monotonic() - start < SECONDS
    assert message is None or (message.strip() and "Traceback" not in message)
    return result, message


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A structure as PDB and as mmCIF text."""
    path = tmp_path_factory.mktemp("template") / "template.cif"
    write_template(path)
    return gemmi.read_structure(str(path)).make_pdb_string(), path.read_text()


def featurized(job, *, with_templates=False):
    from protenix_multiseed.features.featurize import featurize

    reads = replace(RULES.reads, template=with_templates)
    return featurize(replace(job, seeds=job.seeds[:1]), FeatureSettings(reads=reads))


def refused_or_read(folder, dictionary, content, *, own=False, **files):
    """Read an input file of this content. No file may be written, and no job name may leave the output folder.

    Args:
        own: Whether to featurize templates, which must be structures in the input itself.
    """
    before = {path.name for path in folder.parent.iterdir()}
    for name, text in files.items():
        (folder / name).write_bytes(text)
    path = folder / "in.json"
    path.write_bytes(content)
    jobs, _ = within_time(read_jobs, [path], None, RULES, dictionary)
    assert {path.name for path in folder.iterdir()} <= {"in.json", *files}
    assert {path.name for path in folder.parent.iterdir()} - before == set()
    for job in jobs or ():
        target = (folder / "out" / job.name).resolve()
        assert target.parent == (folder / "out").resolve(), "a name that leaves the output folder"
        if job.n_token < 300 and not job.spec.has_constraint:
            assert featurized(job, with_templates=own), "accepted, but without features"


words = st.sampled_from(
    ["name", "sequences", "proteinChain", "dnaSequence", "rnaSequence", "ligand", "ion", "sequence", "count", "id",
     "modifications", "ptmType", "ptmPosition", "covalent_bonds", "constraint", "contact", "pocket", "modelSeeds",
     "unpairedMsaPath", "unpairedMsa", "templatesPath", "msa", "precomputed_msa_dir", "entity1", "atom1", "position1",
     "CCD_ATP", "CCD_ATP_NAG", "FILE_in.json", "FILE_", "MG", "ACDEFGHIKLMNPQRSTVWY", "ACGU", "CC(=O)O", "in.json",
     "..", "../x", "/", "a/../../b", "\x00", "~nobody", "a" * 300]
)  # fmt: skip
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | words
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.text(max_size=8), inner, max_size=5)
)


@fuzzed
@given(st.binary(max_size=200))
@example(b"[" * 100_000)
@example(b'[{"name": "a", "sequences": [{"ligand": {"ligand": "FILE_\\u0000", "count": 1}}]}]')
@example("\ufeff[]".encode())
@example(b"[" + b"1" * 5000 + b"]")
def test_any_bytes_as_an_input_file_are_read_or_refused(folder, dictionary, content):
    refused_or_read(folder, dictionary, content)


fasta = st.sampled_from(
    [">", ">A|protein", ">A|protein|in.json", ">ligand|name=x", ">a:b", ">protein|x", ">glycan|x", "MKT",
     "MKT:GHK", "CCO", ":", "ACGT", "MK(SEP)T", "NAG(4-1 NAG)", "(6-1 FUC)", "NAG(4-1", ")", "NAG"]
)  # fmt: skip
boltz = st.sampled_from(
    ["version: 1", "sequences:", "  - protein: {id: A, sequence: MKT}", "  - ligand: {id: B, smiles: C}",
     "constraints:", "  - bond: {atom1: [A, 1, N], atom2: [B, 1, C1]}", "  - contact: {}", "- &a x", "*a",
     "  - protein: {id: [A, A]}"]
)  # fmt: skip
lines = st.lists(fasta | boltz | st.text(max_size=10), max_size=8)


@fuzzed
@given(lines)
def test_lines_of_fasta_and_yaml_are_read_or_refused(folder, dictionary, content):
    refused_or_read(folder, dictionary, "\n".join(content).encode(errors="replace"))


@fuzzed
@given(st.sampled_from(["alphafold3", "x"]), trees, trees, trees)
def test_alphafold_3_of_any_shape_is_read_or_refused(folder, dictionary, dialect, name, sequences, more):
    content = {"dialect": dialect, "version": 1, "name": name, "modelSeeds": [1], "sequences": sequences}
    content |= {"bondedAtomPairs": more}
    refused_or_read(folder, dictionary, json.dumps(content).encode())


MMCIF_WORDS = ["", "?", ".", "X", "Fe", "H", "O1", "C1", "TRIP", "Y", "1e99", "nan", "-7", "loop_", "data_x", "'", "é"]


@st.composite
def damaged(draw, text):
    """A text with lines left out, repeated or exchanged, and with other words and signs."""
    lines = text.split("\n")
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(lines) - 1))
        edit = draw(st.sampled_from(["leave out", "repeat", "exchange", "word", "sign"]))
        if edit == "leave out" and len(lines) > 1:
            del lines[place]
        elif edit == "repeat":
            lines.insert(draw(st.integers(0, len(lines))), lines[place])
        elif edit == "exchange":
            other = draw(st.integers(0, len(lines) - 1))
            lines[place], lines[other] = lines[other], lines[place]
        elif edit == "word" and (words := lines[place].split(" ")):
            words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from(MMCIF_WORDS))
            lines[place] = " ".join(words)
        elif lines[place]:
            at = draw(st.integers(0, len(lines[place]) - 1))
            lines[place] = lines[place][:at] + draw(st.characters(codec="utf-8")) + lines[place][at + 1 :]
    return "\n".join(lines)


@fuzzed
@given(text=damaged(ACRYLAMIDE), is_residue=st.booleans())
def test_own_components_of_any_content_are_read_or_refused(folder, dictionary, text, is_residue):
    change = [{"ptmType": "CCD_LIG-1", "ptmPosition": 2}] if is_residue else []
    protein = {"proteinChain": {"sequence": "MKTAY", "count": 1, "modifications": change}}
    sequences = [protein, {"ligand": {"ligand": "CCD_GOL" if is_residue else "CCD_LIG-1", "count": 1}}]
    content = [{"name": "a", "sequences": sequences, "userCCD": text}]
    refused_or_read(folder, dictionary, json.dumps(content).encode())


@fuzzed
@given(data=st.data())
def test_template_structures_of_any_content_are_read_or_refused(folder, dictionary, template, data):
    text = data.draw(damaged(template[data.draw(st.booleans())]))
    own = {"structure": text, **data.draw(st.sampled_from([{}, {"chain": "A"}, {"chain": "B"}]))}
    if data.draw(st.booleans()):
        own |= {
            "queryIndices": [3, 4],
            "templateIndices": data.draw(st.lists(st.integers(-1, 25), min_size=2, max_size=2)),
        }
    protein = {"proteinChain": {"sequence": SEQUENCE, "count": 1, "templates": [own]}}
    content = json.dumps([{"name": "a", "sequences": [protein]}]).encode()
    refused_or_read(folder, dictionary, content, own=True)


@fuzzed
@given(trees)
def test_json_of_any_shape_is_read_or_refused(folder, dictionary, content):
    refused_or_read(folder, dictionary, json.dumps(content).encode())


def jobs_of(entity):
    return st.fixed_dictionaries(
        {"name": st.text(min_size=1, max_size=30) | words, "sequences": st.lists(entity, min_size=1, max_size=3)},
        optional={"modelSeeds": trees, "covalent_bonds": trees, "constraint": trees},
    )


sequences = st.text("ACDEFGHIKLMNPQRSTVWYX", min_size=1, max_size=30) | st.text(max_size=10)
entities = st.one_of(
    st.fixed_dictionaries({"proteinChain": st.fixed_dictionaries(
        {"sequence": sequences, "count": st.integers(-1, 3) | leaves},
        optional={"modifications": trees, "unpairedMsa": st.text(max_size=40), "unpairedMsaPath": words,
                  "templatesPath": words, "msa": trees, "id": trees},
    )}),
    st.fixed_dictionaries({"rnaSequence": st.fixed_dictionaries({"sequence": sequences, "count": st.integers(0, 2)})}),
    st.fixed_dictionaries({"ligand": st.fixed_dictionaries({"ligand": words | st.text(max_size=30), "count": leaves})}),
    st.fixed_dictionaries({"ion": st.fixed_dictionaries({"ion": words | st.text(max_size=5), "count": leaves})}),
)  # fmt: skip


@fuzzed
@given(jobs_of(entities))
def test_nearly_valid_jobs_are_read_or_refused(folder, dictionary, job):
    refused_or_read(folder, dictionary, json.dumps([job]).encode())


@fuzzed
@given(st.text("CNOPSFIBrcl[]()=#@+-123456789%/\\.H*:$~{}", max_size=60))
@example("C" * 9000)
@example("[C@@]123[C@@](C1)(C2)C3(C)(C)")
@example("C1" * 400)
@example("(" * 5000)
@example("[" * 5000)
def test_any_smiles_string_is_read_or_refused(folder, dictionary, smiles):
    job = {"name": "a", "sequences": [{"ligand": {"ligand": smiles, "count": 1}}]}
    refused_or_read(folder, dictionary, json.dumps([job]).encode())


@fuzzed
@given(
    st.binary(max_size=100)
    | st.lists(st.text("ACDEFG-acdx.>*\n\t ", max_size=12), max_size=6).map(lambda rows: "\n".join(rows).encode())
)
def test_any_alignment_is_read_or_refused(folder, dictionary, content):
    job = {"name": "a", "sequences": [
        {"proteinChain": {"sequence": "ACDEFG", "count": 1, "unpairedMsaPath": "a.a3m", "pairedMsaPath": "a.a3m"}},
    ]}  # fmt: skip
    refused_or_read(folder, dictionary, json.dumps([job]).encode(), **{"a.a3m": content})


@fuzzed
@given(st.text("0123456789,- ", max_size=20) | st.text(max_size=20))
@example("0-99999999999")
@example("1-100001")
@example("¹-³")
def test_any_text_for_seeds_is_parsed_or_refused(text):
    seeds, message = within_time(parse_seeds, text)
    if message is None:
        assert len(seeds) == len(set(seeds)) > 0
        assert all(0 <= seed < 2**32 for seed in seeds)
    else:
        assert "seed" in message


keys = st.sampled_from(
    ["seeds", "model", "samples", "steps", "templates", "upstream", "out", "assume_free", "grace", "x"]
)


@fuzzed
@given(
    st.binary(max_size=80)
    | st.dictionaries(keys, trees, max_size=4).map(lambda content: json.dumps(content).encode())
    | st.text("ab:- {}[]&*!|>'\"%@\n#,?", max_size=40).map(str.encode)
)
@example(b"a: &a [*a, *a]\nb: &b [*a, *a]\nsamples: *b")
@example(b"!!python/object/apply:os.system [echo]")
@example(b"seeds: 2001-01-01")
def test_any_configuration_is_read_or_refused(folder, content):
    path = folder / "run.yaml"
    path.write_bytes(content)
    try:
        within_time(load_config, {}, path)
    finally:
        path.unlink()
