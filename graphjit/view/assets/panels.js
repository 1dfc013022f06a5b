// The user's lines on the left, and on the right what is known of what was chosen.

const details = document.getElementById("details");
const dearest = DATA.lines.reduce((best, line, i) => (best < 0 || line[2] > DATA.lines[best][2] ? i : best), -1);

// ---------------------------------------------------------------------------------------------- the user's lines

/** Files with their lines, each with its share of the estimate. */
function drawSource() {
  const panel = document.getElementById("source");
  const known = new Map(DATA.lines.map((line, i) => [`${line[0]}:${line[1]}`, i]));
  panel.replaceChildren();
  DATA.files.forEach((file, number) => {
    panel.append(el("div", { class: "file", title: file.path }, file.name));
    let before = null;
    const texts = file.lines.map(([, text]) => text).filter((text) => text.trim());
    const indent = Math.min(...texts.map((text) => text.search(/\S/)), 40);
    for (const [at, text] of file.lines) {
      if (before !== null && at > before + 1) panel.append(el("div", { class: "gap" }, "⋮"));
      before = at;
      panel.append(sourceLine(known.get(`${number}:${at}`), at, text.slice(indent)));
    }
  });
  const total = DATA.total.ns;
  panel.append(
    el("div", { class: "hint" }, `Share of ${timeText(total)} on one core, by estimate:`,
      el("span", { class: "key", style: "background:var(--scalar)" }), "way there",
      el("span", { class: "key", style: "background:var(--back)" }), "way back"),
  );
  const other = shareText(DATA.other, total);
  if (other) panel.append(el("div", { class: "hint" }, `${other} belongs to no line.`));
}

function sourceLine(line, at, text) {
  const row = el("div", { class: "line" }, el("span", { class: "number" }, String(at)));
  const share = el("span", { class: "share" });
  if (line !== undefined) {
    const [, , ns, back] = DATA.lines[line];
    const most = Math.max(1e-9, DATA.lines[dearest][2]);
    const there = (100 * (ns - back)) / most;
    row.classList.add("known");
    if (line === dearest && ns > 0) row.classList.add("dearest");
    row.dataset.line = line;
    row.title = `about ${timeText(ns)}, of which ${timeText(back)} on the way back`;
    row.addEventListener("click", () => chooseLine(line));
    share.append(
      el("b", { style: `width:${there.toFixed(1)}%` }),
      el("b", { class: "back", style: `left:${there.toFixed(1)}%;width:${((100 * back) / most).toFixed(1)}%` }),
      el("span", {}, shareText(ns, DATA.total.ns)),
    );
  }
  row.append(share, el("span", { class: "text" }, text || " "));
  return row;
}

function markLine(line) {
  for (const row of document.querySelectorAll(".line.chosen")) row.classList.remove("chosen");
  const row = document.querySelector(`.line[data-line="${line}"]`);
  row?.classList.add("chosen");
  row?.scrollIntoView({ block: "nearest" });
}

// -------------------------------------------------------------------------------------------------- the details

const row = (name, ...value) => [el("dt", {}, name), el("dd", {}, ...value)];
const heading = (text) => el("h3", {}, text);

/** A link to a line: its file and number, or just the number where there is one file. */
function lineLink(line, brief = false) {
  const name = brief && DATA.files.length === 1 ? String(DATA.lines[line][1]) : lineName(line);
  return el("a", { title: `${lineName(line)}  ${lineText(line)}`, onclick: (event) => { event.stopPropagation(); chooseLine(line); } }, name);
}

/** A link to an item, as its name, number and type. */
function itemLink(item) {
  const number = item.number < 0 ? "" : ` %${item.number}`;
  return el("a", { onclick: () => reach(item.id) }, `${item.label}${number}`);
}

/** A list of links to items, cut where it is long. */
function itemList(title, numbers, most = 12) {
  const items = numbers.map((number) => state.stage.items[number]).filter((item) => !item.hidden || item.text);
  if (!items.length) return [];
  const shown = items.slice(0, most).map((item) =>
    el("li", {}, item.hidden ? `${item.text}` : itemLink(item), el("span", { class: "muted" }, `  ${item.type}`)));
  if (items.length > most) shown.push(el("li", { class: "muted" }, `and ${items.length - most} more`));
  return [heading(title), el("ul", {}, ...shown)];
}

