"""Commands do not replace files that they did not write."""

import json

import pytest
from support.command import write_jobs
from support.msa_server import msa_server

from protenix_multiseed.commands.convert import convert
from protenix_multiseed.commands.msa import msa
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.errors import ConfigError

A, B = "MKTAYIAKQR", "GHKLMNPQRS"


def test_af3_is_a_short_name_of_a_format(tmp_path):
    job = {"name": "a", "sequences": [{"proteinChain": {"sequence": "MKT", "count": 1}}]}
    (tmp_path / "in.json").write_text(json.dumps([job]))
    convert(load_config({"model": "demo"}), [tmp_path / "in.json"], "af3", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["dialect"] == "alphafold3"


def test_no_job_is_converted_if_one_would_replace_a_file(tmp_path):
    """Regression: the files of the jobs before it were written."""
    write_jobs(tmp_path, {"a": A, "b": B})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.json").symlink_to("later")  # a link to nothing is replaced too
    with pytest.raises(ConfigError, match=r"b\.json exists already"):
        convert(load_config({"model": "demo"}), [tmp_path / "in.json"], "alphafold3", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.json"]


@pytest.fixture
def searched(tmp_path, monkeypatch):
    """Run ``msa`` on files with a server that cannot search B. Return its exit code."""
    monkeypatch.setenv("PROTENIX_MS_CACHE", str(tmp_path / "cache"))

    def search(*files, poison=()):
        with msa_server(poison=poison) as server:
            config = load_config({"model": "demo", "msa_server": server.url})
            try:
                return msa(config, [tmp_path / file for file in files], tmp_path / "out")
            except ConfigError:
                assert not server.submitted
                raise

    return search


def names(path):
    return [job["name"] for job in json.loads(path.read_text())]


def test_two_inputs_never_share_a_job_file(searched, tmp_path):
    """Regression: the job file of the second input replaced that of the first one, without a word."""
    for folder, name in (("a", "first"), ("b", "second")):
        (tmp_path / folder).mkdir()
        write_jobs(tmp_path / folder, {name: A})
    with pytest.raises(ConfigError, match=r"a/in\.json and .*b/in\.json would both be written"):
        searched("a/in.json", "b/in.json")
    assert not (tmp_path / "out").exists()


def test_a_search_is_resumed_and_its_job_file_replaced(searched, tmp_path):
    write_jobs(tmp_path, {"good": A, "bad": B})
    assert searched("in.json", poison=[B]) == 1
    assert names(tmp_path / "out" / "in_msa.json") == ["good"]
    for _ in range(2):
        assert searched("in.json") == 0
        assert names(tmp_path / "out" / "in_msa.json") == ["good", "bad"]


@pytest.mark.parametrize("change", ["text", "job", "alignment"])
def test_a_job_file_of_others_is_not_replaced(searched, tmp_path, change):
    write_jobs(tmp_path, {"good": A})
    searched("in.json")
    path = tmp_path / "out" / "in_msa.json"
    if change == "text":
        path.write_text("a year of work")
    elif change == "job":
        path.write_text(path.read_text().replace('"good"', '"mine"'))
    else:
        path.write_text(path.read_text().replace(str(tmp_path / "out"), "/data/mine"))
    held = path.read_text()
    with pytest.raises(ConfigError, match="exists, and is not of these jobs"):
        searched("in.json")
    assert path.read_text() == held


@pytest.mark.parametrize(("out", "written"), [
    ("x.json", "x.json"), ("x", "x/a.json"), ("there", "there/a.json"), ("there.json", "there.json/a.json"),
])  # fmt: skip
def test_one_alphafold3_job_goes_to_a_file_or_into_a_folder(tmp_path, out, written):
    write_jobs(tmp_path, {"a": A})
    for name in ("there", "there.json"):
        (tmp_path / name).mkdir()
    convert(load_config({"model": "demo"}), [tmp_path / "in.json"], "alphafold3", tmp_path / out)
    assert json.loads((tmp_path / written).read_text())["name"] == "a"


@pytest.mark.parametrize(("jobs", "written"), [({"a": A}, "a.json"), ({"a": A, "b": A}, "in.json")])
def test_protenix_jobs_go_into_a_folder_that_exists(tmp_path, jobs, written):
    """Regression: it was refused as a file that exists, though the help says that a folder may be named."""
    write_jobs(tmp_path, jobs)
    (tmp_path / "there").mkdir()
    convert(load_config({"model": "demo"}), [tmp_path / "in.json"], "protenix", tmp_path / "there")
    assert [one["name"] for one in json.loads((tmp_path / "there" / written).read_text())] == list(jobs)
