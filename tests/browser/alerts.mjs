// A person sends a destination a test, writes a template and sees what it makes of a sample, and reads in the ledger what was sent.
// Takes one argument, JSON; prints what it saw as JSON.
import { shoot, signedIn } from "./session.mjs";

const input = JSON.parse(process.argv[2]);

const seen = await signedIn(input, async (page, complaints, shots) => {
  const look = async (name) => shots.push(...(await shoot(page, name, complaints)));
  await page.goto(`/destinations/${input.destination}`);
  await look("destination-delivered");
  await page.getByRole("button", { name: "Send a test" }).click();
  const flash = page.getByText(/The test was/).first();
  const tested = await flash.innerText();

  await page.getByRole("link", { name: "Edit" }).click();
  await page.waitForURL(/\/edit$/);
  const title = page.locator("#title_template");
  const said = (part) => page.locator("[data-preview-said]", { hasText: part });
  await title.fill("$name on {{ node.name }}");
  const preview = await said("Free Coupons on mac-7").innerText();
  await look("destination-preview");
  await title.fill("{{ broken");
  const refused = await said("is not closed").innerText();

  await page.goto("/deliveries?state=delivered");
  await look("deliveries");
  await page.locator("main table tbody tr").first().locator("a[href^='/deliveries/']").click();
  await page.waitForURL(/\/deliveries\/[0-9a-f-]+$/);
  const sent = await page.locator("main").innerText();
  await look("delivery");
  return { tested, preview, refused, sent, shots, console: complaints };
});

console.log(JSON.stringify(seen));
