//! What administrators do, each act for real: asserted on what the server says and shows afterwards.

import assert from "node:assert/strict";
import { generateKeyPairSync, randomUUID, sign, verify, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";

import { api, send, SHOTS, violations } from "./browser.mjs";
import { admin, enter, HAPPENS_MS, invite, PASSWORD, somebody } from "./people.mjs";
import { nextCode } from "./person.mjs";

const DAY_S = 86_400;

const tests = {};
export { tests };

/** The dialog on top. */
const dialog = (page) => page.locator("dialog").last();

/** Fills the fields of the dialog on top by their labels. */
async function fill(page, values) {
  for (const [label, text] of Object.entries(values)) await dialog(page).getByLabel(label, { exact: true }).fill(text);
}

/** Sends the form of the dialog on top, and waits until it has done so. */
async function submit(page) {
  const sent = dialog(page).locator("button[type=submit]");
  await sent.click();
  await sent.waitFor({ state: "detached" });
}

async function downloaded(page, click) {
  const [download] = await Promise.all([page.waitForEvent("download"), click()]);
  return readFile(await download.path());
}

/** What the server says, asked again until it is so. */
async function until(page, path, fits, why) {
  const end = Date.now() + HAPPENS_MS;
  for (;;) {
    const found = await api(page, path);
    if (fits(found)) return found;
    assert.ok(Date.now() < end, why);
    // A turn of the event loop of the page: the next question goes out when the browser is free again.
    await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(resolve)));
  }
}

/** The last of the patients at home, who no other test uses: `back` counts from the end. */
async function atHome(page, back) {
  const { wards } = await api(page, "/wards");
  const home = wards.find(({ name }) => name === "Home care");
  assert.ok(home, "the demonstration has no patients at home");
  const tiles = (await api(page, `/wards/${home.id}/board`)).tiles.filter(({ patient, vitals }) => patient && vitals.length > 0);
  return tiles.at(-1 - back).patient;
}

async function pick(page, patient) {
  await dialog(page).locator("[role=combobox]").fill(patient.record_number);
  await dialog(page).locator("[role=option]", { hasText: patient.record_number }).click();
}

/** The devices that measure `patient` now. */
async function devicesOf(page, patient) {
  const { devices } = await api(page, "/devices");
  const found = devices.filter(({ assignment, link }) => assignment?.subject.id === patient.id && link === "live");
  assert.ok(found.length > 0, "no device measures this patient");
  return found;
}

tests["a place is added: the ward has a bed, and a patient can lie in it"] = async ({ demo, open }) => {
  const page = await admin(open, demo, "/admin/places");
  const ward = `Ward of ${randomUUID().slice(0, 8)}`;
  await page.click("button:has-text('Add a place')");
  await fill(page, { Name: ward });
  await dialog(page).getByLabel("Kind").selectOption("ward");
  await submit(page);
  await page.click("button:has-text('Add a place')");
  await fill(page, { Name: "Bed by the window" });
  await dialog(page).getByLabel("In the ward").selectOption(ward);
  await submit(page);
  const row = page.locator("tbody tr", { has: page.locator(`th:has-text("${ward}")`) });
  await row.getByText("Bed by the window").waitFor();
  const { wards } = await api(page, "/wards");
  const { tiles } = await api(page, `/wards/${wards.find(({ name }) => name === ward).id}/board`);
  assert.deepEqual(tiles.map(({ place }) => place.name), ["Bed by the window"]);
  // Beds of many wards have one name: the choice of a bed says in which ward it stands.
  await page.goto(`${demo.address}/patients`);
  await page.click("button:has-text('New patient')");
  const inside = dialog(page).getByLabel("Bed or home").locator(`optgroup[label="${ward}"] option`);
  await inside.waitFor({ state: "attached" });
  assert.deepEqual(await inside.allTextContents(), ["Bed by the window"]);
};

