// The graph as SVG. It is drawn again when a box opens or closes; highlights only change classes.

const canvas = document.getElementById("graph");
const world = svg("g");
canvas.append(world);
const drawn = { edges: [], places: new Map(), w: 0, h: 0 };

/** Draw a stage. */
function draw(stage) {
  drawn.edges = [];
  drawn.places.clear();
  const placed = placeBox(stage, TOP);
  [drawn.w, drawn.h] = [placed.w, placed.h];
  world.replaceChildren(drawBox(stage, TOP, placed, 0, 0));
}

/** All that is in a box, whose inside begins at x, y of the world: edges below, boxes above, names of values on top. */
function drawBox(stage, id, placed, x, y) {
  const box = stage.boxes.get(id);
  const below = svg("g");
  const above = svg("g");
  const port = ports(box, placed.places);
  const edges = box.edges.filter((edge) => edge.points);
  const ways = new Map(edges.map((edge) => [edge, edgePath(edge, placed.places, port.get(edge))]));
  for (const edge of edges) below.append(drawEdge(stage, edge, ways.get(edge)));
  for (const [number, place] of placed.places) {
    if (number < 0) continue;
    drawn.places.set(number, { x: x + place.x, y: y + place.y, w: place.w, h: place.h });
    above.append(drawItem(stage, stage.items[number], place, placed.inner.get(number), x, y));
  }
  return svg("g", {}, below, above, drawShapes(edges, placed.places, ways));
}

function drawEdge(stage, edge, way) {
  const title = [edge.label, ...edge.labels, edge.why && `two steps: ${edge.why}`].filter(Boolean).join("\n");
  const group = svg(
    "g",
    { class: `edge${way.upward ? " upward" : ""}${edge.why ? " why" : ""}`, onclick: (event) => chooseEdge(event, edge) },
    svg("path", { d: way.path }),
    svg("path", { d: way.head, class: "head" }),
    svg("path", { d: way.path, class: "hit" }, svg("title", {}, title)),
  );
  drawn.edges.push({ edge, group });
  return group;
}

/**
 * What edges carry. All edges of one value leave its box together, and have its shape there once. Where a box
 * makes several values, each edge has its own, above the box that it leads to.
 */
function drawShapes(edges, places, ways) {
  const names = svg("g");
  const carried = new Map();
  const taken = new Map(); // how many shapes stand above a box
  for (const edge of edges) {
    const own = carried.get(edge.source);
    carried.set(edge.source, own === undefined || own === edge.label ? edge.label : null);
  }
  const shape = (x, y, text) => names.append(svg("text", { class: "shape", x, y }, cut(text, 190, 6.4)));
  const done = new Set();
  for (const edge of edges) {
    const from = places.get(edge.source);
    const way = ways.get(edge);
    if (carried.get(edge.source) !== null) {
      if (edge.label && !done.has(edge.source)) shape(from.x + from.w / 2 + 6, from.y + from.h + 12, edge.label);
      done.add(edge.source);
    } else {
      const before = taken.get(edge.target) || 0;
      taken.set(edge.target, before + 1);
      shape(way.end.x + 6, way.end.y - 8 - 11 * (before % 4), edge.label);
    }
  }
  return names;
}

function drawItem(stage, item, place, inner, x, y) {
  const opens = stage.boxes.has(item.id);
  const part = DATA.total.ns ? Math.min(1, costOf(item) / DATA.total.ns) : 0;
  const round = ["input", "output", "value"].includes(item.kind) ? place.h / 2 : 7;
  const group = svg("g", {
    class: `item ${item.kind}${inner ? " open" : ""}${part > 0.42 ? " hot" : ""}`,
    transform: `translate(${place.x} ${place.y})`,
    style: `--part:${(100 * Math.sqrt(part)).toFixed(1)}%`,
    "data-id": item.id,
    onclick: (event) => clickItem(event, item),
    ondblclick: (event) => openItem(event, item),
  });
  group.append(svg("title", {}, titleOf(item)), svg("rect", { class: "frame", width: place.w, height: place.h, rx: round }));
  if (item.phase === "backward" || item.phase === "mixed") {
    const half = item.phase === "mixed" ? place.h / 2 : 0;
    group.append(svg("rect", { class: "stripe", x: 0, y: half + 4, width: 4, height: place.h - half - 8, rx: 2 }));
  }
  let left = 12;
  if (opens) {
    group.append(svg("text", { class: "sign", x: 9, y: 18, onclick: (event) => openItem(event, item) }, inner ? "▾" : "▸"));
    left = 24;
  }
  if (item.phase === "backward" && item.number >= 0) group.append(svg("text", { class: "back", x: place.w - 17, y: 17 }, "↩"));
  const small = secondLine(item);
  group.append(svg("text", { x: left, y: place.h < 30 && !inner ? 18.5 : 18 }, cut(item.label, place.w - left - 8, 7)));
  if (inner) {
    const title = small.includes(item.text) ? small : [small, item.text].filter(Boolean).join(" · ");
    const start = left + 10 + widthOf(item.label, 7.4);
    group.append(svg("text", { class: "small", x: start, y: 18 }, cut(title, place.w - start - 20, 6.7)));
    const side = (place.w - inner.w) / 2;
    const inside = drawBox(stage, item.id, inner, x + place.x + side, y + place.y + HEAD);
    inside.setAttribute("transform", `translate(${side} ${HEAD})`);
    group.append(inside);
  } else if (small) {
    group.append(svg("text", { class: "small", x: left, y: 34 }, cut(small, place.w - left - 8, 6.7)));
  }
  const own = DATA.total.ns ? Math.min(1, item.ns / DATA.total.ns) : 0;
  if (own >= 0.005 && !inner) {
    group.append(svg("rect", { class: "bar", x: 7, y: place.h - 4, width: (place.w - 14) * own, height: 2.5, rx: 1 }));
  }
  return group;
}

