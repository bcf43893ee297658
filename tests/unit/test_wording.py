"""Messages for the user of the Python interface name settings as Python does."""

import ast
import re

import pytest
from support import cases
from support.jobs import job_of

from protenix_multiseed import FailedError, ProtenixMsWarning, api, predict
from protenix_multiseed.errors import ConfigError, PredictionError
from protenix_multiseed.events import Note
from protenix_multiseed.failures import failure_of
from protenix_multiseed.wording import in_python

JOB = {"name": "a", "sequences": [{"proteinChain": {"sequence": "MKTAYIAKQR", "count": 1}}]}
PACKAGE = cases.REPOSITORY / "protenix_multiseed"
# Modules whose messages only the command shows, or that run MMseqs2.
OF_COMMAND = {
    *PACKAGE.glob("commands/*.py"),
    *(PACKAGE / name for name in ("aliases.py", "cli.py", "options.py", "search/mmseqs.py")),
    *(PACKAGE / "outputs" / name for name in ("export.py", "found.py")),
}
# Options of other programs, and of the command's that Python does not have.
FOREIGN = {"--head", "--shm-size", "--server", "--database"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("use --kernels torch or auto", 'use kernels="torch" or auto'),
        ("--device cuda:9: none; use --device cpu", 'device cuda:9: none; use device="cpu"'),
        (
            "choose another --out, or replace it with --overwrite",
            "choose another out, or replace it with overwrite=True",
        ),
        ("seed 1: --full-confidence was off, is on", "seed 1: full_confidence was off, is on"),
        ("add --msa-server or --msa-database", "add msa_server or msa_database"),
        ("no effect without --template", "no effect without template=True"),
        ("leave --protenix-exact out", "leave protenix_exact=True out"),
        ("/data/my--seeds/x--out/in.json: job 'kras--model'", "/data/my--seeds/x--out/in.json: job 'kras--model'"),
        ("start one with 'ray start --head'", "start one with 'ray start --head'"),
    ],
)
def test_options_become_settings(text, said):
    assert in_python(text) == said


def test_every_option_that_a_message_names_is_a_setting():
    found = set()
    for path in set(PACKAGE.rglob("*.py")) - OF_COMMAND:
        tree = ast.parse(path.read_text())
        texts = [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        docs = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if hasattr(node, "body") and node.body
                and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)}  # fmt: skip
        for text in set(texts) - docs:
            found.update(re.findall(r"--[a-z][a-z-]*", in_python(text)))
    assert found == FOREIGN


def test_refusals_name_settings(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^out /dev/null/x: a folder on the way|^out /dev/null/x: /dev/null is a file"
    ):
        predict(JOB, out="/dev/null/x", model="demo")
    with pytest.raises(ConfigError, match=r"^msa_server: sequences cannot be sent to it with offline=True; give msa"):
        predict(JOB, out=tmp_path, model="demo", msa_server="https://a.example", offline=True)


def test_failures_notes_and_errors_of_a_run_name_settings(tmp_path, monkeypatch):
    failed = failure_of(job_of(name="a"), 1, "predict", PredictionError("not finite; try --kernels torch"))
    monkeypatch.setattr(api, "run", lambda config, tasks, workers, tell, signals, result: (one for one in [failed]))
    heard = []
    assert list(predict(JOB, 1, tmp_path, model="demo", on_failure=heard.append)) == []
    assert [(one.message, one.advice) for one in heard] == [
        ('not finite; try kernels="torch"', 'use kernels="torch", or another seed')
    ]

    def fail(config, tasks, workers, tell, signals, result):
        result.failures.append(failed)
        yield failed

    monkeypatch.setattr(api, "run", fail)
    with pytest.raises(FailedError, match='not finite; try kernels="torch"; use kernels="torch", or another seed'):
        list(predict(JOB, 1, tmp_path, model="demo"))

    def remark(config, tasks, workers, tell, signals, result):
        tell(Note(job=None, text="add --msa-server"))
        yield from ()

    monkeypatch.setattr(api, "run", remark)
    with pytest.warns(ProtenixMsWarning, match="add msa_server"):
        assert list(predict(JOB, 1, tmp_path, model="demo")) == []

    def refuse(*arguments):
        raise ConfigError("--device cuda:9: there is none")
        yield

    monkeypatch.setattr(api, "run", refuse)
    with pytest.raises(ConfigError, match=r"^device cuda:9: there is none"):
        list(predict(JOB, 1, tmp_path, model="demo"))
