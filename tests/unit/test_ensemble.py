"""Compare interface scores with an independent program; check agreement and convergence on data with known answers."""

import base64
import io
import itertools
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import biotite.structure as struc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from support import docked, page_results
from support.command import environment
from support.jobs import spec_of
from typer.testing import CliRunner

from protenix_multiseed import load_results
from protenix_multiseed.analysis.agreement import agreement, choose_core, cluster, superpose_pairs
from protenix_multiseed.analysis.compact import Compact, Tokens, read_compact, shrink_pae, write_compact
from protenix_multiseed.analysis.convergence import convergence, expected_best, is_stable
from protenix_multiseed.analysis.findings import gather, loose_regions
from protenix_multiseed.analysis.interfaces import Interface, interfaces, ipsae, lis, pdockq2, strongest
from protenix_multiseed.cli import app
from protenix_multiseed.commands import rank
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.hashes import sha256
from protenix_multiseed.inputs.notes import notes_of
from protenix_multiseed.outputs import tables
from protenix_multiseed.outputs.found import find_jobs, gather_job
from protenix_multiseed.outputs.tables import write_findings
from protenix_multiseed.page.collect import collect, pack_text, structures_of
from protenix_multiseed.types import Sample

# Scores by version 4 of the published script (github.com/DunbrackLab/IPSAE, of 2026-01-03), with PAE cutoff 10,
# for the two helices of ``complex_of``. By chain pair: ipSAE_d0res if both chains are proteins, ipSAE_d0res if one is a
# nucleic acid, pDockQ2, LIS.
PUBLISHED = {
    ("A", "B"): (0.250997836995049, 0.38328632135175256, 0.10222659451202186, 0.4439208694280231),
    ("B", "A"): (0.2889693734098069, 0.32573609421087363, 0.10256811748110072, 0.4542925415528178),
}
N_1, N_2 = 40, 33
COMPONENTS = [f"X{number}" for number in range(60)]  # all different: no chain is a copy of another


def complex_of():
    """Made-up positions [N, 3], PAE [N, N], pLDDT [N] and chains [N] of two helices."""
    i = np.arange(N_1 + N_2)
    turn = np.deg2rad(100.0) * i
    shift, along = np.where(i < N_1, 0, 9.0), 1.5 * np.where(i < N_1, i, i - N_1)
    beta = np.round(np.stack([6 * np.cos(turn) + shift, 6 * np.sin(turn), along], axis=-1), 3)
    same = (i[:, None] < N_1) == (i[None] < N_1)
    pae = np.abs(np.sin(0.7 * i[:, None]) * np.cos(0.31 * i[None])) * 14 + np.where(same, 0.5, 1.0)
    return beta, pae + 0.05 * np.abs(i[:, None] - i[None]), 60 + 35 * np.abs(np.cos(0.2 * i)), ["A"] * N_1 + ["B"] * N_2


@pytest.mark.parametrize("is_nucleic", [False, True])
def test_interface_scores_match_the_published_script(is_nucleic):
    beta, pae, plddt, chains = complex_of()
    nucleic = np.array([is_nucleic and chain == "B" for chain in chains])
    found = interfaces(pae, plddt, beta, chains, nucleic)
    assert [(one.chain_1, one.chain_2) for one in found] == list(PUBLISHED)
    for one in found:
        protein, nucleic_acid, dockq, local = PUBLISHED[one.chain_1, one.chain_2]
        assert one.ipsae == pytest.approx(nucleic_acid if is_nucleic else protein, abs=1e-9)
        assert one.pdockq2 == pytest.approx(dockq, abs=1e-9)
        assert one.lis == pytest.approx(local, abs=1e-9)
    assert dict(strongest(found))["ipsae"] == max(one.ipsae for one in found)


def test_pairs_beyond_the_cutoff_of_a_score_do_not_count():
    assert ipsae(np.array([[9.0, 10.0, 10.5]])) == pytest.approx(1 / (1 + 9**2))  # d0 is 1 A for up to 26 residues
    assert ipsae(np.full((1, 27), 9.0)) == pytest.approx(1 / (1 + (9 / (1.24 * np.cbrt(27 - 15) - 1.8)) ** 2))
    assert lis(np.array([[6.0, 12.0, 12.1]])) == pytest.approx(0.5)
    near, far = np.array([[8.0]]), np.array([[8.01]])
    assert pdockq2(near, near, np.array([90.0]), np.array([90.0])) > 0 == pdockq2(near, far, np.ones(1), np.ones(1))


def test_chains_far_apart_have_scores_of_zero():
    far = np.full((4, 3), 31.0)
    assert ipsae(far) == lis(far) == 0
    assert pdockq2(far, far, np.ones(4), np.ones(3)) == 0
    assert interfaces(far[:3, :3], np.ones(3), np.zeros((3, 3)), ["A"] * 3, np.zeros(3, dtype=bool)) == []
    assert dict(strongest([])) == {}


