"use strict";
const $ = (selector) => document.querySelector(selector);
const state = { jobs: [], job: null, chosen: 0, sort: { key: "rank", down: false }, viewer: null };

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}
const numbers = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const fixed = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/* A table whose rows can be chosen with mouse and keyboard. */
function fill(table, columns, rows, choose, selected) {
  table.tHead.replaceChildren(element("tr", null));
  for (const [title, key, kind] of columns) {
    const head = element("th", title, key ? { "data-key": key } : {});
    if (kind === "text") head.className = "text";
    table.tHead.rows[0].append(head);
  }
  table.tBodies[0].replaceChildren(...rows.map((cells, place) => {
    const row = element("tr", null, { tabindex: "0", "aria-selected": String(place === selected) });
    cells.forEach((cell, column) => {
      const made = element("td", cell);
      if (columns[column][2] === "text") made.className = "text";
      row.append(made);
    });
    row.addEventListener("click", () => choose(place));
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(place); });
    return row;
  }));
}

const COLUMNS = [["rank", "rank"], ["seed", "seed"], ["sample", "sample"], ["score", "score", 4], ["pLDDT", "plddt", 1],
  ["pTM", "ptm", 3], ["ipTM", "iptm", 3], ["ipSAE", "ipsae", 3],
  ["cluster", "cluster"], ["to best, Å", "rmsd", 1], ["clash", "clash"]];

function showRanking() {
  const { samples } = state.job;
  const columns = COLUMNS.filter(([, key]) => key === "rank" || samples.some(({ [key]: value }) => value !== null && value !== undefined && (key !== "clash" || value)));
  const value = (place, key) => (key === "rank" ? place : samples[place][key] ?? -Infinity);
  const order = samples.map((_, place) => place).sort((a, b) => {
    const [one, other] = [value(a, state.sort.key), value(b, state.sort.key)];
    return (one < other ? -1 : one > other ? 1 : a - b) * (state.sort.down ? -1 : 1);
  });
  const rows = order.map((place) => columns.map(([, key, digits]) => {
    if (key === "rank") return String(place + 1);
    if (key === "clash") return samples[place].clash ? "yes" : "no";
    return digits === undefined ? String(samples[place][key] ?? "–") : fixed(samples[place][key], digits);
  }));
  const table = $("#ranking table");
  fill(table, columns.map(([title, key]) => [title, key]), rows, (row) => choose(order[row]), order.indexOf(state.chosen));
  for (const head of table.querySelectorAll("th")) {
    const key = head.dataset.key;
    head.setAttribute("aria-sort", key === state.sort.key ? (state.sort.down ? "descending" : "ascending") : "none");
    head.addEventListener("click", () => {
      state.sort = { key, down: state.sort.key === key ? !state.sort.down : key !== "rank" && key !== "seed" };
      showRanking();
    });
  }
}

function fitted(canvas, height) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.parentElement.clientWidth - 24;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "12px system-ui, sans-serif";
  pen.clearRect(0, 0, width, height);
  return [pen, width];
}

function axes(pen, width, height, { left, bottom, top, low, high, steps, digits }) {
  const y = (value) => top + (height - bottom - top) * (1 - (value - low) / (high - low || 1));
  pen.strokeStyle = colour("--rule");
  pen.fillStyle = colour("--faint");
  pen.textAlign = "right";
  for (let step = 0; step <= steps; step += 1) {
    const value = low + ((high - low) * step) / steps;
    pen.beginPath();
    pen.moveTo(left, y(value));
    pen.lineTo(width - 8, y(value));
    pen.stroke();
    pen.fillText(value.toFixed(digits), left - 6, y(value) + 4);
  }
  return y;
}

function showPlddt() {
  const job = state.job;
  const [pen, width] = fitted($("#plddt"), 220);
  if (!job.plddt) return;
  const [left, bottom, top, height] = [40, 26, 8, 220];
  const y = axes(pen, width, height, { left, bottom, top, low: 0, high: 100, steps: 5, digits: 0 });
  const n = job.residues.length;
  const x = (token) => left + ((width - left - 8) * (token + 0.5)) / n;
  const draw = (place, stroke, thick) => {
    pen.strokeStyle = stroke;
    pen.lineWidth = thick;
    pen.beginPath();
    numbers(job.plddt[place]).forEach((value, token) => pen[token ? "lineTo" : "moveTo"](x(token), y(value / 2)));
    pen.stroke();
  };
  pen.globalAlpha = Math.max(0.1, 2 / job.plddt.length);
  job.plddt.forEach((_, place) => draw(place, colour("--faint"), 1));
  pen.globalAlpha = 1;
  draw(state.chosen, colour("--mark"), 1.8);
  pen.lineWidth = 1;
  pen.textAlign = "center";
  for (const chain of job.chains) {
    pen.fillStyle = colour("--ink");
    pen.fillText(chain.name, (x(chain.start) + x(chain.stop - 1)) / 2, height - 8);
    if (chain.start) {
      pen.strokeStyle = colour("--faint");
      pen.beginPath();
      pen.moveTo(x(chain.start - 0.5), top);
      pen.lineTo(x(chain.start - 0.5), height - bottom);
      pen.stroke();
    }
  }
}

