/** The tree of a run's steps, growing as its events arrive. All texts are set as text, never as markup. */

const MAX_STEPS = 500;
const TAIL = 160;

export class Steps {
  constructor(list, words) {
    this._list = list;
    this._words = words;
    this.clear();
  }

  clear() {
    this._list.replaceChildren();
    this._steps = new Map();
    this._hidden = 0;
  }

  /** Take an event of the run: `module_start`, `lm_end`, `token`, … */
  take(event) {
    const [, kind, moment] = event.type.match(/^(.+)_(start|end)$/) ?? [];
    if (event.type === "token" || event.type === "field_reset") this._preview(event);
    else if (kind === "run") return;
    else if (moment === "start") this._begin(event, kind);
    else if (moment === "end" && this._steps.has(event.span_id)) this._finish(event);
    else if (moment === "end" && event.error_type) this._failedRead(event, kind);
  }

  /** Nothing more comes: what has not ended, did not. */
  settle() {
    for (const step of this._steps.values()) {
      if (!step.item.classList.contains("is-running")) continue;
      step.item.classList.replace("is-running", "is-unfinished");
      step.state.textContent = "⊘";
    }
  }

  _begin(event, kind) {
    if (this._steps.size >= MAX_STEPS) {
      this._overflow();
      return;
    }
    const step = { item: element("li", `dspyserve-step is-running`), state: element("span", "state", "…") };
    const head = element("div", "head");
    step.facts = element("span", "facts");
    step.tail = element("span", "tail");
    step.children = element("ol", "dspyserve-steps");
    step.text = "";
    const badge = element("span", `dspyserve-kind kind-${kind.replace(/[^a-z]/g, "")}`, kind);
    head.append(step.state, badge, element("span", "name", event.name ?? kind), step.facts);
    step.item.append(head, step.tail, step.children);
    (this._steps.get(event.parent_id)?.children ?? this._list).append(step.item);
    this._steps.set(event.span_id, step);
  }

  _finish(event) {
    const step = this._steps.get(event.span_id);
    const failed = Boolean(event.error_type);
    step.item.classList.replace("is-running", failed ? "is-failed" : "is-done");
    step.state.textContent = failed ? "✕" : "✓";
    step.tail.textContent = "";
    const { input_tokens: incoming, output_tokens: outgoing } = event.usage ?? {};
    const tokens = incoming === undefined && outgoing === undefined ? "" : `${incoming ?? "–"} → ${outgoing ?? "–"}`;
    const cached = event.cached ? this._words.cached : "";
    const facts = [event.error_type, duration(event.duration_ms), tokens, cached];
    step.facts.textContent = facts.filter(Boolean).join(" · ");
  }

  _failedRead(event, kind) {
    this._begin(event, kind.replace(/_.*/, ""));
    if (this._steps.has(event.span_id)) this._finish(event);
  }

  /** The end of what a predictor streams, beside its step. */
  _preview(event) {
    const step = this._steps.get(event.span_id);
    if (!step?.item.classList.contains("is-running")) return;
    if (event.field !== step.field || event.type === "field_reset") Object.assign(step, { field: event.field, text: "" });
    step.text = (step.text + (event.delta ?? "")).slice(-TAIL);
    step.tail.textContent = `${event.field}: …${step.text}`;
  }

  _overflow() {
    if (this._hidden++) return;
    this._list.append(element("li", "dspyserve-meta", this._words.hidden));
  }
}

/** Milliseconds as people read them, as `admin/wording.py` has them. */
export function duration(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) return "–";
  if (milliseconds < 1000) return milliseconds >= 10 ? `${milliseconds.toFixed(0)} ms` : `${milliseconds.toFixed(1)} ms`;
  const seconds = milliseconds / 1000;
  return seconds < 120 ? `${seconds.toFixed(2)} s` : `${(seconds / 60).toFixed(1)} min`;
}

/** US dollars; a dash where nobody knows. */
export function cost(dollars) {
  if (dollars === null || dollars === undefined) return "–";
  return dollars === 0 ? "$0" : `$${dollars.toFixed(6).replace(/0+$/, "")}`;
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}
