/** Runs a program from a page of the admin and shows it as it happens: the playground, and traces that are run again. */

import { Client, ProblemError } from "../client.js";
import { checkWhileTyping, clearFaults, readInputs, readOptions, showFaults } from "./inputs.js";
import { Outputs } from "./outputs.js";
import * as snippets from "./snippets.js";
import { cost, duration, Steps } from "./steps.js";

const NO_TRACE = "0".repeat(32);

class Playground {
  constructor(form, panel) {
    this.form = form;
    this.panel = panel;
    this.words = json("dspyserve-words");
    this.addresses = json("dspyserve-addresses");
    const sockets = new URL(this.addresses.sockets, location.href);
    sockets.protocol = sockets.protocol.replace("http", "ws");
    this.client = new Client({ api: this.addresses.api, sockets: sockets.href });
    this.outputs = new Outputs(this.find("outputs"), this.find("output-template"));
    this.steps = new Steps(this.find("steps"), this.words);
    this.start = form.querySelector("[data-start]");
    this.cancel = form.querySelector("[data-cancel]");
    this.stream = null;
    this._listen();
    this._idle();
  }

  find(name) {
    return this.panel.querySelector(`[data-${name}]`);
  }

  async run() {
    if (this.stream) return;
    const { inputs, faults } = readInputs(this.form, this.words);
    if (faults.length) {
      showFaults(this.form, faults);
      return;
    }
    this._begin();
    const { tag, replayOf } = this.form.dataset;
    const options = { ...readOptions(this.form), tags: [tag], ...(replayOf ? { replay_of: replayOf } : {}) };
    this.stream = this.client.stream(this.addresses.program, inputs, { transport: "websocket", ...options });
    try {
      for await (const event of this.stream) this._take(event);
    } catch (error) {
      this._fail(error);
    } finally {
      this.stream = null;
      this._idle();
    }
  }

  _listen() {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    this.form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.run();
    });
    this.cancel.addEventListener("click", () => {
      this.isStopping = true;
      this._say(this.words.stopping);
      this.stream?.cancel();
    });
    checkWhileTyping(this.form, this.words);
  }

  _begin() {
    clearFaults(this.form);
    this.outputs.clear();
    this.steps.clear();
    this.find("problem").hidden = true;
    this.find("links").hidden = true;
    this.find("message").textContent = "";
    for (const name of ["first", "tokens", "cost", "model", "version"]) this._fact(name, "–");
    this.began = performance.now();
    this.hasToken = false;
    this.isStopping = false;
    this._say(this.words.connecting);
    this.start.disabled = true;
    this.cancel.disabled = false;
    this.panel.setAttribute("aria-busy", "true");
    // On a narrow screen it stands below the form.
    if (this.panel.getBoundingClientRect().top > innerHeight * 0.7) this.panel.scrollIntoView();
    this.clock = setInterval(() => this._fact("elapsed", duration(performance.now() - this.began)), 100);
  }

  _idle() {
    clearInterval(this.clock);
    this.start.disabled = false;
    this.cancel.disabled = true;
    this.panel.removeAttribute("aria-busy");
  }

  _take(event) {
    this.outputs.take(event);
    this.steps.take(event);
    switch (event.type) {
      case "run_start":
        this.startedAt = event.at;
        this._say(this.words.waiting);
        this._fact("model", event.model);
        this._fact("version", event.version ? `v${event.version}` : this.words.asWritten);
        break;
      case "token":
        this._firstToken(event);
        break;
      case "status":
        this.find("message").textContent = event.message;
        break;
      case "run_end":
        this._succeed(event);
        break;
      case "run_error":
        this._end(this.words.failed, "failed", event);
        this._tell(event.problem);
        break;
      case "run_cancelled":
        this._end(`${this.words.cancelled} (${event.reason})`, "cancelled", event);
        if (event.problem) this._tell(event.problem);
    }
  }

  _firstToken(event) {
    if (this.hasToken) return;
    this.hasToken = true;
    this._fact("first", duration((event.at - this.startedAt) * 1000));
    this._say(this.words.streaming);
  }

  _succeed(event) {
    const { input_tokens: incoming, output_tokens: outgoing } = event.usage ?? {};
    this._fact("tokens", incoming === undefined && outgoing === undefined ? "–" : `${incoming ?? "–"} → ${outgoing ?? "–"}`);
    this._fact("cost", cost(event.cost));
    this._end(this.words.succeeded, "succeeded", event);
    this._fact("elapsed", duration(event.duration_ms));
  }

  _end(text, kind, { trace_id: traceId, trace_stored: isStored }) {
    clearInterval(this.clock);
    this.steps.settle();
    this._fact("elapsed", duration(performance.now() - this.began));
    this._say(text, kind);
    this._link(traceId);
    this.find("message").textContent = isStored || !this.addresses.trace ? "" : this.words.notStored;
  }

  _link(traceId) {
    if (!this.addresses.trace) return;
    const link = this.find("trace-link");
    link.href = this.addresses.trace.replace(NO_TRACE, encodeURIComponent(traceId));
    const compare = this.find("compare-link");
    if (compare) {
      const query = new URLSearchParams({ a: this.form.dataset.replayOf, b: traceId });
      compare.href = `${compare.dataset.address}?${query}`;
    }
    this.find("links").hidden = false;
  }

  /** It could not be started, or the connection was lost on the way. */
  _fail(error) {
    this.steps.settle();
    if (this.isStopping && !(error instanceof ProblemError)) {
      this._say(this.words.cancelled, "cancelled");
      return;
    }
    this._say(this.words.failed, "failed");
    if (error instanceof ProblemError) this._tell(error.problem);
    else this._tell({ title: this.words.lost });
    if (this.stream?.traceId) this._link(this.stream.traceId);
  }

  /** A problem: its faults beside their fields, the rest of it above the outputs. */
  _tell(problem) {
    const others = showFaults(this.form, problem.errors ?? []);
    const lines = others.map(({ pointer, message }) => `${pointer}: ${message}`);
    const place = this.find("problem");
    const title = document.createElement("strong");
    title.textContent = problem.title ?? problem.code;
    const details = problem.errors?.length ? lines : [problem.detail].filter((text) => text && text !== problem.title);
    place.replaceChildren(title, ...(problem.code ? [" ", code(problem.code)] : []), ...details.map(paragraph));
    place.hidden = false;
  }

  _say(text, kind = "running") {
    const symbols = { succeeded: "✓ ", failed: "✕ ", cancelled: "⊘ ", running: "… " };
    const badge = this.find("status");
    badge.className = `dspyserve-badge dspyserve-${kind}`;
    badge.textContent = symbols[kind] + text;
  }

  _fact(name, text) {
    this.panel.querySelector(`[data-fact="${name}"]`).textContent = text;
  }
}

