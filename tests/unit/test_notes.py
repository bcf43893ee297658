"""Notes on jobs, and remarks on a run."""

from types import SimpleNamespace

from support.jobs import spec_of

from protenix_multiseed.commands.convert import convert
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.execution.local import LocalExecutor
from protenix_multiseed.features.pool import WorkerPool
from protenix_multiseed.inputs.notes import notes_of

PROTEIN = {"proteinChain": {"sequence": "MKT", "count": 1, "unpairedMsa": ">q\nMKT\n"}}
BARE = {"proteinChain": {"sequence": "MKT", "count": 1}}
EMPTY = {"proteinChain": {"sequence": "MKT", "count": 1, "unpairedMsa": ""}}
ION = {"ion": {"ion": "MG", "count": 1}}


def notes(*sequences, model="demo", **content):
    spec = spec_of({"sequences": list(sequences), **content})
    return " ".join(notes_of(spec, load_config({"model": model}).input_rules))


def test_a_protein_without_msa_gets_a_note():
    assert "protein 2 has no MSA" in notes(PROTEIN, BARE)
    assert "protein 1 has no MSA" in notes(EMPTY)
    assert notes(PROTEIN) == ""
    assert notes(BARE, model="protenix_mini_esm_v0.5.0") == ""


def test_an_ion_gets_a_note_only_if_protenix_misreads_it():
    assert notes(PROTEIN, ION) == ""
    rules = load_config({"model": "demo", "protenix_exact": True}).input_rules
    (note,) = notes_of(spec_of({"sequences": [PROTEIN, ION]}), rules)
    assert "Protenix does not count ions" in note


def test_an_msa_that_the_run_searches_is_said():
    rules = load_config({"model": "demo", "msa_server": "https://a.example"}).input_rules
    (note,) = notes_of(spec_of({"sequences": [BARE]}), rules)
    assert "the run will search for one" in note
    first, second = notes_of(spec_of({"sequences": [BARE, EMPTY]}), rules)
    assert "the run will search for one" in first
    assert "protein 2" in second
    assert "less accurate" in second
    assert "none is searched" in second
    assert "(sequences[1].proteinChain.unpairedMsa: empty)" in second
    assert "add --msa-server" not in second


def test_a_constraint_that_the_model_ignores_gets_a_note():
    contact = {"entity1": 1, "copy1": 1, "position1": 1, "entity2": 2, "copy2": 1, "position2": 1, "max_distance": 5}
    constraint = {"contact": [contact]}
    assert "protenix_base_constraint_v0.5.0" in notes(PROTEIN, PROTEIN, constraint=constraint)
    assert notes(PROTEIN, PROTEIN, constraint=constraint, model="protenix_base_constraint_v0.5.0") == ""


def test_convert_shows_the_notes_on_the_input_and_none_on_a_prediction(tmp_path, capsys):
    text = "sequences:\n  - protein: {id: A, sequence: MKTAY}\n  - protein: {id: B, sequence: MKTAY}\nproperties: [x]\n"
    text += "constraints:\n  - contact: {token1: [A, 1], token2: [B, 1]}\n"
    (tmp_path / "in.yaml").write_text(text)
    convert(load_config({}), [tmp_path / "in.yaml"], "protenix", tmp_path / "out.json")
    shown = capsys.readouterr().err
    assert "properties have no effect" in shown
    assert "MSA" not in shown
    assert "protenix_base_constraint" not in shown


def test_unusable_kernels_missing_weights_and_pickles_get_a_remark():
    executor = LocalExecutor(load_config({"model": "demo"}), WorkerPool(1), lambda event: None)
    kernels = {"batched": "torch", "reference": "torch", "no triton": "no C compiler"}
    executor._model = SimpleNamespace(kernels=kernels, missing_weights=())
    assert list(executor._remarks("biotite")) == ["no triton kernels, PyTorch's are used: no C compiler"]
    executor._model.missing_weights = ("a", "b")
    assert "2 weights are not in the checkpoint" in list(executor._remarks("biotite"))[-1]
    assert "only if you trust its source" in next(iter(executor._remarks("upstream")))


def test_what_the_input_gives_and_the_run_does_not_read_gets_a_note():
    """Regression: alignments of RNA were dropped without a word, and counted as MSA rows."""
    rna = {"rnaSequence": {"sequence": "GGACUU", "count": 1, "unpairedMsa": ">q\nGGACUU\n"}}
    spec = spec_of({"sequences": [PROTEIN, rna]})
    for options, said in (({}, ["rna 2: its MSA has no effect without --rna-msa"]), ({"rna_msa": True}, [])):
        assert list(notes_of(spec, load_config({"model": "demo", **options}).input_rules)) == said
    hits = {"proteinChain": {**PROTEIN["proteinChain"], "templatesPath": "hits.hhr"}}
    assert "protein 1: its template hits have no effect without --template" in notes(hits)
    assert "dna 1: its U are read as deoxyuridine" in notes({"dnaSequence": {"sequence": "ACGU", "count": 1}})
