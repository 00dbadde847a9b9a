// A small Markdown: fenced code, inline code, bold, italics, lists and headings. Text becomes DOM
// nodes through textContent only, so that nothing a model writes can be markup or script.

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const HEADING = /^#{1,6}\s+(.*)$/;
const BULLET = /^\s{0,3}[-*+]\s+(.*)$/;
const NUMBER = /^\s{0,3}(\d{1,9})[.)]\s+(.*)$/;
const INLINE = /(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)|\*\*(\S(?:[\s\S]*?\S)?)\*\*|\*(\S(?:[^*\n]*\S)?)\*(?!\*)/g;

export function renderMarkdown(text, { onCopy }) {
  const fragment = document.createDocumentFragment();
  const lines = text.split("\n");
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const fence = FENCE.exec(line);
    if (fence) {
      at = addCode(fragment, lines, at, fence, onCopy);
    } else if (BULLET.test(line) || NUMBER.test(line)) {
      at = addList(fragment, lines, at);
    } else if (HEADING.test(line)) {
      fragment.append(element("h3", inline(HEADING.exec(line)[1])));
      at += 1;
    } else if (line.trim() === "") {
      at += 1;
    } else {
      at = addParagraph(fragment, lines, at);
    }
  }
  return fragment;
}

function addCode(fragment, lines, start, fence, onCopy) {
  // A block without its closing fence is still being written: everything after belongs to it.
  const closing = new RegExp(`^ {0,3}${fence[1][0]}{${fence[1].length},}\\s*$`);
  let end = start + 1;
  while (end < lines.length && !closing.test(lines[end])) end += 1;
  const source = lines.slice(start + 1, end).join("\n");
  const code = element("code", [source]);
  const copy = element("button", ["Copy"]);
  copy.type = "button";
  copy.className = "small-button";
  copy.addEventListener("click", () => onCopy(source, copy));
  const header = element("header", [element("span", [fence[2] || "text"]), copy]);
  const pre = element("pre", [code]);
  pre.tabIndex = 0;
  const block = element("div", [header, pre]);
  block.className = "block";
  fragment.append(block);
  return end + 1;
}

function addList(fragment, lines, start) {
  const pattern = NUMBER.test(lines[start]) ? NUMBER : BULLET;
  const list = element(pattern === NUMBER ? "ol" : "ul", []);
  if (pattern === NUMBER) list.start = Number(pattern.exec(lines[start])[1]);
  let at = start;
  for (; at < lines.length && pattern.test(lines[at]); at += 1) {
    list.append(element("li", inline(pattern.exec(lines[at]).at(-1))));
  }
  fragment.append(list);
  return at;
}

function addParagraph(fragment, lines, start) {
  const starts = [FENCE, HEADING, BULLET, NUMBER];
  let end = start + 1;
  while (end < lines.length && lines[end].trim() && !starts.some((it) => it.test(lines[end]))) {
    end += 1;
  }
  fragment.append(element("p", inline(lines.slice(start, end).join("\n"))));
  return end;
}

function inline(text) {
  const nodes = [];
  let last = 0;
  for (const match of text.matchAll(INLINE)) {
    nodes.push(text.slice(last, match.index));
    if (match[2] !== undefined) nodes.push(element("code", [match[2]]));
    else if (match[3] !== undefined) nodes.push(element("strong", inline(match[3])));
    else nodes.push(element("em", [match[4]]));
    last = match.index + match[0].length;
  }
  nodes.push(text.slice(last));
  return nodes.filter((node) => node !== "");
}

function element(name, children) {
  const node = document.createElement(name);
  node.append(...children);
  return node;
}
