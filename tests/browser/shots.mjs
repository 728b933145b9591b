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
  "node-carves": { list: "/nodes", link: "/nodes/", then: "/carves" },
  carve: { list: "/carves", link: "/carves/" },
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
  sections: "/sections",
  "section-new": "/sections/new",
  "section-view": "/sections/new?key=views",
  "section-atc": "/sections/new?key=auto_table_construction",
  "denied-tables": "/table-denials",
  "denied-tables-new": "/table-denials/new",
  revisions: "/revisions",
  revision: "/revisions/1",
  decorators: "/decorators",
  "decorator-new": "/decorators/new",
  rules: "/rules",
  rule: { list: "/rules", link: "/rules/" },
  "rule-new": "/rules/new",
  "rule-edit": { list: "/rules", link: "/rules/", then: "/edit" },
  sinks: "/sinks",
  sink: { list: "/sinks", link: "/sinks/" },
  "sink-new": "/sinks/new?kind=splunk",
  destinations: "/destinations",
  destination: { list: "/destinations", link: "/destinations/" },
  "destination-edit": { list: "/destinations", link: "/destinations/", then: "/edit" },
  deliveries: "/deliveries",
  delivery: { list: "/deliveries", link: "/deliveries/" },
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

/** What lists are empty without: a view, whose SQL is looked at while it is typed, a tag, denied tables, a sink. */
async function fill(page, heard) {
  const save = async (path, list, fields, lookBefore = async () => {}) => {
    await page.goto(list);
    if (await page.getByText(fields.name ?? fields.reason).count()) return;
    await page.goto(path);
    for (const [name, value] of Object.entries(fields)) await page.locator(`main [name=${name}]`).first().fill(value);
    await lookBefore();
    await page.locator("main form button.btn-primary").first().click();
    await page.waitForURL((url) => !url.pathname.endsWith("/new"));
  };
  await save("/sections/new?key=views", "/sections", { name: "shells" }, async () => {
    const [view, sql] = [page.locator("[name=e0_name]"), page.locator("[name=e0_sql]")];
    await view.fill("shells");
    await sql.fill("SELECT pid, nam FROM processes");
    await page.locator("[data-sql-said].bad").first().waitFor();
    await shoot(page, "section-view-wrong", heard);
    await sql.fill("SELECT pid, name FROM processes WHERE name LIKE '%sh'");
    await page.getByText("osquery understands this.").first().waitFor();
  });
  await save("/tags", "/tags", { name: "database", description: "Servers with a database" });
  await save("/table-denials/new", "/table-denials", { tables: "curl\ncarves", target: "database", reason: "Curl calls out." });
  await save("/sinks/new?kind=stdout", "/sinks", { name: "everything" });
}

const login = { manager_url: server.manager_url, user: server.admin_user, password: server.admin_password };
const complaints = await signedIn(login, async (page, heard) => {
  await ask(page);
  await fill(page, heard);
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
