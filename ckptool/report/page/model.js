"use strict";
// What the page knows and what of it is shown: the tree of keys, the sums of each branch, filter and order.
// Names are hostile: they were made visible before they came here, and reach the document only as textContent.

const DATA = JSON.parse(document.getElementById("data").textContent);
const ROWS = DATA.rows; // [key, status, a value for each column]
const COLUMNS = DATA.columns; // {title, kind, sum: "add" | "max" | "worst" | undefined, ...}: ckptool/render/html.py says what each is
const FIRST = 2; // where the columns begin in a row
const DEEPEST = 32; // levels; what is deeper stays one name

const state = { query: "", off: new Set(), sort: null, down: true, flat: false, open: new Set(), here: 0 };

// ------------------------------------------------------------------ numbers as people read them

const number = (value) => (value === "inf" ? Infinity : value === "-inf" ? -Infinity : value === "nan" ? NaN : value);

function scaled(value, units, digits) {
  if (Math.abs(value) < 1000) return `${value}${units[0]}`;
  let step = 0;
  while (step < units.length - 1 && (step === 0 || Math.abs(value) >= 999.5)) { value /= 1000; step += 1; }
  return `${Math.abs(value) < 99.995 ? value.toFixed(digits) : value.toFixed(0)}${units[step]}`;
}
const count = (value) => scaled(value, ["", "k", "M", "B", "T", "Q"], 2);
const bytes = (value) => scaled(value, [" B", " kB", " MB", " GB", " TB", " PB"], 2);
const grouped = (value) => value.toLocaleString("en-US");

function power(value, digits) {
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return String(value).replace("Infinity", "inf").toLowerCase();
  const [head, tail] = value.toExponential(digits).split("e");
  return `${head}e${tail[0]}${tail.slice(1).padStart(2, "0")}`;
}
const real = (value) => power(value, 1);
const isPlain = (value) => Number.isInteger(value) && Math.abs(value) < 1e6;
const signed = (value) => (isPlain(value) ? String(value) : (value > 0 ? "+" : "") + power(value, 1));
const relative = (value) => (value >= 0.095 && value < 1000 ? String(Number(value.toPrecision(2))) : power(value, 0));

const FORMATS = { count, bytes, share: bytes, ratio: count, real, signed, rel: relative, small: relative, tensors: grouped, whole: grouped };

function text(column, value) {
  if (value === null || value === undefined) return "";
  if (column.kind === "verdict") return value[0];
  const format = FORMATS[column.kind];
  if (!format) return String(value);
  const known = number(value);
  return typeof known === "number" ? format(known) : String(value);
}

// ------------------------------------------------------------------ the tree

function branch(name, parent) {
  return { name, parent, children: [], index: new Map(), row: -1, sums: [], tally: null, size: 0, shown: 0 };
}

function grow() {
  const root = branch("", null);
  ROWS.forEach((row, at) => {
    let parts = row[0].split(DATA.separator);
    if (parts.length > DEEPEST) parts = [...parts.slice(0, DEEPEST - 1), parts.slice(DEEPEST - 1).join(DATA.separator)];
    let node = root;
    for (const part of parts.slice(0, -1)) {
      let next = node.index.get(part);
      if (!next) { next = branch(part, node); node.index.set(part, next); node.children.push(next); }
      node = next;
    }
    const leaf = branch(parts[parts.length - 1], node);
    leaf.row = at;
    node.children.push(leaf);
  });
  root.children = root.children.map(joined);
  settle(root);
  return root;
}

// A branch with a single child is one row with it: conv1.weight.
function joined(node) {
  while (node.children.length === 1) {
    const child = node.children[0];
    child.name = node.name + DATA.separator + child.name;
    child.parent = node.parent;
    node = child;
  }
  node.children = node.children.map(joined);
  node.children.forEach((child) => { child.parent = node; });
  return node;
}

function settle(node) {
  node.tally = new Array(DATA.statuses.length).fill(0);
  node.index = null;
  if (node.row >= 0) {
    const row = ROWS[node.row];
    node.size = 1;
    node.tally[row[1]] = 1;
    node.sums = COLUMNS.map((column, at) => row[FIRST + at]);
    return;
  }
  for (const child of node.children) {
    settle(child);
    node.size += child.size;
    child.tally.forEach((many, at) => { node.tally[at] += many; });
  }
  node.sums = COLUMNS.map((column, at) => summed(column, node.children.map((child) => child.sums[at])));
}

function summed(column, values) {
  if (column.sum === "worst") return worst(values);
  if (!column.sum) return null;
  let total = null;
  for (const value of values) {
    const known = number(value);
    if (typeof known !== "number" || Number.isNaN(known)) continue;
    total = total === null ? known : column.sum === "add" ? total + known : Math.max(total, known);
  }
  return total;
}

