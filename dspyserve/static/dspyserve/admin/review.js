// The keys of a reviewer. Everything here is a button or a link of the page, which work without it.

const TYPING = "input, textarea, select, [contenteditable]";
const panel = document.querySelector("[data-review]");

function press(selector) {
  const button = panel?.querySelector(selector);
  if (button && !button.disabled) button.click();
  return Boolean(button);
}

function write() {
  const opinion = panel?.querySelector(".dspyserve-writing");
  if (!opinion) return false;
  opinion.open = true;
  opinion.querySelector("#review_comment")?.focus();
  return true;
}

const keys = {
  "+": () => press("[data-thumb=up]"),
  u: () => press("[data-thumb=up]"),
  "-": () => press("[data-thumb=down]"),
  d: () => press("[data-thumb=down]"),
  r: write,
};

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.isComposing || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    if (press("#review-form [name=next]")) event.preventDefault();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.repeat || event.target.closest?.(TYPING)) return;
  if (keys[event.key]?.()) event.preventDefault();
});

// A thumb without a new page, so that what is being typed stays and the reader's place, too.
async function sendThumb(form, button) {
  const buttons = [...panel.querySelectorAll("[data-thumb]")];
  buttons.forEach((each) => { each.disabled = true; });
  try {
    const body = new FormData();
    body.set("csrfmiddlewaretoken", form.elements.csrfmiddlewaretoken.value);
    body.set("thumb", button.value);
    const answer = await fetch(form.action, { method: "POST", body, headers: { "X-Requested-With": "fetch" } });
    if (!answer.ok || answer.redirected) throw new Error(answer.statusText);
    const hadFocus = document.activeElement === document.body || panel.contains(document.activeElement) ? button.dataset.thumb : "";
    panel.querySelector("[data-review-opinions]").innerHTML = await answer.text();
    if (hadFocus) panel.querySelector(`[data-thumb=${hadFocus}]`)?.focus({ preventScroll: true });
  } catch {
    buttons.forEach((each) => { each.disabled = false; });
    // As without a script: the answer says what is wrong.
    form.requestSubmit(button);
  }
}

let isSending = false;
panel?.querySelector("#review-form").addEventListener("submit", (event) => {
  const button = event.submitter;
  if (!button?.dataset.thumb || isSending) return;
  event.preventDefault();
  isSending = true;
  sendThumb(event.target, button).finally(() => { isSending = false; });
});

// The tree chooses spans without a new page.
panel?.querySelector("#review_span_id")?.addEventListener("focus", ({ target }) => {
  const span = new URL(location.href).searchParams.get("span");
  if (span && ![...target.options].some((option) => option.value === span)) {
    target.add(new Option(target.dataset.label.replace("%s", span), span));
  }
});

panel?.querySelector("[data-review-keys]")?.removeAttribute("hidden");
