/* The 3D structure in Mol*. Its script is loaded after the first table is shown. */
const CONTACT = 5; // Angstrom, between heavy atoms of different chains
const THINNEST = 0.15; // radius of a ball as Mol* draws it, in van der Waals radii
const CLASH = 1.1; // Angstrom, as in Protenix's test of clashes
const molecule = { viewer: null, plugin: null, structure: null, sets: {} };
const OPTIONS = {
  showImportControls: false, showSessionControls: false, showStructureSourceControls: false, showMeasurementsControls: false,
  showStrucmotifSubmitControls: false, showSuperpositionControls: false, showQuickStylesControls: false,
  showStructureComponentControls: false, showVolumeStreamingControls: false, showAssemblySymmetryControls: false,
  showValidationReportControls: false, showPredictedAlignedErrorPlot: false, showMembraneOrientationPreset: false,
  showNakbColorTheme: false, layoutIsExpanded: false, layoutShowControls: false, layoutShowSequence: false, layoutShowLog: false,
  viewportShowControls: false, viewportShowSettings: false, viewportShowSelectionMode: false, detachedFromSierra: true, showWelcomeToast: false,
};

function loadScript() {
  return new Promise((done, fail) => {
    const script = element("script", null);
    if (page.viewer) {
      Object.assign(script, { src: page.viewer, onload: done, onerror: () => fail(new Error(`${page.viewer} is missing beside this page`)) });
      document.head.append(script);
    } else unpackText("viewer-source").then((text) => { script.textContent = text; document.head.append(script); done(); }, fail);
  });
}

async function makeViewer() {
  await loadScript();
  document.head.prepend(element("style", window.molstarStyle)); // before ours, which may change it
  const viewer = new window.rcsbMolstar.Viewer("viewer", OPTIONS);
  const plugin = viewer.plugin;
  molecule.plugin = plugin;
  setBackground();
  const residue = ({ current }) => residueOfLoci(current.loci);
  plugin.behaviors.interaction.hover.subscribe((event) => {
    const place = residue(event);
    if (place !== undefined || molecule.isOver) pointAt(place === undefined ? [] : [place], true);
    molecule.isOver = place !== undefined;
  });
  plugin.behaviors.interaction.click.subscribe((event) => {
    if (!molecule.structure) return; // Mol* reports a click on nothing at its start
    const place = residue(event);
    if (place !== undefined) chooseResidues(event.modifiers.shift ? [...page.chosen, place] : [place]);
    else if (event.current.loci.kind === "empty-loci") chooseResidues([]);
  });
  return viewer;
}

function setBackground() {
  const [red, green, blue] = colour("--panel").match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16));
  molecule.plugin?.canvas3d?.setProps({ renderer: { backgroundColor: (red << 16) | (green << 8) | blue } });
}

let showing = Promise.resolve();
function showStructure() {
  showing = showing.then(drawStructure).catch((error) => { $("#which").textContent = `No 3D view: ${error.message}`; });
  return showing;
}

async function drawStructure() {
  const { job, shown, at } = page;
  const has = job.structures.includes(shown);
  const sample = job.samples[shown];
  $("#which").textContent = `Seed ${sample.seed}, sample ${sample.sample}${has ? "" : ": its structure is not in this page"}`;
  setTools($("#structure"), has ? [["mmCIF", async () => save(fileName("structure", "cif"), await unpackText(`cif-${shown}-${at}`), "chemical/x-mmcif")]] : []);
  molecule.viewer ??= makeViewer();
  const viewer = await molecule.viewer;
  const { plugin } = molecule;
  molecule.structure = null;
  await plugin.clear();
  if (has) {
    const beside = $("#beside").checked ? (job.clusters ?? []).map((one) => one.find((place) => job.structures.includes(place)))
      .filter((one) => one !== undefined && one !== shown) : [];
    for (const place of [shown, ...beside]) {
      await viewer.loadStructureFromData(await unpackText(`cif-${place}-${at}`), "mmcif", false, { props: { kind: "standard" }, matrix: job.placed[place] });
    }
    molecule.structure = plugin.managers.structure.hierarchy.current.structures[0].cell.obj.data;
    await thickenAtoms(plugin.managers.structure.hierarchy.current.structures);
    await colourStructures();
    plugin.managers.camera.reset(undefined, 0);
    markMolecule();
  }
  findSets();
  setBackground();
  document.documentElement.dataset.drawn = `${job.name} ${shown} ${plugin.managers.structure.hierarchy.current.structures.length}`;
}

/* Draw balls and sticks thicker in large structures, where atoms would be specks: a ball is some 6 pixels wide. */
async function thickenAtoms(structures) {
  const update = molecule.plugin.build();
  for (const { cell, components } of structures) {
    const sizeFactor = Math.min(1, Math.max(THINNEST, cell.obj.data.boundary.sphere.radius / 110));
    for (const one of components.flatMap(({ representations }) => representations)) {
      if (one.cell.transform.params.type.name === "ball-and-stick") update.to(one.cell).update((old) => { old.type.params.sizeFactor = sizeFactor; });
    }
  }
  await update.commit();
}

async function colourStructures() {
  const { managers } = molecule.plugin.structure ?? molecule.plugin;
  for (const [index, structure] of managers.structure.hierarchy.current.structures.entries()) {
    const theme = index ? { color: "uniform", colorParams: { value: 0x9aa3ae } } : { color: $("#colour").value };
    await managers.structure.component.updateRepresentationsTheme(structure.components, theme);
  }
  $("#colours").style.visibility = $("#colour").value === "chain-id" ? "hidden" : "visible";
}

