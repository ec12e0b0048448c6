/**
 * The form of a program's inputs: what it says as JSON, and problems beside the fields that they are about.
 * `admin/programs/input_form.py` writes it, and reads it the same way where there is no script.
 */

/** The inputs that `form` holds, and what is wrong with it: `{ pointer, message }` for each fault. */
export function readInputs(form, words) {
  const inputs = {};
  const faults = [];
  for (const widget of form.querySelectorAll("[data-field]")) {
    const read = readWidget(widget, words);
    if (read.fault) faults.push({ pointer: pointerOf(widget), message: read.fault });
    else if ("value" in read) inputs[widget.dataset.field] = read.value;
  }
  return { inputs, faults };
}

/** What was chosen beside the inputs; what is left as it is stays out. */
export function readOptions(form) {
  const options = {};
  for (const select of form.querySelectorAll("[data-option]")) {
    if (select.value === "") continue;
    options[select.dataset.option] = select.dataset.option === "version" ? Number(select.value) : select.value;
  }
  return options;
}

/** Put each of `faults` beside its field, the first of them in focus; gives those that are about none. */
export function showFaults(form, faults) {
  clearFaults(form);
  const others = [];
  let first = null;
  for (const { pointer, message } of faults) {
    const field = fieldOf(form, pointer);
    if (!field) {
      others.push({ pointer, message });
      continue;
    }
    const rest = pointer.slice(field.dataset.pointer.length + 1);
    const place = field.querySelector("[data-fault]");
    place.textContent = [place.textContent, rest ? `${rest}: ${message}` : message].filter(Boolean).join(" ");
    const widget = field.querySelector("input, select, textarea");
    widget.setAttribute("aria-invalid", "true");
    first ??= widget;
  }
  first?.focus();
  return others;
}

export function clearFaults(form) {
  for (const place of form.querySelectorAll("[data-fault]")) place.textContent = "";
  for (const widget of form.querySelectorAll("[aria-invalid]")) widget.removeAttribute("aria-invalid");
}

const PAUSE = 500;

/** Say of a JSON field that it is none, once its writer pauses: not when it is left, which is when buttons are hit. */
export function checkWhileTyping(form, words) {
  let timer = null;
  form.addEventListener("input", ({ target }) => {
    if (target.dataset?.kind !== "json") return;
    clearTimeout(timer);
    timer = setTimeout(() => checkJson(target, words), PAUSE);
  });
}

function checkJson(widget, words) {
  const { fault } = readWidget(widget, words);
  widget.closest("[data-pointer]").querySelector("[data-fault]").textContent = fault ?? "";
  if (fault) widget.setAttribute("aria-invalid", "true");
  else widget.removeAttribute("aria-invalid");
}

function readWidget(widget, words) {
  const { kind, blank, text } = widget.dataset;
  if (kind === "boolean") return { value: widget.checked };
  if (kind === "number" && widget.validity.badInput) return { fault: words.noNumber };
  if (blank === "out" && widget.value.trim() === "") return {};
  if (kind === "text") return { value: widget.value };
  if (kind === "number") return isKept(widget.value) ? { value: Number(widget.value) } : { fault: words.inexact };
  try {
    const { value, isExact } = parsed(widget.value);
    return isExact ? { value } : { fault: words.inexact };
  } catch {
    return text === "taken" ? { value: widget.value } : { fault: words.noJson };
  }
}

/** What `text` is as JSON, and whether all of its numbers are kept. Browsers that tell no `source` keep what they can. */
function parsed(text) {
  let isExact = true;
  const value = JSON.parse(text, (key, item, context) => {
    if (typeof item === "number" && !isKept(context?.source ?? item)) isExact = false;
    return item;
  });
  return { value, isExact };
}

/** Whether a number is the same in JavaScript: of a long id as a whole number, the last digits would become others. */
function isKept(text) {
  const number = Number(text);
  return Number.isFinite(number) && (!/^-?\d+$/.test(text) || BigInt(text) === BigInt(number));
}

function pointerOf(widget) {
  return widget.closest("[data-pointer]").dataset.pointer;
}

function fieldOf(form, pointer) {
  return [...form.querySelectorAll("[data-pointer]")].find(
    ({ dataset }) => pointer === dataset.pointer || pointer.startsWith(`${dataset.pointer}/`),
  );
}
