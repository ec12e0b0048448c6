// The page of one trace: the tree as a treegrid with keys, details of spans on demand, copying. Without it links do all.

const tree = document.querySelector(".dspyserve-tree");
const panel = document.querySelector("#span");
const spans = document.querySelector(".dspyserve-spans");
const dialog = document.querySelector(".dspyserve-keys");
const tools = document.querySelector(".dspyserve-tree-tools");
const filter = document.querySelector("#span-filter");
const rows = tree ? [...tree.tBodies[0].rows] : [];

// Letters that are obeyed instead of shown, as plain_text.py has them: texts that are fetched raw hold them.
const UNSEEN = new RegExp(
  "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u061c\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff" +
    "\\u{e0000}-\\u{e007f}]",
  "gu",
);

export function visible(text) {
  return text.replaceAll("\r\n", "\n").replace(UNSEEN, (letter) => {
    const code = letter.codePointAt(0);
    if (code < 0x20) return String.fromCodePoint(0x2400 + code);
    return code === 0x7f ? "\u2421" : `[U+${code.toString(16).toUpperCase().padStart(4, "0")}]`;
  });
}

// Characters of a text that a page can lay out while somebody waits; of more, the raw view is the place.
const LONGEST = 200_000;

// The tree

const level = (row) => Number(row.dataset.level);
const isOpen = (row) => row.getAttribute("aria-expanded") !== "false";
const parents = new Map();
const names = new Map();
let active = null;
let needle = "";
let typing = 0;

function build() {
  const path = [];
  const siblings = new Map();
  for (const row of rows) {
    path.length = level(row) - 1;
    const parent = path.at(-1) ?? null;
    path.push(row);
    parents.set(row, parent);
    if (!siblings.has(parent)) siblings.set(parent, []);
    siblings.get(parent).push(row);
  }
  tree.setAttribute("role", "treegrid");
  for (const [parent, children] of siblings) {
    parent?.setAttribute("aria-expanded", "true");
    parent?.cells[0].prepend(twist());
    children.forEach((row, index) => {
      row.setAttribute("aria-level", row.dataset.level);
      row.setAttribute("aria-posinset", index + 1);
      row.setAttribute("aria-setsize", children.length);
    });
  }
  for (const row of rows) {
    row.tabIndex = -1;
    names.set(row, row.querySelector(".name").textContent.toLowerCase());
  }
  for (const link of tree.querySelectorAll("tbody a")) link.tabIndex = -1;
  activate(rows.find((row) => row.classList.contains("chosen")) ?? rows[0], { focus: false });
}

function twist() {
  // For pointers alone: keys have the arrows.
  const mark = document.createElement("span");
  mark.className = "dspyserve-twist";
  mark.setAttribute("aria-hidden", "true");
  return mark;
}

function activate(row, { focus = true } = {}) {
  if (!row) return;
  if (active) active.tabIndex = -1;
  active = row;
  row.tabIndex = 0;
  if (focus) {
    row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
  }
}

function expand(row, open) {
  row.setAttribute("aria-expanded", String(open));
  show();
}

function reveal(row) {
  for (let parent = parents.get(row); parent; parent = parents.get(parent)) parent.setAttribute("aria-expanded", "true");
  show();
}

function show() {
  const wanted = new Set();
  if (needle) {
    for (const row of rows.filter(matches)) {
      for (let one = row; one && !wanted.has(one); one = parents.get(one)) wanted.add(one);
    }
  }
  const closed = new Set();
  for (const row of rows) {
    const parent = parents.get(row);
    const isWithin = parent && (closed.has(parent) || !isOpen(parent));
    if (isWithin) closed.add(row);
    const isHidden = needle ? !wanted.has(row) : Boolean(isWithin);
    if (row.hidden !== isHidden) row.hidden = isHidden;
    row.classList.toggle("found", Boolean(needle) && matches(row));
  }
}

const matches = (row) => names.get(row).includes(needle);
const shown = () => rows.filter((row) => !row.hidden);

function step(distance) {
  const list = shown();
  // Whoever has chosen nothing yet begins at the beginning.
  if (!tree.querySelector("tr.chosen") && !tree.contains(document.activeElement)) return go(active);
  const index = list.indexOf(active);
  go(list[index < 0 ? 0 : Math.min(Math.max(index + distance, 0), list.length - 1)]);
}

function nextError() {
  const start = rows.indexOf(active) + 1;
  const row = [...rows.slice(start), ...rows.slice(0, start)].find((one) => one.classList.contains("error"));
  if (!row) return;
  if (needle && !matches(row)) clear();
  reveal(row);
  go(row);
}

function find() {
  clearTimeout(typing);
  needle = filter.value.trim().toLowerCase();
  show();
  const count = rows.filter((row) => row.classList.contains("found")).length;
  tools.querySelector("output").textContent = needle ? `${count} / ${rows.length}` : "";
}

function clear() {
  filter.value = "";
  find();
}

// The details of a span

let loading = null;
let waiting = 0;

function go(row) {
  if (!row) return;
  activate(row);
  // Who runs through the tree does not want every span on the way.
  clearTimeout(waiting);
  waiting = setTimeout(() => choose(row), 120);
}

async function choose(row) {
  const id = row.dataset.span;
  if (panel.querySelector(`.dspyserve-panel`)?.dataset.span === id && row.classList.contains("chosen")) return;
  mark(row);
  const address = new URL(location.href);
  address.searchParams.set("span", id);
  address.searchParams.delete("at");
  address.searchParams.delete("from");
  history.replaceState(null, "", address);
  loading?.abort();
  loading = new AbortController();
  panel.hidden = false;
  panel.setAttribute("aria-busy", "true");
  spans.classList.add("has-span");
  try {
    const url = new URL(`../span/${encodeURIComponent(id)}/`, location.href);
    panel.replaceChildren(await piece(url, loading.signal));
    prepare(panel);
    panel.scrollTop = 0;
    panel.removeAttribute("aria-busy");
  } catch (error) {
    if (error.name !== "AbortError") location.assign(address);
  }
}

