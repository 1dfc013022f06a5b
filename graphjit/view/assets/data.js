// What the page shows, read from the JSON beside this script, and small helpers that every part uses.

const DATA = JSON.parse(document.getElementById("data").textContent);
const TEXTS = DATA.strings;
const TOP = -1; // the number of what is in no box

/** One row of a stage as an object; what is missing at its end is empty, and lines and numbers count from 1. */
function readItem(row, id) {
  return {
    id,
    label: TEXTS[row[0]],
    kind: TEXTS[row[1]],
    parent: row[2],
    type: TEXTS[row[3] ?? 0],
    line: (row[4] ?? 0) - 1,
    args: row[5] || [],
    number: (row[6] ?? 0) - 1,
    text: TEXTS[row[7] ?? 0],
    origin: TEXTS[row[8] ?? 0],
    phase: TEXTS[row[9] ?? 0],
    ns: row[10] ?? 0,
    answers: row[11] || [],
    hidden: Boolean(row[12]),
    facts: (row[13] || []).map(([name, value]) => [TEXTS[name], TEXTS[value]]),
  };
}

/** One edge of a box. Its points are places in rows that it passes; null says that it is not drawn. */
function readEdge(row) {
  return {
    source: row[0],
    target: row[1],
    label: TEXTS[row[2]],
    points: row[3] === 0 ? null : row[3],
    why: TEXTS[row[4] ?? 0],
    labels: (row[5] || []).map((number) => TEXTS[number]),
  };
}

/** A stage with its items and boxes as objects, made when it is shown first. */
function readStage(raw) {
  const items = raw.items.map(readItem);
  const users = new Map(); // who reads an item
  const answered = new Map(); // who answers it on the way back
  for (const item of items) {
    for (const arg of item.args) if (!users.get(arg)?.includes(item.id)) push(users, arg, item.id);
    for (const other of item.answers) push(answered, other, item.id);
  }
  const boxes = new Map();
  for (const [key, box] of Object.entries(raw.boxes)) {
    boxes.set(Number(key), { rows: box.rows, edges: box.edges.map(readEdge) });
  }
  return { key: raw.key, title: raw.title, note: raw.note, items, users, answered, boxes, open: new Set() };
}

function push(map, key, value) {
  if (map.has(key)) map.get(key).push(value);
  else map.set(key, [value]);
}

/** An element of HTML: el("a", {class: "x", onclick}, "text", child, ...). Texts never become markup. */
function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

const SPACE = document.getElementById("graph").namespaceURI;

/** An element of SVG. */
function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SPACE, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A number with a prefix: 12 800 -> "12.8 k". */
function short(number, units) {
  let at = 0;
  while (Math.abs(number) >= 999.5 && at < units.length - 1) {
    number /= 1000;
    at += 1;
  }
  const digits = at === 0 || number >= 99.95 ? 0 : number >= 9.995 ? 1 : 2;
  return `${Number(number.toFixed(digits))} ${units[at]}`;
}

const bytesText = (number) => short(number, ["B", "kB", "MB", "GB", "TB"]);
const timeText = (number) => short(number, ["ns", "us", "ms", "s"]);
const countText = (number) => short(number, ["", "k", "M", "G", "T"]).trim();
const exact = (number) => number.toLocaleString("en-US");

/** A share as people read it. */
function shareText(part, whole) {
  if (!whole || part <= 0) return "";
  const percent = (100 * part) / whole;
  return percent < 1 ? "<1 %" : `${Math.round(percent)} %`;
}

/** The name of a line: follow.py:10. */
function lineName(line) {
  const [file, number] = DATA.lines[line];
  return `${DATA.files[file].name}:${number}`;
}

/** The text of a line. */
function lineText(line) {
  const [file, number] = DATA.lines[line];
  return (DATA.files[file].lines.find((row) => row[0] === number) || ["", ""])[1].trim();
}
