/* Residues: which are chosen, and the panel of the chains with their sequences. */
const LETTERS = { ALA: "A", ARG: "R", ASN: "N", ASP: "D", CYS: "C", GLN: "Q", GLU: "E", GLY: "G", HIS: "H", ILE: "I", LEU: "L", LYS: "K",
  MET: "M", PHE: "F", PRO: "P", SER: "S", THR: "T", TRP: "W", TYR: "Y", VAL: "V", A: "A", C: "C", G: "G", U: "U", DA: "A", DC: "C",
  DG: "G", DT: "T" };
const KINDS = { protein: "protein", nucleic: "nucleic acid", ligand: "ligand" };

/* Runs of tokens of one chain: {name, first, last}. */
function chainsOf() {
  const names = page.job.tokens.chain;
  const found = [];
  names.forEach((name, token) => {
    if (found.at(-1)?.name === name) found.at(-1).last = token; else found.push({ name, first: token, last: token });
  });
  return found;
}

/* Residues and ligands of a job, in order. The atoms of a ligand or of a modified residue are one entry. */
function findResidues() {
  const { chain, number, component, kind } = page.job.tokens ?? { chain: [], number: [], component: [], kind: [] };
  page.residues = [];
  page.ofToken = [];
  page.byName = new Map();
  chain.forEach((name, token) => {
    const key = `${name}|${number[token]}`;
    if (!page.byName.has(key)) {
      page.byName.set(key, page.residues.length);
      page.residues.push({ chain: name, number: number[token], component: component[token], kind: kind[token], first: token, last: token,
        letter: kind[token] === "ligand" ? null : LETTERS[component[token]] ?? "X" });
    }
    page.ofToken.push(page.byName.get(key));
    page.residues[page.byName.get(key)].last = token;
  });
}
const isIon = ({ kind, first, last }) => kind === "ligand" && first === last; // one atom
const nameOf = (place) => { const one = page.residues[place]; return `${one.chain} ${one.component}${one.number}`; };

/* The chosen residues as text, such as "A 10-30, B 5", and back. */
function chosenText() {
  const parts = [];
  for (const place of [...page.chosen].sort((a, b) => a - b)) {
    const { chain, number } = page.residues[place];
    const before = parts.at(-1);
    if (before && before.chain === chain && before.place === place - 1) Object.assign(before, { end: number, place });
    else parts.push({ chain, start: number, end: number, place });
  }
  return parts.map(({ chain, start, end }) => `${chain} ${start}${end === start ? "" : `-${end}`}`).join(", ");
}

function residuesOf(text) {
  const found = new Set();
  for (const part of text.split(",").map((one) => one.trim()).filter(Boolean)) {
    const [, chain, start, end] = part.match(/^(\S+?)(?:\s+(\d+)(?:\s*-\s*(\d+))?)?$/) ?? [];
    const before = found.size;
    page.residues.forEach((one, place) => {
      if (one.chain === chain && (start === undefined || (one.number >= +start && one.number <= +(end ?? start)))) found.add(place);
    });
    if (found.size === before) throw new Error(`no residue ${part}; write chain and number, such as ${nameExample()}`);
  }
  return found;
}
const nameExample = () => `${page.residues[0].chain} ${page.residues[0].number}-${page.residues[Math.min(9, page.residues.length - 1)].number}`;

function chooseResidues(places) {
  page.chosen = new Set(places);
  const text = chosenText();
  $("#chosen").value = text;
  $("#sequences .hint").textContent = page.chosen.size ? `${page.chosen.size} of ${page.residues.length} chosen` : "";
  for (const [place, letter] of letters.entries()) letter.classList.toggle("chosen", page.chosen.has(place));
  markPlots();
  markMolecule();
  writeHash({ residues: text });
}
const rangeOfTokens = (one, other) => {
  const [first, last] = [one, other].map((token) => page.ofToken[token]).sort((a, b) => a - b);
  return Array.from({ length: last - first + 1 }, (_, step) => first + step);
};

/* Show at which residues the pointer is, in all panels. */
function pointAt(places, isFromMolecule = false) {
  for (const letter of document.querySelectorAll(".letters .at")) letter.classList.remove("at");
  for (const place of places) letters[place]?.classList.add("at");
  if (isFromMolecule) {
    $("#sequences .hint").textContent = places.map(nameOf).join(", ");
    pointPlots(places);
  } else highlightMolecule(places);
}

let letters = [];
const classOf = (plddt) => (plddt > 90 ? "very-high" : plddt > 70 ? "high" : plddt > 50 ? "low" : "very-low");

