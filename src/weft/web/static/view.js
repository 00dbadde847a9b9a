// Messages as DOM nodes.

import { renderMarkdown } from "./markdown.js";

const ICONS = {
  copy: ["M7 7h9v9H7z", "M13 7V4H4v9h3"],
  retry: ["M15.5 6.5A6.5 6.5 0 1 0 16.500 10", "M16 3v4h-4"],
  remove: ["M5 5l10 10M15 5L5 15"],
};

export class MessageView {
  constructor(message, { onRetry, onNewChat, onKey }) {
    this.message = message;
    this.node = create("li", "message");
    this.node.dataset.role = message.role;
    this._content = create("div", "content");
    this._problem = create("div");
    this._facts = create("span", "facts");
    this._retry = action("retry", "Retry", onRetry);
    this._actions = create("span", "actions");
    this._handlers = { onRetry, onNewChat, onKey };
    this._frame = 0;
    const copy = action("copy", "Copy", () => copyText(this.message.content, copy));
    this._copy = copy;
    const footer = create("footer");
    this._actions.append(copy, ...(message.role === "assistant" ? [this._retry] : []));
    footer.append(this._actions, this._facts);
    const speaker = create("span", "sr-only");
    speaker.textContent = message.role === "user" ? "You said:" : "The model said:";
    this.node.append(speaker, this._content, this._problem, footer);
    this._footer = footer;
    this.render();
  }

  // Draw at most once per frame, however fast tokens arrive.
  update() {
    this._frame ||= requestAnimationFrame(() => this.render());
  }

  render() {
    cancelAnimationFrame(this._frame);
    this._frame = 0;
    const { message } = this;
    this._content.replaceChildren(this._body());
    this._facts.replaceChildren(...(message.facts ?? []).map(fact));
    this._problem.replaceChildren(...(message.error ? [this._errorCard()] : []));
    this._actions.hidden = Boolean(message.pending) || Boolean(message.error && !message.content);
    this._footer.hidden = this._actions.hidden && !message.facts?.length;
    this.node.setAttribute("aria-busy", String(Boolean(message.pending)));
  }

  _body() {
    const { role, content, pending, error } = this.message;
    if (role === "user") return document.createTextNode(content);
    if (content) return renderMarkdown(content, { onCopy: copyText });
    if (pending) {
      const dots = create("span", "waiting");
      dots.append(create("i"), create("i"), create("i"));
      dots.setAttribute("aria-label", "Waiting for the first token");
      dots.setAttribute("role", "img");
      return dots;
    }
    const empty = create("p", "empty-answer");
    empty.textContent = error ? "" : "The model ended its turn without a word.";
    return error ? document.createTextNode("") : empty;
  }

  _errorCard() {
    const { error } = this.message;
    const card = create("div", "problem");
    card.setAttribute("role", "alert");
    for (const [index, line] of explain(error).entries()) {
      const paragraph = create(index ? "p" : "strong");
      paragraph.textContent = line;
      card.append(paragraph);
    }
    const actions = create("div", "actions");
    actions.append(action("retry", "Retry", this._handlers.onRetry));
    if (error.code === "context_length_exceeded") {
      actions.append(action(null, "New chat", this._handlers.onNewChat));
    }
    if (error.status === 401) actions.append(action(null, "Enter a key", this._handlers.onKey));
    card.append(actions);
    return card;
  }
}

export function conversationItem(title, current, { onOpen, onDelete }) {
  const item = create("li", "conversation");
  item.dataset.current = String(current);
  const open = create("button", "open");
  open.type = "button";
  open.textContent = title;
  open.title = title;
  if (current) open.setAttribute("aria-current", "true");
  open.addEventListener("click", onOpen);
  const remove = create("button", "delete");
  remove.type = "button";
  remove.setAttribute("aria-label", `Delete “${title}”`);
  remove.append(icon("remove"));
  remove.addEventListener("click", onDelete);
  item.append(open, remove);
  return item;
}

// A headline and what to do, from an error object {message, status, code, retryAfterS}.
function explain({ message, status, code, retryAfterS }) {
  const text = message.split(/\n\s*fix: /).map(sentence).join("\n");
  if (status === 401) return ["The server asks for an API key.", text];
  if (status === 429) {
    const wait = retryAfterS ? `Try again in ${retryAfterS} s.` : "Try again in a moment.";
    return ["The server is busy.", `${text}\n${wait}`];
  }
  if (code === "context_length_exceeded") {
    return ["This conversation no longer fits into the model’s context.", text];
  }
  if (status >= 400 && status < 500) return ["The server refused the request.", text];
  return ["The answer could not be completed.", text];
}

function sentence(text) {
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(start) ? start : `${start}.`;
}

async function copyText(text, button) {
  const label = button.lastChild;
  const before = label.textContent;
  try {
    await navigator.clipboard.writeText(text);
    label.textContent = "Copied";
  } catch {
    label.textContent = "Not allowed"; // Plain-HTTP pages on other hosts have no clipboard.
  }
  setTimeout(() => (label.textContent = before), 1500);
}

function fact(text) {
  const node = create("span");
  node.textContent = text;
  return node;
}

function action(name, label, onClick) {
  const button = create("button", "small-button");
  button.type = "button";
  if (name) button.append(icon(name));
  button.append(document.createTextNode(label));
  button.addEventListener("click", onClick);
  return button;
}

function icon(name) {
  const space = document.querySelector("svg").namespaceURI;
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  for (const line of ICONS[name]) {
    const path = document.createElementNS(space, "path");
    path.setAttribute("d", line);
    svg.append(path);
  }
  return svg;
}

function create(name, className) {
  const node = document.createElement(name);
  if (className) node.className = className;
  return node;
}