/* Colour maps: dark for 0, light for large values. Green is the usual colour for predicted aligned error. */
const GREENS = (share) => [Math.round(0 + 247 * share), Math.round(68 + 184 * share), Math.round(27 + 218 * share)];
const BLUES = (share) => [Math.round(8 + 239 * share), Math.round(48 + 203 * share), Math.round(107 + 148 * share)];

function heat(canvas, side, share, ramp) {
  const small = document.createElement("canvas");
  small.width = small.height = side;
  const pixels = new ImageData(side, side);
  for (let cell = 0; cell < side * side; cell += 1) {
    pixels.data.set([...ramp(Math.min(1, share(cell))), 255], 4 * cell);
  }
  small.getContext("2d").putImageData(pixels, 0, 0);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = false;
  pen.drawImage(small, 0, 0, canvas.width, canvas.height);
  return pen;
}

/* Clear a canvas, its mouse handlers and its hint, so that nothing of the previous job stays. */
function blank(canvas) {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  canvas.onmousemove = canvas.onclick = null;
  canvas.parentElement.querySelector(".hint").textContent = "not available for every seed";
}

function showPae() {
  const job = state.job;
  const canvas = $("#pae");
  blank(canvas);
  if (!job.pae) return;
  const errors = numbers(job.pae[state.chosen]);
  const pen = heat(canvas, job.pae_side, (cell) => errors[cell] / 8 / 31.75, GREENS);
  pen.strokeStyle = "#d1495b";
  pen.lineWidth = 1;
  const n = job.residues.length;
  for (const { start } of job.chains.slice(1)) {
    const at = (start / n) * canvas.width;
    pen.beginPath();
    pen.moveTo(at, 0); pen.lineTo(at, canvas.height);
    pen.moveTo(0, at); pen.lineTo(canvas.width, at);
    pen.stroke();
  }
  const hint = canvas.parentElement.querySelector(".hint");
  hint.textContent = `dark is 0 Å, light 31.75 Å; rows are frames; chains ${job.chains.map((chain) => chain.name).join(", ")}`;
  canvas.onmousemove = (event) => {
    const [row, column] = [event.offsetY / canvas.clientHeight, event.offsetX / canvas.clientWidth];
    const side = job.pae_side;
    const error = errors[Math.min(side - 1, Math.floor(row * side)) * side + Math.min(side - 1, Math.floor(column * side))] / 8;
    const residue = (share) => job.residues[Math.min(n - 1, Math.floor(share * n))];
    hint.textContent = `${residue(column)} in the frame of ${residue(row)}: ${error.toFixed(1)} Å`;
  };
}

function showPairs() {
  const job = state.job;
  const { pair_iptm: pairs, chain_ptm: alone } = job.samples[state.chosen];
  const names = job.chains && job.chains.length === pairs.length ? job.chains.map((chain) => chain.name) : pairs.map((_, i) => String(i));
  const table = element("table", null);
  table.append(element("tr", null));
  table.rows[0].append(element("th", ""), ...names.map((name) => element("th", name)));
  pairs.forEach((row, i) => {
    const line = element("tr", null);
    line.append(element("th", names[i]));
    row.forEach((value, j) => {
      const shown = i === j ? alone[i] : value;
      const cell = element("td", fixed(shown, 2));
      const [red, green, blue] = BLUES(1 - Math.max(0, shown ?? 0));
      cell.style.background = `rgb(${red} ${green} ${blue})`;
      cell.style.color = (shown ?? 0) > 0.5 ? "#fff" : "#14181f";
      line.append(cell);
    });
    table.append(line);
  });
  $("#pairs").replaceChildren(table);
}

