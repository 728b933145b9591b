// What an admin does about identity: merges the one conflict there is, lets a machine in, refuses another.
// Takes one argument, JSON (merge: bool, approve, refuse: names); prints what it saw as JSON.
import { shoot, signedIn } from "./session.mjs";

const input = JSON.parse(process.argv[2]);

const seen = await signedIn(input, async (page, complaints, shots) => {
  let left = 0;
  if (input.merge) {
    await page.getByRole("navigation").getByRole("link", { name: /^Conflicts/ }).first().click();
    await page.waitForURL(/\/nodes\/conflicts$/);
    shots.push(...(await shoot(page, "conflicts", complaints)));
    await page.getByRole("button", { name: /^One machine/ }).click();
    await page.waitForURL(/\/nodes\/[0-9a-f-]{36}$/);
    await page.goto("/nodes/conflicts");
    left = await page.getByRole("button", { name: /^One machine/ }).count();
  }
  const section = (name) => page.locator("section", { has: page.getByRole("heading", { name, exact: true }) });
  if (input.approve) {
    await page.getByRole("navigation").getByRole("link", { name: /^Approvals/ }).first().click();
    await page.waitForURL(/\/nodes\/approvals$/);
    shots.push(...(await shoot(page, "approvals", complaints)));
    await section(input.approve).getByRole("button", { name: /^Approve/ }).first().click();
    await page.getByText(/^Approved/).waitFor();
  }
  if (input.refuse) {
    await page.goto("/nodes/approvals");
    await section(input.refuse).getByRole("button", { name: "Refuse" }).click();
    await page.getByText(/^Refused, and/).waitFor();
  }
  await page.goto("/enroll");
  await page.locator("td.name a").first().click();
  await page.waitForURL(/\/enroll\/secrets\/[0-9a-f-]{36}$/);
  shots.push(...(await shoot(page, "enroll-secret", complaints)));
  await page.goto("/enroll/key-header");
  shots.push(...(await shoot(page, "key-header", complaints)));
  return { left, shots, console: complaints };
});

console.log(JSON.stringify(seen));
