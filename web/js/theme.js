// Runs before the first paint, so that a page never flashes in the other theme. The choice is remembered in this browser;
// without one the system's setting holds.
const KEY = "ostiary-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

function stored() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // storage may be forbidden; then the system decides
  }
}

function apply() {
  const theme = stored() ?? (dark.matches ? "dark" : "light");
  document.documentElement.setAttribute("data-bs-theme", theme);
}

window.ostiaryToggleTheme = () => {
  const next = document.documentElement.getAttribute("data-bs-theme") === "dark" ? "light" : "dark";
  try {
    localStorage.setItem(KEY, next);
  } catch {
    document.documentElement.setAttribute("data-bs-theme", next);
    return;
  }
  apply();
};

document.documentElement.classList.add("js");
dark.addEventListener("change", apply);
apply();
