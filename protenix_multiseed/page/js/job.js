/* One job: its panels, and what changes when another sample is shown. */
const PLOTS = {
  plddt: { draw: drawPlddt, missing: "not available for every seed", usual: "drag to choose residues", csv: residueCsv, ofSample: true },
  pae: { draw: drawPae, missing: "not in this page for this sample", usual: "drag to choose residues", csv: () => matrixCsv(page.job.pae_side, (i, j) => page.pae[i * page.job.pae_side + j] / 8), ofSample: true },
  rmsd: { draw: drawRmsd, missing: "not compared", usual: "click to show the sample of the row", csv: rmsdCsv },
  convergence: { draw: drawConvergence, usual: "", csv: () => csv([["seeds", "best", "expected"], ...page.job.convergence.best.map((best, index) => [index + 1, best, page.job.convergence.expected[index]])]) },
};
const matrixCsv = (side, value) => csv(Array.from({ length: side }, (_, i) => Array.from({ length: side }, (__, j) => value(i, j))));

function rmsdCsv() {
  const all = bytesOf(page.job.rmsd);
  const names = page.job.samples.slice(0, Math.sqrt(all.length)).map(({ seed, sample }) => `seed ${seed} sample ${sample}`);
  return csv([["", ...names], ...names.map((name, i) => [name, ...names.map((_, j) => all[i * names.length + j] / 10)])]);
}

function drawPlot(id) {
  const { draw, missing, usual, csv: table } = PLOTS[id];
  const panel = document.getElementById(id);
  const place = panel.querySelector(".plot");
  const hint = panel.querySelector(".hint");
  const hadFocus = place.contains(document.activeElement);
  const svg = draw(Math.max(240, Math.round(place.clientWidth)));
  hint.dataset.usual = svg ? usual : missing;
  hint.textContent = hint.dataset.usual;
  place.replaceChildren(...(svg ? [svg] : []));
  const file = (end) => fileName(id, end);
  const present = () => place.querySelector("svg");
  if (Boolean(svg) !== panel.querySelector(".tools").hasChildNodes()) { // else keep the buttons: one may have the focus
    setTools(panel, svg ? [["SVG", () => save(file("svg"), svgText(present()), "image/svg+xml")],
      ["PNG", () => savePng(file("png"), present())], ["CSV", () => save(file("csv"), table(), "text/csv")]] : []);
  }
  svg?.mark?.();
  if (hadFocus) svg?.focus();
}
const drawPlots = () => Object.keys(PLOTS).forEach(drawPlot);
const markPlots = () => document.querySelectorAll(".plot svg").forEach((svg) => svg.mark?.());
const pointPlots = (places) => document.querySelectorAll(".plot svg").forEach((svg) => svg.point?.(places));

/* Show another sample in all panels. */
async function showSample(place) {
  page.shown = place;
  page.ranking.select(place);
  writeHash({ rank: place ? place + 1 : null });
  showInterfaces();
  showPairs();
  if (page.job.tokens) colourSequences();
  drawPlot("plddt");
  const drawn = showStructure();
  await loadPae();
  return drawn;
}

async function loadPae() {
  const { shown, at } = page;
  const errors = await unpack(`pae-${shown}-${at}`);
  if (page.shown !== shown || page.at !== at) return; // another sample was chosen meanwhile
  page.pae = errors;
  drawPlot("pae");
}

/* Open a job: at is its place in this file. isFirst: the page was opened with it, so the focus stays at the start. */
async function openJob(at, isFirst) {
  const job = await unpackJson(`job-${at}`);
  Object.assign(page, { job, at, shown: 0, pae: null, chosen: new Set() });
  const values = readHash();
  const rank = Number(values.get("rank"));
  if (Number.isInteger(rank) && rank >= 1 && rank <= job.samples.length) page.shown = rank - 1;
  $("#jobs").hidden = true;
  $("#job").hidden = false;
  $("#name").textContent = job.name;
  document.title = job.name;
  const problems = (page.rows[at].problems ?? []).map((text) => [text, "problem"]);
  const lines = [[job.notice, "problem"], ...problems,
    ...job.found.map((text) => [text, job.concerns.includes(text) ? "problem" : ""]), ...job.notes.map((text) => [text, ""])];
  $("#found").replaceChildren(...lines.filter(([text]) => text).map(([text, kind]) => element("li", text[0].toUpperCase() + text.slice(1), { class: kind })));
  findResidues();
  showRanking(); showInterfaces(); showPairs(); showTimings(); showAbout();
  $("#sequences").hidden = !job.tokens;
  if (job.tokens) showSequences();
  $("#beside").closest("label").hidden = (job.clusters?.length ?? 0) < 2;
  drawPlots();
  if (!isFirst) $("#name").focus();
  document.documentElement.dataset.shown = "yes";
  await new Promise((done) => { setTimeout(done); }); // let the browser show the tables first
  const pae = loadPae();
  if (values.get("residues")) chooseByText(values.get("residues"));
  await Promise.all([pae, showStructure()]);
}

function chooseByText(text) {
  try { chooseResidues(residuesOf(text)); } catch (error) { $("#sequences .hint").textContent = error.message; }
}

function prepareJob() {
  $("#beside").addEventListener("change", showStructure);
  $("#colour").addEventListener("change", () => molecule.structure && colourStructures());
  $("#chosen").addEventListener("change", (event) => chooseByText(event.target.value));
  $("#zoom").addEventListener("click", () => focusOn(page.chosen));
  $("#clear").addEventListener("click", () => { chooseResidues([]); molecule.plugin?.managers.structure.focus.clear(); molecule.plugin?.managers.camera.reset(); });
  for (const name of ["interfaces", "ligands", "clashes"]) $(`#show-${name}`).addEventListener("click", () => focusOn(molecule.sets[name]));
  let waiting = 0;
  addEventListener("resize", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(() => page.job && drawPlots()); });
}
