/** The list of traces: news while it is read, and choosing a whole page. Without it, the list works all the same. */

const MOST_PATIENT = 60;

/**
 * Ask every few seconds, while the page is in sight, how many traces are new, and offer them.
 * @param {HTMLElement} place where to tell; `data-news` is the address, `data-seconds` the pace
 */
function watch(place) {
  const pace = Number(place.dataset.seconds);
  let wait = pace;
  let timer = 0;

  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(ask, wait * 1000);
  };
  const ask = async () => {
    if (document.hidden) return;
    try {
      const response = await fetch(place.dataset.news, { headers: { Accept: "application/json" }, redirect: "error" });
      if (response.status === 403) return;
      if (!response.ok) throw new Error(`news: ${response.status}`);
      offer(place, (await response.json()).text);
      wait = pace;
    } catch {
      wait = Math.min(wait * 2, MOST_PATIENT);
    }
    later();
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : ask()));
  later();
}

/**
 * @param {HTMLElement} place
 * @param {string} text what is new, or nothing
 */
function offer(place, text) {
  if (place.textContent === text) return;
  if (!text) return place.replaceChildren();
  const button = place.querySelector("button") ?? document.createElement("button");
  button.type = "button";
  button.textContent = text;
  button.onclick = () => location.reload();
  if (!button.isConnected) place.replaceChildren(button);
}

/**
 * Let one box choose the page, and the buttons of the chosen wait for them: for as many as `data-chosen` says, or any.
 * @param {HTMLFormElement} form
 */
function choosing(form) {
  const all = form.querySelector("[data-all]");
  const buttons = form.querySelectorAll("[data-chosen]");
  const boxes = [...form.querySelectorAll("tbody input[type=checkbox]")];
  const show = () => {
    const chosen = boxes.filter((box) => box.checked).length;
    all.checked = chosen === boxes.length;
    all.indeterminate = chosen > 0 && chosen < boxes.length;
    for (const button of buttons) {
      const wanted = Number(button.dataset.chosen);
      button.disabled = wanted ? chosen !== wanted : chosen === 0;
    }
  };
  all.hidden = false;
  all.addEventListener("change", () => {
    for (const box of boxes) box.checked = all.checked;
    show();
  });
  form.addEventListener("change", show);
  // Browsers tick again what was ticked, after this script has run, when somebody comes back.
  addEventListener("pageshow", show);
  show();
}

document.querySelectorAll("[data-news]").forEach(watch);
document.querySelectorAll("form.list-rows").forEach(choosing);
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  document.getElementById("search")?.focus();
});
