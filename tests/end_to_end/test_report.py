"""The report page in headless Chromium, opened from disk: which URLs it loads, and how it reacts to the user.

Skipped without Chromium. .ci/run installs Chromium if it runs as root.
"""

import shutil

import numpy as np
import pytest
from support import page_results
from typer.testing import CliRunner

from protenix_multiseed.cli import app

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    page_results.write(out)
    done = CliRunner().invoke(app, ["report", str(out)])
    assert done.exit_code == 0, done.output
    return out / "report.html"


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    with api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=page_results.CHROMIUM_FLAGS)


@pytest.fixture
def page(browser, page_file):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.seen, page.asked = [], []
    page.on("console", lambda message: page.seen.append((message.type, message.text)))
    page.on("pageerror", lambda error: page.seen.append(("pageerror", str(error))))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(page_file.as_uri())
    page.wait_for_function("document.documentElement.dataset.ready === 'yes'", timeout=120_000)
    yield page
    page.close()


def drawn(page):
    return page.evaluate("document.documentElement.dataset.drawn")


def test_the_page_loads_from_disk_without_network_or_errors(page, page_file):
    assert [url for url in page.asked if not url.startswith(("blob:", "data:"))] == [page_file.as_uri()]
    assert [message for message in page.seen if message[0] in {"error", "pageerror"}] == []
    assert drawn(page) == "hinge 0 1"
    assert "2 clusters" in page.inner_text("#found")
    assert page.locator("#jobs tbody tr").count() == 2


def test_the_ranking_can_be_sorted_and_a_sample_chosen(page):
    first = "#ranking tbody tr:first-child"
    assert page.inner_text(f"{first} td:first-child") == "1"
    page.click("#ranking th[data-key='score']")
    page.click("#ranking th[data-key='score']")
    assert page.inner_text(f"{first} td:first-child") == "6"  # sorted worst first
    before = page.evaluate("document.querySelector('#pae').toDataURL()")
    page.click(first)
    page.wait_for_function("document.documentElement.dataset.drawn === 'hinge 5 1'", timeout=60_000)
    assert page.get_attribute(first, "aria-selected") == "true"
    assert page.evaluate("document.querySelector('#pae').toDataURL()") != before
    assert "Seed 3, sample 1" in page.inner_text("#which")


def test_the_structure_is_coloured_by_confidence(page):
    """In the pixels of the 3D canvas, the confident half is blue and the other half is yellow."""
    image = np.array(page_results.pixels(page.locator("#viewer").screenshot()), dtype=int)[..., :3]
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    assert ((blue > red + 60) & (blue > 100)).sum() > 100
    assert ((red > blue + 60) & (green > blue + 50)).sum() > 100
    page.check("#beside")
    page.wait_for_function("document.documentElement.dataset.drawn === 'hinge 0 2'", timeout=60_000)


def test_another_job_and_the_dark_theme_can_be_chosen(page):
    page.click("#jobs tbody tr:nth-child(2)")
    page.wait_for_function("document.documentElement.dataset.drawn === 'rigid 0 1'", timeout=60_000)
    assert "All 6 samples agree" in page.inner_text("#found")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert [message for message in page.seen if message[0] in {"error", "pageerror"}] == []


def test_slim_pages_are_smaller(page_file, tmp_path):
    done = CliRunner().invoke(app, ["report", str(page_file.parent), "--slim", "--to", str(tmp_path / "slim.html")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "slim.html").stat().st_size < page_file.stat().st_size


def test_a_job_name_cannot_inject_html(tmp_path):
    page_results.write(tmp_path, names=("</script><b>x", "[[data]]"))
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "<b>x" not in (tmp_path / "report.html").read_text()
