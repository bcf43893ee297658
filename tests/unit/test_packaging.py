"""What pyproject.toml declares."""

import ast
import sys
import tomllib
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support import cases

UPSTREAM = {"protenix", "configs", "runner"}  # top-level packages of the distribution protenix
OPTIONAL = {"cuequivariance_torch", "esm"}  # protenix's own dependencies, used only with its kernels and ESM models


def imported_packages():
    """Top-level packages that protenix_multiseed imports, also inside functions or by name."""
    found = set()
    for path in (cases.REPOSITORY / "protenix_multiseed").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
                names = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            found |= {name.split(".")[0] for name in names if isinstance(name, str)}
    return found - set(sys.stdlib_module_names) - {"protenix_multiseed"}


def test_every_imported_package_is_declared():
    """A package that only comes along with another one can disappear with that one's next release."""
    project = tomllib.loads((cases.REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(text for name in extras if name != "dev" for text in extras[name])]
    declared = {canonicalize_name(Requirement(text).name) for text in wanted}
    owners = metadata.packages_distributions()
    undeclared = {
        package
        for package in imported_packages() - UPSTREAM - OPTIONAL
        if not {canonicalize_name(name) for name in owners.get(package, [package])} & declared
    }
    assert undeclared == set()


def test_the_list_for_hosts_with_their_own_pytorch_has_every_dependency():
    project = tomllib.loads((cases.REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    lines = (cases.REPOSITORY / "requirements-own-torch.txt").read_text().splitlines()
    listed = {canonicalize_name(Requirement(line).name) for line in lines if line and not line.startswith("#")}
    assert wanted - listed == {"numpy", "pandas", "scikit-learn", "scipy", "torch", "triton"}  # the host's own
