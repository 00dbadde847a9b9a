// The chat page: one current conversation, at most one answer in progress.

import { ServerError, generate, getStats } from "./api.js";
import { loadConversations, newConversation, saveConversations, titleOf } from "./history.js";
import { Settings } from "./settings.js";
import { MessageView, conversationItem } from "./view.js";

const SUGGESTIONS = [
  "Sort: 7 2 9 4",
  "Explain what a tokenizer does",
  "Write a Python function that reverses a list",
  "What can you do?",
];
const POLL_BUSY_MS = 1000;
const POLL_IDLE_MS = 4000;
const $ = (id) => document.getElementById(id);

const settings = new Settings();
let conversations = loadConversations();
let current = newConversation();
let server = null;
let running = null; // AbortController of the answer in progress
let follow = true; // whether the newest text is kept in sight
let pollTimer = 0;

// ---- conversations ----

function show(conversation) {
  stop();
  current = conversation;
  follow = true;
  $("messages").replaceChildren(...current.messages.map((message) => viewOf(message).node));
  drawList();
  drawWelcome();
  closeSidebar();
  scrollDown();
  // On a touch screen, focus would open the keyboard over the conversation.
  if (matchMedia("(hover: hover)").matches) $("input").focus();
}

function drawList() {
  const items = conversations.map((conversation) =>
    conversationItem(titleOf(conversation), conversation === current, {
      onOpen: () => show(conversation),
      onDelete: () => forget([conversation]),
    }),
  );
  $("conversations").replaceChildren(...items);
  $("no-conversations").hidden = items.length > 0;
  $("clear-history").hidden = items.length === 0;
}

function drawWelcome() {
  $("welcome").hidden = current.messages.length > 0;
}

function keep() {
  conversations = [current, ...conversations.filter((item) => item !== current)];
  saveConversations(conversations);
  drawList();
}

function forget(unwanted) {
  conversations = conversations.filter((item) => !unwanted.includes(item));
  saveConversations(conversations);
  if (unwanted.includes(current)) show(newConversation());
  else drawList();
}

function viewOf(message) {
  return new MessageView(message, {
    onRetry: () => retry(message),
    onNewChat: () => show(newConversation()),
    onKey: () => settings.open("api-key"),
  });
}

// ---- answering ----

function send(text) {
  if (running || !text.trim()) return;
  const message = { role: "user", content: text.trim() };
  current.messages.push(message);
  $("messages").append(viewOf(message).node);
  drawWelcome();
  answer();
}

// Answer the last question again; whatever followed it is replaced.
function retry(message) {
  if (running) return;
  const at = current.messages.indexOf(message);
  if (at < 0) return;
  current.messages.length = at;
  while ($("messages").children.length > at) $("messages").lastChild.remove();
  answer();
}

async function answer() {
  const conversation = current;
  const [path, body] = requestBody(conversation.messages);
  const message = { role: "assistant", content: "", pending: true };
  conversation.messages.push(message);
  const view = viewOf(message);
  $("messages").append(view.node);
  setRunning(new AbortController());
  keep();
  follow = true;
  scrollDown();
  const { signal } = running;
  const clock = new Clock();
  let usage = null;
  let reason = null;
  try {
    for await (const part of generate(path, body, { apiKey: settings.apiKey, signal })) {
      if (part.text) {
        clock.tick();
        message.content += part.text;
      }
      usage = part.usage ?? usage;
      reason = part.finishReason ?? reason;
      message.facts = clock.facts(usage, reason);
      view.update();
      scrollDown();
    }
  } catch (error) {
    if (signal.aborted) reason = "stopped";
    else message.error = describe(error);
  }
  delete message.pending;
  message.facts = clock.facts(usage, reason);
  view.render();
  if (running?.signal === signal) setRunning(null);
  saveConversations(conversations);
  scrollDown();
  announce(message.error ? "The answer failed." : `Answer: ${message.content}`);
}

function requestBody(messages) {
  const body = { model: server?.model, ...settings.sampling() };
  const said = messages.filter((message) => message.content);
  if (server?.chat === false) {
    return ["v1/completions", { max_tokens: 256, ...body, prompt: said.at(-1).content }];
  }
  const turns = said.map(({ role, content }) => ({ role, content }));
  const system = settings.values.systemPrompt.trim();
  if (system) turns.unshift({ role: "system", content: system });
  return ["v1/chat/completions", { ...body, messages: turns }];
}

function describe(error) {
  const { message, status, code, retryAfterS } = error;
  if (error instanceof ServerError) return { message, status, code, retryAfterS };
  return { message: `The page failed: ${message}`, status: 0 };
}

function stop() {
  running?.abort();
  setRunning(null);
}

function setRunning(controller) {
  running = controller;
  $("send").hidden = Boolean(controller);
  $("stop").hidden = !controller;
  sizeInput();
  poll();
}

// When tokens came, as the person in front of the page saw them.
class Clock {
  constructor() {
    this.startMs = performance.now();
    this.firstMs = null;
    this.lastMs = null;
    this.numChunks = 0;
  }

  tick() {
    this.lastMs = performance.now();
    this.firstMs ??= this.lastMs;
    this.numChunks += 1;
  }

