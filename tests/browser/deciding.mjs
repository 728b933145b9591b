// A person takes over several findings at once, silences one of them, ends the silence and resolves it.
// Takes one argument, JSON; prints what it saw as JSON.
import { shoot, signedIn } from "./session.mjs";

const input = JSON.parse(process.argv[2]);

const seen = await signedIn(input, async (page, complaints, shots) => {
  const look = async (name) => shots.push(...(await shoot(page, name, complaints)));
  const rows = page.locator("main table tbody tr");
  await page.goto("/findings");
  const open = await rows.count();
  for (const box of await page.getByRole("checkbox", { name: /^Choose / }).all()) await box.check();
  await page.getByLabel(/^About the chosen ones/).fill("both are mine");
  await page.getByRole("button", { name: "Acknowledge the chosen" }).click();
  await page.getByText("Nothing needs you").waitFor();
  await page.goto("/findings?state=acknowledged");
  const acknowledged = await rows.count();
  await look("findings-acknowledged");

  await rows.first().locator("a.name").click();
  await page.waitForURL(/\/findings\/[0-9a-f-]+$/);
  const finding = page.url();
  await page.getByText("both are mine").first().waitFor();
  await page.getByRole("link", { name: "Silence", exact: true }).click();
  await page.waitForURL(/\/silences\/new/);
  await page.getByLabel("Why").fill("while we move");
  await look("silence-form");
  await page.getByRole("button", { name: "Silence", exact: true }).click();
  await page.waitForURL(/\/silences$/);
  await page.getByText("while we move").first().waitFor();
  await look("silences-on");
  const end = page.getByRole("button", { name: "End now" });
  await end.click();
  await end.waitFor({ state: "detached" });
  await look("silences-ended");

  await page.goto(finding);
  await page.getByRole("button", { name: "Resolve" }).click();
  await page.getByRole("button", { name: "Reopen" }).waitFor();
  await look("finding-resolved");
  return { open, acknowledged, finding: finding.split("/").pop(), shots, console: complaints };
});

console.log(JSON.stringify(seen));
