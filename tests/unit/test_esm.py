"""Language model embeddings. A tiny ESM-2 replaces the 3B model, which test machines do not have."""

import json

import numpy as np
import pytest
import torch
from biotite.structure import AtomArray
from support.jobs import job_of

from protenix_multiseed.config_loading import load_config
from protenix_multiseed.errors import RefusedInputsError, WeightsError
from protenix_multiseed.features import esm as module
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

FIRST, SECOND = "MKTAYIAKQR", "GHKLMNPQ"


def job(*sequences):
    entities = [{"proteinChain": {"sequence": sequence, "count": 1}} for sequence in sequences]
    return job_of({"sequences": [{"ion": {"ion": "MG"}}, *entities]})


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    import esm
    from protenix.data.esm import compute_esm

    torch.manual_seed(0)
    alphabet = esm.data.Alphabet.from_architecture("ESM-1b")
    model = esm.model.esm2.ESM2(num_layers=1, embed_dim=16, attention_heads=2, alphabet=alphabet).eval()
    loads = []
    monkeypatch.setattr(compute_esm, "load_esm_model", lambda *_, **__: (loads.append(1), (model, alphabet))[1])
    for name in ("esm2_t36_3B_UR50D", "esm2_t36_3B_UR50D-contact-regression"):
        (tmp_path / f"{name}.pt").touch()
    return tmp_path, loads


def test_each_sequence_is_embedded_once_and_alone(tiny):
    folder, loads = tiny
    cache = folder / "cache"
    assert module.embed_proteins([job(FIRST, SECOND), job(FIRST)], "esm2-3b", folder, cache) == 2
    first = torch.load(module._file(cache, FIRST), weights_only=True)
    assert first.shape == (len(FIRST), 16)
    assert module.embed_proteins([job(FIRST)], "esm2-3b", folder, cache) == 0
    assert len(loads) == 1
    alone = folder / "alone"
    module.embed_proteins([job(FIRST)], "esm2-3b", folder, alone)
    assert torch.equal(first, torch.load(module._file(alone, FIRST), weights_only=True))


def test_tokens_get_their_residues_embedding(tiny):
    folder, _ = tiny
    module.embed_proteins([job(FIRST, SECOND)], "esm2-3b", folder, folder)
    atoms = AtomArray(5)
    atoms.set_annotation("centre_atom_mask", np.array([1, 1, 0, 1, 1]))
    atoms.set_annotation("label_entity_id", np.array(["1", "2", "2", "2", "3"]))
    atoms.res_id[:] = [1, 1, 1, 10, 8]
    made = module.token_embeddings(job(FIRST, SECOND), atoms, folder)
    first, second = (
        torch.load(module._file(folder, sequence), weights_only=True).numpy() for sequence in (FIRST, SECOND)
    )
    assert np.array_equal(made, np.stack([np.zeros(16, dtype=np.float32), first[0], first[9], second[7]]))


def test_a_protein_that_would_be_cut_is_refused_by_the_checks(tmp_path):
    path = tmp_path / "in.json"
    rules = load_config({"model": "protenix_mini_esm_v0.5.0"}).input_rules
    for length in (4094, 4095):
        protein = {"proteinChain": {"sequence": "G" * length, "count": 1}}
        path.write_text(json.dumps([{"name": "a", "sequences": [protein]}]))
        if length == 4094:
            assert read_jobs([path], (1,), rules, EmbeddedDictionary())
            continue
        with pytest.raises(RefusedInputsError, match=r"4095 residues: protenix_mini_esm_v0\.5\.0 reads at most 4094"):
            read_jobs([path], (1,), rules, EmbeddedDictionary())


def test_the_error_for_a_missing_language_model_says_how_to_fetch_it(tmp_path):
    with pytest.raises(WeightsError, match="protenix-ms fetch esm2_t36_3B_UR50D"):
        module.embed_proteins([job(FIRST)], "esm2-3b", tmp_path, tmp_path / "cache")