function showAgreement() {
  const job = state.job;
  const canvas = $("#agreement");
  const hint = canvas.parentElement.querySelector(".hint");
  blank(canvas);
  if (!job.rmsd) { hint.textContent = "not compared"; return; }
  const order = job.clusters.flat();
  const side = order.length;
  const all = numbers(job.rmsd);
  const at = (i, j) => all[order[i] * side + order[j]] / 10;
  const most = Math.max(2 * job.cluster_rmsd, ...all.map((value) => value / 10));
  const pen = heat(canvas, side, (cell) => at(Math.floor(cell / side), cell % side) / most, BLUES);
  pen.strokeStyle = "#d1495b";
  pen.lineWidth = 1.5;
  let start = 0;
  for (const members of job.clusters) {
    const [from, width] = [(start / side) * canvas.width, (members.length / side) * canvas.width];
    pen.strokeRect(from + 0.75, from + 0.75, Math.max(1, width - 1.5), Math.max(1, width - 1.5));
    start += members.length;
  }
  hint.textContent = `dark is 0 Å, light ${most.toFixed(1)} Å${most > 25 ? " or more" : ""}; ${job.clusters.length} clusters at ${job.cluster_rmsd} Å`;
  const cell = (event) => [event.offsetY / canvas.clientHeight, event.offsetX / canvas.clientWidth].map((share) => Math.min(side - 1, Math.floor(share * side)));
  canvas.onmousemove = (event) => {
    const [i, j] = cell(event);
    const [one, other] = [job.samples[order[i]], job.samples[order[j]]];
    hint.textContent = `seed ${one.seed} sample ${one.sample} and seed ${other.seed} sample ${other.sample}: ${at(i, j).toFixed(1)} Å`;
  };
  canvas.onclick = (event) => choose(order[cell(event)[0]]);
}

function showConvergence() {
  const { seeds, best, expected } = state.job.convergence;
  const [pen, width] = fitted($("#convergence"), 300);
  const [left, bottom, top, height] = [64, 30, 10, 300];
  const every = [...best, ...expected];
  const [low, high] = [Math.min(...every), Math.max(...every)];
  const room = (high - low || 0.01) * 0.1;
  const y = axes(pen, width, height, { left, bottom, top, low: low - room, high: high + room, steps: 4, digits: 4 });
  const x = (count) => left + ((width - left - 20) * (count - 0.5)) / seeds.length;
  const draw = (values, stroke, dashes) => {
    pen.strokeStyle = pen.fillStyle = stroke;
    pen.lineWidth = 2;
    pen.setLineDash(dashes);
    pen.beginPath();
    values.forEach((value, index) => pen[index ? "lineTo" : "moveTo"](x(index + 1), y(value)));
    pen.stroke();
    pen.setLineDash([]);
    if (values.length < 60) values.forEach((value, index) => { pen.beginPath(); pen.arc(x(index + 1), y(value), 3, 0, 7); pen.fill(); });
  };
  draw(expected, colour("--faint"), [2, 4]);
  draw(best, colour("--mark"), []);
  pen.fillStyle = colour("--faint");
  pen.textAlign = "center";
  const step = Math.ceil(seeds.length / 10);
  for (let count = 1; count <= seeds.length; count += step) pen.fillText(String(count), x(count), height - 12);
}

function showTimings() {
  const timings = state.job.timings.filter((one) => one.seconds);
  if (!timings.length) { $("#timings").replaceChildren(element("p", "not recorded")); return; }
  const most = Math.max(...timings.map((one) => one.seconds));
  const table = element("table", null);
  table.append(element("tr", null));
  table.rows[0].append(...["seed", "seconds", "", "path", "seeds in its batch"].map((title) => element("th", title)));
  for (const one of timings) {
    const row = element("tr", null);
    const bar = element("td", null);
    bar.style.textAlign = "left";
    bar.style.width = "60%";
    const made = element("span", "", { class: "bar" });
    made.style.width = `${(100 * one.seconds) / most}%`;
    made.style.background = colour("--mark");
    bar.append(made);
    row.append(element("td", String(one.seed)), element("td", one.seconds.toFixed(1)), bar, element("td", one.path), element("td", String(one.batch)));
    table.append(row);
  }
  $("#timings").replaceChildren(table);
}