tests["a person's role is changed, their sessions are ended, they are disabled, and let in anew by a link"] = async ({ demo, open }) => {
  const page = await admin(open, demo);
  const { id, name, page: theirs, secret } = await enter(open, page, demo, { role: "nurse" });
  await page.reload();
  const row = page.locator("tbody tr", { has: page.locator(`td:text-is("${name}")`) });
  const labels = () => theirs.$$eval(".rail-label", (found) => found.map((one) => one.textContent));
  const signIn = async () => {
    await theirs.fill("input[name=username]", name);
    await theirs.fill("input[name=password]", PASSWORD);
    await theirs.click("button[type=submit]");
  };

  await row.getByRole("button", { name: "Change" }).click();
  await dialog(page).getByLabel("Role").selectOption("physician");
  await submit(page);
  assert.equal((await api(page, "/users")).users.find((user) => user.id === id).role, "physician");
  await theirs.goto(demo.address);
  await theirs.waitForSelector(".rail, input[name=password]");
  if (await theirs.isVisible("input[name=password]")) {
    await signIn();
    await theirs.fill("input[name=code]", nextCode(secret));
    await theirs.click("button[type=submit]");
    await theirs.waitForSelector(".rail");
  }
  assert.ok(!(await labels()).includes("Quarantine"), "a physician still has what only nurses have");

  await row.getByRole("button", { name: "Sessions" }).click();
  await dialog(page).locator("li").first().waitFor();
  await dialog(page).getByRole("button", { name: "End all" }).click();
  await dialog(page).getByText("Not signed in anywhere.").waitFor();
  await theirs.waitForSelector("input[name=password]", { timeout: HAPPENS_MS });
  await dialog(page).locator(".form-actions button").first().click();

  await row.getByRole("button", { name: "Change" }).click();
  await dialog(page).getByLabel("Disabled: cannot sign in").check();
  await submit(page);
  await row.locator(".tag:has-text('Disabled')").waitFor();
  await signIn();
  await theirs.waitForSelector("[role=alert]:has-text('not right')");

  await row.getByRole("button", { name: "Change" }).click();
  await dialog(page).getByLabel("Disabled: cannot sign in").uncheck();
  await submit(page);
  await row.getByRole("button", { name: "New link" }).click();
  await dialog(page).locator("button[type=submit]").click();
  const link = await dialog(page).locator(".one-time-text").textContent();
  await dialog(page).getByRole("button", { name: "Done" }).click();
  const line = (await api(page, "/users")).users.find((user) => user.id === id);
  assert.deepEqual([line.has_password, line.has_totp, line.is_complete], [false, false, false], "the old ways in still stand");
  await signIn();
  await theirs.waitForSelector("[role=alert]:has-text('not right')");
  await theirs.goto(link);
  await theirs.click("button:has-text('Begin')");
  await theirs.waitForSelector("h1:has-text('Make your way in')");
};

tests["the policies are asked about a case, and read again"] = async ({ demo, open }) => {
  const page = await admin(open, demo, "/admin/roles", ".policies li");
  const { ward } = await somebody(page);
  const ask = async (who, action, on) => {
    await page.getByLabel("Who", { exact: true }).fill(who);
    await page.getByLabel("Action", { exact: true }).fill(action);
    await page.getByLabel("On", { exact: true }).fill(on);
    const answered = page.waitForResponse((response) => response.url().endsWith("/policies/explain"));
    await page.click("button:has-text('Ask')");
    await answered;
    return page.locator("section[aria-labelledby=explain] [role=status]").innerText();
  };
  assert.match(await ask("nurse", "read-chart", `ward/${ward.id}`), /^Yes\./);
  assert.match(await ask("auditor", "read-chart", `ward/${ward.id}`), /^No\./);
  await page.screenshot({ path: `${SHOTS}may-they.png` });
  const before = (await api(page, "/policies")).loaded_at;
  await page.click("button:has-text('Read the files again')");
  await until(page, "/policies", ({ loaded_at: at }) => at !== before, "the policies were not read again");
};

tests["what holds where patients said nothing is changed, and stands on a patient's page"] = async ({ demo, open }) => {
  const page = await admin(open, demo, "/admin/sharing");
  const { patient } = await somebody(page);
  const change = async (to) => {
    await page.goto(`${demo.address}/admin/sharing`);
    await page.getByLabel("Research", { exact: true }).selectOption(to);
    await page.click("button:has-text('Save')");
    await page.waitForSelector("button:disabled:has-text('Save')");
    assert.equal((await api(page, "/consents/defaults")).defaults.HRESCH, to);
    await page.goto(`${demo.address}/patients/${patient.id}`);
    return page.locator("section[aria-labelledby=sharing] > .hint").innerText();
  };
  assert.match(await change("permit"), /permits: [^.]*research/);
  assert.match(await change("deny"), /denies: [^;]*research/);
};

