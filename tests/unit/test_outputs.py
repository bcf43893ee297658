import csv
import hashlib
import json
import random
import time
from dataclasses import replace
from types import SimpleNamespace

import gemmi
import numpy as np
import pytest
from biotite.structure import AtomArray, BondList, get_residue_starts
from biotite.structure.io import pdbx
from support.jobs import job_of, task_of
from support.predictions import NAMES, prediction, written

from protenix_multiseed import files
from protenix_multiseed.analysis.compact import compact
from protenix_multiseed.analysis.findings import gather, ranked
from protenix_multiseed.errors import RunError
from protenix_multiseed.files import publish_folder, remove_leftovers, write_text
from protenix_multiseed.outputs import tables, write
from protenix_multiseed.outputs.claims import Claims
from protenix_multiseed.outputs.locks import Locks
from protenix_multiseed.outputs.ranking import read_seeds
from protenix_multiseed.outputs.record import write_failures
from protenix_multiseed.outputs.seed_files import read_record
from protenix_multiseed.outputs.summary import summary_row, write_summary
from protenix_multiseed.outputs.tables import write_findings
from protenix_multiseed.outputs.write import write_prediction
from protenix_multiseed.packed import Packed
from protenix_multiseed.settings import FolderSettings, WriteSettings
from protenix_multiseed.types import Failure, Sample
from protenix_multiseed.upstream import environment
from protenix_multiseed.upstream.dictionary import EmbeddedDictionary

IDENTITY = {"steps": 2}


@pytest.fixture(scope="module", autouse=True)
def prepared():
    environment.prepare(EmbeddedDictionary())


def job(name='it\'s a "job" 1.2'):
    return job_of(name=name, seeds=(3,))


def test_written_samples_are_ranked_within_the_seed_and_can_be_read(tmp_path):
    made, started = prediction(), time.gmtime()[:6]
    samples = written(made, WriteSettings(out=tmp_path), IDENTITY)
    assert [sample.ranking_score for sample in samples] == pytest.approx([0.9, 0.5, 0.2])
    for sample, index in zip(samples, (1, 2, 0), strict=True):
        array = pdbx.get_structure(pdbx.CIFFile.read(sample.structure), model=1, extra_fields=["b_factor"])
        assert np.allclose(array.coord, made.coordinates[index], atol=6e-4)
        assert np.allclose(array.b_factor, 100 * float(made.summary[index]["ptm"]), atol=0.01)
        chain = gemmi.read_structure(str(sample.structure))[0]["A"]
        assert [atom.name for residue in chain for atom in residue] == NAMES * 2
        assert json.loads(sample.confidence.read_text())["ranking_score"] == pytest.approx(sample.ranking_score)
    record = json.loads((tmp_path / made.job.name / "seed_3" / "record.json").read_text())
    assert record["run"] == {"path": "reference", "seconds": 1.5}
    assert record["made_from"] == IDENTITY
    assert started <= time.strptime(record["date"], "%Y-%m-%dT%H:%M:%SZ")[:6] <= time.gmtime()[:6]
    assert len(record["files"]) == 7
    for name, file in record["files"].items():
        content = (tmp_path / made.job.name / "seed_3" / name).read_bytes()
        assert file == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_the_date_of_a_prediction_is_no_part_of_what_identifies_it(tmp_path, monkeypatch):
    records = []
    for day in (0, 1):
        monkeypatch.setattr(
            write.time, "gmtime", lambda day=day: time.struct_time((2026, 1, 1 + day, 0, 0, 0, 3, 1, 0))
        )
        (sample,) = written(prediction(scores=(0.5,)), WriteSettings(out=tmp_path), IDENTITY)
        records.append(read_record(sample.folder))
    assert [record.pop("date") for record in records] == ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]
    assert records[0] == records[1]


def test_a_notice_is_in_every_file(tmp_path):
    made = prediction()
    samples = written(made, WriteSettings(out=tmp_path, notice="This is made up."), IDENTITY)
    for sample in samples:
        block = gemmi.cif.read(str(sample.structure)).sole_block()
        assert gemmi.cif.as_string(block.find_value("_struct.title")).strip() == "This is made up."
        assert pdbx.CIFFile.read(sample.structure).block["struct"]["title"].as_item().strip() == "This is made up."
        assert json.loads(sample.confidence.read_text())["notice"] == "This is made up."
    assert json.loads((tmp_path / made.job.name / "seed_3" / "record.json").read_text())["notice"] == "This is made up."