/* The Mol* viewer. Its script is decompressed on first use. */
async function viewer() {
  if (!state.viewer) {
    state.viewer = (async () => {
      const script = element("script", await unpack($("#viewer-source").textContent));
      document.head.append(script);
      const made = new window.rcsbMolstar.Viewer("viewer", {
        showImportControls: false, showSessionControls: false, showStructureSourceControls: false, showMeasurementsControls: false,
        showStrucmotifSubmitControls: false, showSuperpositionControls: false, showQuickStylesControls: false,
        showStructureComponentControls: false, showVolumeStreamingControls: false, showAssemblySymmetryControls: false,
        showValidationReportControls: false, showPredictedAlignedErrorPlot: false, showMembraneOrientationPreset: false,
        showNakbColorTheme: false, layoutIsExpanded: false, layoutShowControls: false, layoutShowSequence: false,
        layoutShowLog: false, detachedFromSierra: true,
      });
      state.plugin = made.plugin ?? made._plugin;
      setBackground();
      return made;
    })();
  }
  return state.viewer;
}

function setBackground() {
  const [red, green, blue] = colour("--panel").match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16));
  state.plugin?.canvas3d?.setProps({ renderer: { backgroundColor: (red << 16) | (green << 8) | blue } });
}

let showing = Promise.resolve();
function showStructure() {
  showing = showing.then(drawStructure).catch((error) => { $("#which").textContent = `no 3D view: ${error.message}`; });
  return showing;
}

async function drawStructure() {
  const { job, chosen } = state;
  const has = String(chosen) in job.structures;
  const sample = job.samples[chosen];
  $("#which").textContent = has
    ? `Seed ${sample.seed}, sample ${sample.sample}, coloured by pLDDT`
    : `Seed ${sample.seed}, sample ${sample.sample}: its structure is not in this page`;
  const mol = await viewer();
  const { plugin } = state;
  await plugin.clear();
  if (!has) return;
  const beside = $("#beside").checked ? (job.clusters ?? []).map((one) => one.find((place) => String(place) in job.structures)).filter((one) => one !== undefined && one !== chosen) : [];
  for (const place of [chosen, ...beside]) {
    const text = await unpack(job.structures[place]);
    const matrix = job.placed[place];
    await mol.loadStructureFromData(text, "mmcif", false, { props: { kind: "standard" }, matrix });
  }
  const structures = plugin.managers.structure.hierarchy.current.structures;
  for (const [index, structure] of structures.entries()) {
    const theme = index === 0 ? { color: "plddt-confidence" } : { color: "uniform", colorParams: { value: 0x9aa3ae } };
    await plugin.managers.structure.component.updateRepresentationsTheme(structure.components, theme);
  }
  setBackground();
  plugin.managers.camera.reset(undefined, 0);
  document.documentElement.dataset.drawn = `${job.name} ${chosen} ${structures.length}`;
}

function choose(place) {
  state.chosen = place;
  showRanking();
  showPlddt();
  showPae();
  showPairs();
  return showStructure();
}

function draw() {
  showRanking(); showPlddt(); showPae(); showPairs(); showAgreement(); showConvergence(); showTimings();
}

function open(index) {
  state.job = state.jobs[index];
  state.chosen = 0;
  state.sort = { key: "rank", down: false };
  $("#job").hidden = false;
  $("#name").textContent = state.job.name;
  $("#found").replaceChildren(...[state.job.notice, ...state.job.found].filter(Boolean).map((text) => element("li", text[0].toUpperCase() + text.slice(1))));
  showJobs(index);
  draw();
  return showStructure();
}

function showJobs(selected) {
  const columns = [["job"], ["seeds"], ["samples"], ["best score"], ["pLDDT"], ["ipTM"], ["clusters"], ["result", null, "text"]];
  const rows = state.jobs.map((job) => {
    const best = job.samples[0];
    return [job.name, String(job.seeds_in_all), String(job.samples_in_all), fixed(best.score, 4), fixed(best.plddt, 1), fixed(best.iptm, 3),
      job.clusters ? String(job.clusters.length) : "–", job.found[0] ?? ""];
  });
  fill($("#jobs table"), columns, rows, open, selected);
}

function paint(theme) {
  document.documentElement.dataset.theme = theme;
  setBackground();
  if (state.job) draw();
}

(async () => {
  paint(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  $("#theme").addEventListener("click", () => paint(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  $("#beside").addEventListener("change", showStructure);
  let waiting = 0;
  addEventListener("resize", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(() => state.job && draw()); });
  state.jobs = await Promise.all([...document.querySelectorAll("script.job")].map(async (one) => JSON.parse(await unpack(one.textContent))));
  showJobs(0);
  if (state.jobs.length) await open(0);
  document.documentElement.dataset.ready = "yes";
})();
