// What is shown and chosen, and how people change it: tabs, clicks, keys, search, the part of the address
// behind "#".

const stages = new Map();
const loopsKey = "loops";
const state = { stage: null, chosen: null, line: -1, byCost: null, matches: [], at: 0 };

/** A stage, read when it is asked for first. */
function stageByKey(key) {
  if (!stages.has(key)) stages.set(key, readStage(DATA.stages.find((stage) => stage.key === key)));
  return stages.get(key);
}

const keys = [...DATA.stages.map((stage) => stage.key), loopsKey];

/** Show a stage; of the loops those of one step. */
function showStage(key, step = null) {
  const asText = key === loopsKey;
  if (asText && !state.stage) showStage("program"); // what is chosen is always in a graph
  for (const tab of document.querySelectorAll("#tabs button")) {
    tab.setAttribute("aria-selected", String(tab.dataset.key === key));
  }
  document.body.dataset.stage = key;
  document.getElementById("canvas").hidden = asText;
  document.getElementById("loops").hidden = !asText;
  arena.hidden = key !== "program";
  const note = document.getElementById("note");
  if (asText) {
    note.textContent = "The loops of each step as they are compiled.";
    drawLoops(step);
    remember();
    return;
  }
  if (state.stage) state.stage.view = { ...view };
  const known = Boolean(stages.get(key)?.view);
  const stage = stageByKey(key);
  state.stage = stage;
  state.chosen = null;
  note.textContent = `${stage.note} ${countOf(stage)}`;
  setColour();
  draw(stage);
  if (key === "program") drawArena();
  if (!known) fit(false);
  else Object.assign(view, stage.view);
  look();
  if (state.line >= 0) chooseLine(state.line, false);
  else {
    showOverview();
    highlight();
  }
  search(false);
  remember();
}

/** Show a stage unless it is shown already. */
function showGraph(key) {
  if (document.body.dataset.stage !== key) showStage(key);
}

function countOf(stage) {
  const count = stage.items.filter((item) => item.number >= 0 && !["group", "value"].includes(item.kind)).length;
  return stage.key === "program" ? `${DATA.arena.steps.length} steps.` : `${exact(count)} operations.`;
}

/** The loops as text, made when they are opened. */
function drawLoops(step) {
  const panel = document.getElementById("loops");
  if (!panel.children.length) {
    if (!DATA.loops.length) panel.append("No step has loops of its own: products run library code of graphjit.");
    DATA.loops.forEach(([name, text], i) => {
      const pre = el("pre");
      const part = el("details", { id: `loops-${name}`, ontoggle: () => { pre.textContent = text; } }, el("summary", {}, text.split("\n")[0]), pre);
      part.open = i < 3;
      panel.append(part);
    });
  }
  const chosen = step && document.getElementById(`loops-${step}`);
  if (chosen) {
    chosen.open = true;
    chosen.scrollIntoView();
  }
}

/** Keep the stage, and what is chosen in it, in the address, so that a link leads back. */
function remember() {
  const item = state.chosen === null ? null : state.stage.items[state.chosen];
  const chosen = item ? `/${item.id}` : state.line >= 0 ? `/line/${state.line}` : "";
  try {
    history.replaceState(null, "", `#${document.body.dataset.stage}${chosen}`);
  } catch {
    // a frame without an address of its own, as in notebooks
  }
}

// ----------------------------------------------------------------------------------------------------- choosing

/** Light up some items, or the boxes around them where those are closed; all others are dimmed. */
function highlight(numbers = []) {
  const lit = new Set(numbers.map(visible));
  world.classList.toggle("dimmed", lit.size > 0);
  for (const [number] of drawn.places) {
    const group = itemGroup(number);
    group?.classList.toggle("lit", lit.has(number));
    group?.classList.remove("chosen", "near", "answered");
  }
  for (const { group } of drawn.edges) group.classList.remove("chosen", "lit");
  for (const old of world.querySelectorAll(".link")) old.remove();
}

const itemGroup = (number) => world.querySelector(`.item[data-id="${number}"]`);