function mark(row) {
  for (const other of tree.querySelectorAll("tr.chosen")) {
    other.classList.remove("chosen");
    other.removeAttribute("aria-current");
  }
  row?.classList.add("chosen");
  row?.setAttribute("aria-current", "true");
}

function close() {
  clearTimeout(waiting);
  loading?.abort();
  panel.hidden = true;
  panel.replaceChildren();
  spans.classList.remove("has-span");
  mark(null);
  const address = new URL(location.href);
  for (const name of ["span", "at", "from"]) address.searchParams.delete(name);
  address.hash = "";
  history.replaceState(null, "", address);
  active?.focus({ preventScroll: true });
}

async function piece(url, signal) {
  const response = await fetch(url, { signal, credentials: "same-origin" });
  // An ended session answers with the page to sign in at.
  if (!response.ok || response.redirected) throw new Error(String(response.status));
  const template = document.createElement("template");
  template.innerHTML = await response.text();
  return template.content;
}

// Values

function prepare(root) {
  for (const button of root.querySelectorAll("[data-copy]")) button.hidden = false;
}

async function copy(button) {
  const label = (button.dataset.label ??= button.textContent);
  try {
    const response = await fetch(button.dataset.copy, { credentials: "same-origin" });
    // An ended session answers with the page to sign in at, which is nothing to copy.
    if (!response.ok || response.redirected) throw new Error(String(response.status));
    await navigator.clipboard.writeText(await response.text());
    button.textContent = "✓";
  } catch {
    // Without https there is no clipboard to write to: the text in a tab of its own, then.
    window.open(button.dataset.copy, "_blank", "noopener");
  }
  setTimeout(() => (button.textContent = label), 1500);
}

async function showAll(link) {
  const note = link.closest(".dspyserve-cut");
  const response = await fetch(link.href, { credentials: "same-origin" });
  if (!response.ok || response.redirected) return location.assign(link.href);
  const text = await response.text();
  note.previousElementSibling.textContent = visible(text.slice(0, LONGEST));
  if (text.length <= LONGEST) return note.remove();
  note.querySelector("span").textContent = LONGEST;
  link.removeAttribute("data-all");
  link.textContent = link.dataset.raw;
}

async function showMore(link) {
  const place = link.closest(".dspyserve-cut");
  place.replaceWith(await piece(new URL(link.dataset.more, location.href)));
}

// What people do

const follow = (work, link) => work.catch(() => location.assign(link.href));

document.addEventListener("click", (event) => {
  const target = event.target instanceof Element ? event.target : null;
  if (!target || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  const link = target.closest("a");
  const button = target.closest("button");
  const row = target.closest(".dspyserve-tree tbody tr");
  if (button?.dataset.copy) copy(button);
  else if (button?.dataset.act === "error") nextError();
  else if (button?.dataset.act === "keys") dialog.showModal();
  else if (link?.matches("[data-all]")) (event.preventDefault(), follow(showAll(link), link));
  else if (link?.matches("[data-more]")) (event.preventDefault(), follow(showMore(link), link));
  else if (link?.matches(".dspyserve-close")) (event.preventDefault(), close());
  else if (target.closest(".dspyserve-twist")) expand(row, !isOpen(row));
  else if (row) {
    event.preventDefault();
    activate(row);
    // On a narrow screen the details stand below the tree.
    choose(row).then(() => panel.scrollIntoView({ block: "nearest" }));
  }
});

const keys = {
  j: () => step(1),
  k: () => step(-1),
  e: nextError,
  "/": () => filter?.focus(),
  "?": () => dialog.showModal(),
  "[": () => document.querySelector("a[rel~=prev]")?.click(),
  "]": () => document.querySelector("a[rel~=next]")?.click(),
  Escape: () => (needle ? clear() : panel.hidden || close()),
};

const treeKeys = {
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
  Home: () => go(shown()[0]),
  End: () => go(shown().at(-1)),
  ArrowRight: () => {
    if (!active.hasAttribute("aria-expanded")) return;
    if (isOpen(active)) step(1);
    else expand(active, true);
  },
  ArrowLeft: () => {
    if (active.hasAttribute("aria-expanded") && isOpen(active) && !needle) expand(active, false);
    else go(parents.get(active));
  },
  Enter: () => choose(active).then(() => panel.focus()),
  " ": () => choose(active),
};

document.addEventListener("keydown", (event) => {
  // Brackets are on AltGr on many keyboards, which Windows tells as Ctrl and Alt.
  const isChord = (event.ctrlKey || event.altKey) && !event.getModifierState("AltGraph");
  if (isChord || event.metaKey || dialog?.open || event.defaultPrevented) return;
  const target = event.target;
  if (target === filter) {
    if (event.key === "Escape") (clear(), filter.blur());
    else if (event.key === "Enter" || event.key === "ArrowDown") (find(), go(rows.find((row) => row.classList.contains("found"))));
    else return;
  } else if (target.closest("input, textarea, select, [contenteditable]")) {
    return;
  } else {
    const act = (target.closest(".dspyserve-tree") && treeKeys[event.key]) || keys[event.key];
    if (!act || (!rows.length && !"?[]".includes(event.key))) return;
    act();
  }
  event.preventDefault();
});

if (tree && rows.length) {
  build();
  tools.hidden = false;
  filter.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(find, 100);
  });
}
prepare(document);