/** The call as code, with the inputs that stand in the form. */
class Copying {
  constructor(section, playground) {
    this.section = section;
    this.playground = playground;
    this.language = null;
    for (const button of section.querySelectorAll("[data-language]")) {
      button.addEventListener("click", () => this._choose(button));
    }
    playground.form.addEventListener("input", () => this._show());
    section.hidden = false;
  }

  async _choose(button) {
    this.language = button.dataset.language;
    for (const other of this.section.querySelectorAll("[data-language]")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    const text = this._show();
    if (text === null) {
      showFaults(this.playground.form, readInputs(this.playground.form, this.playground.words).faults);
      return;
    }
    const { copied, notCopied } = this.playground.words;
    let isCopied = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      isCopied = false; // not on a secure origin, or not allowed
    }
    this.section.querySelector("[data-copied]").textContent = isCopied ? copied : notCopied;
  }

  _show() {
    if (!this.language) return null;
    const { form, words, addresses } = this.playground;
    const { inputs, faults } = readInputs(form, words);
    const place = this.section.querySelector("[data-snippet]");
    this.section.querySelector("[data-copied]").textContent = "";
    // Of inputs that are none, nothing is shown, rather than the call with those before.
    place.hidden = faults.length > 0;
    if (faults.length) return null;
    const address = `${addresses.api}/programs/${encodeURIComponent(addresses.program)}`;
    place.textContent = snippets[this.language](address, inputs);
    return place.textContent;
  }
}

function json(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

function code(text) {
  const made = document.createElement("code");
  made.textContent = text;
  return made;
}

function paragraph(text) {
  const made = document.createElement("p");
  made.textContent = text;
  return made;
}

const form = document.querySelector("form[data-run]");
const playground = new Playground(form, document.querySelector("[data-panel]"));
const copy = form.querySelector("[data-copy]");
if (copy) new Copying(copy, playground);
