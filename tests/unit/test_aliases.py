"""Options of neighbouring programs: what means the same is translated, other options are refused with a hint."""

import inspect
import re
from pathlib import Path

import pytest
import runner.batch_inference as upstream
from hypothesis import given
from hypothesis import strategies as st
from support.command import run

from protenix_multiseed import aliases
from protenix_multiseed.aliases import translate
from protenix_multiseed.cli import app
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.options import SETTINGS

OWN = {"--version", *(f"--{name.replace('_', '-')}" for name in SETTINGS)}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("pred -i in.json -o out -n demo", "predict in.json -o out --model demo"),
        ("predict --input=in.json --out_dir=out --seed 7", "predict in.json --out=out --seeds 7"),
        ("predict in.json --num-seeds 5", "predict in.json --seeds=1-5"),
        ("predict in.json --num_seeds=1", "predict in.json --seeds=1"),
        ("predict in.json --cycle 4 --step 20 --sample 2", "predict in.json --cycles 4 --steps 20 --samples 2"),
        ("predict in.json --diffusion_samples 2 --sampling_steps=9", "predict in.json --samples 2 --steps=9"),
        ("predict in.json --max_seeds_per_batch 2", "predict in.json --max-seeds-per-batch 2"),
        ("-V", "--version"),
        ("predict pred -c quick.yaml", "predict pred -c quick.yaml"),
        ("predict -- --seed -i", "predict -- --seed -i"),
        ("predict a=b.json --log-file=a_b", "predict a=b.json --log-file=a_b"),
    ],
)
def test_what_means_the_same_is_translated(given, meant):
    assert translate(given.split()) == meant.split()


@pytest.mark.parametrize(
    ("given", "way_out"),
    [
        ("predict in.json -c 10", "use --cycles 10"),
        ("predict in.json -p 200", "use --steps"),
        ("predict in.json --recycling_steps 3", r"--cycles N\+1"),
        ("predict in.json --num-recycle=3", r"--cycles N\+1"),
        ("predict in.json --use_msa_server", "--msa-server URL"),
        ("predict in.json --use_msa true", "--no-msa"),
        ("predict in.json --dtype=fp32", "upstream: {dtype"),
    ],
)
def test_what_means_something_else_is_refused_with_the_right_option(given, way_out):
    with pytest.raises(ConfigError, match=way_out):
        translate(given.split())


def test_every_alias_leads_to_an_option_that_exists():
    assert set(aliases._ALIASES.values()) <= OWN
    commands = {one.name or one.callback.__name__ for one in app.registered_commands}
    assert set(aliases.COMMANDS.values()) <= commands


def test_no_own_option_is_taken_for_another_programs():
    other = {*aliases._ALIASES, *aliases._HINTS, *aliases._INPUT}
    own = {name.replace("-", "_").replace("__", "--", 1) for name in OWN}
    assert not other & own
    short = {
        name
        for command in app.registered_commands
        for one in inspect.signature(command.callback).parameters.values()
        for annotation in getattr(one.annotation, "__metadata__", ())
        for name in getattr(annotation, "param_decls", ()) or ()
        if not name.startswith("--")
    }
    assert not other & short


@given(st.lists(st.text(max_size=12), max_size=6))
def test_any_words_are_translated_or_refused(words):
    try:
        made = translate(["predict", *words])
    except ConfigError:
        return
    assert made[0] == "predict"


def test_protenixs_own_command_line_is_understood():
    """Every option of Protenix's ``pred`` is translated, refused with a hint, or one of ours."""
    source = Path(upstream.__file__).read_text().split("def predict(")[0]
    options = set(re.findall(r'"(-[a-z]|--[a-z_]+)",', source[source.index('"-i", "--input"') :]))
    assert {"-d", "--use_msa"} <= options
    known = {*aliases._ALIASES, *aliases._HINTS, *aliases._INPUT}
    own = {"-s", "-o", "-c", *(name.replace("-", "_").replace("__", "--", 1) for name in OWN)}
    assert options <= known | own


def test_the_command_takes_and_refuses_them():
    shown = run("-V")
    assert shown.stdout.startswith("protenix-ms ")
    refused = run("pred", "-i", "in.json", "-c", "10")
    assert refused.returncode == 2
    assert refused.stderr == "error: -c 10: -c names a configuration file here; use --cycles 10\n"
    missing = run("pred", "-i", "missing.json", "-n", "demo")
    assert missing.returncode == 2
    assert "missing.json: no such file or folder" in missing.stderr