tests["an identity provider is added, offered on the sign-in page, switched off, and removed"] = async ({ demo, open }) => {
  const page = await admin(open, demo, "/admin/identity-provider", "h1");
  const out = await open({ signedIn: false });
  const offered = async () => {
    await out.goto(`${demo.address}/sign-in`);
    await out.waitForSelector("input[name=password]");
    return out.locator("text=Sign in with House of Names").count();
  };
  const settings = async () => (await api(page, "/identity-providers/settings")).providers;
  await page.click("button:has-text('Add a provider')");
  await fill(page, { "Short id": "house-of-names", Name: "House of Names", Issuer: "https://names.example.org", "Client id": "auscult", "Client secret": "a secret of the house" });
  await dialog(page).getByLabel("Whoever the provider sends").check();
  await fill(page, { "Claim with the groups": "groups", "Only these mail domains": "example.org, example.net" });
  await dialog(page).getByRole("button", { name: "Add a group" }).click();
  await fill(page, { "Group 1": "icu-nurses" });
  await dialog(page).getByLabel("Role of group 1").selectOption("nurse");
  assert.deepEqual(await violations(page), []);
  await page.screenshot({ path: `${SHOTS}provider.png` });
  await submit(page);
  await page.waitForSelector("li:has-text('House of Names')");
  const [kept] = await settings();
  assert.deepEqual(
    [kept.issuer, kept.client_id, kept.has_secret, kept.provisioning, kept.role_claim, kept.roles, kept.allowed_domains],
    ["https://names.example.org", "auscult", true, "just-in-time", "groups", [{ value: "icu-nurses", role: "nurse", wards: null }], ["example.org", "example.net"]],
  );
  assert.ok(!JSON.stringify(kept).includes("a secret of the house"), "the secret is shown again");
  assert.equal(await offered(), 1);

  // Somebody who was invited may come by it instead, once an administrator says so.
  const { name } = await invite(page, demo, { role: "nurse" });
  await page.goto(`${demo.address}/admin/people`);
  await page.getByRole("button", { name: `Identity provider of Test ${name}` }).click();
  await dialog(page).getByLabel("Let them come by").selectOption("house-of-names");
  assert.deepEqual(await violations(page), []);
  await submit(page);
  await page.locator("tr", { hasText: name }).getByText("Awaited").waitFor();
  const awaited = (await api(page, "/users")).users.find((one) => one.name === name);
  assert.deepEqual([awaited.awaited_provider, awaited.invitation_expires_at], ["house-of-names", null]);
  await page.goto(`${demo.address}/admin/identity-provider`);
  await page.waitForSelector("li:has-text('House of Names')");

  await page.click("button:has-text('Change')");
  await dialog(page).getByLabel("Offer it on the sign-in page").uncheck();
  await submit(page);
  await page.waitForSelector("li .tag:has-text('Off')");
  assert.equal((await settings())[0].has_secret, true, "a change that says nothing about the secret lost it");
  assert.equal(await offered(), 0);

  await page.click("button:has-text('Remove')");
  await submit(page);
  await page.waitForSelector("li:has-text('House of Names')", { state: "detached" });
  assert.deepEqual(await settings(), []);
};

/** A key pair as JSON Web Keys. */
function pair() {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-384" });
  const kid = randomUUID();
  return { kid, privateKey, jwk: { ...publicKey.export({ format: "jwk" }), alg: "ES384", use: "sig", kid } };
}

/** What the token endpoint answers a service that signs with this key: the status. */
async function tokenFor(page, demo, client, { kid, privateKey }) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const now = Math.floor(Date.now() / 1000);
  const text = `${part({ alg: "ES384", typ: "JWT", kid })}.${part({ iss: client, sub: client, aud: `${demo.address}/oauth2/token`, iat: now, exp: now + 60, jti: randomUUID() })}`;
  const signature = sign("sha384", Buffer.from(text), { key: privateKey, dsaEncoding: "ieee-p1363" }).toString("base64url");
  const answer = await page.request.post(`${demo.address}/oauth2/token`, {
    form: { grant_type: "client_credentials", scope: "system/Observation.rs", client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", client_assertion: `${text}.${signature}` },
  });
  return answer.status();
}