/** What an item takes; in stages before the passes that is what its line takes. */
function costOf(item) {
  if (item.ns || !["trace", "gradient"].includes(state.stage.key)) return item.ns;
  return item.line >= 0 && item.kind !== "input" && item.kind !== "group" ? DATA.lines[item.line][2] : 0;
}

function titleOf(item) {
  const rows = [[item.label, item.type].filter(Boolean).join(" : "), item.text, item.origin];
  if (item.ns) rows.push(`about ${timeText(item.ns)}`);
  if (item.line >= 0) rows.push(`${lineName(item.line)}  ${lineText(item.line)}`);
  return rows.filter(Boolean).join("\n");
}

// ------------------------------------------------------------------------------------------ moving and zooming

const view = { x: 0, y: 0, k: 1 };

function look() {
  world.setAttribute("transform", `translate(${view.x} ${view.y}) scale(${view.k})`);
}

/** Show all. At first never so small that nobody can read it: then what is on top. */
function fit(all = true) {
  const { width, height } = canvas.getBoundingClientRect();
  const whole = Math.min((width - 60) / Math.max(1, drawn.w), (height - 60) / Math.max(1, drawn.h));
  view.k = Math.min(1.15, Math.max(whole, all ? 0.04 : 0.68));
  view.x = (width - view.k * drawn.w) / 2;
  view.y = Math.max(30, (height - view.k * drawn.h) / 2);
  look();
}

/** Closer or farther, around a point of the canvas. */
function zoom(factor, x, y) {
  const { width, height } = canvas.getBoundingClientRect();
  [x, y] = [x ?? width / 2, y ?? height / 2];
  const k = Math.min(4, Math.max(0.04, view.k * factor));
  view.x = x - ((x - view.x) * k) / view.k;
  view.y = y - ((y - view.y) * k) / view.k;
  view.k = k;
  look();
}

/** Move so that an item is in sight. */
function bring(id, always = false) {
  const place = drawn.places.get(id);
  if (!place) return;
  const { width, height } = canvas.getBoundingClientRect();
  const [left, top] = [view.x + view.k * place.x, view.y + view.k * place.y];
  const [w, h] = [view.k * place.w, view.k * place.h];
  const seen = left >= 10 && top >= 10 && left + w <= width - 10 && top + h <= height - 10;
  if (seen && !always) return;
  if (view.k < 0.5) view.k = 0.8;
  view.x = width / 2 - view.k * (place.x + place.w / 2);
  view.y = Math.min(height / 2 - view.k * (place.y + Math.min(place.h, height / view.k) / 2), height / 2);
  look();
}

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = canvas.getBoundingClientRect();
  if (event.shiftKey) {
    view.x -= event.deltaY || event.deltaX;
    look();
  } else {
    zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.clientX - box.left, event.clientY - box.top);
  }
}, { passive: false });

const drag = { on: false, moved: false, x: 0, y: 0 };
canvas.addEventListener("pointerdown", (event) => {
  Object.assign(drag, { on: true, moved: false, x: event.clientX, y: event.clientY });
});
window.addEventListener("pointermove", (event) => {
  if (!drag.on) return;
  const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
  if (!drag.moved && Math.hypot(dx, dy) < 4) return;
  drag.moved = true;
  canvas.classList.add("moving");
  view.x += dx;
  view.y += dy;
  [drag.x, drag.y] = [event.clientX, event.clientY];
  look();
});
window.addEventListener("pointerup", () => {
  drag.on = false;
  canvas.classList.remove("moving");
});
