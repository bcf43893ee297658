/* The plots of a job. Each draws an SVG of the panel's width and says what its values are. */
const GREENS = [[0, 68, 27], [247, 252, 245]]; // dark for a small error, as is usual for predicted aligned errors
const BLUES = [[8, 48, 107], [247, 251, 255]];
const tokenWord = () => (page.job.tokens.kind.includes("ligand") ? "residue or ligand atom" : "residue");
const HEAT = { left: 58, top: 6, right: 8 };

/* pLDDT of the shown sample, over the range of all samples. */
function drawPlddt(width) {
  const { job } = page;
  if (!job.plddt) return null;
  const [left, right, top, bottom, height] = [46, width - 8, 8, 176, 224];
  const n = job.tokens.chain.length;
  const x = (token) => left + ((right - left) * token) / n;
  const svg = canvas(width, height, "pLDDT along the chains");
  const y = valueAxis(svg, { left, right, top, bottom, low: 0, high: 100, most: 5, title: "pLDDT" });
  const values = bytesOf(job.plddt[page.shown]);
  const order = job.orders[page.shown]; // its tokens that match those of the best sample, if copies of a chain differ
  const placed = (range) => values.map((_, token) => range[order ? order.indexOf(token) : token]);
  const [low, high] = job.plddt_range.map((range) => placed(bytesOf(range)));
  const steps = (list) => [...list].map((value, token) => `${x(token).toFixed(1)},${y(value / 2).toFixed(1)} ${x(token + 1).toFixed(1)},${y(value / 2).toFixed(1)}`);
  svg.append(node("polygon", { points: [...steps(low), ...steps(high).reverse().map((pair) => pair.split(" ").reverse().join(" "))].join(" "), fill: "var(--band)" }));
  svg.append(node("g", { class: "chosen" }));
  svg.append(node("polyline", { points: steps(values).join(" "), fill: "none", stroke: "var(--mark)", "stroke-width": 1.6 }));
  for (const { first } of chainsOf().slice(1)) svg.append(line(x(first), top, x(first), bottom, { stroke: "var(--edge)" }));
  residueAxis(svg, { start: left, length: right - left, at: bottom });
  svg.append(label((left + right) / 2, bottom + 42, tokenWord(), { fill: "var(--ink)" }));
  svg.append(node("rect", { x: left + 8, y: bottom - 15, width: 14, height: 9, fill: "var(--band)" }),
    label(left + 26, bottom - 7, `range of ${job.plddt.length} samples`, { "text-anchor": "start" }));
  read(svg, {
    panel: $("#plddt"), across: n, down: 1,
    box: ([token]) => ({ x: x(token), y: top, width: Math.max(1, x(1) - x(0)), height: bottom - top }),
    cell: (px) => [Math.floor((n * (px - left)) / (right - left)), 0],
    text: ([token]) => `${nameOf(page.ofToken[token])}: pLDDT ${values[token] / 2}; all samples ${low[token] / 2} to ${high[token] / 2}`,
    residues: ([token]) => [page.ofToken[token]],
    drag: ([from], [to]) => rangeOfTokens(from, to),
  });
  svg.mark = () => svg.querySelector(".chosen").replaceChildren(...chosenRanges().map(([from, to]) => node("rect",
    { x: x(from), y: top, width: x(to) - x(from), height: bottom - top, fill: "var(--chosen)", opacity: 0.35 })));
  svg.point = (places) => svg.show(places.length ? [page.residues[places[0]].first, 0] : null);
  return svg;
}

