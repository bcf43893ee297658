"""A structure that a job names as a template gives the same tensors as the same structure found by a search."""

import json
from dataclasses import replace

import gemmi
import numpy as np
import pytest
from support import cases
from support.templates import write_rough_template

from protenix_multiseed.features import msa_and_templates as module
from protenix_multiseed.features.featurize import featurize, featurize_reference
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.settings import FeatureSettings, InputRules, ReadSettings

READS = ReadSettings(template=True)
RULES = InputRules(model="m", reads=READS)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Settings with all that upstream needs for hits: dates, an aligner and a folder of structures."""
    from configs.configs_data import data_configs

    cases.write_root(tmp_path)
    for key, name in (("release_dates_path", "release_date_cache"), ("obsolete_pdbs_path", "obsolete_to_successor")):
        monkeypatch.setitem(data_configs["template"], key, str(tmp_path / "common" / f"{name}.json"))
    module._hit_featurizer.cache_clear()
    write_rough_template(tmp_path / "mmcif" / "9xyz.cif")
    header = ">9xyz_A/1-20 mol:protein length:20  A HELIX [subseq from] mol:protein length:20\n"
    (tmp_path / "hits.a3m").write_text(f"{header}{cases.TEMPLATE_SEQUENCE}\n")
    return FeatureSettings(reads=READS, template_mmcif_dir=tmp_path / "mmcif", kalign=tmp_path / "bin" / "kalign")


@pytest.fixture
def features(tmp_path, prepared_dictionary):
    def features(settings, **protein):
        entities = [{"ion": {"ion": "MG", "count": 2}}, {"proteinChain": {"sequence": "GHKLMNPQRS", "count": 1}},
                    {"proteinChain": {"sequence": cases.SEQUENCE, "count": 2, **protein}}]  # fmt: skip
        (tmp_path / "in.json").write_text(json.dumps([{"name": "a", "sequences": entities}]))
        (job,) = read_jobs([tmp_path / "in.json"], (1,), RULES, prepared_dictionary)
        (made,) = featurize(job, settings)
        twin = featurize_reference(job, settings, 1)
        assert templates(made).keys() == templates(twin).keys()
        assert all(np.array_equal(value, templates(twin)[name]) for name, value in templates(made).items())
        return job, made

    return features


def templates(made):
    return {name: np.asarray(value) for name, value in made.arrays.items() if name.startswith("template_")}


def assert_same_templates(ours, theirs):
    ours, theirs = templates(ours), templates(theirs)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert value.dtype == ours[name].dtype
        assert np.array_equal(ours[name], value), name


INDICES = {"queryIndices": list(range(2, 22)), "templateIndices": list(range(20))}


@pytest.mark.parametrize("more", [{}, {"chain": "A"}, INDICES], ids=["aligned", "by chain", "with indices"])
def test_an_own_structure_gives_the_tensors_of_a_hit(features, settings, more):
    _, hit = features(settings, templatesPath="hits.a3m")
    assert np.asarray(hit.arrays["template_atom_mask"]).any()
    assert not hit.warnings
    job, own = features(settings, templates=[{"structurePath": "mmcif/9xyz.cif", **more}])
    assert_same_templates(own, hit)
    (note,) = (note for note in job.notes if "9xyz" in note)
    assert "protein 3: template mmcif/9xyz.cif, chain A: 20 of 24 residues" in note
    assert "95% of them identical" in note


def test_own_structures_need_no_program_and_no_data_of_a_search(features, settings):
    _, hit = features(settings, templatesPath="hits.a3m")
    bare = FeatureSettings(reads=READS)
    _, own = features(bare, templates=[{"structurePath": "mmcif/9xyz.cif"}])
    assert_same_templates(own, hit)


def test_own_structures_come_before_hits_and_fill_up_to_four(features, settings, tmp_path):
    moved = gemmi.read_structure(str(tmp_path / "mmcif" / "9xyz.cif"))
    for atom in moved[0].all():
        atom.atom.pos.x *= 1.1
    moved.make_mmcif_document().write_file(str(tmp_path / "moved.cif"))
    one = {"structurePath": "moved.cif"}
    _, alone = features(settings, templates=[one])
    _, hit = features(settings, templatesPath="hits.a3m")
    _, both = features(settings, templates=[one, one], templatesPath="hits.a3m")
    made = templates(both)["template_atom_positions"]
    assert np.array_equal(made[0], templates(alone)["template_atom_positions"][0])
    assert np.array_equal(made[1], made[0])
    assert np.array_equal(made[2], templates(hit)["template_atom_positions"][0])
    assert not templates(both)["template_atom_mask"][3].any()
    job, many = features(settings, templates=[one] * 5, templatesPath="hits.a3m")
    assert np.array_equal(templates(many)["template_atom_positions"][3], made[0])
    assert any("only its first 4 template structures are used, 1 are left out" in note for note in job.notes)


def test_a_changed_file_is_not_answered_from_the_cache(features, settings, tmp_path):
    path, template = tmp_path / "own.cif", [{"structurePath": "own.cif"}]
    path.write_bytes((tmp_path / "mmcif" / "9xyz.cif").read_bytes())
    _, before = features(settings, templates=template)
    structure = gemmi.read_structure(str(path))
    structure[0][0][3][0].pos.x += 5
    structure.make_mmcif_document().write_file(str(path))
    _, after = features(settings, templates=template)
    positions = [templates(one)["template_atom_positions"] for one in (before, after)]
    assert np.abs(positions[0] - positions[1]).max() > 4
    _, mapped = features(settings, templates=[{**template[0], "queryIndices": [0, 1], "templateIndices": [5, 7]}])
    assert not np.array_equal(templates(mapped)["template_atom_mask"], templates(after)["template_atom_mask"])


def test_a_pdb_file_gives_the_same_template(features, settings, tmp_path):
    structure = gemmi.read_structure(str(tmp_path / "mmcif" / "9xyz.cif"))
    structure.write_pdb(str(tmp_path / "a.pdb"))
    (tmp_path / "full.cif").write_text((tmp_path / "mmcif" / "9xyz.cif").read_text())
    _, cif = features(settings, templates=[{"structurePath": "full.cif"}])
    _, pdb = features(settings, templates=[{"structurePath": "a.pdb"}])
    assert_same_templates(pdb, cif)
    _, text = features(settings, templates=[{"structure": (tmp_path / "a.pdb").read_text()}])
    assert_same_templates(text, cif)


def test_templates_change_the_answer_only_of_their_protein(features, settings):
    _, own = features(settings, templates=[{"structurePath": "mmcif/9xyz.cif"}])
    mask = templates(own)["template_atom_mask"][0].any(-1)
    assert not mask[:12].any()  # two ions and a protein of ten residues
    assert mask[12:36].sum() == mask[36:].sum() == 18
    _, without = features(replace(settings, reads=replace(READS, template=False)), templates=[])
    assert "template_atom_mask" not in without.arrays
