"""``protenix-ms msa`` and ``predict --msa-server``: real commands, a real HTTP server, real MMseqs2 and nhmmer."""

import json
import re
import shutil

import pytest
from support import mmseqs_database as databases
from support.command import leftovers, run, write_jobs
from support.msa_server import msa_server

A, B = databases.chains([40, 30])
needs_mmseqs = pytest.mark.skipif(shutil.which("mmseqs") is None, reason="MMseqs2 is not installed")
needs_hmmer = pytest.mark.skipif(shutil.which("nhmmer") is None, reason="HMMER is not installed")


def write_complex(folder, *sequences, kind="proteinChain", name="two"):
    write_jobs(folder, {})
    entities = [{kind: {"sequence": sequence, "count": 1}} for sequence in sequences]
    (folder / "in.json").write_text(json.dumps([{"name": name, "sequences": entities, "modelSeeds": [7]}]))


@pytest.fixture
def surroundings(tmp_path):
    write_complex(tmp_path, A, B)
    return {"cwd": tmp_path, "PROTENIX_MS_CACHE": str(tmp_path / "cache")}


def rows_of(path):
    return [line for line in path.read_text().splitlines() if not line.startswith(">")]


def test_a_server_that_limits_and_drops_gives_a_job_file_that_predicts(surroundings, tmp_path):
    faults = {"submit": ["ratelimit"], "status": ["ratelimit"], "download": ["damaged"]}
    with msa_server(faults) as server:
        made = run("msa", "in.json", "--server", server.url, "--out", "msa", **surroundings)
        assert made.returncode == 0, made.stderr
        assert "limits the rate of requests; waiting 5 s" in made.stderr
        assert "the result is damaged" in made.stderr
        assert [kind for kind, _, _ in server.submitted] == ["msa", "pair"]
    (job,) = json.loads((tmp_path / "msa" / "in_msa.json").read_text())
    assert job["modelSeeds"] == [7]
    for entity in job["sequences"]:
        assert len(rows_of(tmp_path / entity["proteinChain"]["unpairedMsaPath"])) == 6
        assert len(rows_of(tmp_path / entity["proteinChain"]["pairedMsaPath"])) in (3, 4)
    predicted = run("predict", "msa/in_msa.json", "--config", "quick.yaml", "--out", "out", **surroundings)
    assert predicted.returncode == 0, predicted.stderr
    assert "has no MSA" not in predicted.stdout
    log = (tmp_path / "out" / "protenix-ms" / "run.log").read_text()
    assert int(re.search(r"msa_rows[=:] ?(\d+)", log)[1]) > 3


def test_predict_asks_the_server_and_asks_it_once(surroundings, tmp_path):
    with msa_server() as server:
        command = ("predict", "in.json", "--config", "quick.yaml", "--out", "out", "--msa-server", server.url)
        first = run(*command, "--seeds", "1", **surroundings)
        assert first.returncode == 0, first.stderr
        assert "has no MSA" not in first.stdout
        again = run(*command, "--seeds", "1-2", **surroundings)
        assert again.returncode == 0, again.stderr
        assert "1 seed is done already, 1 to do" in again.stdout
        assert len(server.submitted) == 2
    assert not leftovers(tmp_path / "out")


def test_nothing_is_sent_unless_asked(surroundings):
    with msa_server() as server:
        refused = run("msa", "in.json", "--out", "msa", **surroundings)
        assert refused.returncode == 2
        assert "no source of alignments is given" in refused.stderr
        refused = run("msa", "in.json", "--out", "msa", "--server", server.url, "--offline", **surroundings)
        assert refused.returncode == 2
        assert "--offline" in refused.stderr
        assert not server.submitted


def test_a_sequence_that_fails_is_said_and_the_other_jobs_go_on(surroundings, tmp_path):
    write_jobs(tmp_path, {"good": A, "bad": B})
    with msa_server(poison=[B]) as server:
        made = run("msa", "in.json", "--server", server.url, "--out", "msa", **surroundings)
        assert made.returncode == 1
        assert "'bad': no alignment for protein 1" in made.stderr
        assert [job["name"] for job in json.loads((tmp_path / "msa" / "in_msa.json").read_text())] == ["good"]
        refused = run(
            "predict", "in.json", "--config", "quick.yaml", "--out", "out", "--msa-server", server.url, **surroundings
        )
        assert refused.returncode == 1
        assert "nothing was predicted" in refused.stderr
        assert not list((tmp_path / "out").glob("*/seed_*"))


