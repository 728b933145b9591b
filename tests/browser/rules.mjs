// What a person does who wants to hear of something: chooses a starter, puts a rule together, stops a dry run, tries it again, saves it.
// Takes one argument, JSON; prints what it saw as JSON.
import { shoot, signedIn } from "./session.mjs";

const input = JSON.parse(process.argv[2]);

/** Adds a test to the rule: a field, and what it has to be. */
async function addTest(page, field, value) {
  await page.getByRole("button", { name: "Add a test" }).click();
  const test = page.locator(".rule-test").last();
  await test.getByLabel("What is looked at").selectOption({ label: field });
  await page.locator(".rule-test").last().getByLabel("With what").fill(value);
}

const seen = await signedIn(input, async (page, complaints) => {
  await page.goto("/rules");
  const set = page.locator("details", { has: page.getByRole("heading", { name: "Starter set" }) });
  const offered = await set.locator("tbody tr").count();
  if (!(await set.evaluate((details) => details.open))) await set.locator("summary").click();
  const starter = set.getByRole("row").filter({ hasText: input.starter });
  await starter.getByRole("button", { name: "Add" }).click();
  await page.getByText("The rule and its pack are on.").waitFor();
  await page.getByRole("link", { name: input.starter }).first().waitFor();

  await page.getByRole("link", { name: "New rule" }).click();
  await page.locator("input[name='name']").fill(input.rule);
  await addTest(page, "Query", input.query);
  await addTest(page, "Action", "added");
  // At once, for nobody is quick enough otherwise.
  await page.evaluate(() => {
    document.querySelector("[data-trial]").click();
    document.querySelector("[data-trial-stop]").click();
  });
  await page.getByText("Stopped. Nothing was saved.").waitFor();
  const stopped = await page.locator("input[name='name']").inputValue();

  await page.getByRole("button", { name: "Dry run" }).click();
  await page.locator("#trial").waitFor();
  const trial = await page.locator("#trial p").first().innerText();
  const rows = await page.locator("#trial pre").allInnerTexts();
  const tests = await page.locator(".rule-test").count();
  await shoot(page, "rule-trial", complaints);
  await page.getByRole("button", { name: "Make the rule" }).click();
  await page.waitForURL(/\/rules\/[0-9a-f-]{36}$/);
  const made = await page.locator("h1").innerText();
  return { offered, stopped, trial, rows, tests, made, console: complaints };
});

console.log(JSON.stringify(seen));