// [text, status] of the cells below: how many files of a folder have it, in the gravest status of them.
function worst(values) {
  const found = values.filter((value) => value && value[2]);
  if (!found.length) return values.find((value) => value && value[0] === "ok") || ["-", "dim", 0];
  const gravest = found.reduce((one, other) => (other[3] < one[3] ? other : one));
  const many = found.reduce((total, value) => total + value[2], 0);
  return [String(many), gravest[1], many, gravest[3]];
}

const ROOT = grow();
const LEAVES = [];
(function collect(node) {
  if (node.row >= 0) LEAVES[node.row] = node;
  node.children.forEach(collect);
})(ROOT);

// ------------------------------------------------------------------ what is shown

// Every word must occur; * stands for anything, ^ for the beginning of a key.
function words(query) {
  return query.toLowerCase().split(/\s+/).filter(Boolean).map((word) => word.split("*").filter(Boolean));
}

function occurs(pieces, lower) {
  let from = 0;
  for (const piece of pieces) {
    if (piece[0] === "^") {
      if (!lower.startsWith(piece.slice(1))) return false;
      from = piece.length - 1;
      continue;
    }
    const at = lower.indexOf(piece, from);
    if (at < 0) return false;
    from = at + piece.length;
  }
  return true;
}

function matches(row, asked) {
  if (state.off.has(row[1])) return false;
  if (!asked.length) return true;
  const lower = DATA.searched.map((at) => row[at]).join(" ").toLowerCase();
  return asked.every((pieces) => occurs(pieces, lower));
}

function sieve() {
  const asked = words(state.query);
  let total = 0;
  (function visit(node) {
    if (node.row >= 0) node.shown = matches(ROWS[node.row], asked) ? 1 : 0;
    else { node.shown = 0; for (const child of node.children) { visit(child); node.shown += child.shown; } }
  })(ROOT);
  total = ROOT.shown;
  return total;
}

const collator = new Intl.Collator("en", { numeric: true });

function ordered(nodes) {
  const sort = state.sort;
  if (sort === null) return nodes;
  const sign = state.down ? -1 : 1;
  const value = (node) => (sort === "key" ? (state.flat ? ROWS[node.row][0] : node.name) : sort === "status" ? standing(node) : cellValue(node, sort));
  const pairs = nodes.map((node) => [value(node), node]);
  pairs.sort(([one], [other]) => {
    const empty = blank(one) - blank(other);
    if (empty) return empty; // what has no value comes last whichever way
    return sign * (typeof one === "number" && typeof other === "number" ? one - other : collator.compare(String(one), String(other)));
  });
  return pairs.map(([, node]) => node);
}

const known = (value) => value !== null && value !== undefined;
const blank = (value) => (value === null || value === undefined || value === "" || Number.isNaN(value) ? 1 : 0);
const standing = (node) => node.tally.findIndex((many) => many > 0);

function cellValue(node, at) {
  const column = COLUMNS[at];
  if (column.kind === "tensors") return node.size;
  const value = node.sums[at];
  if (column.kind === "verdict") return value && value[2] ? value[2] : null;
  if (column.kind === "hist") return null;
  if (column.kind === "ratio") return known(value) ? value / node.sums[column.of] : null;
  return number(value);
}

// The rows from the top down: [node, rails]; rails say which line of the tree each level draws.
function visible() {
  if (state.flat) return ordered(LEAVES.filter((leaf) => leaf.shown)).map((leaf) => [leaf, ""]);
  const list = [];
  (function walk(nodes, above, top) {
    const children = ordered(nodes.filter((node) => node.shown));
    children.forEach((node, at) => {
      const last = at === children.length - 1;
      list.push([node, top ? "" : above + (last ? "l" : "t")]);
      if (node.row < 0 && isOpen(node)) walk(node.children, top ? "" : above + (last ? " " : "v"), false);
    });
  })(ROOT.children, "", true);
  return list;
}

const isOpen = (node) => node.row < 0 && (state.query.trim() !== "" || state.open.has(node));

function setAll(open) {
  state.open.clear();
  if (!open) return;
  (function visit(node) {
    if (node.row < 0) { state.open.add(node); node.children.forEach(visit); }
  })(ROOT);
}

// As many levels as fit a screen.
function openSome(most) {
  let level = ROOT.children;
  let rows = level.length;
  for (;;) {
    const next = level.flatMap((node) => node.children);
    if (!next.length || rows + next.length > most) break;
    level.forEach((node) => { if (node.row < 0) state.open.add(node); });
    rows += next.length;
    level = next;
  }
  if (ROOT.children.length === 1) state.open.add(ROOT.children[0]);
}

function fullKey(node) {
  if (node.row >= 0) return ROWS[node.row][0];
  const names = [];
  for (let one = node; one.parent; one = one.parent) names.unshift(one.name);
  return names.join(DATA.separator);
}
