"""Compare features with upstream's own featurizer, for every seed.

This covers every tensor that the model reads, and the state of the generators that the model then draws from.
"""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from support import cases
from support.jobs import spec_of

from protenix_multiseed.errors import FeaturizationError
from protenix_multiseed.features import featurize as featurize_module
from protenix_multiseed.features import layout, seed_draws
from protenix_multiseed.features import msa_and_templates as module
from protenix_multiseed.features.featurize import featurize, featurize_reference
from protenix_multiseed.features.sizes import count_sizes
from protenix_multiseed.files import write_bytes
from protenix_multiseed.inputs.read import read_jobs
from protenix_multiseed.settings import FeatureSettings, InputRules, ReadSettings
from protenix_multiseed.types import Failure
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

SEEDS = (1, 7, 284)


@pytest.fixture(scope="module")
def dictionary():
    dictionary = EmbeddedDictionary()
    environment.prepare(dictionary)
    return dictionary


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, dictionary):
    folder = tmp_path_factory.mktemp("inputs")
    root = tmp_path_factory.mktemp("root")
    cases.write_root(root)
    paths = [*cases.write_cases(folder).values(), cases.EXAMPLE]
    rules = InputRules(model="m", reads=ReadSettings(rna_msa=True, template=True))
    jobs = {job.name: job for job in read_jobs(paths, SEEDS, rules, dictionary)}
    settings = FeatureSettings(
        template_mmcif_dir=folder / "mmcif",
        kalign=root / "bin" / "kalign",
        reads=ReadSettings(rna_msa=True, template=True),
    )
    return jobs, settings, root


@pytest.fixture
def settings(inputs, monkeypatch):
    """Settings of all jobs. Upstream's configuration, which holds the paths of template dates, is patched."""
    from configs.configs_data import data_configs

    common = inputs[2] / "common"
    monkeypatch.setitem(data_configs["template"], "release_dates_path", str(common / "release_date_cache.json"))
    monkeypatch.setitem(data_configs["template"], "obsolete_pdbs_path", str(common / "obsolete_to_successor.json"))
    module._hit_featurizer.cache_clear()
    return inputs[1]


def raw_features(job, settings, seed, tmp_path):
    """Upstream's feature dictionary before it is made compact, and the seed's features."""
    kept = {}
    original = layout.compact

    def keep(full):
        kept.update(full)
        return original(full)

    with environment.replaced(layout, "compact", keep):
        made = featurize_reference(job, settings, seed)
    return kept, made.seeds[0]


def assert_equal(ours, theirs):
    read = set(ours) - {"constraint_feature"}
    assert read <= set(theirs)
    unread = set(theirs) - set(ours) - {"constraint_feature"}
    assert unread <= layout.UNREAD_FEATURES | {"template_atom_positions", "template_atom_mask", "deletion_matrix"}
    for key in sorted(read):
        assert ours[key].dtype == theirs[key].dtype, key
        assert torch.equal(ours[key], theirs[key]), key
    for key, value in ours.get("constraint_feature", {}).items():
        assert torch.equal(value, theirs["constraint_feature"][key]), key


def assert_same_states(ours, theirs):
    assert ours.python_state == theirs.python_state
    assert all(np.array_equal(a, b) for a, b in zip(ours.numpy_state, theirs.numpy_state, strict=True))
    assert np.array_equal(ours.torch_state, theirs.torch_state)


@pytest.mark.parametrize("name", ["7r6r", "ligands", "rna", "bonded", "template"])
def test_every_tensor_equals_upstreams(inputs, settings, name, tmp_path):
    job = inputs[0][name]
    (features,) = featurize(job, settings)
    assert [seed.seed for seed in features.seeds] == list(SEEDS)
    for seed in features.seeds:
        theirs, reference = raw_features(job, settings, seed.seed, tmp_path)
        assert_equal(layout.expand(features, seed), theirs)
        assert_same_states(seed, reference)
    assert not np.array_equal(features.seeds[0].ref_pos, features.seeds[1].ref_pos)


@pytest.mark.parametrize(("name", "depths"), [("ligands", [4, 4, 1, 1, 1, 1]), ("rna", [3, 1])])
def test_the_depth_of_each_chains_msa_is_counted(inputs, settings, name, depths):
    """The alignments have four and three distinct rows. A chain without an alignment has its sequence."""
    (features,) = featurize(inputs[0][name], settings)
    atoms = features.atom_array.value
    assert [int(atoms.msa_rows[atoms.chain_id == chain][0]) for chain in dict.fromkeys(atoms.chain_id)] == depths
    assert max(depths) <= features.n_msa


