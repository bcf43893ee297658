"""The scripts import what exists. They are not packaged, and no other test runs most of them."""

import ast
import importlib

import pytest
from support.cases import REPOSITORY

SCRIPTS = sorted((REPOSITORY / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_imports_what_exists(script, monkeypatch):
    monkeypatch.syspath_prepend(str(script.parent))
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (
            node.module.startswith("protenix_multiseed") or (script.parent / f"{node.module}.py").exists()
        ):
            module = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                if not hasattr(module, name):
                    importlib.import_module(f"{node.module}.{name}")