  facts(usage, reason) {
    if (this.firstMs === null) return reason === "stopped" ? ["stopped"] : [];
    // Until the server has counted, one chunk is taken for one token.
    const numTokens = usage?.completion_tokens ?? this.numChunks;
    const seconds = (this.lastMs - this.firstMs) / 1000;
    const facts = [`${numTokens} ${numTokens === 1 ? "token" : "tokens"}`];
    if (numTokens > 1 && seconds > 0) {
      facts.push(`${formatRate((numTokens - 1) / seconds)} tokens/s`);
    }
    facts.push(`first token after ${formatTime(this.firstMs - this.startMs)}`);
    if (usage) {
      const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
      facts.push(`prompt: ${cached} of ${usage.prompt_tokens} tokens from cache`);
    }
    if (reason === "length") facts.push("cut at the length limit");
    if (reason === "stopped") facts.push("stopped");
    return facts;
  }
}

const formatRate = (rate) => rate.toFixed(rate < 10 ? 1 : 0);
const formatTime = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

// ---- server state ----

async function poll() {
  clearTimeout(pollTimer);
  if (document.hidden) return;
  try {
    drawServer(await getStats(settings.apiKey));
  } catch (error) {
    drawDown(error);
  }
  clearTimeout(pollTimer);
  pollTimer = setTimeout(poll, running ? POLL_BUSY_MS : POLL_IDLE_MS);
}

function drawServer(stats) {
  server = stats;
  const { model, num_running: numRunning, num_waiting: numWaiting } = stats;
  document.title = `${model} · weft`;
  $("model-name").textContent = model;
  $("welcome-title").textContent = `Chat with ${model}`;
  $("welcome-text").textContent = stats.chat
    ? "The model runs on this machine and the conversation stays in this browser."
    : "This model has no chat template: it continues the text that you write.";
  setHealth(stats.healthy ? (numWaiting ? "busy" : "ok") : "down", stats.healthy
    ? "The server is ready."
    : "The engine has stopped.");
  $("meter-speed").textContent = `${formatRate(stats.tokens_per_s)} tok/s`;
  if (stats.kv_usage === undefined) return; // the engine was too busy to say
  $("meter-requests").textContent = numWaiting ? `${numRunning} + ${numWaiting}` : `${numRunning}`;
  $("meter-hits").textContent = percent(stats.prefix_hit_rate);
  $("meter-kv").style.setProperty("--share", stats.kv_usage);
  $("meter-kv-text").textContent = percent(stats.kv_usage);
}

function drawDown(error) {
  const locked = error.status === 401;
  $("model-name").textContent = locked ? "API key needed" : (server?.model ?? "no server");
  setHealth("down", locked ? "The server asks for an API key." : "The server cannot be reached.");
  for (const id of ["meter-speed", "meter-requests", "meter-hits", "meter-kv-text"]) {
    $(id).textContent = "–";
  }
  $("meter-kv").style.setProperty("--share", 0);
}

function setHealth(state, text) {
  $("health-dot").dataset.state = state;
  $("health-dot").title = text;
  if ($("health-text").textContent !== text) $("health-text").textContent = text;
}

const percent = (share) => `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;

// ---- page ----

function scrollDown() {
  if (!follow) return;
  requestAnimationFrame(() => ($("scroller").scrollTop = $("scroller").scrollHeight));
}

function sizeInput() {
  const input = $("input");
  if (!CSS.supports("field-sizing", "content")) {
    input.style.height = "auto";
    input.style.height = `${input.scrollHeight}px`;
  }
  $("send").disabled = !input.value.trim();
}

function announce(text) {
  $("announcer").textContent = text;
}

function setSidebar(open) {
  $("layout").dataset.sidebar = open ? "open" : "closed";
  $("open-sidebar").setAttribute("aria-expanded", String(open));
}

const closeSidebar = () => setSidebar(false);

function submit() {
  const text = $("input").value;
  if (running || !text.trim()) return;
  $("input").value = "";
  sizeInput();
  send(text);
}

function listen() {
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  $("input").addEventListener("input", sizeInput);
  $("input").addEventListener("keydown", (event) => {
    // While an input method composes a character, Enter only confirms it.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !$("settings").open) {
      if ($("layout").dataset.sidebar === "open") closeSidebar();
      else stop();
    }
    if (event.altKey && event.code === "KeyN") show(newConversation());
    if (event.altKey && event.code === "KeyS") settings.open();
  });
  $("stop").addEventListener("click", stop);
  $("new-chat").addEventListener("click", () => show(newConversation()));
  $("new-chat-top").addEventListener("click", () => show(newConversation()));
  $("open-settings").addEventListener("click", () => settings.open());
  $("settings").addEventListener("close", poll);
  $("open-sidebar").addEventListener("click", () => {
    setSidebar(true);
    $("close-sidebar").focus();
  });
  $("close-sidebar").addEventListener("click", closeSidebar);
  $("scrim").addEventListener("click", closeSidebar);
  $("clear-history").addEventListener("click", () => {
    if (confirm("Delete all conversations from this browser?")) forget(conversations);
  });
  $("scroller").addEventListener("scroll", () => {
    const { scrollTop, scrollHeight, clientHeight } = $("scroller");
    follow = scrollHeight - scrollTop - clientHeight < 40;
    $("to-bottom").hidden = follow;
  });
  $("to-bottom").addEventListener("click", () => {
    follow = true;
    scrollDown();
  });
  document.addEventListener("visibilitychange", poll);
  // A phone's keyboard shrinks the view; the newest text stays in sight.
  new ResizeObserver(scrollDown).observe($("scroller"));
}

function drawSuggestions() {
  for (const text of SUGGESTIONS) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", () => send(text));
    $("suggestions").append(button);
  }
}

listen();
drawSuggestions();
show(current);
poll();