def test_the_template_is_found(inputs, settings):
    (features,) = featurize(inputs[0]["template"], settings)
    assert features.arrays["template_atom_mask"].any()


def test_a_dropped_template_hit_gives_a_warning(inputs, settings, tmp_path):
    (features,) = featurize(inputs[0]["template"], replace(settings, template_mmcif_dir=tmp_path))
    assert "template_atom_mask" not in features.arrays
    assert any("CIF load failed for 9xyz" in warning for warning in features.warnings)


@pytest.mark.parametrize("constraint", [False, True], ids=["shared", "each seed"])
def test_a_seed_without_a_conformer_fails_alone(inputs, settings, monkeypatch, constraint):
    """Regression: which seeds were asked for decided about all of them."""
    embed = seed_draws.SeededConformers.EmbedMolecule
    monkeypatch.setattr(
        seed_draws.SeededConformers, "EmbedMolecule",
        lambda self, *given, **named: -1 if self._seed == 8 else embed(self, *given, **named),
    )  # fmt: skip
    spec = {
        "sequences": [
            {"proteinChain": {"sequence": "MKTAY", "count": 1}},
            {"ligand": {"ligand": "CC(=O)Oc1ccccc1C(=O)O", "count": 1}},
        ]
    }
    if constraint:
        place = {"entity1": 1, "copy1": 1, "position1": 2, "entity2": 2, "copy2": 1, "position2": 1}
        spec["constraint"] = {"contact": [{**place, "atom1": "CA", "atom2": "C1", "max_distance": 8.0}]}
    made = featurize(made_job(inputs, spec, (8, 4, 6, 7)), settings)
    (failed,) = (one for one in made if isinstance(one, Failure))
    assert failed.seed == 8
    assert failed.message.startswith("Conformer generation failed for input SMILES")
    assert failed.advice == "leave this seed out, or give the ligand as CCD_ or as FILE_ with 3D coordinates"
    features = [one for one in made if one is not failed]
    assert [seed.seed for one in features for seed in one.seeds] == [4, 6, 7]
    (alone,) = featurize(made_job(inputs, spec, (6,)), settings)
    together = next(seed for one in features for seed in one.seeds if seed.seed == 6)
    assert np.array_equal(alone.seeds[0].ref_pos, together.ref_pos)
    last = featurize(made_job(inputs, spec, (4, 8)), settings)
    assert [isinstance(one, Failure) for one in last] == [True, False]  # the run knows of it before it predicts


