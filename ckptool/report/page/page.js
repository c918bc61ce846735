"use strict";
// What stands around the table: search, filters, findings, the details of a row, light and dark.

const search = document.getElementById("search");
const panel = document.getElementById("panel");
const FINDINGS = DATA.findings || [];
const AT_ONCE = 100; // findings drawn before one asks for more
const DETAILS = 12; // lines of a finding before one asks for more

// ------------------------------------------------------------------ filters

function chips() {
  const counts = DATA.chips === "findings"
    ? DATA.levels.map((level, at) => [level, at, FINDINGS.filter((one) => one.level === at).length])
    : DATA.statuses.map((status, at) => [status, at, ROOT.tally[at]]);
  const known = counts.filter(([, , many]) => many);
  if (known.length < 2 && DATA.chips !== "findings") return;
  for (const [kind, at, many] of known) {
    const chip = make("button");
    chip.type = "button";
    chip.setAttribute("aria-pressed", "true");
    const plural = DATA.chips === "findings" && many > 1 ? "s" : "";
    chip.append(make("span", kind.style, kind.symbol), ` ${grouped(many)} ${kind.label}${plural}`);
    chip.addEventListener("click", () => {
      if (state.off.has(at)) state.off.delete(at);
      else state.off.add(at);
      chip.setAttribute("aria-pressed", String(!state.off.has(at)));
      changed();
    });
    document.getElementById("chips").append(chip);
  }
}

function changed() {
  const total = sieve();
  const noun = total === 1 ? DATA.noun : `${DATA.noun}s`;
  document.getElementById("shown").textContent =
    total === ROWS.length ? `${grouped(total)} ${noun}` : `${grouped(total)} of ${grouped(ROWS.length)} ${DATA.noun}s`;
  document.getElementById("nothing").hidden = total > 0 || ROWS.length === 0;
  drawFindings(AT_ONCE);
  refresh();
}

search.addEventListener("input", () => { state.query = search.value; state.here = 0; changed(); });

// A bar of a chart finds its tensors in the table.
for (const bar of document.querySelectorAll(".chart [data-key]")) {
  bar.addEventListener("click", () => {
    const key = bar.dataset.key;
    search.value = `^${key}${ROWS.some((row) => row[0] === key) ? "" : DATA.separator}`;
    search.dispatchEvent(new Event("input"));
    grid.scrollIntoView({ block: "nearest" });
  });
}

const press = (id, action) => document.getElementById(id).addEventListener("click", action);
press("unfold", () => { setAll(true); refresh(); });
press("fold", () => { setAll(false); refresh(); });
press("flat", () => {
  state.flat = !state.flat;
  document.getElementById("flat").setAttribute("aria-pressed", String(state.flat));
  state.here = 0;
  layout();
});

const THEMES = { auto: "light dark", light: "light", dark: "dark" };
let theme = "auto";
press("theme", () => {
  const names = Object.keys(THEMES);
  theme = names[(names.indexOf(theme) + 1) % names.length];
  document.documentElement.style.colorScheme = THEMES[theme];
  document.getElementById("theme").textContent = `theme: ${theme}`;
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    if (!panel.hidden) closePanel();
    else if (search.value) { search.value = ""; search.dispatchEvent(new Event("input")); }
    else grid.focus({ preventScroll: true });
    return;
  }
  if (event.target === search) {
    if (event.key === "ArrowDown" || event.key === "Enter") { grid.focus({ preventScroll: true }); event.preventDefault(); }
    return;
  }
  const keys = { "/": () => search.focus(), f: () => click("flat"), e: () => click("unfold"), c: () => click("fold"), t: () => click("theme") };
  if (event.key in keys) { keys[event.key](); event.preventDefault(); }
});
const click = (id) => document.getElementById(id).click();

// ------------------------------------------------------------------ findings

