"""The command itself, as a user types it."""

import ast
import contextlib
import csv
import json
import os
import re
import subprocess
import sys

import gemmi
import pytest
from biotite.structure.io import pdbx
from support.command import DELETE_ALIGNMENT, environment, run, with_prelude, write_jobs

from protenix_multiseed.upstream.models import DEMO_NOTICE

# Few steps, cycles and samples: these tests are about the command.
QUICK = "steps: 2\ncycles: 1\nsamples: 2\n"


def job(name, *sequences, **more):
    return {"name": name, "sequences": list(sequences), **more}


def protein(sequence="MKTAYIAKQR", **more):
    return {"proteinChain": {"sequence": sequence, "count": 1, **more}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two jobs. One job fails: its alignment is deleted when the run begins."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "gone.a3m").write_text(">q\nMKTAYIAKQR\n>r\nMKTAYIAKQK\n")
    jobs = [
        job("impossible", protein(unpairedMsaPath="gone.a3m")),
        job("good", protein(), protein("GHKLM"), modelSeeds=[4, 2]),
    ]
    (folder / "in.json").write_text(json.dumps(jobs))
    (folder / "quick.yaml").write_text(QUICK)
    arguments = ("predict", "in.json", "--model", "demo", "--config", "quick.yaml", "--out", "results")
    return folder, run(*arguments, cwd=folder, prelude=DELETE_ALIGNMENT)


def test_a_failed_job_sets_the_exit_code_and_stops_no_other_job(finished):
    folder, done = finished
    assert done.returncode == 1, done.stdout + done.stderr
    assert "failed in.json[0] 'impossible' (featurize)" in done.stdout
    (line,) = (folder / "results" / "protenix-ms" / "failures.jsonl").read_text().splitlines()
    assert json.loads(line)["job"] == "impossible"
    assert not (folder / "results" / "impossible").exists()


def test_the_table_ranks_all_seeds_and_samples(finished):
    folder, done = finished
    assert "good: 4 samples of 2 seeds, best first" in done.stdout
    assert "best structure: results/good/best.cif" in done.stdout
    with (folder / "results" / "good" / "ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["seed"], row["sample"]) for row in rows} == {("4", "0"), ("4", "1"), ("2", "0"), ("2", "1")}
    scores = [float(row["ranking_score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    best = folder / "results" / "good" / rows[0]["structure"]
    assert (folder / "results" / "good" / "best.cif").read_bytes() == best.read_bytes()
    assert json.loads((folder / "results" / "good" / rows[0]["confidence"]).read_text())["ranking_score"] == scores[0]


def test_prediction_files_are_named_as_by_upstream(finished):
    folder = finished[0] / "results" / "good"
    assert sorted(path.name for path in (folder / "seed_4" / "predictions").iterdir()) == [
        "good_sample_0.cif",
        "good_sample_1.cif",
        "good_summary_confidence_sample_0.json",
        "good_summary_confidence_sample_1.json",
    ]


def test_structures_open_in_biotite_and_gemmi(finished):
    for path in (finished[0] / "results" / "good").rglob("*.cif"):
        array = pdbx.get_structure(pdbx.CIFFile.read(path), model=1)
        structure = gemmi.read_structure(str(path))
        assert array.array_length() == structure[0].count_atom_sites()
        assert [chain.name for chain in structure[0]] == ["A", "B"]


def test_the_demo_notice_is_on_the_terminal_and_in_every_file(finished):
    folder, done = finished
    assert DEMO_NOTICE in " ".join(done.stdout.split())
    for path in (folder / "results" / "good").rglob("*"):
        if path.suffix in {".json", ".cif"}:
            assert DEMO_NOTICE in path.read_text(), path
    assert json.loads((folder / "results" / "protenix-ms" / "run.json").read_text())["notice"] == DEMO_NOTICE


def test_records_say_how_predictions_were_made(finished):
    folder = finished[0] / "results"
    record = json.loads((folder / "protenix-ms" / "run.json").read_text())
    assert record["dictionary"] == "biotite"
    assert record["versions"]["protenix"] == "2.0.0"
    assert record["failures"] == 1
    assert record["kernels"] == {"batched": "torch"}
    seed = json.loads((folder / "good" / "seed_4" / "record.json").read_text())
    assert seed["run"]["path"] == "batched"
    assert seed["run"]["batch"] == [4, 2]
    assert (seed["run"]["precision"], seed["run"]["sampling_factors"]) == ("reference", "float32")
    assert seed["run"]["retries"] == []
    assert seed["run"]["seconds"] > 0
    assert set(seed["run"]["stage_seconds"]) == {"inputs", "trunk", "conditioning", "sample", "score"}


def test_a_rerun_with_the_saved_configuration_gives_the_same_bytes(finished):
    """The batch is the same too: some processors round matrix products differently for another number of seeds."""
    folder = finished[0]
    good = json.loads((folder / "in.json").read_text())[1]
    (folder / "alone.json").write_text(json.dumps([good]))
    done = run("predict", "alone.json", "--config", "results/protenix-ms/config.yaml", "--out", "again", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    for seed in ("seed_4", "seed_2"):
        written = sorted((folder / "results" / "good" / seed / "predictions").iterdir())
        assert len(written) == 4
        for path in written:
            assert path.read_bytes() == (folder / "again" / "good" / seed / "predictions" / path.name).read_bytes()


REFUSED = {
    "input": (
        ["in.json", "--model", "demo"],
        [job("a", protein("MKB"))],
        "error: in.json[0] 'a': sequences[0].proteinChain.sequence",
    ),
    "seeds": (["in.json", "--model", "demo", "--seeds", "3-1"], [job("a", protein())], "runs backwards"),
    "model": (["in.json", "--model", "demon"], [job("a", protein())], "did you mean 'demo'"),
    "checkpoint": (["in.json"], [job("a", protein())], "run 'protenix-ms fetch protenix_base_default_v1.0.0'"),
    "device": (["in.json", "--model", "demo", "--device", "cuda:9"], [job("a", protein())], "CUDA devices here"),
    "kernels": (
        ["in.json", "--model", "demo", "--device", "cpu", "--kernels", "cuequivariance"],
        [job("a", protein())],
        "it needs a GPU",
    ),
    "output": (
        ["in.json", "--model", "demo", "--out", "in.json"],
        [job("a", protein())],
        "is a file; choose another folder",
    ),
    "aligner": (
        ["in.json", "--model", "demo", "--template"],
        [job("a", protein(templatesPath="hits.a3m"))],
        "the program kalign, which is not on PATH",
    ),
    "upstream": (
        ["in.json", "--config", "run.yaml"],
        [job("a", protein())],
        "upstream.model.x: Protenix has no such setting",
    ),
}


@pytest.mark.parametrize(("arguments", "content", "says"), REFUSED.values(), ids=REFUSED)
def test_a_refused_run_writes_nothing(tmp_path, arguments, content, says):
    (tmp_path / "in.json").write_text(json.dumps(content))
    (tmp_path / "run.yaml").write_text("model: demo\nupstream: {model.x: 1}\n")
    (tmp_path / "hits.a3m").write_text(">query\nMKTAYIAKQR\n>1abc_A/1-10 mol:protein length:10\nMKTAYIAKQR\n")
    before = sorted(tmp_path.rglob("*"))
    done = run("predict", *arguments, cwd=tmp_path, PROTENIX_ROOT_DIR=str(tmp_path), PATH="/usr/bin:/bin")
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_quiet_run_prints_no_note_and_its_log_and_record_keep_it(tmp_path):
    (tmp_path / "inputs").mkdir()
    write_jobs(tmp_path / "inputs", {"a": "MKTAYIAKQR"})
    arguments = ("predict", "inputs", "--config", "inputs/quick.yaml", "--out", "out")
    note = "skipped 1 file in the input folders (not inputs): quick.yaml"
    quiet = run(*arguments, "-q", cwd=tmp_path)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    assert json.loads((tmp_path / "out" / "protenix-ms" / "run.json").read_text())["notes"] == [note]
    assert f"note: {note}" in (tmp_path / "out" / "protenix-ms" / "run.log").read_text()
    assert f"note: {note}" in run(*arguments, cwd=tmp_path).stderr


@pytest.mark.parametrize(("arguments", "code", "absent"), [
    (["--help"], 0, {"numpy", "platformdirs", "torch"}),
    (["predict", "--help"], 0, {"numpy", "platformdirs", "torch"}),
    (["predict", "in.json", "--model", "demo"], 2, {"torch", "scipy", "pandas", "protenix"}),
])  # fmt: skip
def test_help_and_refusals_import_no_slow_packages(tmp_path, arguments, code, absent):
    """Their time is the time of their imports: 0.5 s for help, 1.5 s for a refusal."""
    (tmp_path / "in.json").write_text(json.dumps([job("a", protein("MKB"), {"ligand": {"ligand": "CCO", "count": 1}})]))
    script = (
        "import sys; from protenix_multiseed.cli import app\n"
        f"try: app({arguments})\n"
        f"except SystemExit as stop: assert stop.code == {code}\n"
        "print(sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    imported = set(ast.literal_eval(done.stderr.splitlines()[-1]))
    assert "typer" in imported
    assert not imported & absent


def test_the_process_with_the_model_imports_only_what_the_model_needs(tmp_path):
    """It passes atoms and rankings on. The packages that workers need for them once delayed each start by a second."""
    (tmp_path / "in.json").write_text(json.dumps([job("a", protein("MKTAYIAK"))]))
    arguments = ["predict", "in.json", "--model", "demo", "--seeds", "1-2", "--samples", "1", "--cycles", "1"]
    script = (
        "import sys; from protenix_multiseed.cli import app\n"
        f"try: app({[*arguments, '--steps', '2', '--device', 'cpu', '--out', 'out', '--quiet']})\n"
        "except SystemExit as stop: assert not stop.code\n"
        "print(sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    imported = set(ast.literal_eval(done.stderr.splitlines()[-1]))
    assert "protenix.model.protenix" in imported
    assert not imported & {"biotite", "matplotlib", "networkx", "pandas", "scipy.optimize", "scipy.cluster"}
    assert (tmp_path / "out" / "a" / "ranking.csv").is_file()


def test_a_refusal_during_the_import_of_torch_prints_only_its_message(tmp_path):
    """Regression: the end of the process once collided with the thread that imports torch."""
    (tmp_path / "in.json").write_text(json.dumps([job("a", protein("MKTAY"))]))
    (tmp_path / "other.pt").write_bytes(b"not what was fetched")
    (tmp_path / "other.pt.sha256").write_text(f"{'0' * 64}  other.pt\n")
    done = run("predict", "in.json", "--checkpoint", "other.pt", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: other.pt is not the file that was fetched")
    assert len(done.stderr.splitlines()) == 1


# A prelude: each update of the display is painted at once, so a short run cannot end between two paints.
PAINT_EACH_UPDATE = """
from rich.progress import Progress
original = Progress.update
Progress.update = lambda *arguments, **named: original(*arguments, **named, refresh=True)
"""


def test_the_display_is_updated_while_the_model_runs(tmp_path):
    """Upstream's prints are hidden during a prediction. Regression: the display was once hidden with them."""
    (tmp_path / "in.json").write_text(json.dumps([job("a", protein("MKTAY"))]))
    (tmp_path / "quick.yaml").write_text(QUICK)
    ours, theirs = os.openpty()
    command = [*with_prelude(PAINT_EACH_UPDATE), "predict", "in.json", "--model", "demo", "--config", "quick.yaml"]
    command += ["--seeds", "1-2", "--max-seeds-per-batch", "1"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(TERM="xterm"), stdout=theirs, stderr=theirs, stdin=theirs
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal closes with the process
        while block := os.read(ours, 65536):
            shown += block
    os.close(ours)
    assert process.wait() == 0
    frames = shown.decode(errors="replace")
    assert "5 tokens" in frames
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", frames)
    assert "a, seed 2" in plain
    assert "1/2 seeds" in plain
    assert re.search(r"\d+/\d+ +(cycles|steps|scored)", plain)
    assert "train scheduler" not in frames  # upstream prints this when a model is built


def test_a_dry_run_plans_and_writes_nothing(tmp_path):
    (tmp_path / "in.json").write_text(json.dumps([job("one", protein()), job("two", protein("MKTAYIAKQR" * 3))]))
    options = ("--model", "demo", "--seeds", "1-5", "--max-seeds-per-batch", "2", "--dry-run", "--assume-free", "24GiB")
    done = run("predict", "in.json", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"two\s+30\s+none\s+2 x 2 seeds, 1 x 1 seed", done.stdout)
    assert "note two: protein 1 has no MSA" in done.stdout
    plans = json.loads(run("predict", "in.json", *options, "--json", cwd=tmp_path).stdout)
    assert [plan["job"] for plan in plans] == ["one", "two"]
    assert [batch["seeds"] for batch in plans[0]["batches"]] == [[1, 2], [3, 4], [5]]
    assert plans[1]["one_seed_bytes"] < plans[1]["largest_batch_bytes"] < plans[1]["budget_bytes"]
    assert [path.name for path in tmp_path.iterdir()] == ["in.json"]


def test_a_job_too_large_for_memory_is_refused_with_its_estimate(tmp_path):
    (tmp_path / "in.json").write_text(json.dumps([job("small", protein()), job("large", protein("MKTAYIAKQR" * 300))]))
    options = ("--model", "demo", "--assume-free", "1GiB", "--out", "results")
    done = run("predict", "in.json", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert "in.json[1] 'large': 3000 tokens need about" in done.stderr
    assert "--force" in done.stderr
    assert not (tmp_path / "results").exists()
    planned = run("predict", "in.json", *options, "--dry-run", cwd=tmp_path)
    assert planned.returncode == 1
    assert "refused in.json[1] 'large'" in planned.stdout


def test_batches_and_single_seeds_give_the_same_scores(tmp_path):
    (tmp_path / "in.json").write_text(json.dumps([job("it", protein(), protein("GHKLM"))]))
    (tmp_path / "quick.yaml").write_text("steps: 10\ncycles: 1\nsamples: 2\n")
    tables = {}
    for out, *how in (
        ("batched", "--workers", "3"),
        ("split", "--max-seeds-per-batch", "2"),
        ("sequential", "--sequential"),
    ):
        options = ("--model", "demo", "--config", "quick.yaml", "--seeds", "1-3", "--out", out, *how)
        done = run("predict", "in.json", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        with (tmp_path / out / "it" / "ranking.csv").open() as file:
            tables[out] = {(row["seed"], row["sample"]): row for row in csv.DictReader(file)}
    for key, row in tables["sequential"].items():
        for out in ("batched", "split"):
            for score in ("ranking_score", "ptm", "iptm"):
                assert abs(float(tables[out][key][score]) - float(row[score])) < 1e-4
    records = [json.loads((tmp_path / out / "it" / "seed_1" / "record.json").read_text())["run"] for out in tables]
    assert [(record["path"], record["batch"]) for record in records] == [
        ("batched", [1, 2, 3]), ("batched", [1, 2]), ("reference", [1])
    ]  # fmt: skip
    assert records[2]["why"] == "--sequential"
    whole = json.loads((tmp_path / "sequential" / "protenix-ms" / "run.json").read_text())
    assert whole["kernels"] == {"reference": "torch"}


def test_validate_shows_the_size_the_notes_and_the_errors_of_jobs(tmp_path):
    (tmp_path / "in.json").write_text(json.dumps([job("a", protein()), job("b", protein("MKT"), modelSeeds=[1, 2])]))
    done = run("validate", "in.json", cwd=tmp_path)
    how = "add --msa-server or --msa-database, or make one with 'protenix-ms msa'"
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            "ok    in.json[0] 'a': about 10 tokens, 1 seed: protein 10",
            f"note a: protein 1 has no MSA, so the structure will be less accurate; {how}",
            "ok    in.json[1] 'b': about 3 tokens, 2 seeds: protein 3",
            f"note b: protein 1 has no MSA, so the structure will be less accurate; {how}",
        ],
    )
    as_json = json.loads(run("validate", "in.json", "--json", cwd=tmp_path).stdout)
    assert [(one["job"], one["tokens"], one["seeds"]) for one in as_json] == [("a", 10, 1), ("b", 3, 2)]
    (tmp_path / "in.json").write_text(json.dumps([job("a", protein("MKB"))]))
    done = run("validate", "in.json", cwd=tmp_path)
    assert done.returncode == 2
    assert "'B' at position 3" in done.stderr


def test_doctor_says_whether_predict_would_run(tmp_path):
    healthy = run("doctor", "--model", "demo", "--device", "cpu", "--json", cwd=tmp_path)
    assert healthy.returncode == 0, healthy.stdout
    assert {check["state"] for check in json.loads(healthy.stdout)} <= {"ok", "note"}
    ill = run("doctor", "--device", "cpu", cwd=tmp_path, PROTENIX_ROOT_DIR=str(tmp_path))
    assert ill.returncode == 1
    assert "wrong checkpoint: none at" in ill.stdout
    assert [path.name for path in tmp_path.iterdir()] == []


def test_bench_times_protenix_and_the_batched_path(tmp_path):
    options = ("--model", "demo", "--device", "cpu", "--tokens", "12", "--msa-rows", "2", "--seeds", "1-2")
    cache = {"PROTENIX_MS_CACHE": str(tmp_path / "cache")}
    done = run("bench", *options, "--steps", "2", "--cycles", "1", "--repeats", "1", "--json", cwd=tmp_path, **cache)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["tokens"], record["seeds"], record["made_up_weights"]) == (12, 2, True)
    assert [side["name"] for side in record["sides"]] == ["Protenix, torch kernels", "all seeds batched, reference"]
    assert all(set(side["stages"]) == {"trunk", "sample", "score"} and side["median"] > 0 for side in record["sides"])
    (tmp_path / "in.json").write_text(json.dumps([job("it", protein(), protein("GHKLM"))]))
    plan = run("predict", "in.json", "--model", "demo", "--device", "cpu", "--dry-run", cwd=tmp_path, **cache)
    assert "of computing, an estimate from earlier batches on this device" in " ".join(plan.stdout.split())


def test_a_run_tells_the_next_dry_run_how_fast_the_device_is(tmp_path):
    (tmp_path / "in.json").write_text(json.dumps([job("pair", protein(), protein("GHKLM"))]))
    (tmp_path / "quick.yaml").write_text(QUICK)
    command = ("predict", "in.json", "--model", "demo", "--seeds", "1-2", "--config", "quick.yaml", "--device", "cpu")
    cache = {"PROTENIX_MS_CACHE": str(tmp_path / "cache")}
    before = run(*command, "--dry-run", cwd=tmp_path, **cache)
    assert "time unknown: no times of jobs like these are known" in " ".join(before.stdout.split())
    done = run(*command, "--out", "results", cwd=tmp_path, **cache)
    assert done.returncode == 0, done.stdout + done.stderr
    (plan,) = json.loads(run(*command, "--dry-run", "--json", cwd=tmp_path, **cache).stdout)
    seconds = json.loads((tmp_path / "results" / "pair" / "seed_2" / "record.json").read_text())["run"]["stage_seconds"]
    assert plan["estimated_from"] == "first batches on this device"
    assert plan["estimated_seconds"] == pytest.approx(sum(seconds.values()), abs=0.01)


def test_store_and_pae_options_choose_the_files_of_a_seed(tmp_path):
    """A run with another ``--store`` is refused. Ranking, comparison and report work without the other structures."""
    (tmp_path / "in.json").write_text(json.dumps([job("pair", protein(), protein("GHKLM"))]))
    (tmp_path / "quick.yaml").write_text(QUICK)
    command = ["predict", "in.json", "--model", "demo", "--seeds", "1-2", "--config", "quick.yaml", "--out", "results"]
    done = run(*command, "--store", "top:1", "--pae", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 structures, " in done.stdout
    folder = tmp_path / "results" / "pair"
    for seed in (1, 2):
        names = sorted(path.name for path in (folder / f"seed_{seed}" / "predictions").iterdir())
        assert names == [
            "pair_pae_sample_0.json", "pair_sample_0.cif",
            "pair_summary_confidence_sample_0.json", "pair_summary_confidence_sample_1.json",
        ]  # fmt: skip
    (content,) = json.loads((folder / "seed_1" / "predictions" / "pair_pae_sample_0.json").read_text())
    with (folder / "chains.csv").open() as file:
        chains = list(csv.DictReader(file))
    assert [chain["chain"] for chain in chains] == ["A", "B"]
    assert len(content["predicted_aligned_error"]) == sum(int(chain["tokens"]) for chain in chains)
    assert (folder / "best.cif").exists()
    again = run(*command, "--store", "top:1", "--pae", "json", cwd=tmp_path)
    assert "2 seeds are done already, 0 to do" in again.stdout
    other = run(*command, cwd=tmp_path)
    assert other.returncode == 2
    assert "store was top:1, is full" in other.stdout + other.stderr
    assert run("report", "results", cwd=tmp_path).returncode == 0
    assert run("rank", "results", "--to", "tables", cwd=tmp_path).returncode == 0