/* Predicted aligned error of the shown sample. Rows are the residues on whose frames the structures are aligned. */
function drawPae(width) {
  const { job, pae: errors } = page;
  if (!errors) return null;
  const { left, top, right } = HEAT;
  const size = Math.min(width, 520) - left - right;
  const [side, n] = [job.pae_side, job.tokens.chain.length];
  const svg = canvas(width, top + size + 92, "Predicted aligned error");
  heat(svg, side, (cell) => errors[cell] / 8 / 31.75, { x: left, y: top, size, ramp: GREENS, most: 31.75, title: "predicted aligned error, Å", ticks: 52 });
  svg.append(node("g", { class: "chosen" }));
  const at = (token) => (size * token) / n;
  for (const { first } of chainsOf().slice(1)) {
    svg.append(line(left + at(first), top, left + at(first), top + size, { stroke: "var(--edge)" }),
      line(left, top + at(first), left + size, top + at(first), { stroke: "var(--edge)" }));
  }
  residueAxis(svg, { start: left, length: size, at: top + size });
  residueAxis(svg, { start: top, length: size, at: left, isVertical: true });
  svg.append(label(left + size / 2, top + size + 42, `scored ${tokenWord()}`, { fill: "var(--ink)" }),
    label(9, top + size / 2, `aligned ${tokenWord()}`, { fill: "var(--ink)", transform: `rotate(-90 9 ${top + size / 2})` }));
  const tokenOf = (cell) => Math.floor((cell * n) / side);
  const lastOf = (cell) => Math.max(tokenOf(cell), tokenOf(cell + 1) - 1);
  read(svg, {
    panel: $("#pae"), across: side, down: side,
    box: ([column, row]) => ({ x: left + (size * column) / side, y: top + (size * row) / side, width: size / side, height: size / side }),
    cell: (px, py) => [Math.floor((side * (px - left)) / size), Math.floor((side * (py - top)) / size)],
    text: ([column, row]) => `${nameOf(page.ofToken[tokenOf(column)])} when aligned on ${nameOf(page.ofToken[tokenOf(row)])}: ${(errors[row * side + column] / 8).toFixed(1)} Å`,
    residues: ([column, row]) => [page.ofToken[tokenOf(column)], page.ofToken[tokenOf(row)]],
    drag: (from, to) => [0, 1].flatMap((axis) => rangeOfTokens(tokenOf(Math.min(from[axis], to[axis])), lastOf(Math.max(from[axis], to[axis])))),
  });
  svg.mark = () => svg.querySelector(".chosen").replaceChildren(...chosenRanges().flatMap(([from, to]) => [
    node("rect", { x: left + at(from), y: top, width: at(to) - at(from), height: size }),
    node("rect", { x: left, y: top + at(from), width: size, height: at(to) - at(from) }),
  ].map((one) => { one.setAttribute("fill", "var(--chosen)"); one.setAttribute("opacity", 0.3); return one; })));
  return svg;
}

/* RMSD of every pair of samples, sorted by cluster; clusters are framed. */
function drawRmsd(width) {
  const { job } = page;
  if (!job.rmsd) return null;
  const { left, top, right } = HEAT;
  const size = Math.min(width, 520) - left - right;
  const order = job.clusters.flat();
  const side = order.length;
  const all = bytesOf(job.rmsd);
  const rmsd = (i, j) => all[order[i] * side + order[j]] / 10;
  const most = Math.max(2 * job.cluster_rmsd, all.reduce((a, b) => Math.max(a, b), 0) / 10);
  const svg = canvas(width, top + size + 92, "RMSD between samples");
  heat(svg, side, (cell) => rmsd(Math.floor(cell / side), cell % side) / most, { x: left, y: top, size, ramp: BLUES, most,
    title: `RMSD, Å${all.includes(255) ? "; larger ones are shown as 25.5" : ""}`, ticks: 52 });
  let start = 0;
  for (const members of job.clusters) {
    const [from, length] = [(size * start) / side, (size * members.length) / side];
    svg.append(node("rect", { x: left + from, y: top + from, width: length, height: length, fill: "none", stroke: "var(--edge)", "stroke-width": 1.5 }));
    start += members.length;
  }
  const step = Math.ceil(side / Math.max(1, Math.floor(size / 28)));
  for (let place = 0; place < side; place += step) {
    const middle = (size * (place + 0.5)) / side;
    svg.append(label(left + middle, top + size + 13, order[place] + 1), label(left - 5, top + middle + 4, order[place] + 1, { "text-anchor": "end" }));
  }
  const title = "rank, sorted by cluster";
  svg.append(label(left + size / 2, top + size + 32, title, { fill: "var(--ink)" }),
    label(11, top + size / 2, title, { fill: "var(--ink)", transform: `rotate(-90 11 ${top + size / 2})` }));
  const sample = (place) => `rank ${order[place] + 1} (seed ${job.samples[order[place]].seed}, sample ${job.samples[order[place]].sample})`;
  read(svg, {
    panel: $("#rmsd"), across: side, down: side,
    box: ([column, row]) => ({ x: left + (size * column) / side, y: top + (size * row) / side, width: size / side, height: size / side }),
    cell: (px, py) => [Math.floor((side * (px - left)) / size), Math.floor((side * (py - top)) / size)],
    text: ([column, row]) => `${sample(row)} and ${sample(column)}: ${rmsd(row, column).toFixed(1)} Å${rmsd(row, column) === 25.5 ? " or more" : ""}`,
    enter: ([, row]) => showSample(order[row]),
  });
  return svg;
}

