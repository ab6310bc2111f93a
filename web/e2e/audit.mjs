//! The log that can be proven: looked through, proven, exported, each as a person does it.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

import { api, PHONE, SHOTS, violations } from "./browser.mjs";
import { admin, enter, somebody } from "./people.mjs";

const tests = {};
export { tests };

/** The buttons of the rows that can be proven, once there is one: a checkpoint must have been signed. */
async function provable(page) {
  const prove = page.locator("button:has-text('Prove')");
  for (let tries = 0; (await prove.count()) === 0 && tries < 30; tries += 1) {
    await page.click("button:has-text('Look again')");
    await Promise.race([prove.first().waitFor({ timeout: 2_000 }).catch(() => undefined), page.waitForResponse(/\/audit\?/).catch(() => undefined)]);
  }
  return prove;
}

tests["a row of the audit log is proven in the browser, and a forged proof is not"] = async ({ demo, open }) => {
  const page = await open({ as: "admin" });
  await page.goto(`${demo.address}/audit`);
  await page.waitForSelector("tbody tr");
  const prove = await provable(page);
  await prove.first().click();
  await page.waitForSelector("dialog .message-good:has-text('Proven')");
  assert.equal(await page.locator(".proof .step-bad").count(), 0);
  assert.ok((await page.locator(".proof .step-good").count()) >= 4, "a part of the proof is missing");
  assert.deepEqual(await violations(page), []);
  await page.screenshot({ path: `${SHOTS}audit-proof.png` });
  await page.keyboard.press("Escape");

  // The same answer with one bit of one part turned: each must be noticed.
  const turned = (base64) => {
    const bytes = Buffer.from(base64, "base64");
    bytes[bytes.length - 1] ^= 1;
    return bytes.toString("base64");
  };
  const lies = {
    leaf_input: (proof) => ({ ...proof, leaf_input: turned(proof.leaf_input) }),
    path: (proof) => ({ ...proof, path: proof.path.with(0, turned(proof.path[0])) }),
    index: (proof) => ({ ...proof, index: proof.index ^ 1 }),
    checkpoint: (proof) => ({ ...proof, checkpoint: proof.checkpoint.replace(/\n(\d+)\n/, (_, size) => `\n${Number(size) + 1}\n`) }),
    content: (proof) => ({ ...proof, content: { ...proof.content, payload: `${proof.content.payload} ` } }),
  };
  for (const [part, lie] of Object.entries(lies)) {
    await page.route("**/api/v1/audit/*/proof", async (route) => {
      const answer = await route.fetch();
      await route.fulfill({ response: answer, json: lie(await answer.json()) });
    });
    await page.goto(`${demo.address}/audit`);
    await prove.first().click();
    await page.waitForSelector("dialog .message-bad:has-text('NOT PROVEN')").catch(() => assert.fail(`a turned ${part} is not noticed`));
    await page.unroute("**/api/v1/audit/*/proof");
  }
};

tests["the audit log is searched, and exported as it was searched"] = async ({ demo, open }) => {
  const page = await open({ as: "admin" });
  await page.goto(`${demo.address}/audit`);
  await page.waitForSelector("tbody tr");
  await page.getByLabel("Did").selectOption("sign-in");
  await page.waitForFunction(() => {
    const rows = [...document.querySelectorAll("tbody tr")];
    return rows.length > 0 && rows.every((row) => row.querySelector("[data-label=Did]").textContent.startsWith("sign-in"));
  });
  assert.match(page.url(), /action=sign-in/);
  for (const [label, type] of [["Export CSV", "csv"], ["Export FHIR", "ndjson"]]) {
    const [download] = await Promise.all([page.waitForEvent("download"), page.click(`a:has-text('${label}')`)]);
    const text = (await readFile(await download.path())).toString();
    assert.ok(text.trim().split("\n").length > 1, `${label} is empty`);
    if (type === "ndjson") assert.ok(text.trim().split("\n").every((line) => JSON.parse(line).resourceType === "AuditEvent"));
  }
};

tests["an auditor finds the rows of a record number and of a device's name, and keeps neither name nor number in the address"] = async ({ demo, open }) => {
  const boss = await admin(open, demo);
  const { patient } = await somebody(boss);
  const [{ name: device }] = (await api(boss, "/devices")).devices;
  const { page } = await enter(open, boss, demo, { role: "auditor" });
  await page.goto(`${demo.address}/audit`);
  await page.waitForSelector("tbody tr");
  const look = async (label, text) => {
    const answer = page.waitForResponse((one) => one.url().includes("/api/v1/audit?") && one.url().includes(encodeURIComponent(text).replaceAll("%20", "+")));
    await page.getByLabel(label).fill(text);
    await page.getByRole("button", { name: "Search" }).click();
    await answer;
  };
  await look("Patient", patient.record_number);
  await page.waitForFunction((label) => {
    const rows = [...document.querySelectorAll("tbody [data-label=Patient]")];
    return rows.length > 0 && rows.every((row) => row.textContent.includes(label));
  }, patient.record_number);
  assert.ok(!page.url().includes(patient.record_number), "the record number stands in the address");
  assert.ok(!(await page.content()).includes(patient.family.toLocaleUpperCase()), "an auditor reads a patient's name");
  await look("Patient", "no such record");
  await page.waitForSelector("main [role=alert]");
  assert.equal(await page.getByRole("button", { name: "Try again" }).count(), 0);
  await page.getByRole("button", { name: "Show all" }).click();
  await page.waitForSelector("tbody tr");
  await look("Device", device);
  await page.waitForSelector(`tbody td:has-text("${device}")`);
};

tests["every act and every outcome that the log's search offers is one that the server knows"] = async ({ demo, open }) => {
  const page = await open({ as: "admin" });
  await page.goto(`${demo.address}/audit`);
  await page.waitForSelector("tbody tr");
  for (const [label, key, least] of [["Did", "action", 10], ["Outcome", "outcome", 3]]) {
    const words = (await page.getByLabel(label).locator("option").evaluateAll((all) => all.map((one) => one.value))).filter(Boolean);
    assert.ok(words.length >= least, `${label} offers ${words.length}`);
    for (const word of words) await api(page, `/audit?limit=1&${key}=${word}`);
  }
  const over = await page.locator(".table-scroll").evaluate((frame) => frame.scrollWidth - frame.clientWidth);
  assert.ok(over <= 0, `the table is ${over} px too wide: its proofs are off the screen`);
  const words = (await api(page, "/audit?limit=200")).rows.map(({ action }) => action);
  const offered = await page.getByLabel("Did").locator("option").allTextContents();
  assert.deepEqual([...new Set(words)].filter((word) => !offered.includes(word)), [], "the log has acts that nobody can search for");
};

tests["dialogs with keys, hashes and nested rules fit a phone"] = async ({ demo, open }) => {
  const page = await open({ as: "admin", size: PHONE, theme: "dark" });
  const over = () => page.locator("dialog").last().evaluate((dialog) => dialog.scrollWidth - dialog.clientWidth);
  await page.goto(`${demo.address}/audit`);
  await page.waitForSelector("tbody tr");
  await (await provable(page)).first().click();
  await page.waitForSelector("dialog .message-good");
  assert.ok((await over()) <= 0, `a proof is ${await over()} px too wide`);
  const { patient } = await somebody(page);
  await page.goto(`${demo.address}/patients/${patient.id}`);
  await page.click("button:has-text('New rule')");
  await page.click("dialog button:has-text('Add an exception')");
  assert.ok((await over()) <= 0, `a rule with an exception is ${await over()} px too wide`);
  assert.deepEqual(await violations(page), []);
};
