/* Plots as SVG. Colours are variables of the style sheet, so a change of theme needs no new drawing. Saved files get
   the values of the light theme. */
const FONT = "system-ui, sans-serif";
const LIGHT = { "--paper": "#fff", "--ink": "#1c1f24", "--faint": "#5b6470", "--rule": "#d9dce1", "--mark": "#0b6bcb", "--band": "#d4d8de",
  "--edge": "#d1495b", "--chosen": "#e0a100" };

function node(tag, attributes = {}, text = null) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  return made;
}
const label = (x, y, text, more = {}) => node("text", { x, y, fill: "var(--faint)", "font-size": 11, "text-anchor": "middle", ...more }, text);
const line = (x1, y1, x2, y2, more = {}) => node("line", { x1, y1, x2, y2, stroke: "var(--rule)", ...more });

function canvas(width, height, title) {
  const made = node("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "font-family": FONT });
  made.append(node("title", {}, title));
  return made;
}

/* Round steps of an axis: at most `most` values from low to high. */
function ticks(low, high, most) {
  const rough = (high - low || 1) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k += 1) found.push([k * step, (k * step).toFixed(digits)]);
  return found;
}

/* A vertical axis of numbers with grid lines. Returns the function from value to y. */
function valueAxis(svg, { left, right, top, bottom, low, high, most, title }) {
  const y = (value) => bottom - ((bottom - top) * (value - low)) / (high - low || 1);
  for (const [value, text] of ticks(low, high, most)) {
    svg.append(line(left, y(value), right, y(value)), label(left - 5, y(value) + 4, text, { "text-anchor": "end" }));
  }
  const middle = (top + bottom) / 2;
  svg.append(label(11, middle, title, { transform: `rotate(-90 11 ${middle})`, fill: "var(--ink)" }));
  return y;
}

/* Numbers of residues and names of chains along an axis of tokens, from `start` over `length` pixels. The atoms of a
   ligand have no numbers. A name without room beside the one before is moved, or left out if that is too far. */
function residueAxis(svg, { start, length, at, isVertical }) {
  const tokens = page.job.tokens;
  const n = tokens.chain.length;
  const place = (token) => start + (length * token) / n;
  const put = (token, text, offset, more) => svg.append(isVertical
    ? label(at - offset + (more ? 4 : 0), place(token) + 4, text, { "text-anchor": more ? "middle" : "end", ...more })
    : label(place(token), at + offset, text, more));
  let free = -Infinity; // the token from which the next name has room
  for (const { name, first, last } of chainsOf()) {
    const width = (length * (last - first + 1)) / n;
    const step = ticks(0, last - first + 1, Math.max(1, Math.floor(width / 42)))[1]?.[0] ?? Infinity;
    const middle = (first + last + 1) / 2;
    const half = ((isVertical ? 6 : 4 * name.length) * n) / length;
    const moved = Math.max(middle, free + half);
    if (moved - middle <= 2 * half) {
      put(moved, name, isVertical ? 40 : 27, { fill: "var(--ink)", "font-weight": 600 });
      free = moved + half;
    }
    if (tokens.kind[first] === "ligand") continue;
    for (let token = first; token <= last; token += 1) {
      const number = tokens.number[token];
      const isRepeated = token > first && tokens.number[token - 1] === number; // the atoms of a modified residue
      if ((number % step === 0 && !isRepeated) || (token === first && width > 30)) {
        const isCrowded = (token !== first && place(token) - place(first) < 24) || (last < n - 1 && place(last + 1) - place(token) < 16);
        if (isCrowded) continue;
        put(token + 0.5, String(number), isVertical ? 6 : 13);
      }
    }
  }
}

/* Residue ranges that are chosen, as rectangles. bars: function from [first token, last token + 1] to attributes. */
function chosenRanges() {
  const ranges = [];
  for (const { first, last, chosen } of page.residues.map((one, at) => ({ ...one, chosen: page.chosen.has(at) }))) {
    if (!chosen) continue;
    if (ranges.length && ranges.at(-1)[1] === first) ranges.at(-1)[1] = last + 1; else ranges.push([first, last + 1]);
  }
  return ranges;
}

/* A matrix as an image inside the SVG, with a colour bar. ramp: [colour of 0, colour of most], as RGB. */
function heat(svg, side, share, { x, y, size, ramp, most, title, ticks: marks }) {
  const small = element("canvas", null, { width: side, height: side });
  const pixels = new ImageData(side, side);
  for (let cell = 0; cell < side * side; cell += 1) {
    const part = Math.min(1, share(cell));
    for (let c = 0; c < 3; c += 1) pixels.data[4 * cell + c] = ramp[0][c] + (ramp[1][c] - ramp[0][c]) * part;
    pixels.data[4 * cell + 3] = 255;
  }
  small.getContext("2d").putImageData(pixels, 0, 0);
  const image = node("image", { x, y, width: size, height: size, href: small.toDataURL(), preserveAspectRatio: "none" });
  image.style.imageRendering = "pixelated";
  const id = `ramp-${title.replace(/\W/g, "")}`;
  const bar = node("linearGradient", { id });
  ramp.forEach((rgb, end) => bar.append(node("stop", { offset: end, "stop-color": `rgb(${rgb.join(",")})` })));
  const top = y + size + marks;
  svg.append(bar, image, node("rect", { x, y, width: size, height: size, fill: "none", stroke: "var(--rule)" }),
    node("rect", { x, y: top, width: size, height: 9, fill: `url(#${id})`, stroke: "var(--rule)" }));
  for (const [value, text] of ticks(0, most, 5)) svg.append(label(x + (size * value) / most, top + 21, text));
  svg.append(label(x + size / 2, top + 36, title, { fill: "var(--ink)" }));
}

/* Text of a plot as a file of its own. */
function svgText(svg) {
  const copy = svg.cloneNode(true);
  copy.querySelectorAll(".cursor").forEach((one) => one.remove());
  for (const name of ["tabindex", "role", "aria-label", "aria-describedby"]) copy.removeAttribute(name);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.prepend(node("rect", { width: "100%", height: "100%", fill: "var(--paper)" }));
  return new XMLSerializer().serializeToString(copy).replace(/var\((--[a-z]+)\)/g, (_, name) => LIGHT[name]);
}

async function savePng(name, svg) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgText(svg))}`;
  await image.decode();
  const made = element("canvas", null, { width: 3 * svg.viewBox.baseVal.width, height: 3 * svg.viewBox.baseVal.height });
  made.getContext("2d").drawImage(image, 0, 0, made.width, made.height);
  made.toBlob((blob) => save(name, blob), "image/png");
}