HELIX = ">9xyz_A/1-20 mol:protein length:20  A HELIX [subseq from] mol:protein length:20\n"
UNUSED = {  # why a hit is not used -> the protein, the alignment, the structure's date
    "released after 2021-09-30, or without a date": (
        "GG" + cases.TEMPLATE_SEQUENCE, cases.TEMPLATE_SEQUENCE, "2022-01-01"
    ),
    "nearly equal to the protein": (cases.TEMPLATE_SEQUENCE, cases.TEMPLATE_SEQUENCE, "2015-01-01"),
    "of fewer than 10 residues": (
        "GGGGGG" + cases.TEMPLATE_SEQUENCE, "-" * 6 + cases.TEMPLATE_SEQUENCE[:8] + "-" * 12, "2015-01-01"
    ),
    "aligned to a tenth of the protein or less": (
        "G" * 250 + cases.TEMPLATE_SEQUENCE, "-" * 250 + cases.TEMPLATE_SEQUENCE, "2015-01-01"
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", UNUSED)
def test_hits_that_the_rules_of_upstream_exclude_are_named_each_time(
    settings, dictionary, tmp_path, monkeypatch, reason
):
    """Also when the features come from the cache."""
    monkeypatch.setenv("PROTENIX_MS_CACHE", str(tmp_path / "cache"))
    sequence, aligned, date = UNUSED[reason]
    (tmp_path / "hits.a3m").write_text(f"{HELIX}{aligned}\n")
    (tmp_path / "9xyz.cif").write_text(
        (settings.template_mmcif_dir / "9xyz.cif").read_text().replace("2015-01-01", date)
    )
    protein = {"sequence": sequence, "count": 1, "templatesPath": "hits.a3m"}
    path = tmp_path / "in.json"
    path.write_text(json.dumps([{"name": "a", "sequences": [{"proteinChain": protein}]}]))
    (job,) = read_jobs([path], (1,), InputRules(model="m", reads=settings.reads), dictionary)
    told = [featurize(job, replace(settings, template_mmcif_dir=tmp_path))[0].warnings for _ in range(2)]
    assert told[0] == told[1]
    (warning,) = told[0]
    assert warning.startswith("0 of 1 template hits are used for the protein ")
    assert warning.endswith(f"; Protenix does not use 1 {reason}")


def test_what_upstream_says_of_a_template_is_said_again_from_the_cache(settings, dictionary, tmp_path, monkeypatch):
    monkeypatch.setenv("PROTENIX_MS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "hits.a3m").write_text(f"{HELIX}{cases.TEMPLATE_SEQUENCE}\n")
    dated = "_pdbx_audit_revision_history.revision_date 2015-01-01"
    structure = (settings.template_mmcif_dir / "9xyz.cif").read_text()
    assert dated in structure
    (tmp_path / "9xyz.cif").write_text(structure.replace(dated, ""))
    protein = {"sequence": "GG" + cases.TEMPLATE_SEQUENCE, "count": 1, "templatesPath": "hits.a3m"}
    path = tmp_path / "in.json"
    path.write_text(json.dumps([{"name": "a", "sequences": [{"proteinChain": protein}]}]))
    (job,) = read_jobs([path], (1,), InputRules(model="m", reads=settings.reads), dictionary)
    told = [featurize(job, replace(settings, template_mmcif_dir=tmp_path))[0].warnings for _ in range(2)]
    assert any("release_date" in warning for warning in told[0])
    assert set(told[0]) == set(told[1])
    assert len(told[0]) == len(told[1]) == 2


def test_a_structure_that_is_fetched_is_in_its_place_only_as_a_whole(settings, monkeypatch, tmp_path):
    """Other workers take the file that is there: a part of it gave a part of a template, which the cache then kept."""
    folder = tmp_path / "mmcif"
    wanted = replace(settings, template_mmcif_dir=folder, fetch_template_structures=True)
    text, seen = (settings.template_mmcif_dir / "9xyz.cif").read_text(), []

    class Answer:
        def raise_for_status(self):
            pass

        @property
        def text(self):
            return text

    def write(path, content):
        seen.append([one.name for one in folder.glob("*")])
        write_bytes(path, content)

    monkeypatch.setattr(module, "write_bytes", write)
    monkeypatch.setattr("protenix.data.template.template_utils.requests.get", lambda *_, **__: Answer())
    processor = module._hit_featurizer(wanted)._hit_processor
    for _ in range(2):
        assert processor._fetch_or_read_cif("9xyz") == text
    assert seen == [[]]
    assert [one.name for one in folder.glob("*")] == ["9xyz.cif"]
    assert (folder / "9xyz.cif").read_text() == text
    monkeypatch.setattr("protenix.data.template.template_utils.requests.get", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        processor._fetch_or_read_cif("8xyz")
    assert [one.name for one in folder.glob("*")] == ["9xyz.cif"]


def test_features_without_msa_equal_upstreams(inputs, settings, tmp_path):
    bare = replace(settings, reads=replace(settings.reads, msa=False))
    (features,) = featurize(inputs[0]["ligands"], bare)
    theirs, _ = raw_features(inputs[0]["ligands"], bare, SEEDS[0], tmp_path)
    assert features.n_msa == 1
    assert_equal(layout.expand(features, features.seeds[0]), theirs)


def made_job(inputs, spec, seeds=SEEDS):
    return replace(inputs[0]["ligands"], name="made", seeds=seeds, spec=spec_of({"name": "made", **spec}))


def test_constraint_features_equal_upstreams(inputs, settings, tmp_path):
    """Contacts, a pocket, and an atom contact that splits a residue into atoms."""
    entities = [
        {"proteinChain": {"sequence": "MKTAYIAKQR", "count": 1}},
        {"proteinChain": {"sequence": "GHKLMN", "count": 1}},
    ]
    place = {"entity1": 1, "copy1": 1, "position1": 2, "entity2": 2, "copy2": 1, "position2": 3}
    constraint = {
        "contact": [
            {**place, "max_distance": 8.0},
            {**place, "position1": 5, "atom1": "CA", "atom2": "CB", "max_distance": 5.0},
        ],
        "pocket": {
            "binder_chain": {"entity": 2, "copy": 1},
            "max_distance": 6.0,
            "contact_residues": [{"entity": 1, "copy": 1, "position": 4}],
        },
    }
    job = made_job(inputs, {"sequences": entities, "constraint": constraint})
    constrained = replace(settings, constraint=True)
    made = featurize(job, constrained)
    assert len(made) == len(SEEDS)
    for features in made:
        (seed,) = features.seeds
        assert features.n_token > 16
        theirs, reference = raw_features(job, constrained, seed.seed, tmp_path)
        assert_equal(layout.expand(features, seed, constraint=True), theirs)
        assert_same_states(seed, reference)
    contacts = {features.arrays["constraint:contact"].tobytes() for features in made}
    assert len(contacts) > 1, "the seed chooses the token that stands for a split residue"


def test_seeds_that_remove_different_atoms_get_separate_features(inputs, settings, tmp_path):
    """Cacodylate keeps one of its two leaving oxygens, and the seed decides which."""
    entities = [{"proteinChain": {"sequence": "MKCAY", "count": 1}}, {"ligand": {"ligand": "CCD_CAC", "count": 1}}]
    bond = {"entity1": 1, "position1": 3, "atom1": "SG", "entity2": 2, "position2": 1, "atom2": "AS"}
    job = made_job(inputs, {"sequences": entities, "covalent_bonds": [bond]}, seeds=tuple(range(8)))
    made = featurize(job, settings)
    assert len(made) == 2
    assert sorted(seed.seed for features in made for seed in features.seeds) == list(range(8))
    for features in made:
        for seed in features.seeds:
            theirs, reference = raw_features(job, settings, seed.seed, tmp_path)
            assert_equal(layout.expand(features, seed), theirs)
            assert_same_states(seed, reference)


def test_automorphisms_are_drawn_for_every_seed(inputs, settings, tmp_path, monkeypatch):
    """If a component has more than 1,000 automorphisms, upstream draws among them when a process first meets it."""
    from protenix.data.core import ccd

    real = ccd.get_substructure_perms

    def many(molecule, **options):
        if molecule.GetNumAtoms() == 47:  # ATP
            np.random.choice(range(1234), 1000, replace=False)
        return real(molecule, **options)

    monkeypatch.setattr(ccd, "get_substructure_perms", many)
    monkeypatch.setattr(seed_draws, "_permutations", seed_draws._ComponentPermutations())
    (features,) = featurize(inputs[0]["ligands"], settings)
    for seed in features.seeds:
        theirs, reference = raw_features(inputs[0]["ligands"], settings, seed.seed, tmp_path)
        assert_equal(layout.expand(features, seed), theirs)
        assert_same_states(seed, reference)


def test_guidance_features_equal_upstreams_for_every_seed(inputs, settings, tmp_path):
    guided = replace(settings, guidance=True)
    made = featurize(inputs[0]["ligands"], guided)
    assert len(made) == len(SEEDS)
    for features in made:
        (seed,) = features.seeds
        theirs, reference = raw_features(inputs[0]["ligands"], guided, seed.seed, tmp_path)
        ours = layout.expand(features, seed)
        assert any(key.startswith("pairwise_distance") for key in ours)
        assert_equal(ours, theirs)
        assert_same_states(seed, reference)


def test_features_do_not_depend_on_earlier_jobs_or_draws(inputs, settings):
    job = inputs[0]["ligands"]
    first = featurize(job, settings)[0]
    random.seed(99)
    np.random.seed(99)
    np.random.rand(1000)
    featurize(inputs[0]["bonded"], settings)
    again = featurize(replace(job, seeds=(284,)), settings)[0]
    assert np.array_equal(first.seeds[2].ref_pos, again.seeds[0].ref_pos)
    assert json.dumps(first.seeds[2].python_state) == json.dumps(again.seeds[0].python_state)


def test_each_seed_draws_its_own_conformer_of_a_smiles_ligand(inputs, settings):
    """Distances between its atoms differ, so the conformer is not only rotated."""
    (features,) = featurize(inputs[0]["ligands"], settings)
    atoms = features.atom_array.value.label_entity_id == "3"
    first, second = (np.linalg.norm(np.diff(seed.ref_pos[atoms][:13], axis=0), axis=-1) for seed in features.seeds[:2])
    assert np.abs(first - second).max() > 1e-3


def test_a_ligand_that_takes_too_long_fails_its_job_at_once(inputs, settings, monkeypatch):
    """Upstream waits for 90 s, which another seed would take too."""
    asked = []

    def stop(self, *_, **__):
        asked.append(self._seed)
        raise TimeoutError("Conformer generation timed out.")

    monkeypatch.setattr(seed_draws.SeededConformers, "EmbedMolecule", stop)
    spec = {"sequences": [{"ligand": {"ligand": "CC(=O)Oc1ccccc1C(=O)O", "count": 1}}]}
    with pytest.raises(FeaturizationError, match="'made': Conformer generation timed out"):
        featurize(made_job(inputs, spec), settings)
    assert set(asked) == {SEEDS[0]}


def test_a_ligand_without_any_conformer_fails_each_seed(inputs, settings):
    spec = {"sequences": [{"ligand": {"ligand": "[C@@]123[C@@](C1)(C2)C3(C)(C)", "count": 1}}]}
    made = featurize(made_job(inputs, spec), settings)
    assert all(isinstance(one, Failure) for one in made)
    assert [(one.job.name, one.seed) for one in made] == [("made", seed) for seed in SEEDS]


@pytest.mark.parametrize("function", ["SampleDictToFeatures", "tokenize"])
def test_a_job_that_cannot_be_featurized_is_named_in_the_error(inputs, settings, monkeypatch, function):
    def fail(*_):
        raise KeyError("no such thing")

    monkeypatch.setattr(featurize_module, function, fail)
    with pytest.raises(FeaturizationError, match="'made': 'no such thing'"):
        featurize(made_job(inputs, {"sequences": [{"proteinChain": {"sequence": "MKT", "count": 1}}]}), settings)


def test_compact_features_take_less_than_5_percent_of_upstreams_bytes(inputs, settings, tmp_path):
    job = inputs[0]["7r6r"]
    (features,) = featurize(job, settings)
    theirs, _ = raw_features(job, settings, SEEDS[0], tmp_path)
    upstream_bytes = sum(value.numel() * value.element_size() for value in theirs.values() if torch.is_tensor(value))
    assert features.nbytes < 0.05 * upstream_bytes


def with_pairs(folder):
    """Two proteins whose alignments are paired by species, with copies and rows that find no partner."""
    rows = {
        "one": ("MKTAYIAKQR", {"HUMAN": "MKTAYIAKQK", "MOUSE": "MKTAYLAKQR", "YEAST": "MRTAYIAKQR"}),
        "two": ("GHKLMNPQRS", {"HUMAN": "GHKLMNPQRT", "MOUSE": "GHKLMNPARS"}),
    }
    sequences = []
    for name, (query, others) in rows.items():
        paired = "".join(f">tr|A0A000|A0A000_{species}/1-10\n{row}\n" for species, row in others.items())
        (folder / f"{name}_paired.a3m").write_text(f">query\n{query}\n{paired}")
        (folder / f"{name}.a3m").write_text(f">query\n{query}\n>x\n{query[:5]}-----\n>y\n-{query[1:]}\n")
        chain = {"pairedMsaPath": f"{name}_paired.a3m", "unpairedMsaPath": f"{name}.a3m"}
        sequences.append({"proteinChain": {"sequence": query, "count": 2 if name == "one" else 1, **chain}})
    path = folder / "pairs.json"
    path.write_text(json.dumps([{"name": "pairs", "sequences": sequences}]))
    return path


@pytest.mark.parametrize("msa", [True, False])
@pytest.mark.parametrize("name", ["ligands", "rna", "bonded", "template", "7r6r", "pairs"])
def test_sizes_counted_without_featurizing_are_those_of_the_features(inputs, settings, dictionary, name, msa, tmp_path):
    """A dry run plans with the sizes that the run will have."""
    reads = ReadSettings(msa=msa, rna_msa=True, template=True)
    (job,) = (
        read_jobs([with_pairs(tmp_path)], (1,), InputRules(model="m", reads=reads), dictionary)
        if name == "pairs"
        else [inputs[0][name]]
    )
    settings = replace(settings, reads=reads)
    counted = count_sizes(job.spec, settings)
    assert counted == featurize(replace(job, seeds=(1,)), settings)[0].sizes
    assert counted.n_msa == 1 or msa