def conformers(n_token=60, noise=0.3, seed=0):
    """Two conformers that differ by a hinge: ten samples of each in turn, with noise, at random places."""
    random = np.random.default_rng(seed)
    first = np.cumsum(random.normal(size=(n_token, 3)), axis=0) * 2
    second = first.copy()
    half = n_token // 2
    second[half:] = Rotation.from_rotvec([0, 0, 2.0]).apply(first[half:] - first[half]) + first[half]
    made = []
    for place in range(20):
        one = (first, second)[place % 2] + random.normal(size=first.shape) * noise
        made.append(Rotation.random(random_state=place).apply(one) + random.normal(size=3) * 50)
    return np.stack(made).astype(np.float32)


def test_two_conformers_form_two_clusters():
    coordinates = conformers()
    found = agreement(coordinates, np.full(coordinates.shape[:2], 80.0), ["A"] * 30 + ["B"] * 30, COMPONENTS, 2.0)
    assert [one.members for one in found.clusters] == [tuple(range(0, 20, 2)), tuple(range(1, 20, 2))]
    assert found.rmsd[0, 2] < 1 < 3 < found.rmsd[0, 1]
    assert found.lddt[0] == pytest.approx(1)
    assert found.lddt[2] > found.lddt[1]
    assert found.interface_lddt[2] > found.interface_lddt[1]
    assert found.core.all()


def test_one_conformer_forms_one_cluster_with_the_spread_of_its_noise():
    coordinates = conformers(noise=0.3)[::2]
    found = agreement(coordinates, np.full(coordinates.shape[:2], 80.0), ["A"] * 60, COMPONENTS, 2.0)
    assert len(found.clusters) == 1
    assert found.interface_lddt is None
    assert 0.3 < np.median(found.spread) < 0.3 * np.sqrt(3) * 1.5


def test_swapped_copies_of_a_chain_do_not_change_the_rmsd():
    """A trimer: in the second sample two chains are swapped and the whole is rotated."""
    random = np.random.default_rng(3)
    one = np.cumsum(random.normal(size=(20, 3)), axis=0)
    turns = [Rotation.from_rotvec([0, 0, angle]).apply(one + np.array([6, 0, 0])) for angle in (0, 2.09, 4.19)]
    best = np.concatenate(turns)
    other = Rotation.random(random_state=1).apply(np.concatenate([turns[1], turns[0], turns[2]])) + 7
    coordinates = np.stack([best, other]).astype(np.float32)
    chains, components = np.repeat(["A", "B", "C"], 20), [f"X{number % 20}" for number in range(60)]
    plddt = np.full((2, 60), 80.0)
    found = agreement(coordinates, plddt, chains.tolist(), components, 2.0)
    assert found.rmsd[0, 1] < 1e-3
    assert found.interface_lddt[1] == pytest.approx(1, abs=1e-4)
    assert sorted(found.order[1].tolist()) == list(range(60))
    named = agreement(coordinates, plddt, chains.tolist(), COMPONENTS, 2.0)
    assert named.rmsd[0, 1] > 2


def test_chains_far_apart_have_no_interface_lddt():
    coordinates = conformers()[:2].copy()
    coordinates[0, 30:] += 500
    found = agreement(coordinates, np.full((2, 60), 80.0), ["A"] * 30 + ["B"] * 30, COMPONENTS, 2.0)
    assert found.interface_lddt is None


@pytest.mark.parametrize("n_token", [1, 2, 3])
def test_agreement_is_finite_for_few_tokens(n_token):
    coordinates = np.random.default_rng(0).normal(size=(3, n_token, 3)).astype(np.float32)
    found = agreement(coordinates, np.full((3, n_token), 80.0), ["A"] * n_token, ["MG"] * n_token, 2.0)
    assert np.isfinite(found.rmsd).all()
    assert np.isfinite(found.lddt).all()


def test_convergence_takes_thousands_of_seeds():
    curve = convergence([(seed, float(np.sin(seed))) for seed in range(3000)])
    assert list(curve.expected) == sorted(curve.expected)
    assert curve.expected[-1] == pytest.approx(max(curve.best))


@given(st.integers(1, 600), st.integers(0, 10_000))
@settings(max_examples=30)
def test_convergence_equals_the_sums_over_all_scores(n, seed):
    """Regression: the means for all counts took n * n steps, 8 s for 8,000 seeds."""
    scores = np.random.default_rng(seed).normal(size=n)
    curve = convergence(list(enumerate(scores.tolist())))
    assert list(curve.best) == [max(scores[: count + 1]) for count in range(n)]
    ordered = np.sort(scores)
    for count, found in enumerate(curve.expected, start=1):
        places = np.arange(n - 1, count - 1, -1)
        chances = count / n * np.cumprod(np.concatenate([[1.0], (places - count + 1) / places]))
        assert found == pytest.approx(ordered[count - 1 :][::-1] @ chances, rel=1e-12, abs=1e-12)


