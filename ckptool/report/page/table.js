"use strict";
// The table: only the rows on the screen are in the document, so a hundred thousand cost no more than a hundred.

const grid = document.getElementById("grid");
const titles = document.getElementById("titles");
const body = document.getElementById("rows");
const HEIGHT = 26; // of a row, as in the style
const AHEAD = 12; // rows drawn beyond the edges

let list = []; // what visible() gave
let columns = []; // numbers of the columns that fit
let touched = false; // whether someone has moved about: until then no row stands out
let drawn = ""; // which rows are in the document

function make(tag, className, content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (content !== undefined) element.textContent = content;
  return element;
}

// ------------------------------------------------------------------ columns

const widths = COLUMNS.map((column, at) => {
  if (column.kind === "hist") return 24;
  if (column.kind === "share" || column.kind === "ratio") return 17;
  if (column.kind === "rel") return 17;
  let most = column.title.length + 2;
  const step = Math.max(1, Math.floor(ROWS.length / 3000));
  for (let row = 0; row < ROWS.length; row += step) most = Math.max(most, text(column, ROWS[row][FIRST + at]).length);
  if (column.sum) most = Math.max(most, text(column, ROOT.sums[at]).length);
  if (column.kind === "tensors") most = Math.max(most, grouped(ROWS.length).length);
  return Math.min(most, column.widest || 34);
});

function measure() {
  const probe = make("span", "", "0".repeat(100));
  probe.style.position = "absolute";
  body.append(probe);
  const wide = probe.getBoundingClientRect().width / 100 || 8;
  probe.remove();
  return wide;
}

let character = 8;

// From the last column on, those that leave too little for the key have no place; the details have them all.
function layout() {
  character = measure();
  const room = grid.clientWidth / character - 2;
  const marks = DATA.statuses.length > 1 ? 6 : 0;
  const least = Math.min(34, longest(), room * 0.5);
  columns = COLUMNS.map((_, at) => at).filter((at) => !COLUMNS[at].panel);
  const taken = () => columns.reduce((total, at) => total + widths[at] + 2, marks);
  // how many there are in a branch is the first that one can do without
  if (room - taken() < least) columns = columns.filter((at) => COLUMNS[at].kind !== "tensors");
  while (columns.length && room - taken() < least) columns.pop();
  keyRoom = Math.floor(Math.min(room - taken(), Math.max(least, longest())));
  const tracks = [marks ? "4ch" : "", `${keyRoom}ch`, ...columns.map((at) => `${widths[at]}ch`), "1fr"];
  grid.style.setProperty("--columns", tracks.filter(Boolean).join(" "));
  grid.style.setProperty("--under", `${document.getElementById("bar").offsetHeight}px`);
  heading();
  refresh();
}

let keyRoom = 40;

const indent = (level) => Math.ceil((level * 20 + (state.flat ? 2 : 19)) / character);

// Characters of the longest key as it stands in the table, its branches included.
function longest() {
  let most = 0;
  if (state.flat) ROWS.forEach((row) => { most = Math.max(most, row[0].length); });
  else (function visit(node, level) {
    most = Math.max(most, node.name.length + indent(level));
    node.children.forEach((child) => visit(child, level + 1));
  })(ROOT, -1);
  return most + 1;
}

function heading() {
  const cells = [];
  if (DATA.statuses.length > 1) cells.push(title("status", "", ""));
  cells.push(title("key", DATA.key, ""));
  for (const at of columns) cells.push(title(at, COLUMNS[at].title, isRight(COLUMNS[at]) ? "right" : ""));
  titles.replaceChildren(...cells);
}

const isRight = (column) => !["text", "spec", "hist", "verdict"].includes(column.kind);

