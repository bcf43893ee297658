/* The list of jobs: sorted, filtered by name and score, with an address for each view and each job. */
const JOB_COLUMNS = [["job", "name", "text"], ["tokens", "tokens"], ["seeds", "seeds"], ["samples", "samples"], ["best score", "score", 4], ["pLDDT", "plddt", 1],
  ["ipTM", "iptm", 3], ["ipSAE", "ipsae", 3], ["clusters", "clusters"]];

function showIndex() {
  const { rows } = page;
  const link = (row) => (row.problem ? element("span", row.name) : element("a", row.name, { href: row.page ?? `#${new URLSearchParams({ job: row.name })}` }));
  const columns = JOB_COLUMNS.map(([title, key, digits]) => ({
    title, kind: digits === "text" ? "text" : null, value: (row) => row[key],
    make: key === "name" ? link : null,
    text: (row) => (typeof digits === "number" ? fixed(row[key], digits) : String(row[key] ?? "–")),
  }));
  const result = (row) => [row.problem, ...(row.problems ?? []), row.lacking, row.found].filter(Boolean).join("; ");
  columns.push({ title: "result", kind: "text", value: result, text: result });
  const values = readHash();
  const [, down, key] = (values.get("sort") ?? "name").match(/^(-?)(.*)$/);
  const at = Math.max(0, JOB_COLUMNS.findIndex((column) => column[1] === key));
  const table = makeTable($("#jobs .table"), columns, rows, { label: "Jobs", sort: { column: at, down: Boolean(down) },
    onSort: ({ column, down: isDown }) => writeHash({ sort: `${isDown ? "-" : ""}${JOB_COLUMNS[column]?.[1] ?? "name"}` }) });
  rows.forEach((row, index) => table.lines[index].classList.toggle("problem", Boolean(row.problem)));
  $("#filter-name").value = values.get("name") ?? "";
  $("#filter-score").value = values.get("score") ?? "";
  const filter = () => {
    const [text, least] = [$("#filter-name").value, $("#filter-score").value];
    let count = 0;
    rows.forEach((row, index) => {
      const isShown = row.name.toLowerCase().includes(text.trim().toLowerCase()) && (least === "" || row.score >= Number(least));
      table.lines[index].hidden = !isShown;
      count += isShown;
    });
    $("#count").textContent = count === rows.length ? `${count} jobs` : `${count} of ${rows.length} jobs`;
    writeHash({ name: text, score: least });
  };
  $("#filter").oninput = filter;
  $("#filter").onsubmit = (event) => event.preventDefault();
  filter();
  setTools($("#jobs"), [["CSV", () => save("jobs.csv", table.csv(), "text/csv")]]);
  const notices = [...new Set(rows.map((row) => row.notice).filter(Boolean))];
  $("#notices").replaceChildren(...notices.map((text) => element("li", text, { class: "problem" })));
  $("#job").hidden = true;
  $("#jobs").hidden = false;
  document.title = $("h1").textContent;
  document.documentElement.dataset.shown = "yes";
}