def glycoprotein():
    """Two residues of a protein, a glycan of two residues that is bonded to them, and an ion."""
    protein = prediction().atom_array.value
    ligand = protein[:5].copy()
    ligand.chain_id[:], ligand.res_id[:], ligand.res_name[:] = "G", [1, 1, 1, 2, 2], "NAG"
    ligand.atom_name[:], ligand.element[:] = ["C1", "O4", "C2", "C1", "O4"], ["C", "O", "C", "C", "O"]
    ion = protein[:1].copy()
    ion.chain_id[:], ion.res_id[:], ion.res_name[:], ion.atom_name[:], ion.element[:] = "I", 1, "MG", "MG", "MG"
    atoms = protein + ligand + ion
    atoms.hetero = atoms.chain_id != "A"
    for annotation in ("label_asym_id", "auth_asym_id"):
        atoms.set_annotation(annotation, atoms.chain_id)
    atoms.set_annotation("label_entity_id", np.repeat(["1", "2", "3"], [10, 5, 1]))
    atoms.set_annotation("token", np.array([*np.repeat([0, 1], 5), *range(2, 8)]))
    atoms.bonds = BondList(len(atoms), np.array([[0, 1, 1], [6, 10, 1], [11, 13, 1]]))
    coordinates = np.random.default_rng(0).normal(size=(1, len(atoms), 3)).astype(np.float32) * 20
    full = ({"atom_plddt": np.linspace(0.3, 0.9, len(atoms)), "token_pair_pae": np.full((8, 8), 4.0)},)
    return prediction(scores=(0.5,), atom_array=atoms, coordinates=coordinates, full=full)


def test_ligands_have_no_number_in_their_sequence_but_as_protenix_writes_them(tmp_path):
    made = glycoprotein()
    (theirs,) = written(made, WriteSettings(out=tmp_path / "exact", as_protenix=True), IDENTITY)
    (ours,) = written(made, WriteSettings(out=tmp_path / "ours"), IDENTITY)
    columns = ["label_asym_id", "label_seq_id", "auth_seq_id"]
    blocks = [gemmi.cif.read(str(one.structure)).sole_block() for one in (ours, theirs)]
    mine, exact = ({tuple(row) for row in block.find("_atom_site.", columns)} for block in blocks)
    assert mine == {("A", "1", "1"), ("A", "2", "2"), ("G", ".", "1"), ("G", ".", "2"), ("I", ".", "1")}
    assert exact == {("A", "1", "1"), ("A", "2", "2"), ("G", "1", "1"), ("G", "2", "2"), ("I", "1", "1")}
    for name in (tag for tag in blocks[1].find_mmcif_category("_atom_site.").tags if not tag.endswith("label_seq_id")):
        assert list(blocks[0].find_values(name)) == list(blocks[1].find_values(name)), name
    categories = [block.get_mmcif_category_names() for block in blocks]
    assert categories[0] == categories[1]


def test_ligands_without_bonds_to_other_residues_have_no_number_either(tmp_path):
    made = glycoprotein()
    made.atom_array.value.bonds = BondList(len(made.atom_array.value))
    (ours,) = written(made, WriteSettings(out=tmp_path), IDENTITY)
    block = gemmi.cif.read(str(ours.structure)).sole_block()
    assert not block.find_mmcif_category("_struct_conn.")
    numbers = {tuple(row) for row in block.find("_atom_site.", ["label_asym_id", "label_seq_id"])}
    assert numbers == {("A", "1"), ("A", "2"), ("G", "."), ("I", ".")}


def test_a_file_without_ligands_and_bonds_between_residues_is_as_protenix_writes_it(tmp_path):
    made = prediction(scores=(0.5,))
    (theirs,) = written(made, WriteSettings(out=tmp_path / "exact", as_protenix=True), IDENTITY)
    (ours,) = written(made, WriteSettings(out=tmp_path / "ours"), IDENTITY)
    assert ours.structure.read_text() == theirs.structure.read_text()