/** An item, or the closed box in which it is. */
function visible(number) {
  let shown = number;
  for (let at = number; at !== TOP; at = state.stage.items[at].parent) {
    if (!drawn.places.has(at)) shown = state.stage.items[at].parent;
  }
  return shown;
}

/** Choose an item that is drawn. */
function choose(id) {
  const item = state.stage.items[id];
  state.chosen = id;
  state.line = -1;
  highlight();
  itemGroup(id)?.classList.add("chosen");
  for (const { edge, group } of drawn.edges) {
    if (edge.source === id || edge.target === id) group.classList.add("lit");
  }
  for (const other of [...item.args, ...(state.stage.users.get(id) || [])]) itemGroup(visible(other))?.classList.add("near");
  for (const other of [...item.answers, ...(state.stage.answered.get(id) || [])]) {
    itemGroup(visible(other))?.classList.add("answered");
    drawLink(id, visible(other));
  }
  markLine(item.line);
  if (state.stage.key === "program") {
    markLives(() => false);
    markStep(outermost(item));
  }
  showItem(item);
  remember();
}

/** A dotted line from an item of the way back to the one that it answers. */
function drawLink(from, to) {
  const [a, b] = [drawn.places.get(from), drawn.places.get(to)];
  if (!a || !b || from === to) return;
  const left = a.x + a.w / 2 > b.x + b.w / 2;
  const x1 = left ? a.x : a.x + a.w;
  const x2 = left ? b.x + b.w : b.x;
  const [y1, y2] = [a.y + a.h / 2, b.y + b.h / 2];
  const bend = Math.max(30, Math.abs(x1 - x2) / 2) * (left ? -1 : 1);
  world.append(svg("path", { class: "link", d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` }));
}

const outermost = (item) => (item.parent === TOP || state.stage.items[item.parent].kind === "group" ? item : outermost(state.stage.items[item.parent]));

/** Choose an item wherever it is: open the boxes around it, and bring it into sight. */
function reach(id) {
  const { stage } = state;
  showGraph(stage.key);
  let changed = false;
  for (let at = stage.items[id].parent; at !== TOP; at = stage.items[at].parent) {
    if (!stage.open.has(at)) {
      stage.open.add(at);
      changed = true;
    }
  }
  if (changed) draw(stage);
  choose(id);
  bring(id, changed);
}

function clickItem(event, item) {
  event.stopPropagation();
  if (drag.moved) return;
  choose(item.id);
}

/** Open or close a box, and keep it where it is on the screen. */
function openItem(event, item) {
  event.stopPropagation();
  const { stage } = state;
  if (!stage.boxes.has(item.id)) return;
  if (!stage.open.delete(item.id)) stage.open.add(item.id);
  const before = drawn.places.get(item.id);
  draw(stage);
  const after = drawn.places.get(item.id);
  if (before && after) {
    view.x += view.k * (before.x + before.w / 2 - after.x - after.w / 2);
    view.y += view.k * (before.y - after.y);
  }
  look();
  choose(item.id);
}

function chooseEdge(event, edge) {
  event.stopPropagation();
  if (drag.moved) return;
  state.chosen = null;
  highlight();
  drawn.edges.find((one) => one.edge === edge).group.classList.add("chosen");
  showEdge(edge);
}

/** Choose a line of the user's: light up what it became. */
function chooseLine(line, move = true) {
  if (document.body.dataset.stage === loopsKey) showStage("program");
  state.line = line;
  state.chosen = null;
  const numbers = state.stage.items.filter((item) => item.line === line && !item.hidden).map((item) => item.id);
  highlight(numbers);
  if (state.stage.key === "program") markLives((life) => life[6] === line);
  markLine(line);
  showLine(line);
  if (move && numbers.length) bring(visible(numbers[0]));
  remember();
}

function clear() {
  state.chosen = null;
  state.line = -1;
  markLine(-1);
  highlight();
  if (state.stage.key === "program") {
    markLives(() => false);
    markStep(null);
  }
  showOverview();
  remember();
}

canvas.addEventListener("click", () => { if (!drag.moved) clear(); });

// ------------------------------------------------------------------------------------------------------- search

const field = document.getElementById("search");

/** Find boxes by name, number, type, attribute, rule or the text of their line. */
function search(move = true) {
  const query = field.value.trim().toLowerCase();
  const texts = (item) => [item.label, item.number < 0 ? "" : `%${item.number}`, item.type, item.text, item.origin, item.line < 0 ? "" : `${lineName(item.line)} ${lineText(item.line)}`];
  state.matches = query ? state.stage.items.filter((item) => !item.hidden && texts(item).join("\n").toLowerCase().includes(query)).map((item) => item.id) : [];
  const exactly = state.matches.filter((id) => [state.stage.items[id].label, `%${state.stage.items[id].number}`].includes(query));
  state.matches = [...exactly, ...state.matches.filter((id) => !exactly.includes(id))];
  state.at = 0;
  document.getElementById("matches").textContent = query ? `${state.matches.length}` : "";
  if (query && move) highlight(state.matches);
}

/** Go to the next match, or to the one before. */
function nextMatch(step) {
  const { matches, at } = state;
  if (!matches.length) return;
  reach(matches[at]);
  document.getElementById("matches").textContent = `${at + 1}/${matches.length}`;
  state.at = (at + step + matches.length) % matches.length;
}

field.addEventListener("input", () => search());
field.addEventListener("keydown", (event) => {
  if (event.key === "Enter") nextMatch(event.shiftKey ? -1 : 1);
  if (event.key === "Escape") field.blur();
  event.stopPropagation();
});

// --------------------------------------------------------------------------------------------------------- keys

/** To a neighbour on the screen: what is read or reads above and below, the row beside. */
function walk(dx, dy) {
  const places = [...drawn.places].filter(([id]) => !state.stage.open.has(id) || state.stage.items[id].kind !== "group");
  if (state.chosen === null) {
    if (places.length) choose(places[0][0]);
    return;
  }
  const from = drawn.places.get(visible(state.chosen));
  const item = state.stage.items[state.chosen];
  const linked = new Set(dy < 0 ? item.args : dy > 0 ? state.stage.users.get(item.id) : []);
  for (const { edge } of drawn.edges) {
    if (dy < 0 && edge.target === item.id) linked.add(edge.source);
    if (dy > 0 && edge.source === item.id) linked.add(edge.target);
  }
  const centre = (place) => [place.x + place.w / 2, place.y + place.h / 2];
  const [x, y] = centre(from);
  let best = null;
  for (const [id, place] of places) {
    if (id === item.id || state.stage.items[id].parent !== item.parent) continue;
    const [px, py] = centre(place);
    const along = dx ? (px - x) * dx : (py - y) * dy;
    if (along <= 4 || (dy && linked.size && !linked.has(id))) continue;
    const far = along + 3 * Math.abs(dx ? py - y : px - x);
    if (!best || far < best.far) best = { id, far };
  }
  if (best) {
    choose(best.id);
    bring(best.id);
  }
}

const KEYS = [
  ["1 ... 5", "Stages", null],
  ["/", "Search; Enter goes from match to match", () => field.focus()],
  ["← ↑ → ↓", "To a neighbour: up to what it reads, down to who reads it", null],
  ["Enter", "Open or close a box", null],
  ["+ - 0", "Closer, farther, all; the wheel and dragging do the same", null],
  ["l", "The line that costs most", () => dearest >= 0 && chooseLine(dearest)],
  ["k", "What the way back keeps", () => showKept()],
  ["c", "Colour boxes by kind or by cost", () => toggleColour()],
  ["t", "Light or dark", () => toggleTheme()],
  ["Esc", "Choose nothing", () => clear()],
  ["?", "These keys", () => showKeys()],
];

function showKeys() {
  const dialog = document.getElementById("keys");
  dialog.replaceChildren(el("h2", {}, "Keys"), el("dl", {}, ...KEYS.flatMap(([key, text]) => [el("dt", {}, key), el("dd", {}, text)])));
  dialog.showModal();
}
document.getElementById("keys").addEventListener("click", (event) => event.currentTarget.close());

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest?.("input")) return;
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const number = Number(event.key);
  const named = KEYS.find(([key, , run]) => run && (key === event.key || (key === "Esc" && event.key === "Escape")));
  if (named) named[2]();
  else if (number >= 1 && number <= keys.length) showStage(keys[number - 1]);
  else if (document.body.dataset.stage === loopsKey) return; // other keys move in the text
  else if (event.key === "0") fit();
  else if (event.key === "+" || event.key === "=") zoom(1.25);
  else if (event.key === "-") zoom(0.8);
  else if (arrows[event.key]) walk(...arrows[event.key]);
  else if (event.key === "Enter" && state.chosen !== null && !event.target.closest?.("button")) openItem(event, state.stage.items[state.chosen]);
  else return;
  event.preventDefault();
});

// ------------------------------------------------------------------------------------------ colours and the start

const LEGENDS = {
  program: [["scalar", "kernel, sweep"], ["special", "product"], ["reduce", "loops of a special form"], ["loop", "loop, choice"], ["back", "way back"]],
  other: [["scalar", "elementwise"], ["view", "view"], ["reduce", "sum, scan"], ["special", "product, other"], ["loop", "loop, choice"], ["back", "↩ way back"]],
};

/** Steps have the colour of what they take, operations that of their kind, until somebody asks otherwise. */
const coloursCost = () => state.byCost ?? state.stage.key === "program";

function setColour() {
  const byCost = coloursCost();
  world.classList.toggle("cost", byCost);
  document.getElementById("colour").textContent = byCost ? "Colour: cost" : "Colour: kind";
  const parts = byCost
    ? [el("span", {}, "share of the time  0 "), el("i", { class: "scale" }), el("span", {}, "100 %")]
    : (LEGENDS[state.stage.key] || LEGENDS.other).map(([name, text]) =>
      el("span", {}, el("i", { style: `background:var(--${name}-fill);border-color:var(--${name})` }), text));
  document.getElementById("legend").replaceChildren(...parts);
}

function toggleColour() {
  state.byCost = !coloursCost();
  setColour();
}

function toggleTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
}

/** What the address asks for: #stage, #stage/item, #stage/line/number, #kept. */
function followAddress() {
  const [key, chosen, line] = decodeURIComponent(location.hash.slice(1)).split("/");
  if (key === "kept") {
    showKept();
    return;
  }
  const known = keys.includes(key);
  showStage(known ? key : keys.includes("gradient") ? "gradient" : keys[0]);
  if (known && chosen === "line" && DATA.lines[Number(line)]) chooseLine(Number(line));
  else if (known && chosen && key !== loopsKey && state.stage.items[Number(chosen)]) reach(Number(chosen));
}

function start() {
  const { total } = DATA;
  document.getElementById("name").textContent = DATA.name;
  document.getElementById("summary").textContent =
    `about ${timeText(total.ns)} · ${bytesText(total.bytes)} moved · ${countText(total.flops)} flops · arena ${bytesText(DATA.memory.arena)}`;
  const titles = [...DATA.stages.map((stage) => [stage.key, stage.title]), [loopsKey, "Loops"]];
  document.getElementById("tabs").append(...titles.map(([key, title]) =>
    el("button", { role: "tab", "data-key": key, onclick: () => showStage(key) }, title)));
  document.getElementById("kept").addEventListener("click", showKept);
  document.getElementById("colour").addEventListener("click", toggleColour);
  document.getElementById("theme").addEventListener("click", toggleTheme);
  document.getElementById("help").addEventListener("click", showKeys);
  for (const button of document.querySelectorAll("#zoom button")) {
    const way = Number(button.dataset.zoom);
    button.addEventListener("click", () => (way ? zoom(way > 0 ? 1.25 : 0.8) : fit()));
  }
  drawSource();
  followAddress();
  addEventListener("resize", () => { if (!arena.hidden) drawArena(); });
  addEventListener("hashchange", followAddress);
  document.body.dataset.ready = performance.now().toFixed(0);
}

start();
