"""The shell offers the values of options, and not the files of the folder."""

import pytest
from typer.testing import CliRunner

from protenix_multiseed.cli import app


@pytest.mark.parametrize(
    ("words", "expected", "other"),
    [
        ("predict --model ", "demo", ""),
        ("predict --model protenix_b", "protenix_base_default_v1.0.0", "demo"),
        ("predict --precision ", "fast", ""),
        ("predict --store ", "slim", ""),
        ("bench --device c", "cuda", "auto"),
        ("export x --format ", "pdb", ""),
        ("convert x --to a", "alphafold3", "protenix"),
        ("fetch ", "template-data", "demo"),
    ],
)
def test_the_values_of_an_option_are_offered(words, expected, other):
    """Regression: the shell offered files."""
    typed = f"protenix-ms {words}"
    variables = {"_PROTENIX_MS_COMPLETE": "complete_bash", "COMP_WORDS": typed}
    variables["COMP_CWORD"] = str(len(typed.split(" ")) - 1)
    offered = CliRunner().invoke(app, [], prog_name="protenix-ms", env=variables).stdout.split()
    assert expected in offered
    assert not other or other not in offered


def test_the_last_part_of_a_list_of_seeds_is_not_guessed():
    variables = {
        "_PROTENIX_MS_COMPLETE": "complete_bash",
        "COMP_WORDS": "protenix-ms predict --seeds ",
        "COMP_CWORD": "3",
    }
    assert CliRunner().invoke(app, [], prog_name="protenix-ms", env=variables).stdout.split() == []