@needs_mmseqs
@pytest.mark.parametrize("form", ["plain", "colabfold"])
def test_mmseqs_on_a_database_of_this_machine(surroundings, tmp_path, form):
    if form == "plain":
        # A relative path. Regression: MMseqs2 runs in a folder of its own, where it does not exist.
        database = databases.write_database(tmp_path / "databases", [A, B]).relative_to(tmp_path)
    else:
        database = databases.write_colabfold(tmp_path, [A, B])
    made = run("msa", "in.json", "--database", database, "--out", "msa", "--offline", **surroundings)
    assert made.returncode == 0, made.stderr
    (job,) = json.loads((tmp_path / "msa" / "in_msa.json").read_text())
    species = []
    for place, entity in enumerate(job["sequences"]):
        sequence = (A, B)[place]
        expected = set(databases.homologs(sequence, range(3 * place, 8 + place)).values())
        rows = [row.replace("-", "") for row in rows_of(tmp_path / entity["proteinChain"]["unpairedMsaPath"])]
        assert rows[0] == sequence
        assert len(rows) > 3
        assert all(any(row in whole for whole in expected) for row in rows[1:] if row.isupper())
        headers = (tmp_path / entity["proteinChain"]["pairedMsaPath"]).read_text().splitlines()
        species.append({line.split("_")[2].split("/")[0] for line in headers if line.startswith(">UniRef100_")})
        assert len(species[-1]) > 3
    assert species[0] & species[1], "the chains have species in common"
    predicted = run("predict", "msa/in_msa.json", "--config", "quick.yaml", "--out", "out", **surroundings)
    assert predicted.returncode == 0, predicted.stderr


@needs_mmseqs
def test_a_folder_that_is_no_database(surroundings, tmp_path):
    (tmp_path / "empty").mkdir()
    for path, reason in (("empty", "holds no database"), ("missing", "no missing.dbtype")):
        refused = run("msa", "in.json", "--database", path, "--out", "msa", **surroundings)
        assert refused.returncode == 2
        assert reason in refused.stderr


@needs_hmmer
def test_nhmmer_on_rna(surroundings, tmp_path):
    rna = "GGCGCGUUAACAAAGCGGUUAUGUAGCGGAUUGCAAAUCCGUCUAGUCCGGUUCGACUCCGGAACGCGCCUCCA"
    write_complex(tmp_path, rna, kind="rnaSequence")
    rows = {f"r{place}": rna[:place] + "A" + rna[place + 1 :] for place in range(5, 60, 11)}
    (tmp_path / "rna.fasta").write_text("".join(f">{name}\n{row}\n" for name, row in rows.items()))
    made = run("msa", "in.json", "--rna-database", "rna.fasta", "--out", "msa", **surroundings)
    assert made.returncode == 0, made.stderr
    (job,) = json.loads((tmp_path / "msa" / "in_msa.json").read_text())
    found = rows_of(tmp_path / job["sequences"][0]["rnaSequence"]["unpairedMsaPath"])
    assert found[0] == rna
    assert len(found) > 2


@pytest.mark.parametrize(("options", "says"), [
    (("--device", "cuda"), "--device cuda: there are 0 CUDA devices here"),
    (("--gpus", "2"), "gpus: this machine has no GPU"),
    (("--checkpoint", "other.pt"), "error: other.pt is not the file that was fetched"),
])  # fmt: skip
def test_what_cannot_run_here_is_refused_before_sequences_are_sent(surroundings, tmp_path, options, says):
    """A search may take hours. Regression: only the loading of the model, after the search, found these out."""
    (tmp_path / "other.pt").write_bytes(b"not what was fetched")
    (tmp_path / "other.pt.sha256").write_text(f"{'0' * 64}  other.pt\n")
    model = () if "--checkpoint" in options else ("--model", "demo")
    with msa_server() as server:
        command = ("predict", "in.json", "--out", "out", "--msa-server", server.url, *model, *options)
        done = run(*command, **surroundings, CUDA_VISIBLE_DEVICES="")
        assert done.returncode == 2, done.stderr
        assert says in done.stderr
        assert server.submitted == []
    assert not (tmp_path / "out").exists()
