"""What pyproject.toml declares."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support import cases

from protenix_multiseed import __version__

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
    extras = project()["optional-dependencies"]
    wanted = [*project()["dependencies"], *(text for name in extras if name != "dev" for text in extras[name])]
    declared = {canonicalize_name(Requirement(text).name) for text in wanted}
    owners = metadata.packages_distributions()
    undeclared = {
        package
        for package in imported_packages() - UPSTREAM - OPTIONAL
        if not {canonicalize_name(name) for name in owners.get(package, [package])} & declared
    }
    assert undeclared == set()


def requirements(lines):
    """Specifiers by name. Requirements of extras and of other systems are left out."""
    made = (Requirement(line.strip()) for line in lines if line.strip() and not line.startswith("#"))
    return {canonicalize_name(one.name): str(one.specifier) for one in made}


def project():
    return tomllib.loads((cases.REPOSITORY / "pyproject.toml").read_text())["project"]


def test_the_list_for_hosts_with_their_own_pytorch_has_every_dependency():
    """Packages that read structures and chemistry have Protenix's versions, and the others have ranges."""
    wanted, upstream = requirements(project()["dependencies"]), requirements(metadata.requires("protenix"))
    listed = requirements((cases.REPOSITORY / "requirements-own-torch.txt").read_text().splitlines())
    assert wanted.keys() - listed.keys() == {"protenix", "torch", "triton"}
    assert listed.keys() - wanted.keys() <= upstream.keys()
    pinned = {name for name, specifier in listed.items() if "==" in specifier}
    assert pinned == {"biopython", "biotite", "fair-esm", "gemmi", "pdbeccdutils", "rdkit"}
    assert {name: listed[name] for name in pinned} == {name: upstream[name] for name in pinned}
    ranges = listed.keys() & wanted.keys() - pinned
    assert {name: listed[name] for name in ranges} == {name: wanted[name] for name in ranges}


def test_make_installs_protenix_as_it_is_declared():
    command = ["make", "--dry-run", "install-own-torch"]
    done = subprocess.run(command, cwd=cases.REPOSITORY, capture_output=True, text=True, check=True)
    (pin,) = (text for text in project()["dependencies"] if text.startswith("protenix=="))
    assert f"pip install --no-deps {pin} ." in done.stdout


def test_containers_are_built_from_the_same_lists():
    """They are not built here: what they copy must exist, and both install the same."""
    docker, apptainer = ((cases.REPOSITORY / name).read_text() for name in ("Dockerfile", "apptainer.def"))
    packages = [re.search(r"--no-install-recommends \\\n +([a-z0-9 -]+)", text)[1] for text in (docker, apptainer)]
    assert packages[0].split() == packages[1].split() == sorted(packages[0].split())
    copied = [name for line in re.findall(r"^COPY (.*) \S+$", docker, re.MULTILINE) for name in line.split()]
    files = apptainer.partition("%files\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in files.splitlines()] == copied
    assert all((cases.REPOSITORY / name).exists() for name in copied)
    sent = (cases.REPOSITORY / ".dockerignore").read_text().splitlines()
    assert sent[0] == "*"
    assert {line.removeprefix("!") for line in sent[1:]} == set(copied)
    assert "FROM " + re.search(r"^From: (\S+)$", apptainer, re.MULTILINE)[1] in docker.splitlines()


def test_the_citation_and_the_licence_are_those_of_the_package():
    citation = yaml.safe_load((cases.REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["license"] == project()["license"] == "Apache-2.0"
    assert (cases.REPOSITORY / project()["license-files"][0]).read_text().split()[:3] == [
        "Apache",
        "License",
        "Version",
    ]


def test_a_release_builds_the_wheel_and_runs_the_demo_from_it():
    jobs = yaml.safe_load((cases.REPOSITORY / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    assert (jobs["demo"]["needs"], jobs["release"]["needs"]) == ("build", "demo")
    demo = re.search(r"protenix-ms (predict .*)", (cases.REPOSITORY / "Makefile").read_text())[1]
    steps = [step.get("run", "") for step in jobs["demo"]["steps"]]
    assert f"fresh/bin/protenix-ms {demo}" in steps
    assert "fresh/bin/pip install --no-cache-dir dist/${{ matrix.archive }}" in steps
