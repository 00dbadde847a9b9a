// Conversations, kept in this browser only.

const KEY = "weft.conversations";
const LIMIT = 60;

export function loadConversations() {
  try {
    const value = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    if (!Array.isArray(value)) return [];
    return value.filter((item) => Array.isArray(item.messages)).map(settled);
  } catch {
    return []; // Unreadable or forbidden storage: the page works without a past.
  }
}

// A page that was closed in the middle of an answer has saved what there was of it.
function settled(conversation) {
  const messages = conversation.messages
    .map(({ pending, ...message }) => (pending ? { ...message, facts: ["interrupted"] } : message))
    .filter((message) => message.content || message.error);
  return { ...conversation, messages };
}

// Keeps the newest; drops the oldest until the browser's quota is met.
export function saveConversations(conversations) {
  let kept = conversations.filter((item) => item.messages.length).slice(0, LIMIT);
  for (;;) {
    try {
      localStorage.setItem(KEY, JSON.stringify(kept));
      return;
    } catch {
      if (!kept.length) return;
      kept = kept.slice(0, -1);
    }
  }
}

export function newConversation() {
  return { id: crypto.randomUUID?.() ?? String(Date.now() + Math.random()), messages: [] };
}

export function titleOf(conversation) {
  const first = conversation.messages.find((message) => message.role === "user");
  return first ? first.content.trim().replace(/\s+/g, " ").slice(0, 80) : "New chat";
}
