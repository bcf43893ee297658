"""What all machines of a run must share. Another machine is imitated by changing this one after its description."""

from dataclasses import replace

import pytest
from support.jobs import job_of, task_of

from protenix_multiseed.config_loading import load_config
from protenix_multiseed.execution.shared import describe, differences, marked


@pytest.fixture
def described(tmp_path):
    (tmp_path / "in.json").write_text("[]")
    config = load_config(
        {"model": "protenix_tiny_default_v0.5.0", "checkpoint": tmp_path / "weights.pt", "out": tmp_path / "x/out"}
    )
    (tmp_path / "weights.pt").write_bytes(b"weights")
    with marked(config.out) as mark:
        assert mark.parent == tmp_path
        yield describe(config, [task_of(job_of(folder=tmp_path))], mark)


def test_the_same_machine_differs_in_nothing_and_the_mark_is_deleted(described):
    assert differences(described) == []


def test_the_mark_is_deleted(tmp_path):
    with marked(tmp_path / "out"):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["python", "protenix-ms", "protenix", "torch", "the chemical dictionary"])
def test_another_version_is_named_with_both_versions(described, name):
    other = replace(described, versions={**described.versions, name: "9.9"})
    (text,) = differences(other)
    assert text == f"{name} is {described.versions[name]}, and 9.9 on the machine of the run: install the same version"


def test_a_missing_input_and_another_checkpoint_are_named(described, tmp_path):
    (tmp_path / "in.json").unlink()
    (tmp_path / "weights.pt").write_bytes(b"other")
    one, other = differences(described)
    assert one == f"{tmp_path / 'in.json'} is missing there: put the file at the same place on all machines"
    assert other == f"{tmp_path / 'weights.pt'} has other content there: put the file at the same place on all machines"


def test_another_output_folder_is_named(described, tmp_path):
    (text,) = differences(replace(described, inode=described.inode + 1))
    assert text.startswith(f"--out {tmp_path / 'x/out'} is another folder there")
    (text,) = differences(replace(described, mark=tmp_path / "nothing"))
    assert text.startswith(f"--out {tmp_path / 'x/out'} is another folder there")
