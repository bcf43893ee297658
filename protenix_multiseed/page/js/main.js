/* Start: the list of jobs, or the job that the address names. */
function paint(theme) {
  document.documentElement.dataset.theme = theme;
  setBackground();
}

/* Links to the list and to the jobs before and after. They are addresses, so the browser's back button works. */
function showLinks({ index, before, after }) {
  const names = [[index, "all jobs"], [before, "previous job"], [after, "next job"]];
  $("#links").replaceChildren(...names.filter(([href]) => href).map(([href, text]) => element("a", text, { href })));
}

/* Follow the address. */
async function route(setup, isFirst = false) {
  const values = readHash();
  const isList = setup.rows.length !== 1 || setup.rows[0].page;
  const at = isList ? setup.rows.findIndex(({ name, page: elsewhere }) => !elsewhere && name === values.get("job")) : 0;
  if (at < 0) {
    if ($("#jobs").hidden) { page.job = null; showIndex(); }
    showLinks({});
  } else if (page.job === null || page.at !== at) {
    const opened = openJob(at, isFirst);
    const link = (place) => setup.rows[place] && `#${new URLSearchParams({ job: setup.rows[place].name })}`;
    showLinks(isList ? { index: "#", before: link(at - 1), after: link(at + 1) } : setup);
    await opened;
  } else {
    const rank = Number(values.get("rank") ?? 1);
    if (page.job.samples[rank - 1] && rank - 1 !== page.shown) await showSample(rank - 1);
    if (page.job.tokens && (values.get("residues") ?? "") !== chosenText()) chooseByText(values.get("residues") ?? "");
  }
}

(async () => {
  paint(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  $("#theme").addEventListener("click", () => paint(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  const setup = await unpackJson("setup");
  Object.assign(page, { rows: setup.rows, viewer: setup.viewer });
  prepareJob();
  addEventListener("hashchange", () => route(setup));
  await route(setup, true);
  document.documentElement.dataset.ready = "yes";
})();
