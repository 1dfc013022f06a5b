// Where everything stands. Python chose rows and the order in them; sizes are known only here, since a box that
// is open is as large as what is in it.

const GAP = 26; // between neighbours of a row
const FALL = 52; // between rows
const HEAD = 30; // the title of an open box
const ROOM = 18; // around what is in it
const POINT = 14; // the width that an edge takes in a row

/** About as wide as a text is. */
const widthOf = (text, size) => [...text].length * size;

/** A text cut to a width. */
function cut(text, width, size) {
  const most = Math.floor(width / size);
  return text.length <= most ? text : `${text.slice(0, Math.max(1, most - 1))}…`;
}

/** The second line of a closed box. */
function secondLine(item) {
  if (item.kind === "group" || item.kind === "body") return item.text;
  if (["kernel", "sweep", "product", "assembly", "loop", "choice"].includes(item.kind) && item.number < 0) {
    return item.type;
  }
  const number = item.number < 0 ? "" : `%${item.number}`;
  return [number, item.text].filter(Boolean).join("  ");
}

/** The size of a closed box. */
function closedSize(stage, item) {
  const small = secondLine(item);
  const sign = item.phase === "backward" && item.number >= 0 ? 18 : 0;
  const left = stage.boxes.has(item.id) ? 24 : 12;
  const width = left + 12 + Math.max(widthOf(item.label, 7.6) + sign, Math.min(widthOf(small, 6.7), 170));
  return { w: Math.max(70, Math.round(width)), h: small ? 42 : 28 };
}

/** Width, height and places of all that is in a box. */
function placeBox(stage, id) {
  const box = stage.boxes.get(id);
  const sizes = new Map();
  const inner = new Map(); // of open boxes: their own places
  const entries = []; // [column, row, number]
  const heights = box.rows.map(() => 0);
  box.rows.forEach((row, at) => {
    for (let i = 0; i < row.length; i += 2) {
      const number = row[i + 1];
      entries.push([row[i], at, number]);
      if (number < 0) continue;
      let size = closedSize(stage, stage.items[number]);
      if (stage.open.has(number) && stage.boxes.has(number)) {
        const own = placeBox(stage, number);
        inner.set(number, own);
        size = { w: Math.max(own.w + 2 * ROOM, size.w), h: own.h + HEAD + ROOM };
      }
      sizes.set(number, size);
      heights[at] = Math.max(heights[at], size.h);
    }
  });
  const { centres, width } = placeColumns(entries, sizes, box.rows.length);
  const tops = [];
  let y = 0;
  for (const height of heights) {
    tops.push(y);
    y += height + FALL;
  }
  const places = new Map();
  for (const [, at, number] of entries) {
    const size = sizes.get(number) || { w: 0, h: heights[at] };
    places.set(number, {
      x: centres.get(number) - size.w / 2,
      y: tops[at] + (heights[at] - size.h) / 2,
      w: size.w,
      h: size.h,
      top: tops[at],
      bottom: tops[at] + heights[at],
    });
  }
  return { w: width, h: Math.max(0, y - FALL), places, inner };
}

/**
 * Centres by column: all that the layout put into one column stays in one line, and is as near to the column on
 * its left as sizes allow.
 */
function placeColumns(entries, sizes, rows) {
  const columns = new Map();
  for (const entry of entries) push(columns, entry[0], entry);
  const right = new Array(rows).fill(0); // how far each row is taken
  const used = new Array(rows).fill(false);
  const centres = new Map();
  let width = 0;
  let before = null;
  for (const column of [...columns.keys()].sort((a, b) => a - b)) {
    let at = before === null ? 0 : before.at + Math.min(1, column - before.column) * 34;
    for (const [, row, number] of columns.get(column)) {
      const half = (sizes.get(number)?.w ?? POINT) / 2;
      at = Math.max(at, right[row] + half + (used[row] ? GAP : 0));
    }
    for (const [, row, number] of columns.get(column)) {
      const half = (sizes.get(number)?.w ?? POINT) / 2;
      right[row] = at + half;
      used[row] = true;
      centres.set(number, at);
      width = Math.max(width, at + half);
    }
    before = { at, column };
  }
  return { centres, width };
}

/** Where edges end at the top of each box: side by side, in the order in which they come. */
function ports(box, places) {
  const coming = new Map();
  for (const edge of box.edges) if (edge.points) push(coming, edge.target, edge);
  const found = new Map();
  for (const [target, edges] of coming) {
    const place = places.get(target);
    const from = (edge) => {
      const last = places.get(edge.points.length ? edge.points[edge.points.length - 1] : edge.source);
      return last.x + last.w / 2;
    };
    edges.sort((a, b) => from(a) - from(b));
    const spread = Math.min(22, (place.w - 24) / Math.max(1, edges.length - 1));
    edges.forEach((edge, i) => {
      const shift = (i - (edges.length - 1) / 2) * spread;
      found.set(edge, place.x + place.w / 2 + shift);
    });
  }
  return found;
}

/** The way of an edge: down from its source, straight through rows, to its port. */
function edgePath(edge, places, port) {
  const from = places.get(edge.source);
  const to = places.get(edge.target);
  const upward = to.top < from.top;
  let x = from.x + from.w / 2;
  let y = upward ? from.y : from.y + from.h;
  const end = { x: upward ? to.x + to.w / 2 : port, y: upward ? to.y + to.h : to.y };
  let path = `M${x} ${y}`;
  const curve = (nextX, nextY) => {
    const middle = (y + nextY) / 2;
    path += `C${x} ${middle} ${nextX} ${middle} ${nextX} ${nextY}`;
    [x, y] = [nextX, nextY];
  };
  for (const point of edge.points) {
    const place = places.get(point);
    const [near, far] = upward ? [place.bottom, place.top] : [place.top, place.bottom];
    curve(place.x, near);
    path += `V${far}`;
    y = far;
  }
  curve(end.x, end.y);
  const tip = upward ? 6 : -6;
  const head = `M${end.x - 3.4} ${end.y + tip}L${end.x} ${end.y}L${end.x + 3.4} ${end.y + tip}Z`;
  return { path, head, end, upward };
}
