"""The models that read ESM embeddings, against upstream's own runner: equal numbers. Every checkpoint is made up."""

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from biotite.structure.io.pdbx import CIFFile, get_structure
from support import cases
from support.language_model import WIDTH, write_language_model

from protenix_multiseed.upstream.models import MODELS

SPECS = [spec for spec in MODELS if spec.esm]
SMALL = {**cases.SMALL, "model.template_embedder.n_blocks": 0, "esm.embedding_dim": WIDTH}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """An input, the checkpoints of all these models, and the files of upstream's runner by model."""
    sys.path.insert(0, str(cases.REPOSITORY / "scripts"))
    from make_checkpoint import make_checkpoint

    folder = tmp_path_factory.mktemp("language")
    root, checkpoints = folder / "root", folder / "root" / "checkpoint"
    path = cases.write_cases(folder / "inputs")["bonded"]
    cases.write_root(root)
    environment = cases.environment(root, folder / "cache")
    for spec in SPECS:
        write_language_model(checkpoints, spec.esm.checkpoints[0])
        make_checkpoint(spec.name, checkpoints / f"{spec.name}.pt", SMALL)
    requests = [
        {
            "model": spec.name,
            "seeds": [7],
            "files": [str(cases.absolute_copy(path, folder / "absolute"))],
            "settings": {
                **SMALL,
                "model.N_cycle": 1,
                "sample_diffusion.N_step": 2,
                "sample_diffusion.N_sample": 1,
                "triangle_attention": "torch",
                "triangle_multiplicative": "torch",
                "dump_dir": str(folder / "upstream" / spec.name),
                "load_checkpoint_dir": str(checkpoints),
            },
        }
        for spec in SPECS
    ]
    (folder / "requests.json").write_text(json.dumps(requests))
    script = cases.REPOSITORY / "tests" / "support" / "upstream_run.py"
    command = [sys.executable, script, folder / "requests.json"]
    subprocess.run(command, env=environment, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    return folder, path, environment


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_model_with_a_language_model_gives_upstreams_files(work, spec):
    folder, path, environment = work
    file, out = folder / f"{spec.name}.yaml", folder / "ours" / spec.name
    file.write_text(yaml.safe_dump({"model": spec.name, "samples": 1, "cycles": 1, "steps": 2, "upstream": SMALL}))
    command = [sys.executable, "-m", "protenix_multiseed.cli", "predict", path, "--config", file, "--seeds", "7"]
    done = subprocess.run([*command, "--out", out], env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    theirs = folder / "upstream" / spec.name / "bonded" / "seed_7" / "predictions"
    names = sorted(one.name for one in theirs.iterdir())
    assert len(names) == 2
    for name in names:
        ours = out / "bonded" / "seed_7" / "predictions" / name
        if name.endswith(".cif"):  # ligands have no label_seq_id in ours
            mine, reference = (get_structure(CIFFile.read(file), model=1) for file in (ours, theirs / name))
            assert np.array_equal(mine.coord, reference.coord)
            assert list(mine.atom_name) == list(reference.atom_name)
        else:
            assert ours.read_bytes() == (theirs / name).read_bytes(), name