def test_the_mean_of_few_of_many_seeds_reads_few_scores():
    """The sums are short: 100,000 seeds need thousands of times fewer steps than all pairs of a count and a score."""
    read = []

    class Counted(np.ndarray):
        def __getitem__(self, item):
            made = super().__getitem__(item)
            read.append(made.size)
            return made

    ordered = np.linspace(0, 1, 100_000).view(Counted)
    expected_best(ordered, 50_000)
    assert read[0] < 100


def test_rmsd_and_tm_score_of_pairs_match_biotite():
    coordinates = conformers()[:4]
    coordinates = np.concatenate([coordinates, coordinates[:1] * [-1, 1, 1]])  # a mirror image is not superposed
    rmsd, tm = superpose_pairs(coordinates)
    for i, j in itertools.combinations(range(5), 2):
        one, other = (struc.AtomArray(60) for _ in range(2))
        for array, place in ((one, i), (other, j)):
            array.coord, array.res_id, array.chain_id = coordinates[place], np.arange(60), np.full(60, "A")
            array.atom_name[:], array.res_name[:] = "CA", "ALA"
        fitted, _ = struc.superimpose(one, other)
        assert rmsd[i, j] == rmsd[j, i] == pytest.approx(struc.rmsd(one, fitted), abs=1e-4)
        every = np.arange(60)
        assert tm[i, j] == pytest.approx(struc.tm_score(one, fitted, every, every, 60), abs=1e-4)


def test_tokens_of_very_low_plddt_are_left_out_unless_nearly_all_are():
    plddt = np.full((3, 30), 80.0)
    plddt[:, :10] = 30
    assert choose_core(plddt).sum() == 20
    assert choose_core(np.full((3, 30), 30.0)).all()


@given(st.integers(1, 12), st.integers(0, 10_000))
@settings(max_examples=50)
def test_clusters_are_a_partition_in_the_order_of_the_ranking(n, seed):
    points = np.random.default_rng(seed).normal(size=(n, 3)) * 3
    found = cluster(np.linalg.norm(points[:, None] - points[None], axis=-1), 2.0)
    assert sorted(place for one in found for place in one.members) == list(range(n))
    assert [one.members[0] for one in found] == sorted(min(one.members) for one in found)


@given(st.lists(st.floats(-100, 1), min_size=1, max_size=8), st.data())
@settings(max_examples=50)
def test_the_expected_best_is_the_mean_over_all_choices(scores, data):
    count = data.draw(st.integers(1, len(scores)))
    every = [max(chosen) for chosen in itertools.combinations(scores, count)]
    assert expected_best(np.sort(scores), count) == pytest.approx(sum(every) / len(every), abs=1e-9)


def test_a_flat_score_is_stable_and_a_rising_score_is_not():
    flat = convergence([(seed, 0.5) for seed in range(1, 9)])
    assert flat.last_gain == 1
    assert set(flat.best) == {0.5}
    assert flat.expected == pytest.approx([0.5] * 8)
    rising = convergence([(seed, 0.1 * seed) for seed in range(1, 9)])
    assert rising.last_gain == 8
    assert list(rising.best) == sorted(rising.best)
    assert list(rising.expected) == sorted(rising.expected)
    assert is_stable([0.5] * 4, 3)
    assert not is_stable([0.5] * 3, 3)
    assert not is_stable([0.1 * seed for seed in range(9)], 3)
    assert is_stable([0.5, 0.504, 0.503, 0.5], 3)  # within the tolerance


