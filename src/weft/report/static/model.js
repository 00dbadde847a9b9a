"use strict";
// The tree is in the page as JSON; items below the first levels are made when they are opened.
const model = JSON.parse(document.getElementById("model").textContent);
const tree = document.getElementById("tree");
const about = document.getElementById("about");
const search = document.getElementById("search");
const found = document.getElementById("found");
const items = new Map(); // node -> li

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function count(value) {
  for (const [limit, suffix] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]])
    if (value >= limit) return Number((value / limit).toPrecision(3)) + suffix;
  return String(value);
}

function label(node) {
  return node.name || model.name;
}

// Every node gets its parent, its path and the words it is found by.
function prepare(node, parent) {
  node.parent = parent;
  node.path = parent && parent.path ? parent.path + "." + label(node) : parent ? label(node) : "";
  if (!node.kind) node.path = parent.path;
  node.times = (parent ? parent.times : 1) * node.repeat;
  node.total = node.times * node.parameters;
  node.words = (node.path + " " + node.kind + " " + node.note + " " +
    node.tensors.map(t => t[0]).join(" ")).toLowerCase();
  node.children = node.children.filter(child => child.parameters || child.outputs.length);
  for (const child of node.children) prepare(child, node);
}

function makeItem(node) {
  const item = element("li");
  item.setAttribute("role", "treeitem");
  if (node.children.length) item.setAttribute("aria-expanded", "false");
  const row = element("div", "row");
  row.tabIndex = -1;
  const name = element("span", "name");
  name.append(element("span", "", label(node)));
  if (node.repeat > 1) name.append(element("span", "times", " ×" + node.repeat));
  row.append(name, element("span", "kind", node.kind || "in turn"));
  row.append(element("span", "flow", node.outputs.join(", ")));
  const each = node.repeat > 1 ? " each" : "";
  const size = element("span", "size", node.parameters ? count(node.parameters) + each : "");
  size.title = node.parameters.toLocaleString("en") + each;
  const bar = element("i");
  bar.style.width = (100 * node.total / model.tree.parameters) + "%";
  size.append(bar);
  row.append(size);
  item.append(row);
  items.set(node, item);
  row.addEventListener("click", () => { select(node); toggle(node); });
  return item;
}

function open(node, state) {
  const item = items.get(node);
  if (!node.children.length) return;
  if (state && !item.querySelector(":scope > ul")) {
    const list = element("ul");
    list.setAttribute("role", "group");
    for (const child of node.children) list.append(makeItem(child));
    item.append(list);
  }
  const list = item.querySelector(":scope > ul");
  if (list) list.hidden = !state;
  item.setAttribute("aria-expanded", String(state));
}

function isOpen(node) {
  return items.get(node).getAttribute("aria-expanded") === "true";
}

function toggle(node) {
  open(node, !isOpen(node));
}

function reveal(node) {
  if (node.parent) {
    reveal(node.parent);
    open(node.parent, true);
  }
}

function walk(node, visit, depth = 0) {
  visit(node, depth);
  for (const child of node.children) walk(child, visit, depth + 1);
}

function openTo(levels) {
  walk(model.tree, (node, depth) => {
    if (depth < levels) { reveal(node); open(node, true); }
    else if (items.has(node)) open(node, false);
  });
}

function pair(list, term, value, className) {
  if (!value || !value.length) return;
  list.append(element("dt", "", term));
  for (const line of [].concat(value)) list.append(element("dd", className, line));
}

function select(node, focus = true) {
  for (const chosen of tree.querySelectorAll("[aria-selected]")) chosen.removeAttribute("aria-selected");
  const item = items.get(node);
  item.setAttribute("aria-selected", "true");
  item.firstChild.tabIndex = 0;
  if (focus) item.firstChild.focus({ preventScroll: true });
  about.replaceChildren(element("h3", "", node.path || model.name));
  about.append(element("span", "kind", node.kind || "layers in turn"));
  const list = element("dl");
  if (node.times > 1) pair(list, "stands for", node.times + " alike");
  pair(list, "parameters", node.parameters.toLocaleString("en") + (node.times > 1 ? " each" : ""));
  if (node.times > 1) pair(list, "together", node.total.toLocaleString("en"));
  pair(list, "share of the model", (100 * node.total / model.tree.parameters).toFixed(2) + " %");
  pair(list, "takes", node.inputs, "shape");
  pair(list, "returns", node.outputs, "shape");
  pair(list, "tensors", node.tensors.map(([name, shape]) => name + " [" + shape.join(", ") + "]"), "shape");
  pair(list, "description", node.note ? node.note.split(", ") : [], "shape");
  about.append(list);
}

function find() {
  const words = search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  for (const marked of tree.querySelectorAll("mark")) marked.replaceWith(marked.textContent);
  found.textContent = "";
  if (!words.length) return;
  const hits = [];
  walk(model.tree, node => {
    if (node.parent && words.every(word => node.words.includes(word))) hits.push(node);
  });
  for (const node of hits) {
    reveal(node);
    const name = items.get(node).querySelector(".name > span");
    name.replaceChildren(element("mark", "", label(node)));
  }
  found.textContent = hits.length + (hits.length === 1 ? " module" : " modules");
  if (hits.length) items.get(hits[0]).scrollIntoView({ block: "nearest" });
}

function visible() {
  const rows = [];
  (function collect(node) {
    rows.push(node);
    if (node.children.length && isOpen(node)) node.children.forEach(collect);
  })(model.tree);
  return rows;
}

tree.addEventListener("keydown", event => {
  const rows = visible();
  const at = rows.findIndex(node => items.get(node).hasAttribute("aria-selected"));
  const node = rows[at];
  if (!node) return;
  const moves = {
    ArrowDown: () => rows[at + 1], ArrowUp: () => rows[at - 1],
    ArrowRight: () => { open(node, true); return node; },
    ArrowLeft: () => { if (node.children.length && isOpen(node)) { open(node, false); return node; }
      return node.parent; },
  };
  if (!(event.key in moves)) return;
  event.preventDefault();
  const next = moves[event.key]();
  if (next) { select(next); items.get(next).firstChild.scrollIntoView({ block: "nearest" }); }
});
search.addEventListener("input", find);
document.getElementById("expand").addEventListener("click", () => openTo(Infinity));
document.getElementById("collapse").addEventListener("click", () => openTo(1));

prepare(model.tree, null);
tree.append(makeItem(model.tree));
openTo(2);
walk(model.tree, (node, depth) => { if (depth === 2 && node.parent.name === "layers") open(node, true); });
select(model.tree, false);
