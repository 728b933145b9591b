// Pictures of every page of a running server. Arguments: its server.json, then names of pages if only some are wanted.
import { readFileSync } from "node:fs";
import { shoot, signedIn } from "./session.mjs";

const server = JSON.parse(readFileSync(process.argv[2], "utf8"));
const wanted = process.argv.slice(3);

/** Pages by name: a path, or how to find one from a list page. */
const PAGES = {
  overview: "/",
  nodes: "/nodes",
  "nodes-none": "/nodes?q=nobody-is-called-that",
  node: { list: "/nodes", link: "/nodes/" },
  "node-present": { list: "/nodes", link: "/nodes/", then: "/present?query=pack/baseline/listening_ports" },
  "node-events": { list: "/nodes", link: "/nodes/", then: "/events" },
  "node-findings": { list: "/nodes", link: "/nodes/", then: "/findings" },
  "node-status-logs": { list: "/nodes", link: "/nodes/", then: "/status-logs" },
  "node-live-queries": { list: "/nodes", link: "/nodes/", then: "/live-queries" },
  "node-config": { list: "/nodes", link: "/nodes/", then: "/config" },
  findings: "/findings",
  "findings-resolved": "/findings?state=resolved",
  finding: { list: "/findings", link: "/findings/" },
  silences: "/silences",
  "silence-form": "/silences/new",
  "live-queries": "/live-queries",
  "live-query-new": "/live-queries/new",
  "live-query": { list: "/live-queries", link: "/live-queries/" },
  packs: "/packs",
  pack: { list: "/packs", link: "/packs/" },
  "pack-edit": { list: "/packs", link: "/packs/", then: "/edit", text: "baseline" },
  "pack-new": "/packs/new",
  "pack-import": "/packs/import",
  "config-export": "/config/export?ask=1&scope=whole&target=prod",
  "query-new": "/queries/new",
  queries: "/queries",
  "file-paths": "/file-paths",
  "file-path-new": "/file-paths/new",
  options: "/options",
  "option-new": "/options/new",
  resync: "/resync",
  "resync-ask": "/resync?ask=1",
  "node-keys": "/enroll/node-keys",
  decorators: "/decorators",
  "decorator-new": "/decorators/new",
  rules: "/rules",
  rule: { list: "/rules", link: "/rules/" },
  "rule-edit": { list: "/rules", link: "/rules/", then: "/edit" },
  sinks: "/sinks",
  "sink-new": "/sinks/new?kind=splunk",
  destinations: "/destinations",
  destination: { list: "/destinations", link: "/destinations/" },
  "destination-edit": { list: "/destinations", link: "/destinations/", then: "/edit" },
  "destination-new": "/destinations/new?kind=webhook",
  tags: "/tags",
  enroll: "/enroll",
  "enroll-secret": { list: "/enroll", link: "/enroll/secrets/" },
  "key-header": "/enroll/key-header",
  conflicts: "/nodes/conflicts",
  approvals: "/nodes/approvals",
  certificates: "/certificates",
  carves: "/carves",
  unreadable: "/unreadable",
  audit: "/audit",
  users: "/users",
  "user-new": "/users/new",
  tokens: "/tokens",
  account: "/account",
  "not-found": "/no-such-page",
};

/** The path of a page; null when its list is empty. */
async function pathOf(page, where) {
  if (typeof where === "string") return where;
  await page.goto(where.list);
  const links = page.locator("main table a, main .card a, main .list a");
  const all = await links.evaluateAll((found) => found.map((one) => [one.getAttribute("href"), one.textContent]));
  const fits = ([href, text]) =>
    /^[0-9a-f-]{36}$/.test(href?.startsWith(where.link) ? href.slice(where.link.length) : "") &&
    (!where.text || text.includes(where.text));
  const found = all.find(fits);
  return found ? found[0] + (where.then ?? "") : null;
}

/** A live query, so that there is one to see. */
async function ask(page) {
  await page.goto("/live-queries");
  if (await page.locator("main table").count()) return;
  await page.goto("/live-queries/new");
  await page.locator("[name=sql]").fill("SELECT pid, name, path FROM processes LIMIT 5;");
  await page.locator("[name=target]").fill("*");
  await page.locator("main form button[type=submit]").last().click();
  await page.waitForURL(/live-queries\/[0-9a-f-]{36}/);
}

const login = { manager_url: server.manager_url, user: server.admin_user, password: server.admin_password };
const complaints = await signedIn(login, async (page, heard) => {
  await ask(page);
  for (const [name, where] of Object.entries(PAGES)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue;
    const path = await pathOf(page, where);
    if (path === null) {
      console.log(`${name}: there is none`);
      continue;
    }
    await page.goto(path);
    await shoot(page, name, heard);
    console.log(`${name}: ${path}`);
  }
  // That page answers 404, as it should.
  return heard.filter((line) => !line.includes("/no-such-page"));
});
for (const complaint of new Set(complaints)) console.error(complaint);
process.exitCode = complaints.length > 0 ? 1 : 0;