def tokens(n=60, chains=("A", "B")):
    chain = np.repeat(chains, n // len(chains))
    return Tokens(
        chain=chain, residue=np.arange(n) % (n // len(chains)) + 1, component=np.full(n, "ALA"),
        kind=np.full(n, "protein"), is_residue=np.ones(n, dtype=bool),
    )  # fmt: skip


def test_compact_files_are_read_as_written(tmp_path):
    pairs = tuple(
        (Interface(chain_1="A", chain_2="B", ipsae=0.1 * place, pdockq2=0.2, lis=0.3, n_contact=4),)
        for place in range(3)
    )
    random = np.random.default_rng(0)
    made = Compact(
        tokens=tokens(), coordinates=random.normal(size=(3, 60, 3)).astype(np.float32),
        plddt=random.uniform(0, 100, (3, 60)).astype(np.float32), pae=random.uniform(0, 31.7, (3, 60, 60)),
        interfaces=pairs,
    )  # fmt: skip
    write_compact(tmp_path / "ensemble.npz", made)
    assert read_compact(tmp_path / "ensemble.npz").pae is None
    back = read_compact(tmp_path / "ensemble.npz", with_pae=True)
    assert np.array_equal(back.coordinates, made.coordinates)
    assert np.abs(back.plddt - made.plddt).max() < 0.05
    assert np.abs(back.pae - made.pae).max() <= 1 / 16 + 1e-6
    assert back.interfaces == pairs
    assert back.tokens.chains == ("A", "B")


def test_a_large_pae_is_averaged_over_blocks():
    pae = np.arange(300)[:, None] + np.zeros(300)
    small = shrink_pae(pae)
    assert small.shape == (256, 256)
    assert small[0].tolist() == [0] * 256
    assert small[-1, 0] == pytest.approx(np.arange(255 * 300 // 256, 300).mean())
    assert shrink_pae(pae[:9, :9]).tolist() == pae[:9, :9].tolist()


def test_regions_of_large_spread_are_named_within_their_chain():
    spread = np.full(60, 0.5)
    spread[25:40] = 6.0  # across the end of chain A
    spread[55:57] = 9.0  # too short to name
    assert [where for where, *_ in loose_regions(spread, tokens())] == ["A 26-30", "B 1-10"]
    assert loose_regions(np.full(60, 0.5), tokens()) == []


def job_on_disk(out, seeds=(1, 2), *, steps=200, coordinates=None):
    """Write the files that ``rank`` reads: two samples of each seed, one of each conformer."""
    coordinates = conformers() if coordinates is None else coordinates
    for number, seed in enumerate(seeds):
        folder = out / "job" / f"seed_{seed}"
        (folder / "predictions").mkdir(parents=True)
        chosen = coordinates[2 * number : 2 * number + 2]
        pairs = (Interface(chain_1="A", chain_2="B", ipsae=0.5, pdockq2=0.2, lis=0.3, n_contact=4),)
        made = Compact(
            tokens=tokens(), coordinates=chosen, plddt=np.full((2, 60), 80.0), pae=np.zeros((2, 60, 60)),
            interfaces=(pairs, pairs),
        )  # fmt: skip
        write_compact(folder / "ensemble.npz", made)
        for place in range(2):
            summary = {
                "ranking_score": 0.9 - 0.1 * place - 0.01 * number, "plddt": 80, "ptm": 0.8, "iptm": 0.7,
                "has_clash": 0, "chain_ptm": [0.8, 0.7], "chain_pair_iptm": [[0, 0.6], [0.6, 0]],
            }  # fmt: skip
            stem = folder / "predictions" / f"job_summary_confidence_sample_{place}.json"
            stem.write_text(json.dumps(summary))
            atoms = struc.AtomArray(60)
            atoms.coord, atoms.chain_id, atoms.res_id = chosen[place], made.tokens.chain, made.tokens.residue
            atoms.atom_name[:], atoms.res_name[:], atoms.element[:] = "CA", "ALA", "C"
            docked.write(folder / "predictions" / f"job_sample_{place}.cif", atoms)
        record = {"fingerprint": "x", "made_from": {"steps": steps}, "files": {"a": {"bytes": 1, "sha256": ""}}}
        (folder / "record.json").write_text(json.dumps(record))


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def rows(path):
    return [line.split(",") for line in path.read_text().splitlines()]


def test_a_job_with_one_chain_has_no_iptm(tmp_path):
    """Regression: Protenix's 0 stood in the tables, where it is a bad score."""
    job_on_disk(tmp_path / "out", (1, 2))
    for path in (tmp_path / "out").rglob("*_summary_confidence_*.json"):
        content = {**json.loads(path.read_text()), "iptm": 0.0, "chain_ptm": [0.8], "chain_pair_iptm": [[0.0]]}
        path.write_text(json.dumps(content))
    assert run("rank", tmp_path / "out").exit_code == 0
    names, *ranked = rows(tmp_path / "out" / "job" / "ranking.csv")
    assert {row[names.index("iptm")] for row in ranked} == {""}
    names, summary = rows(tmp_path / "out" / "summary.csv")
    assert summary[names.index("iptm")] == ""
    assert {row.iptm for row in load_results(tmp_path / "out")} == {None}


def test_rank_joins_results_of_several_folders(tmp_path):
    job_on_disk(tmp_path / "one", (1, 2))
    job_on_disk(tmp_path / "two", (2, 3, 4))
    done = run("rank", tmp_path / "one", tmp_path / "two", "--to", tmp_path / "all")
    assert done.exit_code == 0, done.output
    assert "seed 2 is in" in done.output
    assert "2 clusters; the best-ranked one has 4 of 8 samples, from 4 of 4 seeds" in done.output
    table = rows(tmp_path / "all" / "job" / "ranking.csv")
    assert len(table) == 9
    for row in table[1:]:
        assert (tmp_path / "all" / "job" / row[-2]).resolve().is_file()
    record = json.loads((tmp_path / "all" / "job" / "ensemble.json").read_text())
    assert [cluster["seeds"] for cluster in record["clusters"]] == [[1, 2, 3, 4], [1, 2, 3, 4]]
    metrics = rows(tmp_path / "all" / "job" / "metrics.csv")
    assert ["1", "0", "chain_pair_iptm", "A", "B", "0.6"] in metrics
    assert ["1", "0", "ipsae", "A", "B", "0.5"] in metrics
    assert ["1", "0", "dockq_to_best", "A", "B", "1.0"] in metrics
    docked_to_best = [float(row[table[0].index("dockq_to_best")]) for row in table[1:]]
    assert docked_to_best[0] == 1
    assert len([score for score in docked_to_best if score > 0.9]) == 4  # the two conformers
    with np.load(tmp_path / "all" / "job" / "pairwise.npz") as pairs:
        assert pairs["rmsd"].shape == (8, 8)
    assert not (tmp_path / "one" / "job" / "ranking.csv").exists()


def lddt(reference, model, inclusion=15.0, pairs=None):
    """Mariani et al. 2013: the share of distances under 15 A that are kept within 0.5, 1, 2 and 4 A, averaged."""
    kept, counted = 0.0, 0
    for i, j in itertools.combinations(range(len(reference)), 2):
        there = np.linalg.norm(reference[i] - reference[j])
        if there < inclusion and (pairs is None or pairs[i] != pairs[j]):
            off = abs(np.linalg.norm(model[i] - model[j]) - there)
            kept += sum(off < threshold for threshold in (0.5, 1.0, 2.0, 4.0)) / 4
            counted += 1
    return kept / counted


def test_lddt_matches_its_definition():
    coordinates = conformers()[:4] + np.random.default_rng(3).normal(size=(4, 60, 3))
    chains = tokens().chain.tolist()
    found = agreement(coordinates, np.full((4, 60), 80.0), chains, COMPONENTS, 2.0)
    for place in range(4):
        model = coordinates[place][found.order[place]]
        assert found.lddt[place] == pytest.approx(lddt(coordinates[0], model), abs=1e-4)
        assert found.interface_lddt[place] == pytest.approx(lddt(coordinates[0], model, pairs=chains), abs=1e-4)
    assert found.lddt.min() < 0.9


def test_parquet_files_hold_the_csv_tables(tmp_path):
    import pandas

    job_on_disk(tmp_path, (1, 2))
    metrics = tmp_path / "job" / "seed_1" / "predictions" / "job_summary_confidence_sample_1.json"
    metrics.write_text(metrics.read_text().replace("[0.8, 0.7]", "[null, 0.7]"))
    assert run("rank", tmp_path, "--parquet").exit_code == 0
    for name in ("ranking", "metrics"):
        table = pandas.read_parquet(tmp_path / "job" / f"{name}.parquet")
        written = rows(tmp_path / "job" / f"{name}.csv")
        assert table.columns.tolist() == written[0]
        assert len(table) == len(written) - 1
    ranking = pandas.read_parquet(tmp_path / "job" / "ranking.parquet")
    assert ranking["interface_lddt_to_best"].dtype == ranking["dockq_to_best"].dtype == float
    assert ranking["ranking_score"].is_monotonic_decreasing


def test_parquet_keeps_texts_that_are_empty_or_look_like_numbers():
    import pandas

    row = dict.fromkeys(tables.COLUMNS, "0.5") | {"structure": "", "dockq_to_best": "", "chains_without_msa": "1"}
    made = pandas.read_parquet(io.BytesIO(tables._parquet(tables.table(row, [row.values()])))).iloc[0]
    assert (made["structure"], made["chains_without_msa"], made["confidence"]) == ("", "1", "0.5")
    assert pandas.isna(made["dockq_to_best"])


def test_rank_refuses_mixed_settings_and_damaged_files(tmp_path):
    job_on_disk(tmp_path / "one", (1,))
    job_on_disk(tmp_path / "two", (2,), steps=20)
    done = run("rank", tmp_path / "one", tmp_path / "two")
    assert done.exit_code == 2
    assert "steps was 200, is 20" in done.output
    assert run("rank", tmp_path).exit_code == 2
    file = tmp_path / "one" / "job" / "seed_1" / "ensemble.npz"
    whole = file.read_bytes()
    for damaged in (b"no archive", b"", whole[: len(whole) // 2], whole[:-30]):
        file.write_bytes(damaged)
        done = run("rank", tmp_path / "one")
        assert done.exit_code == 2, done.output
        assert "cannot be ranked" in done.output
    file.write_bytes(whole)
    structure = tmp_path / "one" / "job" / "seed_1" / "predictions" / "job_sample_0.cif"
    text = structure.read_text()
    for damaged in ("", "data_job\n", text[: len(text) // 2], text.replace(" B ", " C ")):
        structure.write_text(damaged)
        done = run("rank", tmp_path / "one")
        assert done.exit_code == 2, done.output
        assert "cannot be ranked" in done.output
        assert "job_sample_0.cif" in done.output.replace("\n", "")
    structure.write_text(text)
    record = structure.parents[1] / "record.json"
    listed = {"predictions/job_sample_1.cif": {"bytes": 1, "sha256": ""}}
    record.write_text(json.dumps(json.loads(record.read_text()) | {"files": listed}))
    (structure.parent / "job_sample_1.cif").unlink()  # deleted to save space: ranked and compared, without DockQ
    assert run("rank", tmp_path / "one").exit_code == 0
    dockq = rows(tmp_path / "one" / "job" / "ranking.csv")[0].index("dockq_to_best")
    assert [row[dockq] for row in rows(tmp_path / "one" / "job" / "ranking.csv")[1:]] == ["1.0", ""]
    shutil.rmtree(tmp_path / "one" / "job" / "seed_1" / "predictions")
    assert "hold no predictions any more" in run("rank", tmp_path / "one").output


def test_seeds_without_ensemble_npz_are_ranked_but_not_compared(tmp_path):
    job_on_disk(tmp_path, (1, 2))
    assert run("rank", tmp_path).exit_code == 0
    assert (tmp_path / "job" / "spread.csv").exists()
    (tmp_path / "job" / "seed_2" / "ensemble.npz").unlink()
    done = run("rank", tmp_path)
    assert done.exit_code == 0
    assert not (tmp_path / "job" / "spread.csv").exists()  # it was about samples that are no longer compared
    assert "Not compared" in done.output
    assert len(rows(tmp_path / "job" / "ranking.csv")) == 5


def samples_of(out):
    scores = {"plddt": 1.0, "ptm": 1.0, "iptm": 1.0, "has_clash": False}
    return [
        Sample(
            job="job", seed=int(folder.name[5:]), sample=place, ranking_score=0.5, **scores,
            structure=folder / "predictions" / f"job_sample_{place}.cif",
            confidence=folder / "predictions" / f"job_summary_confidence_sample_{place}.json",
        )
        for folder in sorted((out / "job").glob("seed_*"))
        for place in range(2)
    ]  # fmt: skip


def test_the_page_shows_only_kept_structures(tmp_path):
    """If the structure of a cluster's best-ranked sample was not kept, the page shows the next one that was."""
    job_on_disk(tmp_path, (1, 2))
    samples = [replace(one, ranking_score=1 - place / 10) for place, one in enumerate(samples_of(tmp_path))]
    samples[1] = replace(samples[1], structure=None)
    findings = gather(samples, {})
    assert [one.members for one in findings.agreement.clusters] == [(0, 2), (1, 3)]
    assert structures_of(findings, slim=True) == [0, 3]
    assert structures_of(findings, slim=False) == [0, 3, 2]
    arrays = collect("job", findings, (), slim=False).arrays
    shown = {name: content for name, content in arrays.items() if name.startswith("cif-")}
    assert shown == {f"cif-{place}": pack_text(samples[place].structure.read_text()) for place in (0, 2, 3)}


def test_a_folder_that_is_named_twice_counts_once(tmp_path):
    """Regression: each of its seeds was said to be in two folders."""
    page_results.write(tmp_path / "out", ["job"])
    (tmp_path / "link").symlink_to("out")
    for other in ("out", "link"):
        (found,) = find_jobs([tmp_path / "out", tmp_path / other])
        assert found.seeds
        assert found.notes == []


def test_the_page_says_once_that_a_protein_has_no_msa(tmp_path):
    page_results.write(tmp_path, ["job"])
    findings = gather_job(find_jobs([tmp_path])[0]).findings
    bare = spec_of({"sequences": [{"proteinChain": {"sequence": "MKT", "count": 1}}]})
    notes = (*notes_of(bare, load_config({"model": "demo"}).input_rules), "another note")
    said = collect("job", findings, notes, slim=True).summary
    assert ["no MSA" in text for text in (*said["notes"], *said["found"])].count(True) == 1
    assert said["notes"] == ["another note"]
    of_older_records = collect("job", replace(findings, chains=()), notes, slim=True).summary
    assert of_older_records["notes"] == list(notes)


def test_one_sample_is_said_to_have_no_comparison(tmp_path):
    job_on_disk(tmp_path, (1,))
    findings = gather(samples_of(tmp_path)[:1], {})
    assert findings.sentences == ("one sample: nothing to compare it with",)
    write_findings(tmp_path / "job", findings)


def test_samples_that_agree_are_said_to_agree(tmp_path):
    job_on_disk(tmp_path, (1, 2), coordinates=conformers()[::2])
    first, second = gather(samples_of(tmp_path), {}).sentences
    assert first.startswith("all 4 samples agree: no two are more than")
    assert second == "with 2 seeds instead of 1, the best score is no higher on average"


def test_a_damaged_seed_is_left_out_and_the_others_are_ranked(tmp_path):
    """Regression: one damaged file stopped the whole command, and the message said that nothing was written."""
    job_on_disk(tmp_path, (1, 2))
    file = tmp_path / "job" / "seed_2" / "ensemble.npz"
    file.write_bytes(b"?" * file.stat().st_size)
    for command in ("rank", "report"):
        done = run(command, tmp_path)
        assert done.exit_code == 1, done.output
        assert "seed_2: ensemble.npz: " in done.output.replace("\n", "")
        assert "the seed is left out: predict with --verify" in " ".join(done.output.split())
    assert {row[2] for row in rows(tmp_path / "job" / "ranking.csv")[1:]} == {"1"}
    assert (tmp_path / "report.html").exists()


def test_errors_that_the_page_alone_meets_leave_only_their_seed_out(tmp_path):
    job_on_disk(tmp_path, (1, 2))
    with np.load(tmp_path / "job" / "seed_2" / "ensemble.npz") as held:
        arrays = {**held, "pae": np.zeros((1, 2, 3), dtype=np.uint8)}
    np.savez_compressed(tmp_path / "job" / "seed_2" / "ensemble.npz", **arrays)
    assert run("rank", tmp_path).exit_code == 0
    done = run("report", tmp_path)
    assert done.exit_code == 1, done.output
    assert "predicted aligned errors do not fit" in " ".join(done.output.split())
    assert "1 job\n" in done.output


def test_the_only_copy_of_the_best_structure_is_kept(tmp_path):
    """A user deletes the structures to save space and keeps best.cif."""
    job_on_disk(tmp_path, (1,))
    structure = tmp_path / "job" / "seed_1" / "predictions" / "job_sample_0.cif"
    record = tmp_path / "job" / "seed_1" / "record.json"
    written = {"bytes": structure.stat().st_size, "sha256": sha256(structure)}
    files = {"files": {f"predictions/{structure.name}": written}}
    record.write_text(json.dumps(json.loads(record.read_text()) | files))
    assert run("rank", tmp_path).exit_code == 0
    best = (tmp_path / "job" / "best.cif").read_bytes()
    structure.unlink()
    assert run("rank", tmp_path).exit_code == 0
    assert (tmp_path / "job" / "best.cif").read_bytes() == best
    (tmp_path / "job" / "best.cif").unlink()
    done = run("rank", tmp_path)
    assert done.exit_code == 2
    assert "the structure of the best sample is missing; run predict again for seed 1" in " ".join(done.output.split())


def test_a_job_whose_tables_cannot_be_written_is_no_refusal(tmp_path):
    """Some of its tables may be written already, so the exit code is not that of a command that wrote nothing."""
    job_on_disk(tmp_path, (1,))
    (tmp_path / "job" / "metrics.csv").mkdir()
    done = run("rank", tmp_path)
    assert done.exit_code == 1, done.output
    assert "job/metrics.csv: Is a directory; move it away, or choose another --to" in " ".join(done.output.split())


TAKE = """
import sys
from pathlib import Path
from protenix_multiseed.outputs.locks import Locks
with Locks(Path(sys.argv[1])) as locks:
    print([locks.take(name) for name in sys.argv[2:]])
"""


def test_rank_writes_under_the_locks_of_the_folders_runs(tmp_path, monkeypatch):
    """Regression: the line of a job that a run finished meanwhile was lost from the summary."""
    job_on_disk(tmp_path, (1,))
    names, got = ("ranking:job", "summary"), {}

    def locked(write):
        def run(*arguments, **named):
            command = [sys.executable, "-c", TAKE, str(tmp_path), *names]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
            got[write.__name__] = done.stdout.strip()
            return write(*arguments, **named)

        return run

    for write in (rank.write_findings, rank.write_summary):
        monkeypatch.setattr(rank, write.__name__, locked(write))
    (tmp_path / "protenix-ms").mkdir()
    (tmp_path / "protenix-ms" / "locks").touch()
    done = run("rank", tmp_path)
    assert done.exit_code == 0, done.output
    assert got == {"write_findings": "[False, True]", "write_summary": "[True, False]"}


def test_rank_makes_no_locks_in_a_folder_of_its_own(tmp_path):
    job_on_disk(tmp_path / "out", (1,))
    assert run("rank", tmp_path / "out", "--to", tmp_path / "tables").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == ["job", "summary.csv"]


def test_plddt_is_averaged_over_matched_copies_of_a_chain(tmp_path):
    """In the second sample the copies have changed places. Regression: the mean was that of both copies."""
    random = np.random.default_rng(3)
    one = np.cumsum(random.normal(size=(30, 3)), axis=0)
    halves = [one, Rotation.from_rotvec([0, 0, np.pi]).apply(one + np.array([8, 0, 0]))]
    coordinates = np.stack([np.concatenate(halves), np.concatenate(halves[::-1])]).astype(np.float32)
    twins = Tokens(
        chain=np.repeat(["A", "B"], 30), residue=np.tile(np.arange(1, 31), 2),
        component=np.tile([f"X{number}" for number in range(30)], 2), kind=np.full(60, "protein"),
        is_residue=np.ones(60, dtype=bool),
    )  # fmt: skip
    job_on_disk(tmp_path, (1,))
    high, low = np.full(30, 90.0), np.full(30, 60.0)
    plddt = np.stack([np.concatenate([high, low]), np.concatenate([low, high])])
    made = Compact(tokens=twins, coordinates=coordinates, plddt=plddt, pae=np.zeros((2, 60, 60)), interfaces=((), ()))
    write_compact(tmp_path / "job" / "seed_1" / "ensemble.npz", made)
    samples = [replace(sample, structure=None) for sample in samples_of(tmp_path)]
    findings = gather(samples, {})
    assert findings.agreement.rmsd[0, 1] < 1e-3
    assert findings.plddt.tolist() == plddt[0].tolist()
    assert findings.matched_plddt().tolist() == [plddt[0].tolist()] * 2
    summary = collect("job", findings, (), slim=True).summary
    low_high = [np.frombuffer(base64.b64decode(text), np.uint8) / 2 for text in summary["plddt_range"]]
    assert [values.tolist() for values in low_high] == [plddt[0].tolist()] * 2
    assert list(summary["orders"]) == ["1"]


def test_a_seed_whose_record_is_gone_is_named(tmp_path):
    """Regression: it was left out of the tables without a word, with exit code 0."""
    job_on_disk(tmp_path, (1, 2))
    (tmp_path / "job" / "seed_2" / "record.json").unlink()
    done = run("rank", tmp_path)
    assert done.exit_code == 1
    assert "seed_2: it has no record.json, so the seed is left out" in " ".join(done.output.split())
    (tmp_path / "job" / "seed_2" / "ensemble.npz").unlink()  # perhaps Protenix wrote it
    done = run("rank", tmp_path)
    assert done.exit_code == 0
    assert "seed_2: it has no record.json" in " ".join(done.output.split())


def test_seeds_of_one_folder_that_differ_are_refused_with_a_way_out(tmp_path):
    job_on_disk(tmp_path, (1,))
    job_on_disk(tmp_path, (2,), steps=20)
    done = run("rank", tmp_path)
    assert done.exit_code == 2
    assert "predict all seeds again with --overwrite, or move some away" in " ".join(done.output.split())


def test_tables_of_a_job_of_another_folder_do_not_spoil_a_folder(tmp_path):
    """``rank A B`` writes the tables of all jobs to A. Regression: then A could not be ranked or reported alone."""
    page_results.write(tmp_path / "a", ["one"])
    page_results.write(tmp_path / "b", ["two"])
    assert run("rank", tmp_path / "a", tmp_path / "b").exit_code == 0
    assert (tmp_path / "a" / "two" / "ranking.csv").is_file()
    for command in ("rank", "report"):
        done = run(command, tmp_path / "a")
        assert done.exit_code == 0, done.output
    assert [job.name for job in find_jobs([tmp_path / "a"])] == ["one"]


def test_a_renamed_folder_of_a_job_is_said_to_be_renamed(tmp_path):
    page_results.write(tmp_path, ["one"])
    for path in (tmp_path / "one").glob("seed_*/record.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "job": "one"}))
    (tmp_path / "one").rename(tmp_path / "other")
    done = run("rank", tmp_path)
    assert done.exit_code == 2
    assert "is that of job 'one'; the seed is left out: rename the folder of the job back" in " ".join(
        done.output.split()
    )


def test_a_score_that_is_not_known_is_not_shown_as_zero(tmp_path):
    job_on_disk(tmp_path, (1, 2))
    (tmp_path / "job" / "seed_2" / "ensemble.npz").unlink()
    shown = [
        line.split() for line in run("rank", tmp_path).output.splitlines() if line.strip().startswith(("1 ", "2 "))
    ]
    assert {row[1]: row[7] for row in shown} == {"1": "0.500", "2": "-"}


def test_other_inputs_are_not_ranked_together_even_if_they_share_all_seeds(tmp_path):
    """Regression: the second folder was left out with a note, as if it held the same seed of the same job."""
    job_on_disk(tmp_path / "one", (1, 2))
    job_on_disk(tmp_path / "two", (1, 2), steps=20)
    done = run("rank", tmp_path / "one", tmp_path / "two", "--to", tmp_path / "all")
    assert done.exit_code == 2
    assert "rank the two folders separately" in " ".join(done.output.split())
