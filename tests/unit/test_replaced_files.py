"""Commands do not replace files that they did not write."""

import pytest
from support.command import write_jobs

from protenix_multiseed.commands.convert import convert
from protenix_multiseed.config_loading import load_config
from protenix_multiseed.errors import ConfigError

A, B = "MKTAYIAKQR", "GHKLMNPQRS"


def test_no_job_is_converted_if_one_would_replace_a_file(tmp_path):
    """Regression: the files of the jobs before it were written."""
    write_jobs(tmp_path, {"a": A, "b": B})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.json").symlink_to("later")  # a link to nothing is replaced too
    with pytest.raises(ConfigError, match=r"b\.json exists already"):
        convert(load_config({"model": "demo"}), [tmp_path / "in.json"], "alphafold3", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.json"]