tests["a service is registered, its key replaced so that only the new one works, and removed"] = async ({ demo, open }) => {
  const page = await admin(open, demo, "/admin/apps", "#programs");
  const name = `Night Watch ${randomUUID().slice(0, 8)}`;
  const [before, after] = [pair(), pair()];
  await page.click("button:has-text('Register an app')");
  await fill(page, { Name: name });
  await dialog(page).getByLabel("Service: works by itself").check();
  await fill(page, { Scopes: "system/Observation.rs", "Public key": "{ no key at all" });
  assert.ok(await page.isDisabled("dialog button[type=submit]"), "what is no key can be registered");
  await fill(page, { "Public key": JSON.stringify(before.jwk) });
  await submit(page);
  const row = page.locator("tbody tr", { hasText: name });
  await row.waitFor();
  const found = async () => (await api(page, "/clients")).clients.find((client) => client.name === name);
  const { id } = await found();
  assert.deepEqual([await tokenFor(page, demo, id, before), await tokenFor(page, demo, id, after)], [200, 401]);

  await row.getByRole("button", { name: "Change" }).click();
  assert.ok((await dialog(page).getByLabel("Public key").inputValue()).includes(before.kid));
  await fill(page, { "Public key": JSON.stringify({ keys: [after.jwk] }) });
  await submit(page);
  assert.deepEqual((await found()).jwks.keys.map(({ kid }) => kid), [after.kid]);
  assert.deepEqual([await tokenFor(page, demo, id, before), await tokenFor(page, demo, id, after)], [401, 200]);

  await row.getByRole("button", { name: "Remove" }).click();
  await submit(page);
  await row.waitFor({ state: "detached" });
  assert.equal(await found(), undefined);
  assert.equal(await tokenFor(page, demo, id, after), 401);
};

tests["a list of devices is taken in as a whole or not at all, and each can be claimed"] = async ({ demo, open }) => {
  const page = await admin(open, demo, "/devices/enrolment");
  const serial = `CSV-${randomUUID().slice(0, 8)}`;
  const known = async () => (await api(page, "/devices")).devices.filter((device) => device.serial.startsWith(serial));
  await page.click("button:has-text('Import a list')");
  await fill(page, { "Or paste it here": `serial,model\n${serial}-1,Halden Arm 3\n,Halden Arm 3\n` });
  await dialog(page).locator("button[type=submit]").click();
  await dialog(page).locator("[role=alert]:has-text('3')").waitFor();
  assert.deepEqual(await known(), [], "a part of a list with a wrong line was taken in");
  await page.screenshot({ path: `${SHOTS}import-refused.png` });
  await dialog(page).locator("input[type=file]").setInputFiles({ name: "cuffs.csv", mimeType: "text/csv", buffer: Buffer.from(`serial,model,name\n${serial}-1,Halden Arm 3,Cuff by list 1\n${serial}-2,Halden Arm 3,Cuff by list 2\n`) });
  await page.waitForFunction((text) => document.querySelector("dialog textarea").value.includes(text), `${serial}-2`);
  await dialog(page).locator("button[type=submit]").click();
  await dialog(page).getByText("2 added, 0 known already.").waitFor();
  await dialog(page).getByRole("button", { name: "Done" }).click();
  assert.deepEqual((await known()).map(({ name }) => name).sort(), ["Cuff by list 1", "Cuff by list 2"]);
  await page.click("button:has-text('Not enrolled')");
  const row = page.locator("tbody tr", { hasText: `${serial}-2` });
  await row.getByRole("button", { name: "Claim code" }).click();
  await submit(page);
  await dialog(page).locator(".qr").waitFor();
  await dialog(page).getByRole("button", { name: "Done" }).click();
  await row.locator(".tag:has-text('Waits to be claimed')").waitFor();
};

tests["a device is decommissioned with a proof, and its certificate stands on the revocation list"] = async ({ demo, open }) => {
  const page = await admin(open, demo, "/devices");
  const [device] = await devicesOf(page, await atHome(page, 2));
  const { certificate } = await api(page, `/devices/${device.id}/enrolment`);
  await page.goto(`${demo.address}/devices/${device.id}`);
  await page.click("button:has-text('Decommission')");
  await fill(page, { Reason: "its display is broken" });
  await submit(page);
  await page.waitForSelector(`h2:has-text("${device.name} is decommissioned")`);
  await page.screenshot({ path: `${SHOTS}decommissioned.png` });
  const proof = JSON.parse(await downloaded(page, () => page.click("button:has-text('Download the proof')")));
  assert.deepEqual([proof.serial, proof.reason, proof.assignment_ended, proof.revoked], [device.serial, "its display is broken", true, [certificate.serial_hex]]);
  await dialog(page).getByRole("button", { name: "Done" }).click();
  await page.waitForSelector(".tag:has-text('Decommissioned')");
  const now = await api(page, `/devices/${device.id}`);
  assert.deepEqual([now.retired, now.assignment], [true, null]);
  const lists = await Promise.all(proof.crl_paths.map(async (path) => (await page.request.get(demo.address + path)).body()));
  assert.ok(lists.some((list) => list.toString("hex").includes(certificate.serial_hex.toLowerCase())), "the published list does not name the certificate");
  assert.equal((await api(page, "/devices")).devices.find(({ id }) => id === device.id).retired, true);
};

