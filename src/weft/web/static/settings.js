// Sampling settings and the system prompt (kept), and the API key (for this tab only).

const KEY = "weft.settings";
const SECRET = "weft.api-key";
const DEFAULTS = { systemPrompt: "", temperature: 0.7, topP: 0.95, maxTokens: null, seed: null };
const $ = (id) => document.getElementById(id);

export class Settings {
  constructor() {
    this.values = { ...DEFAULTS, ...readJson(KEY) };
    this.apiKey = readText(SECRET);
    this._fill();
    $("settings-form").addEventListener("input", () => this._read());
    $("reset-settings").addEventListener("click", () => {
      this.values = { ...DEFAULTS };
      this._fill();
      this._save();
    });
    // A click on the backdrop has the dialog itself as its target.
    $("settings").addEventListener("click", (event) => {
      if (event.target === $("settings")) $("settings").close();
    });
  }

  open(field) {
    if (!$("settings").open) $("settings").showModal();
    if (field) $(field).focus();
  }

  // The fields of a request body; what is not set is left to the server.
  sampling() {
    const { temperature, topP, maxTokens, seed } = this.values;
    const body = { temperature, top_p: topP };
    if (maxTokens !== null) body.max_tokens = maxTokens;
    if (seed !== null) body.seed = seed;
    return body;
  }

  _fill() {
    $("system-prompt").value = this.values.systemPrompt;
    $("temperature").value = this.values.temperature;
    $("top-p").value = this.values.topP;
    $("max-tokens").value = this.values.maxTokens ?? "";
    $("seed").value = this.values.seed ?? "";
    $("api-key").value = this.apiKey;
    this._label();
  }

  _read() {
    this.values = {
      systemPrompt: $("system-prompt").value,
      temperature: $("temperature").valueAsNumber,
      topP: $("top-p").valueAsNumber,
      maxTokens: whole($("max-tokens"), 1),
      seed: whole($("seed"), -Infinity),
    };
    this.apiKey = $("api-key").value.trim();
    this._label();
    this._save();
  }

  _label() {
    $("temperature-value").value = this.values.temperature.toFixed(2);
    $("top-p-value").value = this.values.topP.toFixed(2);
  }

  _save() {
    try {
      localStorage.setItem(KEY, JSON.stringify(this.values));
      sessionStorage.setItem(SECRET, this.apiKey);
    } catch {
      // Forbidden storage: the settings last as long as the page.
    }
  }
}

function whole(input, low) {
  const value = input.valueAsNumber;
  return Number.isInteger(value) && value >= low ? value : null;
}

function readJson(key) {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "{}");
  } catch {
    return {};
  }
}

function readText(key) {
  try {
    return sessionStorage.getItem(key) ?? "";
  } catch {
    return "";
  }
}