/** What is shown when nothing is chosen: what the whole costs, and the two questions people ask. */
function showOverview() {
  const { total, memory } = DATA;
  const rows = DATA.lines.map((line, i) => [i, line[2], line[3]]).filter(([, ns]) => ns > 0);
  rows.sort((a, b) => b[1] - a[1]);
  details.replaceChildren(
    el("h2", {}, DATA.name),
    el("dl", {},
      ...row("takes about", timeText(total.ns)),
      ...row("moves", bytesText(total.bytes)),
      ...row("computes", `${countText(total.flops)} flops`),
      ...row("arena", bytesText(memory.arena)),
      ...row("arguments", bytesText(memory.arguments + memory.captured)),
      ...row("results", bytesText(memory.results))),
    heading("Lines that cost most"),
    lineTable(rows.slice(0, 6)),
    ...keptSummary(),
    el("p", { class: "muted" }, "Click a box or a line. Double-click opens a box. ", el("a", { onclick: showKeys }, "Keys")),
  );
}

function lineTable(rows) {
  const table = el("table", { id: "dearest" }, el("tr", {}, el("th", {}, "line"), el("th", { class: "number" }, "time"), el("th", { class: "number" }, "share")));
  for (const [line, ns] of rows) {
    table.append(el("tr", {}, el("td", { title: lineText(line) }, lineLink(line)), el("td", { class: "number" }, timeText(ns)),
      el("td", { class: "number" }, shareText(ns, DATA.total.ns))));
  }
  return table;
}

/** One sentence about what waits for the way back. */
function keptSummary() {
  if (!DATA.stages.some((stage) => stage.key === "gradient")) return [];
  const kept = DATA.arena.kept.filter((one) => one[1] === "kept");
  const bytes = kept.reduce((sum, one) => sum + one[2], 0);
  const text = kept.length ? `${kept.length} ${kept.length === 1 ? "value" : "values"}, ${bytesText(bytes)}` : "nothing in the arena";
  return [heading("Kept for the way back"), el("p", {}, el("a", { onclick: showKept }, text))];
}

/** What the way back keeps, and what it reads besides. */
function showKept() {
  showGraph("program");
  state.chosen = null;
  const groups = [
    ["kept", "In the arena, from the way there to the way back"],
    ["tape", "On tapes, as long as their loops run"],
    ["result", "Results that it reads again"],
    ["argument", "Arguments that it reads again"],
  ];
  details.replaceChildren(el("h2", {}, "What the way back keeps"));
  for (const [kind, title] of groups) {
    const rows = DATA.arena.kept.filter((one) => one[1] === kind);
    if (rows.length) details.append(heading(title), keptTable(rows, kind));
  }
  if (!DATA.arena.kept.some((one) => one[1] === "kept" || one[1] === "tape")) {
    const word = DATA.stages.some((stage) => stage.key === "gradient") ? "Nothing but what is listed: way there and way back share their steps." : "There is no way back in this program.";
    details.append(el("p", {}, word));
  }
  highlight();
  markLives((life) => life[7]);
}

function keptTable(rows, kind) {
  const table = el("table", { class: "kept", "data-kind": kind }, el("tr", {}, el("th", {}, "value"), el("th", {}, "shape"), el("th", { class: "number" }, "bytes"), el("th", {}, "line")));
  for (const [name, , bytes, type, op, line, made, read] of rows) {
    const steps = `${made ? `made in ${made}, ` : ""}read in ${read.join(", ")}`;
    table.append(el("tr", { "data-life": name, title: steps, onclick: () => chooseLife(name) },
      el("td", {}, `${op} `, el("span", { class: "muted" }, name)), el("td", { class: "mono" }, type),
      el("td", { class: "number" }, exact(bytes)), el("td", {}, line < 0 ? "" : lineLink(line, true))));
  }
  const total = rows.reduce((sum, one) => sum + one[2], 0);
  table.append(el("tr", {}, el("td", {}, "together"), el("td", {}), el("td", { class: "number" }, exact(total)), el("td", {})));
  return table;
}

