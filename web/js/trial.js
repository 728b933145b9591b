// Dry runs of a form without leaving it, so that they can be stopped there: whoever hangs up ends the run. Without JavaScript the form is
// sent, and the browser's own button stops it.

/** Takes over buttons that are marked with `data-trial`; `swapped` is told of the page's new content. */
export function tryInPlace(swapped) {
  // Before those who want a form to be sent once only.
  document.addEventListener(
    "submit",
    (event) => {
      if (!event.submitter?.matches("[data-trial]")) return;
      event.preventDefault();
      run(event.target, event.submitter, swapped);
    },
    { capture: true },
  );
}

function typed(form) {
  return new URLSearchParams(new FormData(form));
}

async function run(form, button, swapped) {
  const stop = form.querySelector("[data-trial-stop]");
  const said = form.querySelector("[data-trial-said]");
  const asked = new AbortController();
  const fields = typed(form);
  stop.onclick = () => asked.abort();
  button.disabled = true;
  stop.hidden = false;
  said.textContent = "Looking at what nodes have reported …";
  try {
    const answer = await fetch(button.formAction, { method: "POST", body: fields, signal: asked.signal });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("main");
    if (!fresh?.querySelector("[data-trial]")) throw new Error("this is another page");
    if (typed(form).toString() !== fields.toString()) {
      said.textContent = "The form was changed meanwhile. Try it again.";
      return;
    }
    document.querySelector("main").replaceWith(fresh);
    swapped(fresh);
    fresh.querySelector("#trial h2, .is-invalid")?.focus();
  } catch {
    said.textContent = asked.signal.aborted ? "Stopped. Nothing was saved." : "No answer came. Try it again.";
  } finally {
    button.disabled = false;
    stop.hidden = true;
  }
}
