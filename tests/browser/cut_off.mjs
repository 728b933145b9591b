// A person sets an option that would sever contact: is told how many nodes it concerns, is asked, and has to type its name.
// Takes one argument, JSON; prints what it saw as JSON.
import { shoot, signedIn } from "./session.mjs";

const input = JSON.parse(process.argv[2]);

const seen = await signedIn(input, async (page, complaints, shots) => {
  const look = async (name) => shots.push(...(await shoot(page, name, complaints)));
  await page.goto("/options/new");
  await page.getByLabel("Option").first().fill("logger_tls_endpoint");
  await page.getByLabel("Value").first().fill("/nowhere");
  await page.getByRole("radio", { name: /^In stages/ }).check();
  await page.getByRole("button", { name: "How many nodes?" }).click();
  const preview = await page.locator("#preview").innerText();
  const kept = await page.getByRole("radio", { name: /^In stages/ }).isChecked();
  if (!kept) throw new Error("the choice is lost");
  await look("saving-preview");
  await page.getByRole("button", { name: "Add" }).click();
  const asked = await page.locator("#cut-off").innerText();
  await look("cut-off");
  await page.getByRole("checkbox", { name: /^I know what this does/ }).check();
  await page.locator("#cut_off_typed").fill("logger_tls_endpoint");
  await page.getByRole("radio", { name: /^At once/ }).check();
  await page.getByRole("button", { name: "Add" }).click();
  await page.waitForURL(/\/options$/);
  const saved = await page.getByRole("cell", { name: "logger_tls_endpoint" }).first().isVisible();
  await page.goto("/revisions");
  await look("revisions");
  await page.getByRole("link", { name: "2", exact: true }).first().click();
  await page.waitForURL(/\/revisions\/2$/);
  await look("revision");
  // A form that is shown again comes with the status 422, which is no trouble.
  const trouble = complaints.filter((line) => !line.includes("422"));
  return { preview, asked, saved, shots, console: trouble };
});

console.log(JSON.stringify(seen));