/** All about one item. */
function showItem(item) {
  const { stage } = state;
  const badges = [el("span", { class: "badge" }, item.kind)];
  if (item.phase) badges.push(el("span", { class: "badge back" }, item.phase === "mixed" ? "both ways" : item.phase === "backward" ? "way back" : item.phase));
  const rows = [];
  if (item.number >= 0) rows.push(...row("number", `%${item.number}`));
  if (item.type) rows.push(...row(item.number >= 0 || item.kind === "output" ? "type" : "computes", el("code", {}, item.type)));
  if (item.text) rows.push(...row(item.number >= 0 ? "with" : "is", el("code", {}, item.text)));
  if (item.origin) rows.push(...row("from", item.origin));
  if (item.line >= 0) rows.push(...row("line", lineLink(item.line)));
  if (item.ns) rows.push(...row("time", `about ${timeText(item.ns)}, ${shareText(item.ns, DATA.total.ns)}`));
  for (const [name, value] of item.facts) rows.push(...row(name, value));
  details.replaceChildren(el("h2", {}, item.label), el("p", {}, ...badges), el("dl", {}, ...rows));
  if (item.line >= 0) details.append(el("p", { class: "mono" }, lineText(item.line)));
  const several = item.answers.length > 1 ? "Answers one of" : "Answers";
  details.append(
    ...itemList(several, item.answers),
    ...itemList("Answered on the way back by", stage.answered.get(item.id) || []),
    ...itemList("Reads", item.args),
    ...itemList("Read by", stage.users.get(item.id) || []),
    ...edgeList(item),
  );
  if (stage.boxes.has(item.id)) {
    const opened = stage.open.has(item.id);
    details.append(el("p", {}, el("button", { onclick: (event) => openItem(event, item) }, opened ? "Close" : "Open")));
  }
  if (DATA.loops.some(([name]) => name === item.label) && stage.key === "program") {
    details.append(el("p", {}, el("a", { onclick: () => showStage("loops", item.label) }, "Its loops")));
  }
}

/** The values that come to a step and go from it, with the reasons why the steps are two. */
function edgeList(item) {
  const edges = state.stage.boxes.get(item.parent)?.edges || [];
  const found = [];
  const list = (title, chosen, other) => {
    if (!chosen.length) return;
    found.push(heading(title), el("ul", {}, ...chosen.slice(0, 20).map((edge) =>
      el("li", {}, itemLink(state.stage.items[other(edge)]), `  ${edge.label}`,
        edge.why ? el("div", { class: "muted" }, `two steps: ${edge.why}`) : null))));
  };
  if (item.args.length || state.stage.key !== "program") return [];
  list("From", edges.filter((edge) => edge.target === item.id), (edge) => edge.source);
  list("To", edges.filter((edge) => edge.source === item.id), (edge) => edge.target);
  return found;
}

/** All about one edge. */
function showEdge(edge) {
  const [source, target] = [edge.source, edge.target].map((number) => state.stage.items[number]);
  details.replaceChildren(
    el("h2", {}, edge.label || "a value"),
    el("dl", {}, ...row("from", itemLink(source)), ...row("to", itemLink(target))),
  );
  if (edge.labels.length) details.append(heading("Values"), el("ul", {}, ...edge.labels.map((label) => el("li", { class: "mono" }, label))));
  if (edge.why) details.append(heading("Why two steps"), el("p", { id: "why" }, edge.why));
}

/** All about one line. */
function showLine(line) {
  const [, , ns, back] = DATA.lines[line];
  const items = state.stage.items.filter((item) => item.line === line && !item.hidden && item.kind !== "group");
  details.replaceChildren(
    el("h2", {}, lineName(line)),
    el("p", { class: "mono" }, lineText(line)),
    el("dl", {}, ...row("time", `about ${timeText(ns)}, ${shareText(ns, DATA.total.ns) || "nothing"}`),
      ...row("way there", timeText(ns - back)), ...row("way back", timeText(back))),
    ...itemList(`In this stage: ${items.length} boxes`, items.map((item) => item.id), 40),
  );
  const kept = DATA.arena.kept.filter((one) => one[5] === line);
  if (kept.length) details.append(heading("Kept for the way back"), keptTable(kept, "line"));
}
