"""Compare all output files with those of upstream's own runner, byte for byte. Each job is alone in its input file."""

import filecmp
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import cases

SEEDS = (1, 284)
SAMPLES, CYCLES, STEPS = 2, 2, 4


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Inputs, dictionary files, a small checkpoint, and the output files of upstream's runner."""
    folder = tmp_path_factory.mktemp("parity")
    root = folder / "root"
    paths = cases.write_cases(folder / "inputs")
    shutil.copy(cases.EXAMPLE, folder / "inputs")
    shutil.copytree(cases.EXAMPLE.parent / "7r6r", folder / "inputs" / "7r6r")
    paths["7r6r"] = folder / "inputs" / "7r6r.json"
    cases.write_root(root)
    environment = cases.environment(root, folder / "cache")
    checkpoints = root / "checkpoint"
    checkpoints.mkdir()
    settings = [f"--set={key}={json.dumps(value)}" for key, value in cases.SMALL.items()]
    subprocess.run(
        [
            sys.executable,
            cases.REPOSITORY / "scripts" / "make_checkpoint.py",
            cases.MODEL,
            checkpoints / f"{cases.MODEL}.pt",
            *settings,
        ],
        env=environment,
        check=True,
    )
    request = {
        "model": cases.MODEL,
        "seeds": SEEDS,
        "files": [str(cases.absolute_copy(path, folder / "absolute")) for path in paths.values()],
        "settings": {
            **cases.SMALL,
            "model.N_cycle": CYCLES,
            "sample_diffusion.N_step": STEPS,
            "sample_diffusion.N_sample": SAMPLES,
            "triangle_attention": "torch",
            "triangle_multiplicative": "torch",
            "need_atom_confidence": True,
            "dump_dir": str(folder / "upstream"),
            "use_rna_msa": True,
            "use_template": True,
            "data.template.prot_template_mmcif_dir": str(folder / "inputs" / "mmcif"),
            "data.template.kalign_binary_path": str(root / "bin" / "kalign"),
        },
    }
    (folder / "request.json").write_text(json.dumps(request))
    subprocess.run(
        [sys.executable, cases.REPOSITORY / "tests" / "support" / "upstream_run.py", folder / "request.json"],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    config = {
        "model": cases.MODEL,
        "samples": SAMPLES,
        "cycles": CYCLES,
        "steps": STEPS,
        "full_confidence": True,
        "rna_msa": True,
        "template": True,
        "templates": {"mmcif_dir": str(folder / "inputs" / "mmcif"), "kalign": str(root / "bin" / "kalign")},
        "upstream": cases.SMALL,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder, paths, environment


def predict(folder: Path, environment: dict[str, str], inputs: list[Path], out: str, *options: str) -> Path:
    command = [
        sys.executable,
        "-m",
        "protenix_multiseed.cli",
        "predict",
        *map(str, inputs),
        "--config",
        str(folder / "config.yaml"),
        "--seeds",
        ",".join(map(str, SEEDS)),
        "--out",
        str(folder / out),
        "--sequential",
        *options,
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / out


@pytest.fixture(scope="module")
def ours(work):
    folder, paths, environment = work
    return predict(folder, environment, list(paths.values()), "ours", "--workers", "1")


ADDED = {"_audit_conform", "_software", "_ma_qa_metric", "_ma_qa_metric_global", "_ma_qa_metric_local"}
JOBS = ("7r6r", "ligands", "rna", "bonded", "template")


@pytest.mark.parametrize("job", JOBS)
def test_files_equal_upstreams_byte_for_byte(work, ours, job):
    folder = work[0]
    for seed in SEEDS:
        theirs = folder / "upstream" / job / f"seed_{seed}" / "predictions"
        names = sorted(path.name for path in theirs.iterdir())
        assert len(names) == 3 * SAMPLES  # structure, summary and full confidence of every sample
        for name in names:
            content = (ours / job / f"seed_{seed}" / "predictions" / name).read_bytes()
            reference = (theirs / name).read_bytes()
            if name.endswith(".cif"):  # this tool appends its own categories to upstream's bytes
                content, added = content[: len(reference)], content[len(reference) :].decode()
                assert {line.split(".")[0] for line in added.splitlines() if line.startswith("_")} == ADDED
            assert content == reference, name


@pytest.mark.parametrize("job", JOBS)
def test_results_differ_between_seeds_and_samples(ours, job):
    """If all outputs were alike, equal files would prove nothing."""
    summaries = {
        (seed, sample): json.loads(
            (ours / job / f"seed_{seed}" / "predictions" / f"{job}_summary_confidence_sample_{sample}.json").read_text()
        )
        for seed in SEEDS
        for sample in range(SAMPLES)
    }
    for score in ("plddt", "ptm", "ranking_score"):
        values = [summary[score] for summary in summaries.values()]
        assert min(abs(a - b) for i, a in enumerate(values) for b in values[i + 1 :]) > 1e-5, (score, values)
    structures = {path.read_text() for path in ours.glob(f"{job}/seed_*/predictions/*.cif")}
    assert len(structures) == len(SEEDS) * SAMPLES


def test_predictions_do_not_depend_on_file_order_or_workers(work, ours):
    """A prediction depends only on its job and seed, not on the file, the other jobs, their order or the workers."""
    folder, paths, environment = work
    jobs = [
        json.loads(cases.absolute_copy(paths[name], folder / "again").read_text())[0]
        for name in ("template", "bonded", "ligands", "rna")
    ]
    together = folder / "together.json"
    together.write_text(json.dumps(jobs))
    again = predict(folder, environment, [together], "together", "--workers", "3")
    for job in (job["name"] for job in jobs):
        for seed in SEEDS:
            first = ours / job / f"seed_{seed}" / "predictions"
            names = sorted(path.name for path in first.iterdir())
            match, _, _ = filecmp.cmpfiles(first, again / job / f"seed_{seed}" / "predictions", names, shallow=False)
            assert sorted(match) == names, (job, seed)