/* One block per chain: what it is, and its sequence coloured by the pLDDT of the shown sample. */
function showSequences() {
  const { job, residues } = page;
  letters = [];
  const blocks = chainsOf().map(({ name, first, last }) => {
    const [start, stop] = [page.ofToken[first], page.ofToken[last] + 1];
    const facts = job.chains.find(({ chain }) => chain === name);
    const head = element("h4", `Chain ${name} `, { id: `chain-${first}` });
    head.append(element("span", chainFacts(facts, residues[start], stop - start)));
    const box = element("div", null, { class: "letters", tabindex: "0", role: "application", "aria-labelledby": head.id,
      "aria-roledescription": "sequence; arrow keys move, Shift extends, Escape clears" });
    for (let at = start; at < stop; at += 10) {
      const ten = element("span", null, { "data-number": residues[at].number });
      for (let place = at; place < Math.min(stop, at + 10); place += 1) {
        const letter = element("b", residues[place].letter ?? residues[place].component, { "data-place": place, title: nameOf(place) });
        letters[place] = letter;
        ten.append(letter);
      }
      box.append(ten);
    }
    readSequence(box, start, stop);
    const made = element("div", null);
    made.append(head, box);
    return made;
  });
  $("#chains").replaceChildren(...blocks);
  setTools($("#sequences"), [["FASTA", () => save(`${job.name.replace(/[^\w.-]/g, "_")}.fasta`, fasta(), "text/plain")],
    ["CSV", () => save(fileName("residues", "csv"), residueCsv(), "text/csv")]]);
  colourSequences();
}

function chainFacts(facts, residue, count) {
  const kind = facts?.kind && facts.kind !== "ligand" ? facts.kind : isIon(residue) ? "ion" : KINDS[residue.kind];
  return [kind, residue.kind === "ligand" ? residue.component : `${count} residues`,
    facts && `entity ${facts.entity}, copy ${facts.copy}`, facts?.msa_rows > 1 && `MSA of ${facts.msa_rows} rows`, facts?.msa === "no" && "no MSA"]
    .filter(Boolean).join(" · ");
}

const plddtOf = ({ first, last }, values) => {
  let sum = 0;
  for (let token = first; token <= last; token += 1) sum += values[token] / 2;
  return sum / (last - first + 1);
};

function colourSequences() {
  if (!page.job.plddt) return;
  const values = bytesOf(page.job.plddt[page.shown]);
  page.residues.forEach((one, place) => {
    const isChosen = page.chosen.has(place);
    letters[place].className = classOf(plddtOf(one, values)) + (isChosen ? " chosen" : "");
  });
}

/* Choose residues in a sequence by dragging, or with the keyboard. */
function readSequence(box, start, stop) {
  let [from, at] = [start, null];
  const placeOf = (event) => {
    const place = document.elementFromPoint(event.clientX, event.clientY)?.dataset?.place;
    return place === undefined ? null : +place;
  };
  const extend = () => chooseResidues(Array.from({ length: Math.abs(at - from) + 1 }, (_, step) => Math.min(at, from) + step));
  const say = () => { $("#sequences .hint").textContent = nameOf(at); pointAt([at]); };
  box.addEventListener("pointerdown", (event) => {
    at = placeOf(event);
    if (at === null) return;
    if (!event.shiftKey) from = at;
    extend();
  });
  box.addEventListener("pointermove", (event) => {
    const place = placeOf(event);
    if (place === null) return;
    if (event.buttons) { at = place; extend(); } else pointAt([place]);
  });
  box.addEventListener("pointerleave", () => pointAt([]));
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") chooseResidues([]);
    else if (step === undefined) return;
    else {
      at = at === null ? start : Math.max(start, Math.min(stop - 1, at + step));
      if (event.shiftKey) extend(); else from = at;
      say();
    }
    event.preventDefault();
  });
}

const fasta = () => chainsOf().map(({ name, first, last }) => {
  const part = page.residues.slice(page.ofToken[first], page.ofToken[last] + 1).filter(({ letter }) => letter);
  return part.length ? `>${page.job.name} chain ${name}\n${part.map(({ letter }) => letter).join("").replace(/.{80}/g, "$&\n").trim()}\n` : "";
}).join("");

function residueCsv() {
  const values = page.job.plddt && bytesOf(page.job.plddt[page.shown]);
  const rows = page.residues.map((one) => [one.chain, one.number, one.component, values ? plddtOf(one, values).toFixed(1) : ""]);
  return csv([["chain", "residue", "component", "plddt_of_100"], ...rows]);
}
