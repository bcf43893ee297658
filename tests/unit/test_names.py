"""Names of jobs and chains: each accepted name is read back by three readers of mmCIF, each other one is refused."""

import os

import gemmi
import pytest
from Bio.PDB import MMCIFParser
from biotite.structure.io import pdbx
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support.predictions import prediction, written

from protenix_multiseed.inputs.names import chain_id_problem, job_name_problems
from protenix_multiseed.settings import WriteSettings
from protenix_multiseed.units import visible
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

EXAMPLES = int(os.environ.get("PROTENIX_MS_EXAMPLES", "60"))
SIGNS = st.characters(min_codepoint=1, max_codepoint=0x17F) | st.sampled_from("_#$;'\"?.*[]=+-@ \u0301\u202e日🧬")
WORDS = st.sampled_from(["data_", "loop_", "save_x", "GLOBAL_", "stop_1", "_atom", "?", ".", "x"])


@pytest.fixture(scope="module", autouse=True)
def prepared():
    environment.prepare(EmbeddedDictionary())


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES < 1000)
@given(
    name=st.text(SIGNS, min_size=1, max_size=8)
    | st.builds("{}{}".format, WORDS, WORDS)
    | st.text("aB1 .:+=@,-", min_size=1),
    chain=st.text(SIGNS, min_size=1, max_size=4) | WORDS | st.text("Ab1_.+-", min_size=1, max_size=6),
)
def test_accepted_names_are_read_back_by_three_readers(tmp_path_factory, name, chain):
    assume(not list(job_name_problems(name)) and chain_id_problem(chain) is None)
    (sample,) = written(
        prediction(scores=(0.5,), name=name, chain=chain), WriteSettings(out=tmp_path_factory.mktemp("out")), {}
    )
    path = str(sample.structure)
    block = gemmi.cif.read(path).sole_block()
    assert block.name.startswith(name.replace(" ", "_"))
    assert gemmi.cif.as_string(block.find_value("_entry.id")) == name
    assert pdbx.CIFFile.read(path).block["entry"]["id"].as_item() == name
    assert [one.name for one in gemmi.read_structure(path)[0]] == [chain]
    assert set(pdbx.get_structure(pdbx.CIFFile.read(path), model=1).chain_id.tolist()) == {chain}
    assert [one.id for one in MMCIFParser(QUIET=True).get_structure("x", path)[0]] == [chain]


@pytest.mark.parametrize(
    "name",
    ["=1+1", "+a", "-a", "@a", "../a", ".a", "a/b", "a\\b", "a\x1b[31m", "a\u202eb", "café", "日本", "a\n", " a", "a ",
     "data_x", "LOOP_", "report.html", "Report", "Protenix-MS", "_a", "#a", "?", "a'b", "", "a."],
)  # fmt: skip
def test_a_job_name_that_a_program_would_interpret_is_refused(name):
    assert list(job_name_problems(name))


@pytest.mark.parametrize("name", ["7r6r", "my job", "tp53:dna:", "a.b-c_d", "1,2", "x[1]", "50% (w)", "a=b+c@d"])
def test_usual_job_names_are_accepted(name):
    assert not list(job_name_problems(name))


@pytest.mark.parametrize(
    "chain", ["@x,y", "loop_", "data_", "?", ".", "_", "#1", "$1", "H,L", "a b", "a'b", "\x07", "é", "-1", "A" * 17, ""]
)
def test_a_chain_id_that_mmcif_or_a_table_would_interpret_is_refused(chain):
    assert chain_id_problem(chain)


def test_a_terminal_obeys_no_character_of_a_message():
    assert visible("a\x1b[31mb\x9b\u202e\ud800\tc\n") == "a\\x1b[31mb\\x9b\\u202e\\ud800\tc\n"
