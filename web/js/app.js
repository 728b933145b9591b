// What pages gain from JavaScript. Everything also works without it: reading, filters, forms.
import "htmx.org";
import { showBuilders } from "./rules.js";
import { tryInPlace } from "./trial.js";

const TYPING = new Set(["INPUT", "TEXTAREA", "SELECT"]);

/** Absolute times in the viewer's own zone, on hover. */
function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) {
      time.title = at.toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
    }
  }
}

/** Says in the button itself that the text has been copied. */
async function copy(button) {
  const source = document.querySelector(button.dataset.copy);
  if (!source) return;
  const label = button.querySelector("[data-copy-label]") ?? button;
  const before = label.textContent;
  try {
    await navigator.clipboard.writeText(source.value ?? source.textContent);
    label.textContent = "Copied";
  } catch {
    // Plain HTTP on another address than loopback has no clipboard: select, so that Ctrl-C does it.
    getSelection().selectAllChildren(source);
    label.textContent = "Press Ctrl-C";
  }
  setTimeout(() => {
    label.textContent = before;
  }, 2000);
}

/** Shows what can be done with the chosen rows, and how many there are. */
function countChosen(form) {
  const boxes = [...form.querySelectorAll("[data-choose]")];
  const chosen = boxes.filter((box) => box.checked).length;
  const bar = form.querySelector("[data-chosen-bar]");
  if (bar) bar.toggleAttribute("data-empty", chosen === 0);
  for (const out of form.querySelectorAll("[data-chosen-count]")) out.textContent = String(chosen);
  const all = form.querySelector("[data-choose-all]");
  if (all) {
    all.checked = chosen > 0 && chosen === boxes.length;
    all.indeterminate = chosen > 0 && chosen < boxes.length;
  }
}

/** Has SQL looked at while it is typed, and says below the field what is wrong and where. Nothing is run or stored. */
async function lookAtSql(area) {
  const { form } = area;
  let out = area.nextElementSibling;
  if (!out?.matches("[data-sql-said]")) {
    out = document.createElement("span");
    out.className = "form-hint";
    out.dataset.sqlSaid = "";
    out.setAttribute("role", "status");
    area.after(out);
  }
  const sql = area.value;
  if (!sql.trim()) {
    out.textContent = "";
    return;
  }
  // Views may read the others of their form, so the whole form comes along.
  const fields = new URLSearchParams(form.matches("[data-entries]") ? new FormData(form) : "");
  for (const name of ["csrf", "target", "platform", "node_ids"]) fields.set(name, form.elements[name]?.value ?? "");
  const platform = area.closest("[data-entry]")?.querySelector("[name$='_platform']");
  if (platform) fields.set("platform", platform.value);
  fields.set("sql", sql);
  fields.set("what", area.dataset.sql);
  let said;
  try {
    const answer = await fetch("/sql-check", { method: "POST", body: fields, headers: { accept: "application/json" } });
    if (!answer.ok) return;
    said = await answer.json();
  } catch {
    return;
  }
  // Somebody may have typed on meanwhile.
  if (area.value !== sql) return;
  const place = said.position ? `Line ${said.position.line}, column ${said.position.column}: ` : "";
  out.textContent = said.ok ? said.warnings.join(" ") || "osquery understands this." : place + said.problem;
  out.classList.toggle("bad", !said.ok);
}

let sqlTimer;
document.addEventListener("input", (event) => {
  if (!event.target.matches("textarea[data-sql]")) return;
  clearTimeout(sqlTimer);
  sqlTimer = setTimeout(() => lookAtSql(event.target), 400);
});

document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-copy], [data-toggle-theme]");
  if (!target) {
    // A click elsewhere closes the open menus.
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
    return;
  }
  if (target.matches("[data-copy]")) copy(target);
  else window.ostiaryToggleTheme();
});

document.addEventListener("change", (event) => {
  const form = event.target.form;
  if (event.target.matches("[data-choose-all]")) {
    for (const box of form.querySelectorAll("[data-choose]")) box.checked = event.target.checked;
  }
  if (event.target.matches("[data-choose], [data-choose-all]")) countChosen(form);
  if (event.target.matches("[data-submit-on-change]")) form.requestSubmit();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
    return;
  }
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (TYPING.has(document.activeElement?.tagName)) return;
  const search = document.querySelector("[data-search]");
  if (search) {
    event.preventDefault();
    search.focus();
    search.select();
  }
});

// A form is sent once, however often the button is pressed; `pageshow` undoes it for the back button.
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.method === "get") return;
  if (event.target.dataset.sent) {
    event.preventDefault();
    return;
  }
  event.target.dataset.sent = "yes";
});
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

document.addEventListener("htmx:afterSwap", (event) => localTimes(event.target.parentElement ?? document));
// A poll that finds the session gone leads to the sign-in page instead of putting that page into a box.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.responseURL.includes("/sign-in")) {
    event.detail.shouldSwap = false;
    location.reload();
  }
});

localTimes(document);
showBuilders(document);
tryInPlace((fresh) => {
  localTimes(fresh);
  showBuilders(fresh);
});
for (const form of document.querySelectorAll("form[data-chooser]")) countChosen(form);

/** Shows below the templates of a destination what they make of a sample. Nothing is stored or sent. */
async function previewTemplates(form) {
  const out = form.querySelector("[data-preview-said]");
  const typed = () => {
    const names = ["csrf", "title_template", "text_template"];
    return new URLSearchParams(names.map((name) => [name, form.elements[name].value]));
  };
  const fields = typed();
  let said;
  try {
    const answer = await fetch("/destinations/preview", { method: "POST", body: fields, headers: { accept: "application/json" } });
    if (!answer.ok) return;
    said = await answer.json();
  } catch {
    return;
  }
  // Somebody may have typed on meanwhile.
  if (typed().toString() !== fields.toString()) return;
  out.textContent = said.ok ? `${said.title}\n\n${said.text}` : Object.values(said.errors).join("\n");
  out.classList.toggle("bad", !said.ok);
}

let previewTimer;
document.addEventListener("input", (event) => {
  if (!event.target.matches("[name='title_template'], [name='text_template']")) return;
  clearTimeout(previewTimer);
  previewTimer = setTimeout(() => previewTemplates(event.target.form), 400);
});

for (const box of document.querySelectorAll("[data-template-preview]")) previewTemplates(box.closest("form"));
