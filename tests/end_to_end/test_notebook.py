"""The notebook of examples/, executed by a Jupyter kernel."""

import base64
import shutil

import nbformat
import pytest
from nbclient import NotebookClient
from support import cases
from support.command import environment
from support.page_results import pixels

NOTEBOOK = cases.REPOSITORY / "examples" / "python_api.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")  # as the repository, where examples/ is
    (folder / "examples").mkdir()
    shutil.copy(cases.REPOSITORY / "examples" / "1brs.json", folder / "examples")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cell = next(cell for cell in notebook.cells if "settings = " in cell.source)
    quick = '"seeds": "1-2", "model": "demo", "steps": 2, "cycles": 1, "samples": 2, "workers": 1'
    assert '"seeds": "1-3", "model": "demo"' in cell.source
    cell.source = cell.source.replace('"seeds": "1-3", "model": "demo"', quick)
    NotebookClient(notebook, timeout=570, resources={"metadata": {"path": str(folder)}}).execute(env=environment())
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_notebook_has_no_outputs():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs")


def test_each_seed_is_printed_when_it_is_written(executed):
    text = "".join(output.text for output in executed[1].outputs if output.get("name") == "stdout")
    assert [line.split(",")[0] for line in text.splitlines()] == [
        f"1brs seed {seed}: coordinates (2" for seed in (1, 2)
    ]  # fmt: skip


def test_it_ends_with_plots_and_the_ranked_table(executed):
    plots, table = ([output.data for output in cell.outputs if "data" in output] for cell in executed[-2:])
    image = pixels(base64.b64decode(next(data["image/png"] for data in plots if "image/png" in data)))
    assert len({tuple(colour) for colour in image.reshape(-1, image.shape[-1])}) > 50
    html = table[0]["text/html"]
    assert "ranking_score" in html
    assert html.count("<tr") == 1 + 4
