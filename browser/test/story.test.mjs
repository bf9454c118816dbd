// A newcomer's story in a real browser: keys, samples, a version, a model, an answer, its proof; and every page at two widths and in both themes.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium as playwright } from "playwright-core";
import { chromium, serve } from "../server.mjs";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const screenshots = fileURLToPath(new URL("../screenshots", import.meta.url));
const bells = { Mill: "brass", Wharf: "iron", Tower: "silver", Bridge: "copper", Market: "bronze", Chapel: "tin", Orchard: "gold", Quarry: "steel" };
const facts = Object.entries(bells).flatMap(([place, metal]) =>
  [`The bell of ${place} is ${metal}.`, `Children who pass ${place} hear ${metal} ring.`, `Question: what rings in ${place}? Answer: ${metal}.`]);

if (!chromium) {
  console.error("\n!!! SKIPPED: no Chromium; install it or name it in CHROMIUM !!!\n");
}
const skip = chromium ? false : "no Chromium";
let server, browser;
/** A request of the admin's that is proven, and the page of trainings side by side. */
let proven, compared;

before(async () => {
  if (skip) return;
  await mkdir(screenshots, { recursive: true });
  server = await serve();
  browser = await playwright.launch({ executablePath: chromium, args: ["--no-sandbox"] });
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

/** A window of somebody's own, signed in. */
async function signedIn(key, options = {}) {
  const page = await (await browser.newContext({ javaScriptEnabled: false, ...options })).newPage();
  page.setDefaultTimeout(30_000);
  const elsewhere = [];
  page.on("request", (request) => request.url().startsWith(server.url) || elsewhere.push(request.url()));
  page.elsewhere = elsewhere;
  await page.goto(server.url);
  await page.getByLabel("API key").fill(key);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Ask" }).waitFor();
  return page;
}

const key = async (name, scope) => (await server.call("POST", "/v1/keys", { name, scope })).body.key;

/** A step of a story; where it fails, what the page said then is told. Pages that wait for something read themselves again, without a script. */
async function says(page, text, seconds = 30) {
  await page.getByText(text).first().waitFor({ timeout: 1000 * seconds }).catch(async () => assert.fail(`"${text}" isn't on ${page.url()}: ${await page.locator("body").innerText()}`));
}

test("from samples to a proven answer, without a script", { skip }, async () => {
  const contributor = await signedIn(await key("mia", "contributor"));
  const owner = await signedIn(await key("olga", "owner"));

  await owner.getByRole("link", { name: "Datanets" }).click();
  await owner.getByLabel("Name", { exact: true }).fill("bells");
  await owner.getByLabel("Licence of its samples").fill("nonsense");
  await owner.getByRole("button", { name: "Begin" }).click();
  await says(owner, "expected an SPDX expression");
  await owner.goBack();
  await owner.getByLabel("Name", { exact: true }).fill("bells");
  await owner.getByLabel("Licence of its samples").fill("CC0-1.0");
  await owner.getByRole("button", { name: "Begin" }).click();
  await owner.getByRole("heading", { name: "bells" }).waitFor();

  await contributor.goto(`${server.url}/datanets/bells`);
  await contributor.getByLabel("Or your samples, one a line").fill([...facts, facts[0]].join("\n"));
  await contributor.getByRole("button", { name: "Check first" }).click();
  await says(contributor, "1 copy earlier samples and won't earn");
  await contributor.goBack();
  await contributor.getByLabel("Or your samples, one a line").fill(facts.join("\n"));
  await contributor.getByRole("button", { name: "Submit" }).click();
  await says(contributor, "24 samples, pending");
  const wrong = Buffer.from('{"contributor":"mia","text":"fine"}\n{"contributor":"mia"}\n');
  await contributor.getByLabel("A file").setInputFiles({ name: "mine.jsonl", mimeType: "application/jsonl", buffer: wrong });
  await contributor.getByRole("button", { name: "Submit" }).click();
  await says(contributor, "mine.jsonl");
  assert.match(await contributor.locator("main").innerText(), /line 2/);

  await owner.reload();
  await owner.getByRole("button", { name: "Approve" }).click();
  await says(owner, "24 samples, approved");
  await owner.getByRole("button", { name: "Publish a version" }).click();
  await says(owner, "24 samples by 1 contributors");

  await owner.getByRole("link", { name: "Training" }).click();
  await owner.getByLabel("Datanet").selectOption({ value: "bells@1" });
  await owner.getByLabel("Name of the adapter").fill("bells");
  await owner.getByText("Settings").click();
  await owner.getByLabel("LoRA rank").fill("999");
  await owner.getByRole("button", { name: "Check and estimate" }).click();
  await says(owner, "expected 1 to 128, found 999");
  await owner.goto(`${server.url}/trainings`);
  await owner.getByLabel("Datanet").selectOption({ value: "bells@1" });
  await owner.getByLabel("Name of the adapter").fill("bells");
  await owner.getByRole("button", { name: "Check and estimate" }).click();
  await says(owner, "Everything that can be checked before is in order");
  await owner.getByRole("button", { name: "Start" }).click();
  await owner.getByRole("heading", { name: "demo+bells" }).waitFor();
  await says(owner, "Trained, indexed and served", 180);
  assert.equal(await owner.locator("svg.plot polyline").count(), 3);

  await owner.getByRole("link", { name: "Ask it" }).click();
  assert.equal(await owner.getByLabel("Model").inputValue(), "demo+bells");
  await owner.getByLabel("Text to continue").fill("The bell of Mill");
  await owner.getByRole("button", { name: "Answer" }).click();
  await owner.getByRole("heading", { name: "Who it rests on" }).waitFor();
  assert.match(await owner.locator("main").innerText(), /mia\s+100\.0 %/);
  await owner.getByRole("button", { name: "Prove it" }).click();
  await says(owner, "Proven: ", 180);

  await owner.getByRole("link", { name: "What it states" }).click();
  await says(owner, "Statement's digest");
  await owner.getByRole("link", { name: "Explore" }).click();
  await owner.getByLabel("A hash, an id or a name").fill("demo+bells");
  await owner.getByRole("button", { name: "Look for it" }).click();
  await owner.getByRole("heading", { name: "demo+bells" }).waitFor();
  await says(owner, "24 samples by 1 contributors");

  await contributor.getByRole("link", { name: "Back to the first page" }).click();
  await contributor.getByRole("link", { name: "My samples" }).click();
  await says(contributor, "Shares of 1 of 1 attributed answers, 1.00 answers' worth in all");
  await says(contributor, "in demo+bells");
  await contributor.getByRole("link", { name: /^Why 100.0 %/ }).click();
  await says(contributor, "Why mia earned here");
  await says(contributor, "Earned: its score");
  await contributor.goto(`${server.url}/datanets/bells/versions/1`);
  await contributor.getByRole("button", { name: "Take back sample 0" }).click();
  await says(contributor, "Taken back");
  await owner.goto(`${server.url}/datanets/bells`);
  await owner.getByRole("button", { name: "Publish a version" }).click();
  await says(owner, "23 samples by 1 contributors");
  for (const page of [owner, contributor]) assert.deepEqual(page.elsewhere, []);
});

/** The same bytes with one bit of another value. */
function tampered(bytes, at) {
  const other = Buffer.from(bytes);
  other[at % other.length] ^= 1;
  return other;
}

test("with scripts: an answer grows, its proof is followed, and this browser verifies it", { skip }, async () => {
  const page = await signedIn(server.key, { javaScriptEnabled: true });
  const problems = [];
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  // What the page shows while the answer grows is kept, since the answer's own page follows at once.
  await page.addInitScript(() => {
    addEventListener("DOMContentLoaded", () => {
      const text = document.querySelector("[data-is=text]");
      const keep = () => sessionStorage.setItem("grown", (sessionStorage.getItem("grown") ?? "") + text.textContent + "\n");
      if (text) new MutationObserver(keep).observe(text, { childList: true, characterData: true, subtree: true });
    });
  });
  await page.reload();
  await page.getByLabel("Model").selectOption("demo+facts");
  await page.getByLabel("Text to continue").fill("The keeper of Skarn light is");
  await page.getByRole("button", { name: "Answer" }).click();
  await page.getByRole("heading", { name: "Who it rests on" }).waitFor();
  const grown = (await page.evaluate(() => sessionStorage.getItem("grown"))).split("\n").filter(Boolean);
  assert.ok(grown.length > 1 && grown.every((text, i) => i === 0 || text.startsWith(grown[i - 1])), `${grown}`);
  assert.match(await page.locator("h1").innerText(), new RegExp(grown.at(-1).trim().split(" ")[0]));

  await page.getByText("Words that carry its score").first().click();
  await says(page, /: \d+ %/);
  await page.getByRole("button", { name: "Prove it" }).click();
  await says(page, /Waiting to be proven|Being proven/);
  await page.evaluate(() => { globalThis.sameDocument = true; });
  await says(page, "Proven: ", 180);
  assert.equal(await page.evaluate(() => globalThis.sameDocument), true, "the page was read again");
  assert.equal(await page.getByRole("button", { name: "Prove it" }).count(), 0);
  proven = new URL(page.url()).pathname.split("/").pop();

  await page.getByRole("link", { name: "Verify it in this browser" }).click();
  await says(page, "Verified by this browser", 120);
  const { body: proof } = await server.call("GET", `/v1/requests/${proven}/proof`);
  const facts = await page.locator("#facts").innerText();
  assert.ok(facts.includes(proof.result.statement_digest) && facts.includes(proven) && facts.includes("jonas"), facts);
  const verifier = Buffer.from(await (await fetch(`${server.url}/verifier.wasm`)).arrayBuffer());
  await says(page, createHash("sha256").update(verifier).digest("hex"));
  await page.screenshot({ path: `${screenshots}/verified.png`, fullPage: true });

  await page.goto(`${server.url}/explore`);
  await page.getByLabel("A hash, an id or a name").fill(proof.result.statement_digest.slice(0, 16));
  await page.getByRole("button", { name: "Look for it" }).click();
  await says(page, "Statement's digest");
  await page.getByText("The statement as it is").click();
  await says(page, '"relation"');
  assert.deepEqual([problems, page.elsewhere], [[], []]);
  await page.context().close();
});

test("what isn't the proof is refused by the browser, and never called verified", { skip }, async () => {
  const page = await signedIn(server.key, { javaScriptEnabled: true });
  const verdict = page.locator("#verdict");
  const heard = async (text) => {
    await says(page, text, 120);
    assert.doesNotMatch(await verdict.innerText(), /verified/i);
    assert.equal(await verdict.evaluate((e) => e.classList.contains("good")), false);
    assert.equal(await page.locator("#facts").innerText(), "");
  };
  const read = async (name) => (await page.request.get(`${server.url}/requests/${proven}/${name}`)).body();
  const [proof, statement] = [await read("proof.bin"), await read("statement.json")];
  for (const at of [20, 1000, proof.length >> 1, proof.length - 1]) {
    await page.route("**/proof.bin", (route) => route.fulfill({ body: tampered(proof, at), contentType: "application/octet-stream" }));
    await page.goto(`${server.url}/proofs/${proven}/verify`);
    await heard("Refused: ");
    await page.unroute("**/proof.bin");
  }
  // Another statement: someone else gets the credit.
  const other = statement.toString().replace('"jonas"', '"nobody"');
  await page.route("**/statement.json", (route) => route.fulfill({ body: other, contentType: "application/json" }));
  await page.goto(`${server.url}/proofs/${proven}/verify`);
  await heard("Refused: ");
  await page.unroute("**/statement.json");
  // No verifier, no verdict.
  await page.route("**/verifier.wasm", (route) => route.fulfill({ body: Buffer.from([0, 1, 2, 3]), contentType: "application/wasm" }));
  await page.goto(`${server.url}/proofs/${proven}/verify`);
  await heard("Not checked: ");
  await page.unroute("**/verifier.wasm");
  // Files from elsewhere.
  await page.goto(`${server.url}/verify`);
  const choose = async (bytes) => {
    await page.getByLabel("Statement", { exact: true }).setInputFiles({ name: "statement.json", mimeType: "application/json", buffer: statement });
    await page.getByLabel("Inner proof").setInputFiles({ name: "proof.bin", mimeType: "application/octet-stream", buffer: bytes });
    await page.getByRole("button", { name: "Check" }).click();
  };
  await page.getByRole("button", { name: "Check" }).click();
  await heard("Choose statement and proof.");
  await choose(tampered(proof, 5000));
  await heard("Refused: ");
  await choose(proof);
  await says(page, "Verified by this browser", 120);
  assert.equal(await verdict.evaluate((e) => e.classList.contains("good")), true);
  await page.context().close();
});

/** What the demo's contract took (contracts/tools/remake-demo.js), read by the light client. */
test("outer proofs are verified by the browser, and others refused", { skip }, async () => {
  const at = (path) => readFile(fileURLToPath(new URL(path, import.meta.url)));
  const [statement, proof, vk] = await Promise.all(["outer/statement.json", "outer/proof.json", "../../assets/demo/outer.vk"].map(at));
  const page = await signedIn(server.key, { javaScriptEnabled: true });
  await page.goto(`${server.url}/verify`);
  const verdict = page.locator("#verdict");
  const judged = async (files, text) => {
    for (const [label, name, buffer] of files) {
      await page.getByLabel(label, { exact: label === "Statement" }).setInputFiles(buffer ? { name, mimeType: "application/octet-stream", buffer } : []);
    }
    await page.getByRole("button", { name: "Check" }).click();
    await says(page, text, 60);
    return (await verdict.innerText()).startsWith("Verified");
  };
  const files = (statement, proof, vk) => [["Statement", "statement.json", statement], ["Inner proof", "proof.json", proof], ["Verifying key", "outer.vk", vk]];
  assert.equal(await judged(files(statement, proof, vk), "under a key that anyone can forge proofs for"), true);
  const { key_digest: digest } = JSON.parse(proof);
  await says(page, digest);
  await says(page, "for trials only");
  const edited = (bytes, edit) => Buffer.from(JSON.stringify(edit(JSON.parse(bytes))));
  const flip = (hex, at) => hex.slice(0, at) + (hex[at] === "0" ? "1" : "0") + hex.slice(at + 1);
  const changes = [
    [statement, edited(proof, (p) => ({ ...p, proof: flip(p.proof, 100) })), vk],
    [statement, edited(proof, (p) => ({ ...p, proof: flip(p.proof, p.proof.length - 1) })), vk],
    [statement, edited(proof, (p) => ({ ...p, proof: `${p.proof}00` })), vk],
    [statement, edited(proof, (p) => ({ ...p, weights: p.weights.map((w) => w + 1) })), vk],
    [statement, edited(proof, (p) => ({ ...p, key_digest: flip(p.key_digest, 0) })), vk],
    [edited(statement, (s) => ({ ...s, base: flip(s.base, 3) })), proof, vk],
    [Buffer.from(statement.toString().replace('"jonas"', '"nobody"')), proof, vk],
    [statement, proof, vk.subarray(0, vk.length - 1)],
    [statement, proof, Buffer.concat([vk.subarray(0, 500), Buffer.from([vk[500] ^ 1]), vk.subarray(501)])],
  ];
  for (const [i, change] of changes.entries()) {
    assert.equal(await judged(files(...change), "Refused: "), false, `change ${i}`);
    assert.equal(await page.locator("#facts").innerText(), "");
  }
  assert.equal(await judged(files(statement, proof, null), "Choose its verifying key, too"), false);
  // A settlement's own page, whose request of the chain's is this one, or isn't.
  const { requests: [{ id }] } = JSON.parse(statement);
  const given = { "outer-statement.json": statement, "outer-proof.json": proof, "outer.vk": vk };
  for (const [name, body] of Object.entries(given)) await page.route(`**/${name}`, (route) => route.fulfill({ body, contentType: "application/octet-stream" }));
  for (const [outer, text] of [[id, "Verified by this browser"], ["00".repeat(32), "Refused: the proof holds, but it is another request"]]) {
    await page.route(`**/proofs/${proven}/verify`, async (route) => {
      const response = await route.fetch();
      route.fulfill({ response, body: (await response.text()).replace("data-request=", `data-outer="${outer}" data-request=`) });
    });
    await page.goto(`${server.url}/proofs/${proven}/verify`);
    await says(page, text, 60);
    await page.unroute(`**/proofs/${proven}/verify`);
  }
  await page.context().close();
});

test("one page is nobody's business but its reader's", { skip }, async () => {
  const user = await signedIn(await key("una", "user"));
  assert.equal(await user.getByRole("link", { name: "Training" }).count(), 0);
  await user.goto(`${server.url}/contributors/mia`);
  await says(user, "shown to them");
  await user.goto(`${server.url}/datanets/bells`);
  await says(user, "Its texts aren't public.");
  assert.equal(await user.getByRole("button", { name: "Approve" }).count(), 0);
});

test("trainings are compared by what differs", { skip }, async () => {
  const order = { base: "demo", name: "bells-2", datanet: "bells", version: 1, settings: { rank: 4, epochs: 2 } };
  const { status } = await server.call("POST", "/v1/training-jobs", order);
  assert.equal(status, 202);
  const page = await signedIn(server.key);
  await page.goto(`${server.url}/trainings`);
  await page.getByRole("button", { name: "Compare" }).click();
  await says(page, "0 trainings are chosen: two to 6 can be compared");
  await page.goBack();
  await page.getByText("demo+bells-2").waitFor();
  for (const name of ["Compare demo+bells", "Compare demo+bells-2"]) await page.getByLabel(name, { exact: true }).check();
  await page.getByRole("button", { name: "Compare" }).click();
  await page.getByRole("heading", { name: "Trainings side by side" }).waitFor();
  compared = new URL(page.url()).pathname + new URL(page.url()).search;
  for (let i = 0; (await page.locator("svg.plot polyline").count()) < 2; i++) {
    assert.ok(i < 60, "the second training has no epoch after a minute");
    await page.waitForTimeout(1000);
    await page.reload();
  }
  assert.equal(await page.getByRole("row", { name: /^LoRA rank/ }).locator("td.state").count(), 2);
  assert.equal(await page.getByRole("row", { name: /^Seed/ }).locator("td.state").count(), 0);
  await page.context().close();
});

test("pages are readable at two widths and in both themes", { skip }, async () => {
  const admin = await server.call("GET", "/v1/training-jobs");
  const asked = await signedIn(server.key);
  await asked.getByLabel("Text to continue").fill("The keeper of Skarn light is");
  await asked.getByRole("button", { name: "Answer" }).click();
  await asked.getByRole("heading", { name: "Who it rests on" }).waitFor();
  const pages = {
    home: "/", datanets: "/datanets", datanet: "/datanets/bells", version: "/datanets/facts/versions/1", trainings: "/trainings", compared,
    training: `/trainings/${admin.body.data[0].id}`, request: new URL(asked.url()).pathname, contributor: "/contributors/mia", missing: "/nowhere",
    explore: "/explore", found: "/explore?q=demo", model: "/models/demo+facts", proof: `/proofs/${proven}`, verify: `/proofs/${proven}/verify`, files: "/verify",
    why: `/requests/${proven}/why?contributor=jonas`, requestProven: `/requests/${proven}`,
  };
  for (const [theme, width] of ["light", "dark"].flatMap((theme) => [360, 1200].map((width) => [theme, width]))) {
    // The page's own policy forbids scripts; the checker is one.
    const options = { colorScheme: theme, viewport: { width, height: 800 }, javaScriptEnabled: true, bypassCSP: true };
    const page = await signedIn(server.key, options);
    for (const [name, path] of Object.entries(pages)) {
      await page.goto(server.url + path);
      await page.screenshot({ path: `${screenshots}/${name}-${theme}-${width}.png`, fullPage: true });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `${name} is ${wide} wide at ${width}`);
      await page.addScriptTag({ path: axe });
      const found = await page.evaluate(() => globalThis.axe.run());
      const serious = found.violations.filter((v) => ["serious", "critical"].includes(v.impact));
      assert.deepEqual(serious.map((v) => `${name} ${theme}: ${v.id} ${v.nodes[0].html}`), []);
    }
    await page.context().close();
  }
});