/* Best ranking score after each seed, and its mean over all choices of that many seeds. */
function drawConvergence(width) {
  const { seeds, best, expected } = page.job.convergence;
  const [left, right, top, bottom, height] = [64, width - 12, 10, Math.max(170, Math.min(width, 520) - 64), Math.max(240, Math.min(width, 520) + 6)];
  const every = [...best, ...expected];
  const [least, most] = [Math.min(...every), Math.max(...every)];
  const room = (most - least || 0.01) * 0.1;
  const svg = canvas(width, height, "Best ranking score by number of seeds");
  const y = valueAxis(svg, { left, right, top, bottom, low: least - room, high: most + room, most: 5, title: "best ranking score" });
  const x = (count) => left + ((right - left) * (count - 0.5)) / seeds.length;
  const draw = (values, stroke, more) => {
    svg.append(node("polyline", { points: values.map((value, index) => `${x(index + 1)},${y(value)}`).join(" "), fill: "none", stroke, "stroke-width": 2, ...more }));
    if (values.length < 60) values.forEach((value, index) => svg.append(node("circle", { cx: x(index + 1), cy: y(value), r: 3, fill: stroke })));
  };
  draw(expected, "var(--faint)", { "stroke-dasharray": "2 4" });
  draw(best, "var(--mark)");
  const step = Math.ceil(seeds.length / Math.max(1, Math.floor((right - left) / 34)));
  for (let count = 1; count <= seeds.length; count += step) svg.append(label(x(count), bottom + 14, count));
  svg.append(label((left + right) / 2, bottom + 30, "number of seeds", { fill: "var(--ink)" }));
  const key = (row, text, stroke, more) => svg.append(line(left, bottom + 46 + 14 * row, left + 20, bottom + 46 + 14 * row, { stroke, "stroke-width": 2, ...more }),
    label(left + 26, bottom + 50 + 14 * row, text, { "text-anchor": "start" }));
  key(0, "in the order of the seeds", "var(--mark)");
  key(1, "mean over all choices", "var(--faint)", { "stroke-dasharray": "2 4" });
  read(svg, {
    panel: $("#convergence"), across: seeds.length, down: 1,
    box: ([index]) => ({ x: x(index + 1) - 4, y: top, width: 8, height: bottom - top }),
    cell: (px) => [Math.floor((seeds.length * (px - left)) / (right - left)), 0],
    text: ([index]) => `${index + 1} seed${index ? "s" : ""}: best score ${best[index].toFixed(4)} (with seed ${seeds[index]}); mean over all choices ${expected[index].toFixed(4)}`,
  });
  return svg;
}

/* Let a plot be read, and residues be chosen in it, with mouse and keyboard. Cells are [column, row].

   box: attributes of the mark at a cell; cell: the cell at a point; text: what the cell shows; residues: the cell's residues;
   drag: the residues between two cells; enter: what a click or the Enter key does. */
function read(svg, { panel, across, down, box, cell, text, residues = () => [], drag = null, enter = null }) {
  const hint = panel.querySelector(".hint");
  const keys = `arrow keys move${drag ? ", Shift chooses residues, Escape clears" : enter ? ", Enter shows the sample" : ""}`;
  for (const [name, value] of Object.entries({ tabindex: "0", role: "application", "aria-label": `${svg.querySelector("title").textContent}; ${keys}` })) svg.setAttribute(name, value);
  const cursor = node("rect", { class: "cursor", fill: "none", stroke: "var(--ink)", visibility: "hidden", "pointer-events": "none" });
  svg.append(cursor);
  let [at, from, isDragging] = [null, null, false];
  svg.show = (next) => {
    at = next;
    cursor.setAttribute("visibility", at ? "visible" : "hidden");
    hint.textContent = at ? text(at) : hint.dataset.usual ?? "";
    if (!at) return;
    for (const [name, value] of Object.entries(box(at))) cursor.setAttribute(name, value);
  };
  const found = (event) => {
    const frame = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / frame.width;
    const [column, row] = cell((event.clientX - frame.left) * scale, (event.clientY - frame.top) * scale);
    const isInside = column >= 0 && column < across && row >= 0 && row < down;
    return isInside ? [column, row] : null;
  };
  const go = (next) => { svg.show(next); pointAt(next ? residues(next) : []); };
  svg.addEventListener("pointermove", (event) => {
    const next = found(event);
    if (next && isDragging && drag) chooseResidues(drag(from, next));
    if (next || !isDragging) go(next);
  });
  svg.addEventListener("pointerleave", () => { if (!isDragging) go(null); });
  svg.addEventListener("pointerdown", (event) => {
    const next = found(event);
    if (!next || !drag) return;
    svg.setPointerCapture(event.pointerId);
    if (!event.shiftKey || !from) from = next;
    isDragging = true;
    chooseResidues(drag(from, next));
  });
  svg.addEventListener("pointerup", () => { isDragging = false; });
  svg.addEventListener("click", (event) => { const next = found(event); if (next && enter) enter(next); });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1], Home: [-across, 0], End: [across, 0] }[event.key];
    if (step) {
      const next = at ? [Math.max(0, Math.min(across - 1, at[0] + step[0])), Math.max(0, Math.min(down - 1, at[1] + step[1]))] : [0, 0];
      if (!event.shiftKey || !from) from = next;
      go(next);
      if (event.shiftKey && drag) chooseResidues(drag(from, next));
    } else if (event.key === "Enter" && at) { if (enter) enter(at); else if (drag) chooseResidues(drag(at, at)); }
    else if (event.key === "Escape") { go(null); if (drag) chooseResidues([]); }
    else return;
    event.preventDefault();
  });
  svg.addEventListener("blur", () => go(null));
}
