"""The report's pages in headless Chromium, opened from disk: which URLs they load, and how they react to the user.

Skipped without Chromium. .ci/run installs Chromium if it runs as root. Each test fails if a page logs an error or asks
for anything but files of the report.
"""

import csv
import io
import json
import re
import shutil
import xml.etree.ElementTree

import numpy as np
import pytest
from support import page_results
from typer.testing import CliRunner

from protenix_multiseed.analysis.compact import read_compact
from protenix_multiseed.cli import app
from protenix_multiseed.page.build import index_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT = 120_000  # ms; generous, because tests may share the machine


def report(*arguments):
    done = CliRunner().invoke(app, ["report", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    page_results.write(out)
    assert "the list of 2 jobs" in report(out)
    return out


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    with api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=page_results.CHROMIUM_FLAGS)


@pytest.fixture
def visit(browser):
    """Open a file of a report, and wait for an attribute that the page sets. At the end there must be no errors."""
    opened = []

    def visit(file, hash_="", wait="ready", width=1300):
        page = browser.new_page(viewport={"width": width, "height": 1000})
        page.set_default_timeout(WAIT)
        page.seen, page.asked = [], []
        page.on("console", lambda message: page.seen.append((message.type, message.text)))
        page.on("pageerror", lambda error: page.seen.append(("pageerror", str(error))))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(file.as_uri() + hash_)
        page.wait_for_selector(f"html[data-{wait}=yes]", state="attached")
        opened.append((page, file.parent.as_uri()))
        return page

    yield visit
    for page, folder in opened:
        outside = [url for url in page.asked if not url.startswith(("blob:", "data:", folder))]
        errors = [message for message in page.seen if message[0] in {"error", "pageerror"}]
        page.close()
        assert outside == []
        assert errors == []


@pytest.fixture
def job(visit, out):
    return visit(out / "report" / "hinge.html")


def wait_for(page, expression):
    page.wait_for_function(expression)


def drawn(page):
    return page.evaluate("document.documentElement.dataset.drawn")


def saved(page, selector):
    page.wait_for_timeout(200)  # ms; Chromium drops a page's downloads after the tenth in one second
    with page.expect_download() as waiting:
        page.click(selector)
    return waiting.value.suggested_filename, waiting.value.path().read_bytes()


def test_a_job_page_loads_from_disk_with_the_viewer_beside_it(job, out):
    assert {url.rpartition("/")[2] for url in job.asked if url.startswith("file:")} == {"hinge.html", "molstar.js"}
    assert drawn(job) == "hinge 0 1"
    assert "2 clusters" in job.inner_text("#found")
    about = job.inner_text("#about")
    assert all(text in about for text in ("demo", "200", "torch", "predicted", "2026-11-28T10:00:02Z"))
    chains = job.inner_text("#chains")
    assert "Chain A polypeptide(L) · 30 residues · entity 1" in chains
    assert "MSA of 812 rows" in chains
    assert "no MSA" in chains
    assert "Chain L ligand · LIG" in chains


def test_what_makes_a_result_worse_is_red_and_a_remark_on_the_input_is_not(visit, tmp_path):
    """Regression: a remark with nothing to do was red, and the missing MSA was black."""
    page_results.write(tmp_path, names=("only",))
    run = {"jobs": [{"name": "only", "notes": ["each chain gets its MSA"]}]}
    (tmp_path / "protenix-ms" / "runs").mkdir(parents=True)
    (tmp_path / "protenix-ms" / "runs" / "run1.json").write_text(json.dumps(run))
    report(tmp_path)
    page = visit(tmp_path / "report.html", wait="shown")
    red = page.locator("#found .problem").all_inner_texts()
    assert len(red) == 1
    assert "no MSA" in red[0]
    assert "Each chain gets its MSA" in page.locator("#found li:not(.problem)").all_inner_texts()


def test_every_stop_of_the_tab_key_is_visible_and_has_a_name(job):
    """Regression: Mol*'s style sheet was missing, so 12 of its buttons could be reached and not be seen."""
    stops = job.evaluate("""[...document.querySelectorAll('a[href], button, input, select, [tabindex="0"]')]
        .filter((one) => !one.disabled && one.checkVisibility({ visibilityProperty: true })).map((one) => {
          const box = one.getBoundingClientRect();
          const labels = [...(one.labels ?? []), document.getElementById(one.getAttribute('aria-labelledby'))];
          const name = [one.ariaLabel, one.title, one.innerText, ...labels.map((label) => label?.innerText)].join('');
          return [one.outerHTML.slice(0, 100), box.width > 4 && box.height > 4, name.trim() !== ""];
        })""")
    assert len(stops) > 30
    assert [stop for stop in stops if not (stop[1] and stop[2])] == []
    buttons = job.locator("#viewer button[title]")
    assert buttons.count() >= 4
    assert all(box and box["width"] >= 20 for box in (one.bounding_box() for one in buttons.all() if one.is_visible()))


def test_a_job_prints_on_one_page(job):
    assert len(re.findall(rb"/Type\s*/Page\b", job.pdf(prefer_css_page_size=True))) == 1
    job.emulate_media(media="print")
    assert not job.locator(".tools button").first.is_visible()
    assert job.locator("#ranking th").first.is_visible()


def test_panels_pair_up_on_a_narrow_window(visit, out):
    page = visit(out / "report" / "hinge.html", wait="shown", width=800)
    # All at one moment, because panels that are drawn later move the others.
    structure, sequences, pae, rmsd = page.evaluate(
        "['structure', 'sequences', 'pae', 'rmsd']"
        ".map((name) => document.getElementById(name).getBoundingClientRect().y)"
    )
    assert structure == sequences
    assert pae == rmsd
    assert page.evaluate("document.documentElement.scrollWidth") <= 800


def test_how_it_was_made_is_read_in_pairs_on_a_narrow_window(visit, out):
    """Regression: two pairs to a line left seven letters for a value, the panel scrolled, and lists were JSON."""
    page = visit(out / "report" / "hinge.html", wait="shown", width=800)
    lines = page.inner_text("#about dl").splitlines()
    pairs = dict(zip(lines[::2], lines[1::2], strict=True))
    assert pairs["corrections"] == "no ion, T is U"
    assert pairs["upstream"] == "a.b: yes"
    names = page.evaluate("[...document.querySelectorAll('#about dt')].map((one) => one.getBoundingClientRect().x)")
    assert len(set(names)) == 1
    assert page.evaluate("(({ scrollHeight, clientHeight }) => scrollHeight - clientHeight)($('#about dl'))") == 0


def test_the_ranking_can_be_sorted_and_a_sample_chosen(job):
    first = "#ranking tbody tr:first-child"
    assert job.inner_text(f"{first} th") == "1"
    job.click("#ranking th button:text('score')")
    job.click("#ranking th button:text('score')")
    assert job.inner_text(f"{first} th") == "6"  # sorted worst first
    before = job.get_attribute("#pae image", "href")
    job.click(first)
    wait_for(job, "document.documentElement.dataset.drawn === 'hinge 5 1'")
    assert job.get_attribute(first, "aria-selected") == "true"
    wait_for(job, f"document.querySelector('#pae image').getAttribute('href') !== {json.dumps(before)}")
    assert "Seed 3, sample 1" in job.inner_text("#which")
    assert job.url.endswith("#rank=6")


def test_the_keyboard_chooses_samples_and_residues_and_keeps_the_focus(job):
    job.focus("#ranking tr[aria-selected=true]")
    job.keyboard.press("ArrowDown")
    wait_for(job, "document.documentElement.dataset.drawn === 'hinge 1 1'")
    assert job.evaluate("document.activeElement.rowIndex") == 2
    job.focus("#plddt svg")
    job.keyboard.press("ArrowRight")
    job.keyboard.press("Shift+ArrowRight")
    job.keyboard.press("Shift+ArrowRight")
    assert job.input_value("#chosen") == "A 1-3"
    assert "A ASN3: pLDDT 95" in job.inner_text("#plddt .hint")
    job.focus(".letters")
    job.keyboard.press("Escape")
    assert job.input_value("#chosen") == ""
    assert job.evaluate("document.activeElement.className") == "letters"


def test_an_address_names_the_sample_and_the_residues(visit, out):
    page = visit(out / "report" / "hinge.html", "#rank=4&residues=B 5-7")
    assert drawn(page) == "hinge 3 1"
    assert page.input_value("#chosen") == "B 5-7"
    assert page.locator(".letters .chosen").count() == 3


def test_the_structure_is_coloured_by_confidence(job):
    """In the pixels of the 3D canvas, the confident half is blue and the other half is yellow."""
    red, green, blue = viewer_pixels(job)
    assert ((blue > red + 60) & (blue > 100)).sum() > 100
    assert ((red > blue + 60) & (green > blue + 50)).sum() > 100
    job.check("#beside")
    wait_for(job, "document.documentElement.dataset.drawn === 'hinge 0 2'")


def test_a_ligand_is_visible_beside_a_large_structure(job):
    """Regression: sticks had one width, so a ligand in a structure of 90 A was a speck."""
    red, green, blue = viewer_pixels(job)
    light_blue = (green > red + 40) & (blue > green) & (green > 90)  # only the ligand's pLDDT is from 70 to 90
    assert light_blue.sum() > 75


def viewer_pixels(page):
    image = np.array(page_results.pixels(page.locator("#viewer").screenshot()), dtype=int)[..., :3]
    return image[..., 0], image[..., 1], image[..., 2]


def selected_in_3d(page):
    return page.evaluate("""[...molecule.plugin.managers.structure.selection.entries.values()]
        .flatMap(({ selection }) => selection.elements ?? []).flatMap(({ unit, indices }) => {
          const all = typeof indices === 'number' ? new Int32Array(new Float64Array([indices]).buffer) : null;
          const list = all ? Array.from({ length: all[1] - all[0] }, (_, k) => all[0] + k) : [...indices];
          return list.map((index) => residueOfAtom(unit.model, unit.elements[index]));
        }).sort((a, b) => a - b)""")


def test_residues_chosen_in_plots_are_marked_in_3d(job):
    job.locator("#plddt svg").scroll_into_view_if_needed()
    frame = job.locator("#plddt svg").bounding_box()
    job.mouse.move(frame["x"] + 300, frame["y"] + 60)
    job.mouse.down()
    job.mouse.move(frame["x"] + 380, frame["y"] + 60, steps=4)
    job.mouse.up()
    chosen = job.evaluate("[...page.chosen]")
    assert len(chosen) > 2
    assert selected_in_3d(job) == sorted(chosen)
    assert job.locator("#pae .chosen rect").count() == 2
    assert job.locator(".letters .chosen").count() == len(chosen)
    job.fill("#chosen", "B 2-4, L")
    job.press("#chosen", "Enter")
    assert selected_in_3d(job) == [31, 32, 33, 60, 60, 60]  # the ligand has three atoms
    job.fill("#chosen", "Z 9")
    job.press("#chosen", "Enter")
    assert "no residue Z 9" in job.inner_text("#sequences .hint")


def test_a_click_in_3d_chooses_the_residue(job):
    red, _, blue = viewer_pixels(job)
    rows, columns = np.nonzero((blue > red + 60) & (blue > 100))
    column = int(np.median(columns))
    row = int(np.median(rows[columns == column]))
    box = job.locator("#viewer").bounding_box()
    for step in range(300):  # Mol* looks under the pointer when it moves
        job.mouse.move(box["x"] + column + step % 2, box["y"] + row)
        if job.locator(".letters .at").count():
            break
        job.wait_for_timeout(200)
    job.mouse.click(box["x"] + column + step % 2, box["y"] + row)
    wait_for(job, "page.chosen.size > 0")
    assert re.fullmatch(r"A \d+", job.input_value("#chosen"))


def test_interfaces_ligands_and_clashes_can_be_shown(job):
    assert job.inner_text("#show-ligands") == "ligands and ions (1)"
    job.click("#show-ligands")
    assert job.input_value("#chosen") == "L 1"
    job.click("#show-clashes")
    assert job.input_value("#chosen") == "A 1, L 1"
    job.click("#show-interfaces")
    assert {"A", "B", "L"} == {part.split()[0] for part in job.input_value("#chosen").split(", ")}
    job.click("#interfaces tbody button")
    assert {"A", "B"} == {part.split()[0] for part in job.input_value("#chosen").split(", ")}
    job.click("#clear")
    assert selected_in_3d(job) == []


def test_plots_say_their_values(job, out):
    pae = read_compact(out / "hinge" / "seed_1" / "ensemble.npz", with_pae=True).pae[0]
    job.focus("#pae svg")
    for key in ["ArrowRight"] * 6 + ["ArrowDown"] * 2:
        job.keyboard.press(key)
    assert job.inner_text("#pae .hint") == f"A GLN6 when aligned on A ASN3: {pae[2, 5]:.1f} Å"
    for name, words in {
        "plddt": ["pLDDT", "residue or ligand atom", "A", "B", "30"],
        "pae": ["predicted aligned error, Å", "scored residue or ligand atom", "30"],
        "rmsd": ["RMSD, Å", "rank, sorted by cluster"], "convergence": ["number of seeds", "best ranking score"],
    }.items():  # fmt: skip
        texts = job.locator(f"#{name} svg text").all_text_contents()
        assert set(words) <= set(texts)
    assert job.locator("#pae linearGradient").count() == 1


def test_axes_name_every_chain_and_number_no_atoms_of_ligands(job):
    """Regression: a chain of one ion had no name but a 1, and a ligand's atoms were numbered as residues."""
    job.evaluate("""() => {
        page.job.tokens.chain[62] = "M"; page.job.tokens.component[62] = "MG";
        findResidues(); showSequences(); drawPlots();
    }""")
    for name in ("plddt", "pae"):
        axes = job.locator(f"#{name} svg text").all_text_contents()
        count = {"plddt": 1, "pae": 2}[name]
        assert [axes.count(text) for text in ("A", "B", "L", "M", "1")] == [count] * 4 + [2 * count]
    assert "Chain M ion · MG" in job.inner_text("#chains")


def test_the_colour_bar_says_that_rmsds_are_cut_off(job):
    assert "RMSD, Å" in job.locator("#rmsd svg text").all_text_contents()
    job.evaluate("page.job.rmsd = btoa(String.fromCharCode(...Array(36).fill(255))); drawPlot('rmsd')")
    assert "RMSD, Å; larger ones are shown as 25.5" in job.locator("#rmsd svg text").all_text_contents()
    job.focus("#rmsd svg")
    job.keyboard.press("ArrowRight")
    assert job.inner_text("#rmsd .hint").endswith(": 25.5 Å or more")


@pytest.mark.parametrize("width", [800, 1300])
def test_scrolled_tables_show_whole_rows(visit, out, width):
    page = visit(out / "report" / "hinge.html", wait="shown", width=width)
    rows = page.evaluate("""[...document.querySelectorAll('.table.scroll')].map((one) => [
        parseFloat(getComputedStyle(one).maxHeight),
        [...one.querySelectorAll('tr')].map((row) => row.getBoundingClientRect().height),
    ])""")
    assert len(rows) == 4
    for most, heights in rows:
        assert set(heights) == {heights[0]}
        assert most % heights[0] == 0


def test_structures_tables_and_plots_can_be_saved(job, out):
    name, content = saved(job, "#structure .tools button")
    assert name == "hinge_seed_1_sample_0_structure.cif"
    assert content == (out / "hinge" / "seed_1" / "predictions" / "hinge_sample_0.cif").read_bytes()
    for panel in ("ranking", "sequences", "interfaces", "pairs", "timings", "plddt", "pae", "rmsd", "convergence"):
        _, content = saved(job, f"#{panel} .tools button:text('CSV')")
        rows = list(csv.reader(io.StringIO(content.decode())))
        assert len(rows) > 1
        assert len({len(row) for row in rows}) == 1
    for panel in ("plddt", "pae", "rmsd", "convergence"):
        _, content = saved(job, f"#{panel} .tools button:text('SVG')")
        root = xml.etree.ElementTree.fromstring(content)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert b"var(" not in content
        _, content = saved(job, f"#{panel} .tools button:text('PNG')")
        image = page_results.pixels(content)
        assert image.shape[0] > 400
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10
    _, content = saved(job, "#sequences .tools button:text('FASTA')")
    assert content.decode().startswith(">hinge chain A\nARNDCQEGHILKMFPARNDCQEGHILKMFP\n>hinge chain B\n")


def test_the_list_can_be_sorted_and_filtered_and_the_back_button_returns_to_it(visit, out):
    page = visit(out / "report.html")
    assert page.locator("#jobs tbody tr").count() == 2
    page.click("#jobs th button:text('job')")
    assert page.inner_text("#jobs tbody tr:first-child th") == "rigid"
    page.fill("#filter-name", "HING")
    assert page.inner_text("#count") == "1 of 2 jobs"
    page.click("#jobs tbody a:visible")
    page.wait_for_selector("#name:text('hinge')")
    assert page.locator("#links a").all_text_contents() == ["all jobs", "next job"]
    page.go_back()
    page.wait_for_selector("#count:text('1 of 2 jobs')")
    assert page.input_value("#filter-name") == "HING"
    page.fill("#filter-name", "")
    page.fill("#filter-score", "0.95")
    assert page.inner_text("#count") == "0 of 2 jobs"


def test_a_list_of_a_thousand_jobs(visit, tmp_path):
    rows = [
        {"name": f"job {place}", "seeds": 3, "samples": 15, "score": place / 1000, "found": "x"}
        for place in range(1000)
    ]
    (tmp_path / "report.html").write_text(index_page("many", rows, "report"))
    page = visit(tmp_path / "report.html", "#sort=-score&score=0.99")
    assert page.inner_text("#count") == "10 of 1000 jobs"
    assert page.inner_text("#jobs tbody tr:first-child th") == "job 999"


def test_one_file_holds_all_jobs_and_each_has_an_address(visit, out, tmp_path):
    report(out, "--one-file", "--to", tmp_path / "all.html")
    assert [path.name for path in tmp_path.iterdir()] == ["all.html"]
    page = visit(tmp_path / "all.html")
    page.click("#jobs a:text('rigid')")
    wait_for(page, "document.documentElement.dataset.drawn === 'rigid 0 1'")
    assert page.url.endswith("#job=rigid")
    assert "All 6 samples agree" in page.inner_text("#found")
    assert page.evaluate("document.activeElement.id") == "name"
    page.click("#links a:text('previous job')")
    wait_for(page, "document.documentElement.dataset.drawn === 'hinge 0 1'")
    page.go_back()
    wait_for(page, "document.documentElement.dataset.drawn === 'rigid 0 1'")
    page.go_back()
    page.wait_for_selector("#jobs:visible")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_a_single_job_makes_one_file_and_png_files_beside_its_results(visit, tmp_path):
    page_results.write(tmp_path, names=("only",))
    written = report(tmp_path, "--png")
    assert "report.html: " in written
    assert f"plots: {tmp_path / 'only' / 'plots'}\n" in written
    assert not (tmp_path / "report").exists()
    for name in ("plddt", "pae", "rmsd", "convergence"):
        image = page_results.pixels((tmp_path / "only" / "plots" / f"{name}.png").read_bytes())
        assert min(image.shape[:2]) > 500
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10
    assert drawn(visit(tmp_path / "report.html")) == "only 0 1"


def test_the_title_names_all_folders(tmp_path):
    for name in ("first", "second"):
        page_results.write(tmp_path / name, names=(f"of {name}",))
    report(tmp_path / "first", tmp_path / "second", "--to", tmp_path / "both.html")
    for page in (tmp_path / "both.html", tmp_path / "both" / "of second.html"):
        assert "<title>first, second</title>" in page.read_text()


def test_slim_pages_are_smaller(out, tmp_path):
    for option, name in (("--slim", "slim.html"), ("--one-file", "full.html")):
        report(out, "--one-file", option, "--to", tmp_path / name)
    assert (tmp_path / "slim.html").stat().st_size < (tmp_path / "full.html").stat().st_size


def test_a_job_name_is_text_wherever_it_is_shown(visit, tmp_path):
    names = ("</script><b>x", "[[large]]", "#a?b%41&c")
    page_results.write(tmp_path, names)
    report(tmp_path)
    assert "<b>x" not in (tmp_path / "report.html").read_text()
    page = visit(tmp_path / "report.html")
    folders = [name.replace("/", "_") for name in names]
    assert sorted(page.locator("#jobs tbody th").all_text_contents()) == sorted(folders)
    for name in folders:
        page.goto((tmp_path / "report.html").as_uri())
        page.click(f"#jobs a:text-is({json.dumps(name)})")
        page.wait_for_selector("#job:visible")
        assert page.inner_text("#name") == name


def test_a_job_that_cannot_be_read_is_named_in_the_list(visit, tmp_path):
    page_results.write(tmp_path)
    for seed in (1, 2, 3):
        (tmp_path / "rigid" / f"seed_{seed}" / "record.json").write_text("?")
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert done.exit_code == 1, done.output
    page = visit(tmp_path / "report.html")
    assert "the job is skipped" in page.inner_text("#jobs tbody tr.problem")
    assert page.locator("#jobs tbody a").all_text_contents() == ["hinge"]


def pages(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else None


def test_pages_of_jobs_that_are_gone_are_removed_and_files_of_others_stay(tmp_path):
    page_results.write(tmp_path / "out", names=("a", "b", "c"))
    out, folder = tmp_path / "out", tmp_path / "out" / "report"
    assert "removed" not in report(out)
    (folder / "mine.html").write_text("<p>notes</p>")
    (tmp_path / "elsewhere.html").write_bytes((folder / "c.html").read_bytes())
    (folder / "link.html").symlink_to(tmp_path / "elsewhere.html")
    shutil.rmtree(out / "c")
    (out / "b" / "seed_1" / "record.json").write_text("?")
    assert "1 page of an earlier report removed" in CliRunner().invoke(app, ["report", str(out)]).output
    assert pages(folder) == ["a.html", "b.html", "link.html", "mine.html", "molstar.js"]
    shutil.rmtree(out / "b")
    assert "1 page of an earlier report removed" not in report(out, "--to", tmp_path / "other.html")
    assert "2 pages of an earlier report removed" in report(out)  # a single job is one file
    assert pages(folder) == ["link.html", "mine.html", "molstar.js"]
    assert (tmp_path / "elsewhere.html").exists()
    page_results.write(tmp_path / "next", names=("a", "b"))
    report(tmp_path / "next")
    report(tmp_path / "next", "--one-file")
    assert pages(tmp_path / "next" / "report") is None


def test_a_job_whose_folder_is_needed_for_the_pages_is_refused(tmp_path):
    page_results.write(tmp_path, names=("report", "x"))
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert done.exit_code == 2
    assert "choose another file with --to" in done.output
    report(tmp_path, "--to", tmp_path / "other.html")
    assert (tmp_path / "other" / "report.html").exists()