tests["retention shows what would go, holds back what is on legal hold, and removes the rest when it is lifted"] = async ({ demo, open }) => {
  const page = await admin(open, demo, "/admin/retention");
  const patient = await atHome(page, 1);
  const devices = await devicesOf(page, patient);
  // Readings of three days ago: the devices' clocks are found to run ahead, and they were the patient's then.
  const ago = (days) => new Date(Date.now() - days * DAY_S * 1000).toISOString();
  for (const { id } of devices) await send(page, "POST", `/devices/${id}/assignments`, { subject: { kind: "patient", id: patient.id }, start: ago(5), end: ago(2) });
  const set = async (clock) => {
    for (const { id } of devices) {
      const { version, name, utc_offset_min, expected_interval_s, retired } = await api(page, `/devices/${id}`);
      await send(page, "PUT", `/devices/${id}`, { version, name, clock, utc_offset_min, expected_interval_s, retired });
    }
  };
  await set({ rule: "shift", seconds: -3 * DAY_S });
  const days = async () => (await api(page, "/retention/dry-run?readings=1")).classes.find((one) => one.class === "readings");
  const end = Date.now() + HAPPENS_MS;
  for (;;) {
    const due = await days();
    if (due.rows + due.held_rows > 0) break;
    assert.ok(Date.now() < end, "no reading of three days ago arrives");
    await page.reload();
    await page.waitForSelector("tbody tr");
  }
  await set({ rule: "trust" });

  await page.click("button:has-text('Hold a patient')");
  await pick(page, patient);
  await fill(page, { Reason: "case 26-114" });
  await page.screenshot({ path: `${SHOTS}hold.png` });
  await submit(page);
  await page.locator("section[aria-labelledby=holds] tbody tr:has-text('case 26-114')").waitFor();
  assert.deepEqual((await api(page, "/holds")).holds.map((hold) => [hold.patient, hold.reason]), [[patient.id, "case 26-114"]]);

  const change = async (readings) => {
    await page.click(".page-title button:has-text('Change')");
    await fill(page, { Readings: readings, Reason: "the house's rule" });
    await dialog(page).getByRole("button", { name: "Show what would go" }).click();
    await dialog(page).locator("tbody tr").first().waitFor();
    await page.screenshot({ path: `${SHOTS}retention-change.png` });
    await submit(page);
  };
  const run = async () => {
    const last = (await api(page, "/retention")).run?.id;
    await page.click("button:has-text('Remove what is due')");
    await fill(page, { Reason: "monthly" });
    await submit(page);
    const { run: done } = await until(page, "/retention", (found) => found.run !== null && found.run.id !== last && found.run.state !== "running", "the run does not end");
    assert.equal(done.state, "done", done.error);
    await page.waitForSelector("[role=status]:has-text('Last run ended')");
    return done.removed.rows;
  };
  await change("1");
  assert.equal((await api(page, "/retention")).keep_days.readings, 1);
  const held = await days();
  assert.ok(held.held_rows > 0 && held.rows === 0, `a hold holds nothing back: ${JSON.stringify(held)}`);
  assert.deepEqual(await violations(page), []);
  assert.equal(await run(), 0, "what is on legal hold was removed");
  assert.equal((await days()).held_rows, held.held_rows, "what is on legal hold has become less");

  await page.getByRole("button", { name: /^Lift the hold/ }).click();
  await fill(page, { Reason: "the case is closed" });
  await submit(page);
  await page.waitForSelector("text=Nothing is held back.");
  await page.locator("tbody tr", { has: page.locator("th:text-is('Readings')") }).locator("[data-label='Would go now']:has-text('row')").waitFor();
  await page.screenshot({ path: `${SHOTS}retention-due.png` });
  assert.ok((await run()) > 0, "nothing was removed");
  const gone = await days();
  assert.deepEqual([gone.rows, gone.held_rows], [0, 0]);
  await change("");
  assert.equal((await api(page, "/retention")).keep_days.readings, null);
};