function drawFindings(most) {
  const section = document.getElementById("findings");
  if (!FINDINGS.length) return;
  const asked = words(state.query);
  const found = FINDINGS.filter((one) => {
    if (state.off.has(one.level)) return false;
    if (!asked.length) return true;
    const lower = [one.rule, one.file, one.message, ...one.details].join(" ").toLowerCase();
    return asked.every((pieces) => occurs(pieces, lower));
  });
  section.hidden = !found.length;
  const cards = found.slice(0, most).map((one) => card(one));
  if (found.length > most) {
    const more = make("button", "", `${grouped(found.length - most)} more findings`);
    more.type = "button";
    more.addEventListener("click", () => drawFindings(most * 10));
    cards.push(more);
  }
  section.replaceChildren(...cards);
}

function card(one) {
  const level = DATA.levels[one.level];
  const element = make("article", `finding ${level.style}`);
  const head = make("h2");
  head.append(make("span", level.style, `${level.label}[${one.rule}]`), ": ", ...highlighted(one.message));
  element.append(head);
  const file = make("p", "", "--> ");
  const name = make("b");
  name.append(...highlighted(one.file));
  file.append(name);
  element.append(file);
  if (one.details.length) {
    const lines = make("pre", "", one.details.slice(0, DETAILS).join("\n"));
    element.append(lines);
    if (one.details.length > DETAILS) {
      const more = make("button", "", `${grouped(one.details.length - DETAILS)} more`);
      more.type = "button";
      more.addEventListener("click", () => { lines.textContent = one.details.join("\n"); more.remove(); });
      element.append(more);
    }
  }
  for (const [title, value] of [["policy", one.policy], ["help", one.help]]) {
    if (!value) continue;
    const line = make("p", "", `= ${title}: `);
    line.append(make("b", "", value));
    element.append(line);
  }
  return element;
}

// ------------------------------------------------------------------ details of a row

function showPanel(node) {
  const close = make("button", "close", "close");
  close.type = "button";
  close.addEventListener("click", closePanel);
  const key = fullKey(node);
  const parts = [close, make("h2", "", node.row < 0 ? `${key}${DATA.separator}*` : key)];
  const facts = make("dl");
  const fact = (name, value, className) => {
    if (value === "" || value === null || value === undefined) return;
    facts.append(make("dt", "", name), make("dd", className, value));
  };
  DATA.statuses.forEach((status, at) => {
    if (DATA.statuses.length < 2 || !node.tally[at]) return;
    fact(node.row < 0 ? grouped(node.tally[at]) : "status", `${status.symbol} ${status.label}`, status.style);
  });
  let bins = null;
  COLUMNS.forEach((column, at) => {
    const value = node.sums[at];
    if (column.kind === "hist") bins = value;
    else if (column.kind === "tensors") fact(`${DATA.noun}s`, node.row < 0 ? grouped(node.size) : "");
    else if (column.kind === "verdict") fact(column.title, value ? value[0] : "", value ? value[1] : "");
    else fact(column.title, long(column, value));
  });
  if (bins) {
    const [low, high] = axis(node);
    const line = make("div", "axis");
    line.append(make("span", "", low), make("span", "", "0"), make("span", "", high));
    parts.push(histogram(bins, 120), line);
  }
  parts.push(facts);
  if (DATA.chips === "findings") parts.push(...FINDINGS.filter((one) => one.file === key).slice(0, AT_ONCE).map(card));
  panel.replaceChildren(...parts);
  panel.hidden = false;
}

// In full where the table rounds.
function long(column, value) {
  const known = number(value);
  if (typeof known !== "number") return text(column, value);
  if (column.kind === "count") return grouped(known);
  if (column.kind === "bytes") return known < 1000 ? bytes(known) : `${bytes(known)} (${grouped(known)} B)`;
  if (column.kind === "ratio") return grouped(value);
  if (column.kind === "share") return percent(known, column.total);
  return ["real", "signed", "rel", "small"].includes(column.kind) ? String(Number(known.toPrecision(6))) : text(column, value);
}

// The ends of a histogram: plus and minus the largest magnitude.
function axis(node) {
  const find = (title) => Math.abs(number(node.sums[COLUMNS.findIndex((column) => column.title === title)]) || 0);
  const most = Math.max(find("min"), find("max"));
  return [signed(-most), signed(most)];
}

function closePanel() {
  panel.hidden = true;
  grid.focus({ preventScroll: true });
}

chips();
openSome(Math.max(24, Math.floor(window.innerHeight / HEIGHT)));
sieve();
layout();
changed();