def test_readers_find_the_residues_and_bonds_of_ligands(tmp_path):
    from Bio.PDB import MMCIFParser

    made = glycoprotein()
    (sample,) = written(made, WriteSettings(out=tmp_path), IDENTITY)
    expected = [("A", "ALA", 1), ("A", "ALA", 2), ("G", "NAG", 1), ("G", "NAG", 2), ("I", "MG", 1)]
    array = pdbx.get_structure(pdbx.CIFFile.read(sample.structure), model=1, include_bonds=True)
    starts = get_residue_starts(array)
    read = zip(array.chain_id[starts], array.res_name[starts], array.res_id[starts], strict=True)
    assert [(str(chain), str(name), int(number)) for chain, name, number in read] == expected
    assert np.allclose(array.coord, made.coordinates[0], atol=6e-4)
    assert {tuple(map(int, bond[:2])) for bond in array.bonds.as_array()} >= {(6, 10), (11, 13)}
    structure = gemmi.read_structure(str(sample.structure))
    assert [(chain.name, one.name, one.seqid.num) for chain in structure[0] for one in chain] == expected
    ends = [(one.partner1.res_id.seqid.num, one.partner2.res_id.seqid.num) for one in structure.connections]
    assert ends == [(2, 1), (1, 2)]
    chains = MMCIFParser(QUIET=True).get_structure("x", str(sample.structure))[0]
    assert [(chain.id, one.resname, one.id[1]) for chain in chains for one in chain] == expected


def test_bonds_of_molecules_that_no_dictionary_has_are_written(tmp_path):
    """Regression: programs read no bond of a ligand that is given as SMILES, or of a component of the job's own."""
    made = glycoprotein()
    atoms = made.atom_array.value
    atoms.res_name[5:10], atoms.res_id[5:10], atoms.atom_name[5:10] = "l01", 1, ["C1", "C2", "C3", "O1", "O2"]
    bonds = {(0, 1, 1), (2, 3, 2), (5, 6, 1), (6, 7, 5), (7, 8, 2)}
    atoms.bonds = BondList(len(atoms), np.array(sorted(bonds)))
    protein = {"proteinChain": {"sequence": "AA", "count": 1}}
    known, smiles = (
        replace(made, job=job_of({"sequences": [protein, {"ligand": {"ligand": ligand, "count": 1}}]}))
        for ligand in ("CCD_NAG_NAG", "CCO")
    )
    files = {}
    for name, one, settings in (
        ("known", known, {}), ("exact", smiles, {"as_protenix": True}), ("smiles", smiles, {}),
    ):  # fmt: skip
        (sample,) = written(one, WriteSettings(out=tmp_path / name, **settings), IDENTITY)
        files[name] = pdbx.CIFFile.read(sample.structure)
    assert ["chem_comp_bond" in file.block for file in files.values()] == [False, False, True]
    array = pdbx.get_structure(files["smiles"], model=1, include_bonds=True)
    assert {tuple(map(int, bond)) for bond in array.bonds.as_array()} >= bonds


def test_writing_again_replaces_the_whole_seed_folder(tmp_path):
    write_prediction(prediction(), WriteSettings(out=tmp_path), IDENTITY)
    write_prediction(prediction(scores=(0.1,)), WriteSettings(out=tmp_path), IDENTITY)
    folder = tmp_path / job().name
    assert [path.name for path in folder.iterdir()] == ["seed_3"]
    assert len(list((folder / "seed_3" / "predictions").iterdir())) == 2


