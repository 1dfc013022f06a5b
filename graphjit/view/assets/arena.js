// Memory over time: a rectangle is a value in the arena, from the step that writes it to the last one that reads
// it, at its address.

const arena = document.getElementById("arena");

/** Draw the chart. */
function drawArena() {
  const { bytes, steps, border, lives } = DATA.arena;
  const { width } = arena.getBoundingClientRect();
  const [left, right, top, bottom, height] = [74, 14, 6, 34, 184];
  const wide = Math.max(1, width - left - right);
  const high = height - top - bottom;
  const x = (step) => left + (wide * step) / Math.max(1, steps.length);
  const y = (address) => top + high - (high * address) / Math.max(1, bytes);
  const chart = svg("svg", { viewBox: `0 0 ${Math.max(1, width)} ${height}`, role: "img", "aria-label": "The arena over time" });
  for (const part of bytes ? [0, 0.5, 1] : []) {
    const at = y(part * bytes);
    chart.append(svg("line", { class: "grid", x1: left, x2: left + wide, y1: at, y2: at }));
    chart.append(svg("text", { class: "axis", x: left - 6, y: at + 4, "text-anchor": "end" }, bytesText(part * bytes)));
  }
  chart.append(svg("rect", { class: "step-mark", x: 0, y: top, width: 0, height: high }));
  for (const life of lives) chart.append(drawLife(life, x, y));
  drawTicks(chart, steps, x, top + high + 4);
  if (border !== null) {
    chart.append(svg("line", { class: "border", x1: x(border), x2: x(border), y1: top - 6, y2: top + high + 4 }));
  }
  const kept = lives.filter((life) => life[7]).length;
  arena.replaceChildren(
    el("div", { class: "head" }, el("strong", {}, "Memory over time"), `${bytesText(bytes)}, ${lives.length} values`,
      border === null ? null : el("span", { style: "color:var(--back)" }, `┆ the way back begins to read in ${steps[border]}`),
      kept ? el("a", { onclick: showKept }, `${kept} kept for the way back`) : null,
      bytes ? null : "No step hands a value to another one through the arena."),
    chart,
  );
}

function drawLife(life, x, y) {
  const [name, offset, nbytes, first, last, type, line, kept] = life;
  const own = name.startsWith("inside ");
  const width = Math.max(3, x(last + 1) - x(first) - 2);
  const height = Math.max(3, y(offset) - y(offset + nbytes) - 1);
  const { steps } = DATA.arena;
  const title = `${name} : ${type}\n${exact(nbytes)} B at ${exact(offset)}\n${steps[first]} to ${steps[last]}` +
    `${kept ? "\nkept for the way back" : ""}${line < 0 ? "" : `\n${lineName(line)}  ${lineText(line)}`}`;
  const group = svg("g", { class: `life${kept ? " kept" : ""}${own ? " own" : ""}`, "data-name": name, "data-line": line, onclick: () => chooseLife(name) },
    svg("title", {}, title),
    svg("rect", { x: x(first) + 1, y: y(offset + nbytes), width, height, rx: 2 }));
  if (width > 34 && height > 12) {
    const text = cut(`${name} ${own ? "" : type}`, width - 8, 6.4);
    group.append(svg("text", { x: x(first) + 6, y: y(offset + nbytes / 2) + 4 }, text));
  }
  return group;
}

/** A tick for each step, coloured by what it takes, and as many names as fit. */
function drawTicks(chart, steps, x, y) {
  const program = stageByKey("program");
  const byName = new Map(program.items.filter((item) => item.number < 0).map((item) => [item.label, item]));
  const each = Math.ceil(34 / Math.max(0.01, x(1) - x(0)));
  steps.forEach((name, i) => {
    const item = byName.get(name);
    const part = item && DATA.total.ns ? Math.min(1, item.ns / DATA.total.ns) : 0;
    chart.append(svg("rect", { class: "tick", x: x(i) + 0.5, y, width: Math.max(1, x(i + 1) - x(i) - 1), height: 9,
      style: `--part:${(100 * Math.sqrt(part)).toFixed(1)}%`, onclick: () => item && reach(item.id) },
      svg("title", {}, item ? `${name} ${item.type}\nabout ${timeText(item.ns)}` : name)));
    if (i % each === 0) chart.append(svg("text", { class: "axis", x: x(i) + 2, y: y + 21 }, name));
  });
}

/** Mark values of the arena. */
function markLives(test) {
  const lives = new Map(DATA.arena.lives.map((life) => [life[0], life]));
  for (const group of arena.querySelectorAll(".life")) {
    group.classList.toggle("lit", Boolean(test(lives.get(group.dataset.name))));
    group.classList.remove("chosen");
  }
}

/** Choose one value: what it is, and who writes and reads it. */
function chooseLife(name) {
  const life = DATA.arena.lives.find((one) => one[0] === name);
  const kept = DATA.arena.kept.find((one) => one[0] === name);
  if (!life) {
    if (kept && kept[5] >= 0) chooseLine(kept[5]);
    return;
  }
  const [, offset, nbytes, first, last, type, line] = life;
  const { steps } = DATA.arena;
  showGraph("program");
  markLives(() => false);
  arena.querySelector(`.life[data-name="${CSS.escape(name)}"]`)?.classList.add("chosen");
  markLine(line);
  details.replaceChildren(
    el("h2", {}, name),
    el("dl", {}, ...row("type", el("code", {}, type)), ...row("size", `${exact(nbytes)} B`), ...row("address", exact(offset)),
      ...row("from", stepLink(steps[first])), ...row("to", stepLink(steps[last])),
      ...(line < 0 ? [] : row("line", lineLink(line)))),
  );
  if (line >= 0) details.append(el("p", { class: "mono" }, lineText(line)));
  if (kept) {
    details.append(heading("Kept for the way back"),
      el("p", {}, `Made in ${kept[6]} on the way there; the way back reads it in ${kept[7].join(", ")}.`),
      el("p", {}, el("a", { onclick: showKept }, "All that is kept")));
  }
}

function stepLink(name) {
  const item = stageByKey("program").items.find((one) => one.label === name && one.number < 0);
  return item ? el("a", { onclick: () => reach(item.id) }, name) : name;
}

/** Mark the column of a step. */
function markStep(item) {
  const at = item ? DATA.arena.steps.indexOf(item.label) : -1;
  const tick = arena.querySelectorAll(".tick")[at];
  const mark = arena.querySelector(".step-mark");
  mark?.setAttribute("x", tick?.getAttribute("x") ?? 0);
  mark?.setAttribute("width", tick?.getAttribute("width") ?? 0);
}