tests["one patient's key is turned, and everything stays readable"] = async ({ demo, open }) => {
  const page = await admin(open, demo, "/admin/keys", "#main-key");
  const patient = await atHome(page, 3);
  await page.click("button:has-text(\"Turn one patient's key\")");
  await pick(page, patient);
  await fill(page, { Reason: "a copy of the disk was lost" });
  await submit(page);
  await until(page, "/keys", ({ patient_turns: turns }) => turns.length === 0, "the turn does not end");
  await page.waitForSelector(".progress", { state: "detached" });
  const { rows } = await api(page, `/audit?patient=${patient.id}&limit=100`);
  assert.ok(rows.some(({ detail }) => JSON.stringify(detail ?? "").includes("a copy of the disk was lost")), "no row of the audit log says why");
  const chart = await api(page, `/patients/${patient.id}`);
  assert.ok(chart.latest.length > 0, "nothing can be read under the new key");
};

tests["a patient is erased with a certificate that anybody can check, complete when the main key has turned"] = async ({ demo, open }) => {
  const page = await admin(open, demo, "/admin/erasure", "h1");
  const patient = await atHome(page, 0);
  await page.click("button:has-text('Erase a patient')");
  await pick(page, patient);
  await page.waitForSelector("dialog .facts");
  const what = await send(page, "POST", `/patients/${patient.id}/erasure/dry-run`);
  assert.ok(Object.values(what.rows).some((count) => count > 0) && what.bytes > 0, "nothing would go");
  await fill(page, { Request: "26-115", Reason: "asked for by the patient", [`Type ${patient.record_number} to confirm`]: "not this one" });
  assert.ok(await page.isDisabled("dialog button[type=submit]"), "somebody is erased without the record number");
  await fill(page, { [`Type ${patient.record_number} to confirm`]: patient.record_number });
  assert.deepEqual(await violations(page), []);
  await page.screenshot({ path: `${SHOTS}erase.png` });
  await submit(page);
  const row = page.locator("tbody tr", { hasText: "26-115" });
  await row.locator("a:has-text('Signature')").waitFor({ timeout: HAPPENS_MS });
  await row.getByText("backups readable until the main key turns").waitFor();
  await page.screenshot({ path: `${SHOTS}erased.png` });
  await assert.rejects(api(page, `/patients/${patient.id}`), /404/);
  assert.deepEqual((await api(page, `/patients?query=${encodeURIComponent(patient.family)}`)).patients.filter(({ id }) => id === patient.id), []);

  const text = await downloaded(page, () => row.locator("a:has-text('JSON')").click());
  const signature = await downloaded(page, () => row.locator("a:has-text('Signature')").click());
  const signer = new X509Certificate(await downloaded(page, () => page.click("a:has-text(\"signer's certificate\")")));
  assert.ok(verify("sha256", text, signer.publicKey, signature), "the signature is not of this certificate");
  assert.ok(!verify("sha256", Buffer.concat([text, Buffer.from(" ")]), signer.publicKey, signature));
  const certificate = JSON.parse(text);
  assert.ok(JSON.stringify(certificate).includes("26-115"), `the certificate does not name the request: ${text}`);
  for (const secret of [patient.family, patient.record_number]) assert.ok(!text.includes(secret), "the certificate names the patient");

  await page.goto(`${demo.address}/admin/keys`);
  await page.waitForSelector(".message-note:has-text('One erased patient')");
  const before = (await api(page, "/keys")).epoch;
  await page.click("button:has-text('Turn the main key')");
  await fill(page, { Reason: "after the erasure 26-115" });
  await submit(page);
  const after = await until(page, "/keys", ({ epoch, turn, turn_due: due }) => epoch.fingerprint !== before.fingerprint && turn === null && due === null, "the main key does not turn, or a turn stays due");
  await page.waitForSelector(`.mono:has-text("${after.epoch.fingerprint}")`);
  await page.waitForSelector(".message-note", { state: "detached" });
  await page.goto(`${demo.address}/admin/erasure`);
  await row.getByText("Complete: backups cannot be read either").waitFor({ timeout: HAPPENS_MS });
};
