"""The Python interface: what it takes, what it refuses, and how it reads finished results."""

import dataclasses
import subprocess
import sys
import weakref

import numpy as np
import pandas
import pytest
from support import page_results
from support.command import environment
from support.jobs import job_of, task_of

from protenix_multiseed import FailedError, ProtenixMsWarning, api, load_results, predict
from protenix_multiseed.api import Settings, TemplateSettings, _inputs, _seeds, _unfinished
from protenix_multiseed.commands.rank import rank
from protenix_multiseed.config import RunConfig, TemplateConfig
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.errors import ConfigError, DamagedError, RefusedInputsError
from protenix_multiseed.failures import failure_of
from protenix_multiseed.outputs.scan import Scan
from protenix_multiseed.run.prepare import Prepared
from protenix_multiseed.types import Failure

PROTEIN = {"proteinChain": {"sequence": "MKTAYIAKQR", "count": 1}}
JOB = {"name": "a", "sequences": [PROTEIN]}


@pytest.fixture
def ranked(tmp_path):
    page_results.write(tmp_path)
    rank([tmp_path], None, cluster_rmsd=2.0, parquet=False)
    return tmp_path


def test_importing_the_package_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import protenix_multiseed; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert "torch" not in done.stdout
    assert "protenix_multiseed.api" not in done.stdout
    code = "from protenix_multiseed import predict, load_results; import sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout == "False\n"