// As on a terminal: wide floats, floats of 16 bits, smaller ones and integers are told apart.
const specStyle = (spec) => (/^(i|u|bool)\d*\[/.test(spec) ? "dim cyan" : /^b?f16\[/.test(spec) ? "blue" : /^[fc](32|64|128)\[/.test(spec) ? "cyan" : "magenta");

function title(sort, name, className) {
  const cell = make("div", className);
  cell.setAttribute("role", "columnheader");
  const button = make("button", "", name || "±");
  button.type = "button";
  button.title = `sort by ${name || "what happened"}`;
  if (state.sort === sort) {
    cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    button.textContent = `${button.textContent} ${state.down ? "↓" : "↑"}`;
  }
  button.addEventListener("click", () => {
    // first the larger ones, or a before z; then the other way; then as it was
    const first = typeof sort === "number" && COLUMNS[sort].kind !== "text";
    if (state.sort !== sort) { state.sort = sort; state.down = first; }
    else if (state.down === first) state.down = !first;
    else state.sort = null;
    heading();
    refresh();
  });
  cell.append(button);
  return cell;
}

// ------------------------------------------------------------------ rows

function refresh() {
  list = visible();
  state.here = Math.min(state.here, Math.max(0, list.length - 1));
  body.style.height = `${list.length * HEIGHT}px`;
  grid.setAttribute("aria-rowcount", String(list.length + 1));
  drawn = "";
  draw();
}

function draw() {
  const above = -body.getBoundingClientRect().top;
  const from = Math.max(0, Math.floor(above / HEIGHT) - AHEAD);
  const to = Math.min(list.length, Math.ceil((above + window.innerHeight) / HEIGHT) + AHEAD);
  const now = `${from}-${to}-${state.here}`;
  if (now === drawn) return;
  drawn = now;
  const rows = [];
  for (let at = from; at < to; at += 1) rows.push(rowElement(at));
  body.replaceChildren(...rows);
  if (list.length) grid.setAttribute("aria-activedescendant", `row-${state.here}`);
}

function rowElement(at) {
  const [node, rails] = list[at];
  const leaf = node.row >= 0;
  const row = make("div", leaf ? "leaf" : isOpen(node) ? "open" : "");
  row.id = `row-${at}`;
  row.setAttribute("role", "row");
  row.setAttribute("aria-rowindex", String(at + 2));
  row.setAttribute("aria-level", String(rails.length + 1));
  if (!leaf) row.setAttribute("aria-expanded", String(isOpen(node)));
  if (at === state.here && touched) { row.classList.add("here"); row.setAttribute("aria-selected", "true"); }
  row.style.top = `${at * HEIGHT}px`;
  if (DATA.statuses.length > 1) row.append(mark(node));
  row.append(keyCell(node, rails, leaf));
  for (const column of columns) row.append(cell(COLUMNS[column], node, node.sums[column]));
  return row;
}

function gridcell(className, content) {
  const element = make("div", className, content);
  element.setAttribute("role", "gridcell");
  return element;
}

// The symbol of what happened, or for a branch of several things a bar of their shares.
function mark(node) {
  const kinds = DATA.statuses.filter((_, at) => node.tally[at]);
  if (kinds.length === 1) return gridcell(kinds[0].style, kinds[0].symbol);
  const cell = gridcell("");
  const tally = make("span", "tally");
  DATA.statuses.forEach((status, at) => {
    if (!node.tally[at]) return;
    const part = make("i", status.style);
    part.style.flexGrow = String(node.tally[at]);
    tally.append(part);
  });
  cell.title = DATA.statuses.map((status, at) => [node.tally[at], status]).filter(([many]) => many)
    .map(([many, status]) => `${status.symbol} ${grouped(many)} ${status.label}`).join("  ");
  cell.append(tally);
  return cell;
}

function keyCell(node, rails, leaf) {
  const cell = gridcell("key");
  for (const rail of rails) cell.append(make("span", `rail ${rail.trim()}`));
  if (!state.flat) cell.append(make("span", "twist"));
  const name = state.flat ? ROWS[node.row][0] : node.name;
  const room = keyRoom - indent(rails.length);
  const shown = middle(name, Math.max(10, room));
  const label = make(leaf ? "span" : "b");
  label.append(...highlighted(shown));
  if (shown !== name) label.title = name;
  cell.append(label);
  return cell;
}

function middle(name, room) {
  if (name.length <= room) return name;
  const tail = Math.floor((room - 1) / 2);
  return `${name.slice(0, room - 1 - tail)}…${name.slice(name.length - tail)}`;
}

function highlighted(name) {
  const pieces = words(state.query).flat().filter((piece) => piece.length > 1 || words(state.query).length === 1);
  const found = pieces.map((piece) => [name.toLowerCase().indexOf(piece), piece.length]).filter(([at]) => at >= 0).sort((a, b) => a[0] - b[0]);
  const parts = [];
  let from = 0;
  for (const [at, length] of found) {
    if (at < from) continue;
    parts.push(name.slice(from, at), make("mark", "", name.slice(at, at + length)));
    from = at + length;
  }
  parts.push(name.slice(from));
  return parts;
}

function cell(column, node, value) {
  if (column.kind === "tensors") return gridcell("right dim", node.row >= 0 ? "" : grouped(node.shown));
  if (column.kind === "hist") return histCell(value);
  if (column.kind === "verdict") return gridcell(value ? value[1] : "dim", value ? value[0] : "");
  const shown = text(column, value);
  if (column.kind === "share" && known(value)) return metered("", column.total ? value / column.total : 0, percent(value, column.total));
  if (column.kind === "ratio") {
    const whole = node.sums[column.of];
    return known(value) && whole ? metered("", value / whole, percent(value, whole)) : gridcell("");
  }
  if (column.kind === "rel" && known(value)) return metered("heat", heat(number(value)), shown);
  const style = column.kind === "spec" && shown ? specStyle(shown) : column.style || "";
  const element = gridcell(`${isRight(column) ? "right" : ""} ${style}`, shown);
  if (column.kind === "text" && shown.length > 20) element.title = shown;
  return element;
}

const percent = (part, whole) => `${(whole ? (100 * part) / whole : 0).toFixed(1)}%`;
// A fixed scale, 1e-5 to 3e-2: the bars of two pages can be compared by eye.
const heat = (value) => (value > 1e-5 ? Math.min(1, Math.log(value / 1e-5) / Math.log(3e-2 / 1e-5)) : 0);

function metered(className, share, shown) {
  const element = gridcell("metered");
  const meter = make("span", `meter ${className}`);
  const bar = make("i");
  bar.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  meter.append(bar);
  element.append(meter, make("span", "", shown));
  return element;
}

function histCell(bins) {
  const element = gridcell("");
  if (bins) element.append(histogram(bins, 20));
  return element;
}

function histogram(bins, height) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", `0 0 ${bins.length * 10} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `histogram: ${bins.join(" ")}`);
  const most = Math.max(...bins, 1);
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", bins.map((many, at) => {
    const tall = many ? Math.max(1, Math.sqrt(many / most) * height) : 0;
    return tall ? `M${at * 10 + 1} ${height}v${-tall}h8v${tall}z` : "";
  }).join(""));
  svg.append(path);
  return svg;
}

