// What a person does after the mail: signs in, finds the node, looks at its rows, the finding and how it was told.
// Takes one argument, JSON; prints what it saw as JSON.
import { shoot, signedIn } from "./session.mjs";

const input = JSON.parse(process.argv[2]);

const seen = await signedIn(input, async (page, complaints, shots) => {
  const look = async (name) => shots.push(...(await shoot(page, name, complaints)));
  await look("overview");

  await page.getByRole("link", { name: "Nodes" }).first().click();
  await page.waitForURL(/\/nodes$/);
  await look("nodes");
  await page.keyboard.press("/");
  await page.keyboard.type(input.node);
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/nodes\?/);
  const found = page.locator("main table tbody tr");
  const nodes = await found.count();
  if (nodes !== 1) throw new Error(`the search for ${input.node} found ${nodes} nodes`);
  await found.getByRole("link", { name: input.node }).click();
  await page.waitForURL(/\/nodes\/[0-9a-f-]+$/);
  const name = (await page.locator("h1").innerText()).split(/\s/)[0];
  await look("node");

  await page.getByRole("link", { name: "Present rows" }).click();
  await page.getByRole("link", { name: input.query }).click();
  await page.waitForURL(/\/present\?query=/);
  const rows = await page.locator("main table tbody tr").count();
  await look("node-present");

  await page.getByRole("navigation", { name: "This node" }).getByRole("link", { name: /^Findings/ }).click();
  await page.waitForURL(/\/findings$/);
  await look("node-findings");
  await page.getByRole("link", { name: input.rule }).click();
  await page.waitForURL(/\/findings\/[0-9a-f-]+$/);
  const finding = await page.locator("h1").innerText();
  const deliveries = page.locator("section", { has: page.getByRole("heading", { name: "Deliveries" }) });
  const state = await deliveries.getByText("delivered", { exact: true }).first().innerText();
  await deliveries.getByRole("link", { name: input.destination }).waitFor();
  const attempts = await deliveries.locator("tbody tr").count();
  await look("finding");
  return { node: { name }, present_rows: rows, finding, delivery: { state, attempts }, shots, console: complaints };
});

console.log(JSON.stringify(seen));
