/** The boxes of a run's output fields: texts as they stream, everything else as it settles. */

export class Outputs {
  constructor(place, template) {
    this._place = place;
    this._template = template;
    this._boxes = new Map();
    for (const section of place.querySelectorAll("[data-output]")) this._add(section.dataset.output, section);
  }

  clear() {
    for (const [name, box] of this._boxes) {
      if (box.isExtra) {
        box.section.remove();
        this._boxes.delete(name);
      } else this._set(box, "");
    }
  }

  /** Take an event of the run; those that are about no output of the program change nothing. */
  take(event) {
    const box = this._boxes.get(event.field);
    if (event.type === "run_end") this._finish(event.outputs);
    else if (!box) return;
    else if (event.type === "token") this._append(box, event);
    else if (event.type === "field_reset" && box.span === event.span_id) this._set(box, "");
    else if (event.type === "field") this._set(box, shown(event.value), event.span_id);
  }

  /** What the program gave in the end, which a step on the way may have said otherwise. */
  _finish(outputs) {
    for (const [name, value] of Object.entries(outputs)) {
      const box = this._boxes.get(name) ?? this._extra(name);
      const text = shown(value);
      if (box.text.data !== text) this._set(box, text);
    }
  }

  _append(box, event) {
    // Of several steps with a field of this name, the one that streams last is the one that counts.
    if (box.span !== event.span_id) this._set(box, "", event.span_id);
    // Follow what streams, unless somebody has scrolled up to read.
    const { pre } = box;
    const follows = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 8;
    box.text.appendData(event.delta);
    if (follows) pre.scrollTop = pre.scrollHeight;
  }

  _set(box, text, span = null) {
    box.span = span;
    box.text.data = text;
  }

  _extra(name) {
    const section = this._template.content.firstElementChild.cloneNode(true);
    section.querySelector("h3").textContent = name;
    this._place.append(section);
    const box = this._add(name, section);
    box.isExtra = true;
    return box;
  }

  _add(name, section) {
    const pre = section.querySelector("[data-text]");
    const box = { section, pre, text: document.createTextNode(""), span: null, isExtra: false };
    pre.replaceChildren(box.text);
    this._boxes.set(name, box);
    return box;
  }
}

function shown(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}