/* The place in page.residues of an atom of Mol*'s model. */
function residueOfAtom(model, atom) {
  const { chains, residues, chainAtomSegments, residueAtomSegments } = model.atomicHierarchy;
  const chain = chains.auth_asym_id.value(chainAtomSegments.index[atom]);
  return page.byName.get(`${chain}|${residues.auth_seq_id.value(residueAtomSegments.index[atom])}`);
}

function residueOfLoci(loci) {
  if (!molecule.structure) return undefined;
  const [unit, indices] = loci.kind === "element-loci" && loci.elements.length ? [loci.elements[0].unit, loci.elements[0].indices]
    : loci.kind === "bond-loci" && loci.bonds.length ? [loci.bonds[0].aUnit, [loci.bonds[0].aIndex]] : [];
  if (!unit || unit.model !== molecule.structure.models[0]) return undefined;
  // Mol* stores a run of indices as two integers in the bits of one number.
  const first = typeof indices === "number" ? new Int32Array(new Float64Array([indices]).buffer)[0] : indices[0];
  return residueOfAtom(unit.model, unit.elements[first]);
}

/* The atoms of residues, in the form in which Mol* marks them. */
function lociOf(places) {
  const { structure } = molecule;
  const elements = [];
  for (const unit of structure.units) {
    if (!unit.model.atomicHierarchy || unit.kind !== 0) continue;
    const indices = [];
    for (let index = 0; index < unit.elements.length; index += 1) if (places.has(residueOfAtom(unit.model, unit.elements[index]))) indices.push(index);
    if (indices.length) elements.push({ unit, indices: Int32Array.from(indices) });
  }
  return { kind: "element-loci", structure, elements };
}

function markMolecule() {
  if (!molecule.structure) return;
  const { lociSelects } = molecule.plugin.managers.interactivity;
  lociSelects.deselectAll();
  if (page.chosen.size) lociSelects.select({ loci: lociOf(page.chosen) });
}

function highlightMolecule(places) {
  if (!molecule.structure) return;
  const { lociHighlights } = molecule.plugin.managers.interactivity;
  if (places.length) lociHighlights.highlightOnly({ loci: lociOf(new Set(places)) }, false);
  else lociHighlights.clearHighlights();
}

/* Choose residues, turn the camera to them, and show them and their surroundings as sticks. */
function focusOn(places) {
  chooseResidues(places);
  if (!molecule.structure || !places.size) return;
  const loci = lociOf(places);
  molecule.plugin.managers.camera.focusLoci(loci);
  molecule.plugin.managers.structure.focus.setFromLoci(loci);
}

/* Find interfaces, clashes, and ligands with ions, of the shown structure. */
function findSets() {
  const sets = molecule.structure ? findContacts(molecule.structure.models[0]) : { interfaces: new Set(), clashes: new Set(), pairs: new Map() };
  sets.ligands = new Set(page.residues.flatMap(({ kind }, place) => (kind === "ligand" && molecule.structure ? [place] : [])));
  molecule.sets = sets;
  for (const name of ["interfaces", "ligands", "clashes"]) {
    const button = $(`#show-${name}`);
    button.disabled = !sets[name].size;
    const count = sets[name].size ? `${sets[name].size}${name === "ligands" ? "" : " residues"}` : "none";
    button.textContent = `${name === "ligands" ? "ligands and ions" : name} (${count})`;
  }
}

function findContacts(model) {
  const { x, y, z } = model.atomicConformation;
  const { atoms, chainAtomSegments, residueAtomSegments } = model.atomicHierarchy;
  const cells = new Map();
  const key = (a, b, c) => ((a + 512) * 1024 + b + 512) * 1024 + c + 512;
  const found = { interfaces: new Set(), clashes: new Set(), pairs: new Map() };
  const names = new Map();
  const residueOf = (atom) => {
    const residue = residueAtomSegments.index[atom];
    if (!names.has(residue)) names.set(residue, residueOfAtom(model, atom));
    return names.get(residue);
  };
  for (let atom = 0; atom < x.length; atom += 1) {
    if (atoms.type_symbol.value(atom) === "H") continue;
    const [a, b, c] = [x, y, z].map((axis) => Math.floor(axis[atom] / CONTACT));
    for (let da = -1; da <= 1; da += 1) for (let db = -1; db <= 1; db += 1) for (let dc = -1; dc <= 1; dc += 1) {
      for (const other of cells.get(key(a + da, b + db, c + dc)) ?? []) {
        if (chainAtomSegments.index[other] === chainAtomSegments.index[atom]) continue;
        const square = (x[atom] - x[other]) ** 2 + (y[atom] - y[other]) ** 2 + (z[atom] - z[other]) ** 2;
        if (square > CONTACT ** 2) continue;
        const both = [residueOf(atom), residueOf(other)];
        if (both.includes(undefined)) continue;
        const pair = both.map((place) => page.residues[place].chain).sort().join("|");
        if (!found.pairs.has(pair)) found.pairs.set(pair, new Set());
        for (const place of both) {
          found.interfaces.add(place);
          found.pairs.get(pair).add(place);
          if (square < CLASH ** 2) found.clashes.add(place);
        }
      }
    }
    const here = key(a, b, c);
    if (cells.has(here)) cells.get(here).push(atom); else cells.set(here, [atom]);
  }
  return found;
}