def test_the_types_name_every_setting():
    assert set(Settings.__annotations__) == set(RunConfig.model_fields) - {"seeds", "out"}
    assert set(TemplateSettings.__annotations__) == set(TemplateConfig.model_fields)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modle": "demo"}, "^modle: unknown key; did you mean 'model'?"),
        ({"samples": 0}, "^samples: input should be greater than or equal to 1"),
        ({"max_seeds_per_batch": "x"}, "^max_seeds_per_batch: "),
        ({"model": "demo", "seeds": "5-1"}, "seeds: the range of seeds '5-1' runs backwards"),
        ({"model": "none"}, "model: 'none' is not known"),
    ],
)
def test_settings_are_refused_by_name_before_the_first_result_is_taken(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        predict(JOB, out=tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_inputs_are_refused_by_name_before_the_first_result_is_taken(tmp_path):
    bad = {"name": "bad", "sequences": [{"proteinChain": {"sequence": "MK1", "count": 1}}]}
    with pytest.raises(RefusedInputsError, match=r"jobs\[1\] 'bad': sequences\[0\].proteinChain.sequence: '1'"):
        predict([JOB, bad], out=tmp_path, model="demo")
    with pytest.raises(RefusedInputsError, match="no such file"):
        predict(tmp_path / "none.json", out=tmp_path, model="demo")
    with pytest.raises(ConfigError, match="jobs: cannot be written as JSON"):
        predict({"name": {1}}, out=tmp_path, model="demo")


def test_an_iterator_that_nobody_has_is_not_kept(tmp_path):
    results = predict(JOB, out=tmp_path, model="demo")
    seen = weakref.ref(results)
    assert seen in _unfinished.data
    del results
    assert seen() is None
    assert not _unfinished


def test_a_job_may_have_the_form_of_alphafold_3(tmp_path):
    job = {
        "dialect": "alphafold3", "version": 1, "name": "x", "modelSeeds": [1],
        "sequences": [{"protein": {"id": "A", "sequence": "MK1"}}],
    }  # fmt: skip
    with pytest.raises(RefusedInputsError, match=r"sequences\[0\].protein.sequence: '1'"):
        predict(job, out=tmp_path, model="demo")


def test_seeds_and_jobs_are_given_as_python_has_them(tmp_path):
    assert [_seeds(one) for one in (3, range(1, 4), [7], "1-3", None)] == [[3], [1, 2, 3], [7], "1-3", None]
    assert [_seeds(one) for one in (np.int64(3), np.arange(1, 4))] == [[3], [1, 2, 3]]
    with pytest.raises(TypeError):
        _seeds([1.5])
    assert _inputs("a.json") == _inputs(["a.json"])
    assert [document.path.name for document in _inputs([JOB, JOB])] == ["jobs"]


def test_results_are_a_table_of_ranked_samples(ranked):
    rows = load_results(ranked)
    assert [(row.job, row.rank) for row in rows] == [(job, rank) for job in ("hinge", "rigid") for rank in range(1, 7)]
    best = rows[0]
    assert (best.seed, best.sample, best.ranking_score, best.ipsae) == (1, 0, pytest.approx(0.89), 0.4)
    assert best.structure == ranked / "hinge/seed_1/predictions/hinge_sample_0.cif"
    table = pandas.DataFrame(rows)
    assert list(table.columns) == [field.name for field in dataclasses.fields(best)]
    assert len(table) == 12
    assert set(table[table.job == "rigid"].cluster) == {1}


def test_a_row_reads_its_files(ranked):
    best = load_results(ranked)[0]
    atoms = best.atoms()
    assert (atoms.array_length(), set(atoms.chain_id)) == (63, {"A", "B", "L"})
    assert set(atoms.b_factor[atoms.chain_id == "A"]) == {95.0}
    assert best.summary()["ptm"] == pytest.approx(0.89)
    assert best.pae().shape == (63, 63)
    best.structure.write_text("nothing")
    with pytest.raises(DamagedError, match=r"hinge_sample_0\.cif"):
        best.atoms()
    with pytest.raises(ConfigError, match=r"hinge seed 1 sample 0: the structure was not kept; predict with store"):
        dataclasses.replace(best, structure=None).atoms()


def test_ctrl_c_at_the_end_of_a_run_is_not_lost_after_an_error_of_the_caller(tmp_path, monkeypatch):
    """Regression: the run was ended by Python's collector of garbage, which only prints exceptions."""

    def run(*_):
        try:
            yield Failure(job=job_of(), seed=1, stage="predict", message="x")
        finally:
            raise KeyboardInterrupt

    def refuse(failure):
        raise ValueError

    monkeypatch.setattr(api, "run", run)
    config = load_config({"model": "demo", "out": tmp_path / "out"})
    scan = Scan(tasks=(task_of(job_of()),), n_done=0, damaged=(), left_out=(), n_other=0)
    with pytest.raises(KeyboardInterrupt):
        list(api._results(Prepared(config=config, scan=scan), refuse, progress=False))


def test_finished_seeds_that_are_not_ranked_are_named(ranked):
    page_results.write(ranked / "more")
    (ranked / "more" / "rigid" / "seed_1").rename(ranked / "rigid" / "seed_9")
    with pytest.warns(
        ProtenixMsWarning, match=r"rigid: ranking.csv lacks 1 finished seeds, such as 9; protenix-ms rank"
    ) as heard:
        assert len(load_results(ranked)) == 12
    assert heard[0].filename == __file__


def test_folders_without_results_and_tables_of_another_version_are_refused(ranked, tmp_path):
    with pytest.raises(ConfigError, match="No such file or directory; give the folder that predict wrote"):
        load_results(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no ranked results"):
        load_results(tmp_path / "empty")
    (ranked / "hinge" / "ranking.csv").write_text("rank,job\n1,hinge\n")
    with pytest.raises(DamagedError, match=r"ranking\.csv: no table of this version"):
        load_results(ranked)


def test_an_error_lists_the_failures():
    failures = [failure_of(job_of(name="x"), seed, "predict", MemoryError()) for seed in range(30)]
    error = FailedError(failures)
    assert error.failures == tuple(failures)
    lines = str(error).splitlines()
    assert lines[0] == "30 failed; the other results are written"
    assert lines[1].startswith("in.json[0] 'x' seed 0 (predict): out of memory; use fewer --workers")
    assert lines[-1] == "... and 10 more"
