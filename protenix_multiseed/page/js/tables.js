/* The tables of a job: samples, interfaces, pairs of chains, seconds, and how it was made. */
const SAMPLE_COLUMNS = [["rank", "rank", null, true], ["seed", "seed", null, true], ["sample", "sample", null, true], ["score", "score", 4],
  ["pLDDT", "plddt", 1], ["pTM", "ptm", 3], ["ipTM", "iptm", 3], ["ipSAE", "ipsae", 3],
  ["cluster", "cluster", null, true], ["to best, Å", "rmsd", 1, true], ["clash", "clash", null]];

function showRanking() {
  const rows = page.job.samples.map((sample, place) => ({ ...sample, rank: place + 1 }));
  const has = ([, key]) => rows.some(({ [key]: value }) => value !== null && value !== undefined && (key !== "clash" || value));
  const columns = SAMPLE_COLUMNS.filter(has).map(([title, key, digits, up]) => ({
    title, up, value: (row) => (key === "clash" ? Number(row.clash) : row[key]),
    text: (row) => (key === "clash" ? (row.clash ? "yes" : "no") : digits ? fixed(row[key], digits) : String(row[key] ?? "–")),
  }));
  const inAll = page.job.samples_in_all;
  $("#ranking h3").textContent = `${rows.length}${inAll > rows.length ? ` of ${inAll}` : ""} samples, best first`;
  page.ranking = makeTable($("#ranking .table"), columns, rows, { label: "Samples", sort: { column: 0, down: false }, onSort: () => {}, choose: showSample });
  page.ranking.select(page.shown);
  setTools($("#ranking"), [["CSV", () => save(`${page.job.name.replace(/[^\w.-]/g, "_")}_ranking.csv`, page.ranking.csv(), "text/csv")]]);
}

/* Scores of each ordered pair of chains. The name of a pair is a button that shows the interface in 3D. */
function showInterfaces() {
  const { pairs, pair_iptm: iptm } = page.job.samples[page.shown];
  const names = chainNames();
  const rows = pairs.map(([one, other, ipsae, pdockq2, lis, contacts]) => ({ one, other, ipsae, pdockq2, lis, contacts, iptm: iptm[names.indexOf(one)]?.[names.indexOf(other)] }));
  const button = ({ one, other }) => {
    const made = element("button", `${one} – ${other}`, { type: "button", title: "show this interface in the structure" });
    made.addEventListener("click", () => focusOn(molecule.sets.pairs?.get([one, other].sort().join("|")) ?? new Set()));
    return made;
  };
  const number = (title, key, digits) => ({ title, value: (row) => row[key], text: (row) => (digits ? fixed(row[key], digits) : String(row[key])) });
  const columns = [{ title: "chains", value: ({ one, other }) => `${one} ${other}`, make: button }, number("ipTM", "iptm", 3), number("ipSAE", "ipsae", 3),
    number("pDockQ2", "pdockq2", 3), number("LIS", "lis", 3), number("contacts", "contacts")];
  const table = makeTable($("#interfaces .table"), columns, rows, { label: "Interfaces" });
  $("#interfaces").hidden = !rows.length;
  setTools($("#interfaces"), [["CSV", () => save(fileName("interfaces", "csv"), table.csv(), "text/csv")]]);
}

function chainNames() {
  const { pair_iptm: pairs } = page.job.samples[page.shown];
  const names = page.job.tokens ? chainsOf().map(({ name }) => name) : [];
  return names.length === pairs.length ? names : pairs.map((_, index) => String(index));
}

function showPairs() {
  const { pair_iptm: pairs, chain_ptm: alone } = page.job.samples[page.shown];
  const names = chainNames();
  const rows = pairs.map((row, i) => ({ name: names[i], values: row.map((value, j) => (i === j ? alone[i] : value)) }));
  const columns = [{ title: "chain", value: ({ name }) => name, text: ({ name }) => name }, ...names.map((name, j) => ({
    title: name, value: ({ values }) => values[j], text: ({ values }) => fixed(values[j], 2) }))];
  const table = makeTable($("#pairs .table"), columns, rows, { label: "ipTM of pairs of chains" });
  rows.forEach(({ values }, i) => values.forEach((value, j) => {
    const share = 1 - Math.min(1, Math.max(0, value ?? 0));
    const cell = table.lines[i].cells[j + 1];
    cell.style.background = `rgb(${BLUES[0].map((low, c) => Math.round(low + (BLUES[1][c] - low) * share)).join(" ")})`;
    cell.style.color = (value ?? 0) > 0.5 ? "#fff" : "#14181f";
  }));
  setTools($("#pairs"), [["CSV", () => save(fileName("chain_pairs", "csv"), table.csv(), "text/csv")]]);
}

function showTimings() {
  const rows = page.job.timings.filter(({ seconds }) => seconds);
  $("#timings").hidden = !rows.length;
  const most = Math.max(...rows.map(({ seconds }) => seconds));
  const bar = ({ seconds }) => { const made = element("span", "", { class: "bar" }); made.style.width = `${(100 * seconds) / most}px`; return made; };
  const columns = [["seed", "seed"], ["seconds", "seconds", 1], ["path", "path"], ["seeds in its batch", "batch"]]
    .map(([title, key, digits]) => ({ title, value: (row) => row[key], text: (row) => (digits ? fixed(row[key], digits) : String(row[key])) }));
  const table = makeTable($("#timings .table"), columns, rows, { label: "Seconds by seed" });
  table.lines.forEach((line, index) => line.cells[1].prepend(bar(rows[index]), " "));
  setTools($("#timings"), [["CSV", () => save(`${page.job.name.replace(/[^\w.-]/g, "_")}_seconds.csv`, table.csv(), "text/csv")]]);
}

function showAbout() {
  $("#about dl").replaceChildren(...page.job.about.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}