let waiting = false;
function later() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}
window.addEventListener("scroll", later, { passive: true });
window.addEventListener("resize", layout);

// ------------------------------------------------------------------ moving about

function goTo(at) {
  if (!list.length) return;
  if (!touched) drawn = "";
  touched = true;
  state.here = Math.max(0, Math.min(list.length - 1, at));
  const top = body.getBoundingClientRect().top + window.scrollY + state.here * HEIGHT;
  const under = document.getElementById("bar").offsetHeight + titles.offsetHeight;
  if (top - under < window.scrollY) window.scrollTo(0, top - under);
  else if (top + 2 * HEIGHT > window.scrollY + window.innerHeight) window.scrollTo(0, top + 2 * HEIGHT - window.innerHeight);
  draw();
}

function toggle(node, open = !state.open.has(node)) {
  if (node.row >= 0) return;
  if (open) state.open.add(node);
  else state.open.delete(node);
  refresh();
}

grid.addEventListener("keydown", (event) => {
  if (event.target !== grid || !list.length || event.ctrlKey || event.metaKey || event.altKey) return;
  const [node, rails] = list[state.here];
  const page = Math.max(1, Math.floor(window.innerHeight / HEIGHT) - 6);
  const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
  if (event.key in moves) goTo(state.here + moves[event.key]);
  else if (event.key === "ArrowRight") { if (isOpen(node)) goTo(state.here + 1); else toggle(node, true); }
  else if (event.key === "ArrowLeft") {
    if (isOpen(node) && state.open.has(node)) toggle(node, false);
    else { let at = state.here; while (at > 0 && list[at][1].length >= rails.length) at -= 1; goTo(at); }
  } else if (event.key === "Enter" || event.key === " ") showPanel(node);
  else return;
  event.preventDefault();
});

body.addEventListener("click", (event) => {
  const row = event.target.closest('[role="row"]');
  if (!row || String(window.getSelection())) return; // who selects text wants to copy it
  const at = Number(row.id.slice(4));
  const node = list[at][0];
  goTo(at);
  if (node.row < 0) toggle(node);
  else showPanel(node);
});
