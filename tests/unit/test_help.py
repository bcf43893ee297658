"""Help texts fit a terminal of 80 columns."""

import pytest
import typer
from typer.testing import CliRunner

from protenix_multiseed.cli import app

COMMANDS = [(), *((name,) for name in typer.main.get_command(app).commands)]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_word_of_a_help_is_cut_at_80_columns(command):
    done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80"})
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert max(map(len, lines)) == 80
    assert not [line for line in lines if "…" in line]


def test_doctor_does_not_say_that_it_writes_to_a_folder():
    text = CliRunner().invoke(app, ["doctor", "--help"], env={"COLUMNS": "80"}).output
    assert "Folder whose disk is checked (output)." in text
    assert "Output folder" not in text