def test_a_failed_write_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr(
        write, "publish_folder", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space left"):
        write_prediction(prediction(), WriteSettings(out=tmp_path), IDENTITY)
    assert list((tmp_path / job().name).iterdir()) == []


def test_write_text_keeps_the_old_content_if_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_text(path, "old")
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("broken")))
    with pytest.raises(OSError, match="broken"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_publish_folder_replaces_an_existing_folder(tmp_path):
    for name in ("new", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    publish_folder(tmp_path / "new", tmp_path / "target")
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "new"]


def sample(folder, seed, number, score):
    stem = folder / f"seed_{seed}" / "predictions" / f"sample_{number}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    scores = {"ranking_score": score, "plddt": 70.0, "ptm": 0.5, "iptm": 0.25, "has_clash": number == 1}
    for suffix in (".cif", ".json"):
        stem.with_suffix(suffix).write_text(json.dumps({**scores, "seed": seed, "number": number}))
    cif, confidence = stem.with_suffix(".cif"), stem.with_suffix(".json")
    return Sample(job="a", seed=seed, sample=number, **scores, structure=cif, confidence=confidence)


def test_ranking_does_not_depend_on_the_order_of_the_run(tmp_path):
    samples = [
        sample(tmp_path, seed, number, score)
        for seed, number, score in [(1, 0, 0.5), (1, 1, 0.25), (2, 0, 0.75), (2, 1, 0.5), (3, 0, 0.5)]
    ]
    shuffled = samples[:]
    random.Random(0).shuffle(shuffled)
    assert ranked(shuffled) == ranked(samples)
    findings = gather(shuffled, {})
    write_findings(tmp_path, findings)
    assert (findings.best.seed, findings.best.sample) == (2, 0)
    for name in ("best.cif", "best_summary_confidence.json"):
        content = json.loads((tmp_path / name).read_text())
        assert (content["seed"], content["number"]) == (2, 0)
    with (tmp_path / "ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["rank"], row["seed"], row["sample"]) for row in rows] == [
        ("1", "2", "0"),
        ("2", "1", "0"),
        ("3", "2", "1"),
        ("4", "3", "0"),
        ("5", "1", "1"),
    ]
    known = {key: value for key, value in rows[0].items() if value}
    assert known == {
        "rank": "1", "job": "a", "seed": "2", "sample": "0", "ranking_score": "0.75", "plddt": "70.0", "ptm": "0.5",
        "iptm": "0.25", "has_clash": "0", "structure": "seed_2/predictions/sample_0.cif",
        "confidence": "seed_2/predictions/sample_0.json",
    }  # fmt: skip


def failed(name, seed, message="no"):
    return Failure(job=job(name), seed=seed, stage="predict", message=message, advice="try", traceback="Traceback")


def lines(out):
    path = out / "protenix-ms" / "failures.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_recorded_failure_says_what_to_try(tmp_path):
    write_failures(tmp_path, [failed("a", 3)], set())
    assert lines(tmp_path) == [
        {"job": "a", "seed": 3, "stage": "predict", "message": "no", "try": "try", "traceback": "Traceback"}
    ]


def test_failures_of_other_runs_stay_until_their_seeds_are_done(tmp_path):
    write_failures(tmp_path, [failed("a", 1), failed("a", 2), failed("b", None)], set())
    write_failures(tmp_path, [failed("a", 2, "again"), failed("c", 1)], {("a", 1)})
    assert [(line["job"], line["seed"], line["message"]) for line in lines(tmp_path)] == [
        ("b", None, "no"), ("a", 2, "again"), ("c", 1, "no")
    ]  # fmt: skip
    write_failures(tmp_path, [], {("a", 2), *(("b", seed) for seed in job("b").seeds), ("c", 1)})
    assert not (tmp_path / "protenix-ms" / "failures.jsonl").exists()


def test_a_failure_of_a_job_stays_until_all_its_seeds_are_done(tmp_path):
    """Regression: a run of another seed of the job, which was done, removed it."""
    first = Failure(job=replace(job("a"), seeds=(2, 3)), seed=None, stage="featurize", message="no", advice="try")
    write_failures(tmp_path, [first], set())
    write_failures(tmp_path, [replace(first, job=replace(first.job, seeds=(4,)))], {("a", 1), ("a", 2)})
    assert [line["seeds"] for line in lines(tmp_path)] == [[2, 3], [4]]
    write_failures(tmp_path, [], {("a", 1), ("a", 2), ("a", 3)})
    assert [line["seeds"] for line in lines(tmp_path)] == [[4]]


def test_damaged_lines_in_the_list_of_failures_are_ignored(tmp_path):
    path = tmp_path / "protenix-ms" / "failures.jsonl"
    path.parent.mkdir()
    lines_ = [
        '{"job": "a", "seed": 1}',
        "[]",
        "null",
        '{"jo',
        '{"job": [], "seed": 1}',
        '{"job": "a", "seed": {}}',
        '{"job": "a", "seed": null, "seeds": [{}]}',
        "[" * 5000,
    ]
    path.write_text("\n".join(lines_))
    write_failures(tmp_path, [failed("b", 1)], set())
    assert [line["job"] for line in lines(tmp_path)] == ["a", "b"]


def test_only_leftovers_of_a_killed_process_are_removed(tmp_path):
    for name in (".seed_1.new-x", ".seed_1.old-y", ".seed_12.new-z", "seed_1"):
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path / "seed_1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".seed_12.new-z", "seed_1"]


def test_the_leftovers_of_a_claimed_seed_are_removed_also_when_it_is_claimed_again(tmp_path):
    (tmp_path / "a").mkdir()
    task = task_of(job_of(seeds=(1, 2, 3)))
    with Locks(tmp_path) as locks:
        claims = Claims(locks, [task], FolderSettings(out=tmp_path))
        left = [tmp_path / "a" / f".seed_{seed}.new-0" for seed in (1, 2, 3)]
        for path in left:
            path.mkdir()
        assert claims.claim(task.job, [1, 2]) == ([1, 2], [])
        assert [path.exists() for path in left] == [False, False, True]
        left[0].mkdir()  # the process that predicted it was killed
        assert claims.claim(task.job, [1]) == ([1], [])
        assert not left[0].exists()


def test_a_worker_whose_run_was_killed_publishes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(write.multiprocessing, "parent_process", lambda: SimpleNamespace(is_alive=lambda: False))
    with pytest.raises(RunError, match="the run that predicted it was killed"):
        write_prediction(prediction(), WriteSettings(out=tmp_path), IDENTITY)
    assert list(tmp_path.glob("*/*")) == list(tmp_path.glob("*/.*")) == []


def test_a_seed_that_is_published_is_no_failure_if_a_file_is_damaged_at_once(tmp_path, monkeypatch):
    """Regression: the files were read back, and an error there failed the seed although the next run found it done."""

    def publish(scratch, target):
        publish_folder(scratch, target)
        (confidence,) = target.glob("predictions/*_summary_confidence_sample_0.json")
        confidence.write_bytes(b"\xff" * confidence.stat().st_size)

    monkeypatch.setattr(write, "publish_folder", publish)
    made = prediction()
    write_prediction(made, WriteSettings(out=tmp_path), IDENTITY)
    seeds = read_seeds(made.job.name, {3: tmp_path / made.job.name / "seed_3"})
    assert list(seeds.damaged) == [3]  # the ranking reports it


def test_structures_hold_confidence_and_software_as_modelcif(tmp_path):
    reader, qa_metric = (pytest.importorskip(f"modelcif.{part}") for part in ("reader", "qa_metric"))
    made = prediction(scores=(0.2,))
    varied = np.linspace(0.1, 0.9, len(made.atom_array.value), dtype=np.float32)
    made = replace(made, full=({**made.full[0], "atom_plddt": varied},))
    (sample,) = written(made, WriteSettings(out=tmp_path), IDENTITY)
    with sample.structure.open() as file:
        (system,) = reader.read(file)
    (model,) = (model for group in system.model_groups for model in group)
    whole = next(one for one in model.qa_metrics if isinstance(one, qa_metric.Global))
    residues = [one for one in model.qa_metrics if isinstance(one, qa_metric.Local)]
    assert whole.value == pytest.approx(100 * varied.mean(), abs=0.01)
    assert [one.value for one in residues] == pytest.approx(100 * varied.reshape(2, -1).mean(axis=1), abs=0.01)
    assert ("protenix", "2.0.0") in [(one.name, one.version) for one in system.software]


def test_ligand_tokens_are_not_residues():
    """A modified residue of two tokens, a glycine and a ligand of two atoms."""
    atoms = AtomArray(6)
    atoms.chain_id[:] = list("AAAABB")
    atoms.res_id[:] = [1, 1, 2, 2, 1, 1]
    atoms.res_name[:] = ["SEP", "SEP", "GLY", "GLY", "LIG", "LIG"]
    atoms.atom_name[:] = ["CB", "CA", "CA", "N", "C1", "C2"]
    atoms.set_annotation("label_entity_id", np.array(list("111122")))
    atoms.set_annotation("token", np.array([0, 1, 2, 2, 3, 4]))
    coordinates = np.arange(18, dtype=np.float32).reshape(1, 6, 3)
    full = ({"atom_plddt": np.linspace(0, 1, 6), "token_pair_pae": np.zeros((5, 5))},)
    found = compact(prediction(scores=(0.5,), atom_array=atoms, coordinates=coordinates, full=full), [0])
    assert found.tokens.kind.tolist() == ["protein"] * 3 + ["ligand"] * 2
    assert found.tokens.is_residue.tolist() == [False, True, True, False, False]
    assert found.coordinates[0, :, 0].tolist() == [0, 3, 6, 12, 15]
    assert found.plddt[0].tolist() == pytest.approx([0, 20, 50, 80, 100])
    assert found.interfaces == ((),)  # one polymer chain only


def files_of(samples):
    return sorted(path.name.removeprefix(f"{samples[0].job}_") for path in samples[0].confidence.parent.iterdir())


def records_of(samples):
    return {sample.seed: read_record(sample.folder) for sample in samples}


def test_a_seed_keeps_the_structures_of_its_best_samples(tmp_path):
    settings = WriteSettings(out=tmp_path, kept=2, pae="npz")
    samples = written(prediction(), settings, IDENTITY)
    assert files_of(samples) == [
        "pae_sample_0.npz", "pae_sample_1.npz", "sample_0.cif", "sample_1.cif",
        *(f"summary_confidence_sample_{rank}.json" for rank in range(3)),
    ]  # fmt: skip
    assert [sample.structure is not None for sample in samples] == [True, True, False]
    findings = gather(samples, records_of(samples))
    write_findings(tmp_path / "tables", findings)
    with (tmp_path / "tables" / "ranking.csv").open() as file:
        assert [bool(row["structure"]) for row in csv.DictReader(file)] == [True, True, False]
    assert (tmp_path / "tables" / "best.cif").read_bytes() == samples[0].structure.read_bytes()
    everything = written(prediction(), WriteSettings(out=tmp_path / "full"), IDENTITY)
    assert 0 < findings.n_bytes < gather(everything, records_of(everything)).n_bytes + 5000


def test_all_structures_are_kept_if_there_are_fewer_than_kept(tmp_path):
    samples = written(prediction(), WriteSettings(out=tmp_path, kept=9), IDENTITY)
    assert all(sample.structure.exists() for sample in samples)


@pytest.mark.parametrize("kind", ["json", "npz"])
def test_predicted_aligned_errors_are_written_to_their_own_files(tmp_path, kind):
    pae = np.array([[0.254, 31.75], [7.125, 0.5]], dtype=np.float32)
    made = prediction(scores=(0.3, 0.8))
    made = replace(made, full=tuple({**one, "token_pair_pae": pae + place} for place, one in enumerate(made.full)))
    samples = written(made, WriteSettings(out=tmp_path, pae=kind), IDENTITY)
    path = samples[0].confidence.parent / f"{made.job.name}_pae_sample_0.{kind}"
    if kind == "npz":
        read = np.load(path)["pae"]
    else:
        (content,) = json.loads(path.read_text())
        read = content["predicted_aligned_error"]
    assert np.allclose(read, pae + 1, atol=0.011)  # the second sample is the better one


def test_chains_are_listed_in_the_order_of_the_matrices(tmp_path):
    made = prediction()
    atoms = made.atom_array.value + made.atom_array.value + made.atom_array.value[:1]
    atoms.chain_id[:] = ["H"] * 10 + ["B"] * 10 + ["L"]
    atoms.label_entity_id[:] = ["2"] * 20 + ["1"]
    atoms.res_name[20] = "MG"
    longer = replace(made, atom_array=Packed(atoms), entity_poly_type={"2": "polypeptide(L)"})
    chains = write.chains_of(longer, reads_msa=True)
    assert [(one["chain"], one["index"], one["entity"], one["copy"], one["kind"]) for one in chains] == [
        ("H", 0, 2, 1, "polypeptide(L)"), ("B", 1, 2, 2, "polypeptide(L)"), ("L", 2, 1, 1, "ligand"),
    ]  # fmt: skip
    assert chains[2]["first_component"] == "MG"
    assert [one["msa_rows"] for one in chains] == [7, 7, None]
    assert [one["residues"] for one in chains] == [2, 2, 1]
    samples = written(made, WriteSettings(out=tmp_path), IDENTITY)
    write_findings(tmp_path, gather(samples, records_of(samples)))
    with (tmp_path / "chains.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["chain"], row["tokens"], row["atoms"]) == ("A", "2", "10")


def test_a_protein_without_an_msa_is_said_in_every_table(tmp_path):
    bare, aligned = ({"sequence": "AA", "count": 1, **more} for more in ({}, {"unpairedMsa": ">q\nAA\n"}))
    for name, protein, says in (("bare", bare, "no"), ("aligned", aligned, "yes")):
        job = job_of({"sequences": [{"proteinChain": protein}]}, name=name, seeds=(3,))
        made = prediction(name=name, job=job)
        assert [one["msa"] for one in write.chains_of(made, reads_msa=True)] == [says]
        assert [one["msa"] for one in write.chains_of(made, reads_msa=False)] == [""]
        samples = written(made, WriteSettings(out=tmp_path), IDENTITY | {"msa": True})
        findings = gather(samples, records_of(samples))
        write_findings(tmp_path / name, findings)
        assert ("protein chain A has no MSA, so accuracy suffers" in " ".join(findings.sentences)) == (says == "no")
        rows = list(csv.DictReader((tmp_path / name / "ranking.csv").read_text().splitlines()))
        assert {row["chains_without_msa"] for row in rows} == {"A" if says == "no" else ""}
        write_summary(tmp_path, {name: summary_row(name, findings)})
    rows = list(csv.DictReader((tmp_path / "summary.csv").read_text().splitlines()))
    assert [(row["job"], row["chains_without_msa"]) for row in rows] == [("aligned", ""), ("bare", "A")]


def test_the_ranking_is_the_last_table_to_be_written(tmp_path, monkeypatch):
    """Regression: after a kill a new ranking stood beside an old best structure, and nothing warned of it."""
    samples = written(prediction(name="one"), WriteSettings(out=tmp_path), IDENTITY)
    names, write_bytes = [], tables.write_bytes
    monkeypatch.setattr(
        tables, "write_bytes", lambda path, content: (names.append(path.name), write_bytes(path, content))
    )
    write_findings(tmp_path / "one", gather(samples, records_of(samples)))
    assert names[-1] == "ranking.csv"
    assert {"best.cif", "metrics.csv"} <= set(names[:-1])


def test_the_summary_has_a_line_for_each_job_and_survives_damage(tmp_path):
    samples = written(prediction(name="one"), WriteSettings(out=tmp_path), IDENTITY)
    findings = gather(samples, records_of(samples))
    write_findings(tmp_path / "one", findings)
    (tmp_path / "gone").mkdir()
    write_summary(tmp_path, {name: summary_row(name, findings) for name in ("one", "gone")})
    (tmp_path / "gone").rmdir()
    write_summary(tmp_path, {})
    (row,) = csv.DictReader((tmp_path / "summary.csv").read_text().splitlines())
    best = findings.best
    assert (row["job"], row["best_seed"], row["best_sample"]) == ("one", str(best.seed), str(best.sample))
    assert (float(row["ranking_score"]), float(row["plddt_of_100"])) == (best.ranking_score, best.plddt)
    assert (tmp_path / row["structure"]).read_bytes() == best.structure.read_bytes()
    for damage in (b"\xff\x00", b"job,seeds\n1\n", b'"', b""):
        (tmp_path / "summary.csv").write_bytes(damage)
        write_summary(tmp_path, {"one": summary_row("one", findings)})
        assert next(csv.DictReader((tmp_path / "summary.csv").read_text().splitlines()))["job"] == "one"
