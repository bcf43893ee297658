/* The page's state, and small tools that the other scripts use. */
const $ = (selector) => document.querySelector(selector);
/* job: the open job's data; at: its place in the file; shown: the sample; residues; chosen: Set of places in residues. */
const page = { rows: [], job: null, at: 0, shown: 0, residues: [], chosen: new Set() };

const bytesOf = (text) => Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const fixed = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const parsed = new Promise((done) => {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", done); else done();
});

/* Unpack a block of the page. Large blocks come last in the file, so wait for the file's end if it is not there yet. */
async function unpack(id) {
  if (!document.getElementById(id)) await parsed;
  const block = document.getElementById(id);
  if (!block) return null;
  const stream = new Blob([bytesOf(block.textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
const unpackText = async (id) => {
  const bytes = await unpack(id);
  return bytes && new TextDecoder().decode(bytes);
};
const unpackJson = async (id) => JSON.parse(await unpackText(id));

/* Make an element. Text is set as text, never as HTML. */
function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function save(name, content, type) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  element("a", null, { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/* A name for a file: job, sample and content. */
const fileName = (content, end) => {
  const sample = page.job.samples[page.shown];
  return `${page.job.name.replace(/[^\w.-]/g, "_")}_seed_${sample.seed}_sample_${sample.sample}_${content}.${end}`;
};

function csv(rows) {
  const cell = (value) => {
    const text = String(value ?? "");
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => `${row.map(cell).join(",")}\n`).join("");
}

/* Buttons that save what a panel shows. kinds: pairs of a label and a function. */
function setTools(panel, kinds) {
  const title = panel.querySelector("h3, h2").textContent;
  panel.querySelector(".tools").replaceChildren(...kinds.map(([label, action]) => {
    const button = element("button", label, { type: "button", "aria-label": `save ${label}: ${title}`, title: `save ${label}` });
    button.addEventListener("click", action);
    return button;
  }));
}

/* The text after # in the address: key=value pairs. It makes a view a URL, also of a file on disk. */
const readHash = () => new URLSearchParams(location.hash.slice(1));
function writeHash(values) {
  const next = readHash();
  for (const [key, value] of Object.entries(values)) {
    if (value === null || value === "") next.delete(key); else next.set(key, value);
  }
  const text = `#${next}`;
  if (text !== (location.hash || "#")) location.replace(text);
}
