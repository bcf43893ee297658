from pathlib import Path
from types import SimpleNamespace

import pytest

from protenix_multiseed.config import load_config
from protenix_multiseed.dictionary import EmbeddedDictionary
from protenix_multiseed.pipeline import begin, job_notes
from protenix_multiseed.types import Job

PROTEIN = {"proteinChain": {"sequence": "MKT", "count": 1, "unpairedMsa": ">q\nMKT\n"}}
BARE = {"proteinChain": {"sequence": "MKT", "count": 1}}
ION = {"ion": {"ion": "MG", "count": 1}}


def notes(*sequences, model="demo", **spec):
    job = Job(name="a", seeds=(1,), source=Path("in.json"), index=0, spec={"sequences": sequences, **spec})
    return " ".join(job_notes(load_config({"model": model}), job))


@pytest.mark.parametrize(
    ("sequences", "warned"),
    [((PROTEIN, ION), False), ((ION, PROTEIN), True), ((PROTEIN, ION, ION), False), ((ION,), False)],
)
def test_an_ion_before_a_chain(sequences, warned):
    """Upstream fills the chain's MSA with one residue type: seen with MG before a protein of ten residues."""
    assert ("put ions last" in notes(*sequences)) == warned


def test_a_protein_without_msa():
    assert "protein 2 has no MSA" in notes(PROTEIN, BARE)
    assert notes(PROTEIN) == ""
    assert notes(BARE, model="protenix_mini_esm_v0.5.0") == ""


def test_a_constraint_that_the_model_cannot_read():
    constraint = {"contact": [{}]}
    assert "protenix_base_constraint_v0.5.0" in notes(PROTEIN, constraint=constraint)
    assert notes(PROTEIN, constraint=constraint, model="protenix_base_constraint_v0.5.0") == ""


def test_kernels_that_cannot_be_used(tmp_path):
    said = []
    executor = SimpleNamespace(
        kernels={"batched": "torch", "reference": "torch", "no triton": "no C compiler"}, missing_weights=(),
        device=SimpleNamespace(type="cpu"), checkpoint=None,
    )  # fmt: skip
    config = load_config({"model": "demo", "out": tmp_path})
    begin(config, [], EmbeddedDictionary(), executor, {}, SimpleNamespace(stage=said.append))
    assert said == ["no triton kernels, PyTorch's are used: no C compiler"]
