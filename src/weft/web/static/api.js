// The server's endpoints. Every failure is a ServerError whose text can be shown to a person.

export class ServerError extends Error {
  constructor(message, { status = 0, code = null, retryAfterS = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfterS = retryAfterS;
  }
}

export async function getStats(apiKey) {
  const response = await request("v1/stats", { headers: headers(apiKey), cache: "no-store" });
  return response.json();
}

// Yields {text}, {usage} and {finishReason} objects until the answer ends.
export async function* generate(path, body, { apiKey, signal }) {
  const response = await request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers(apiKey) },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  let complete = false;
  for await (const data of readEvents(response.body)) {
    if (data === "[DONE]") {
      complete = true;
      break;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ServerError(chunk.error.message, { code: chunk.error.code });
    if (chunk.usage) yield { usage: chunk.usage };
    for (const choice of chunk.choices) {
      const text = choice.delta ? choice.delta.content : choice.text;
      if (text) yield { text };
      if (choice.finish_reason) yield { finishReason: choice.finish_reason };
    }
  }
  if (!complete) throw new ServerError("The connection ended before the answer was complete.");
}

// Splits a byte stream into the data of server-sent events; comments are skipped.
export async function* readEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      buffer += value;
      const events = buffer.split("\n\n");
      buffer = events.pop();
      for (const event of events) {
        const lines = event.split("\n").filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).trimStart()).join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  throw await readError(response);
}

async function readError(response) {
  const retryAfterS = Number(response.headers.get("Retry-After")) || null;
  let message = `The server answered with status ${response.status}.`;
  let code = null;
  try {
    ({ message, code } = (await response.json()).error);
  } catch {
    // Not one of our error bodies, for example from a proxy: the status has to do.
  }
  return new ServerError(message, { status: response.status, code, retryAfterS });
}

function headers(apiKey) {
  return apiKey ? { Authorization: `Bearer ${apiKey}` } : {};
}
