//! Who is who and who may what: each as a person goes through it.

import assert from "node:assert/strict";

import { api, PHONE, proveAgain, send, SHOTS, signIn, violations } from "./browser.mjs";
import { admin, enter, HAPPENS_MS, invite, PASSWORD, somebody } from "./people.mjs";
import { nextCode, scan, withAuthenticator, wrongCode } from "./person.mjs";

const tests = {};
export { tests };

tests["an invited person makes a passkey, keeps recovery codes, and signs in with the passkey"] = async ({ demo, open }) => {
  const page = await admin(open, demo);
  await page.click("button:has-text('Invite somebody')");
  const name = `physician-passkey-${process.pid}`;
  await page.locator("dialog").getByLabel("Sign-in name").fill(name);
  await page.locator("dialog").getByLabel("Display name").fill("Dr. Passkey");
  await page.locator("dialog").getByLabel("Role").selectOption("physician");
  assert.ok(await page.isDisabled("dialog button[type=submit]"), "somebody is invited to all wards without a word");
  await page.locator("dialog").getByLabel("All wards").check();
  await page.click("dialog button[type=submit]");
  // The demonstration's session has proven nothing lately, or it has: both are fine here; the step-up has its own test.
  const link = page.locator("dialog .one-time-text");
  const confirm = page.locator("button:has-text('Confirm with the demonstration')");
  await link.or(confirm).first().waitFor();
  if (await confirm.isVisible()) await confirm.click();
  const text = await link.textContent();
  assert.match(text, /\/invite#token=./);
  assert.equal(await scan(page, "dialog .qr"), text, "the QR code says something else than the link");
  await page.screenshot({ path: `${SHOTS}invitation.png` });

  const theirs = await open({ signedIn: false, theme: "dark" });
  const device = await withAuthenticator(theirs);
  // This authenticator answers the quiet offer in the name field at once: without it, the button has something to do.
  await theirs.addInitScript(() => {
    PublicKeyCredential.isConditionalMediationAvailable = () => Promise.resolve(false);
  });
  await theirs.goto(text);
  await theirs.waitForSelector("button:has-text('Begin')");
  assert.ok(!theirs.url().includes("token"), "the token stays in the address bar");
  await theirs.click("button:has-text('Begin')");
  await theirs.waitForSelector("h1:has-text('Make your way in')");
  assert.deepEqual(await violations(theirs), []);
  await theirs.screenshot({ path: `${SHOTS}enrol.png` });
  await theirs.click("button:has-text('Make a passkey')");
  // A recovery code is worth something after a password only: that comes first.
  await theirs.waitForSelector("h1:has-text('If you lose your device')");
  assert.ok(await theirs.isHidden("button:has-text('Show recovery codes')"), "codes are drawn that nobody can use");
  assert.deepEqual(await violations(theirs), []);
  await theirs.fill("input[name=new-password]", PASSWORD);
  await theirs.fill("input[name=new-password-again]", PASSWORD);
  await theirs.click("button:has-text('Set password')");
  await theirs.click("button:has-text('Show recovery codes')");
  await theirs.waitForSelector(".codes li");
  const codes = await theirs.$$eval(".codes li", (found) => found.map((one) => one.textContent));
  assert.equal(new Set(codes).size, 10);
  assert.ok(await theirs.isDisabled("button:has-text('Go on')"), "one can go on without having kept the codes");
  assert.deepEqual(await violations(theirs), []);
  await theirs.screenshot({ path: `${SHOTS}recovery-codes.png` });
  await theirs.getByLabel("I have kept them").check();
  await theirs.click("button:has-text('Go on')");
  await theirs.waitForSelector(".rail");
  assert.equal((await device.credentials()).length, 1);
  await theirs.click("button[aria-label='Sign out']");
  await theirs.waitForSelector("button:has-text('Sign in with a passkey')");
  await theirs.click("button:has-text('Sign in with a passkey')");
  await theirs.waitForSelector(".rail");
  assert.equal((await api(theirs, "/session")).user.name, name);
  // The phone with the passkey is lost: the password and a code from the paper let in.
  await theirs.click("button[aria-label='Sign out']");
  await theirs.fill("input[name=username]", name);
  await theirs.fill("input[name=password]", PASSWORD);
  await theirs.click("button[type=submit]");
  await theirs.fill("input[name=recovery-code]", codes[0]);
  await theirs.click("button[type=submit]");
  await theirs.waitForSelector(".rail");
  assert.equal((await api(theirs, "/session")).recovery_codes_left, 9);

  const again = await open({ signedIn: false });
  await again.goto(text);
  await again.click("button:has-text('Begin')");
  await again.waitForSelector("[role=alert]:has-text('used already')");
};

tests["password and code app: enrolled by QR, a wrong code refused, a recovery code works once"] = async ({ demo, open }) => {
  const page = await admin(open, demo);
  const who = await invite(page, demo, { role: "nurse" });
  const theirs = await open({ signedIn: false, size: PHONE });
  await theirs.goto(who.link);
  await theirs.click("button:has-text('Begin')");
  await theirs.click("button:has-text('Password and code app')");
  await theirs.fill("input[name=new-password]", PASSWORD);
  await theirs.fill("input[name=new-password-again]", PASSWORD);
  await theirs.click("button:has-text('Set password')");
  await theirs.waitForSelector(".qr");
  const uri = new URL(await scan(theirs, ".qr"));
  assert.equal(uri.protocol, "otpauth:");
  const secret = uri.searchParams.get("secret");
  assert.deepEqual(await violations(theirs), []);
  await theirs.screenshot({ path: `${SHOTS}totp-phone.png`, fullPage: true });
  await theirs.fill("input[name=code]", wrongCode(secret));
  await theirs.click("button:has-text('Use this code app')");
  await theirs.waitForSelector("[role=alert]:has-text('not right')");
  await theirs.fill("input[name=code]", nextCode(secret));
  await theirs.click("button:has-text('Use this code app')");
  await theirs.click("button:has-text('Show recovery codes')");
  await theirs.waitForSelector(".codes li");
  const codes = await theirs.$$eval(".codes li", (found) => found.map((one) => one.textContent));
  await theirs.getByLabel("I have kept them").check();
  await theirs.click("button:has-text('Go on')");
  await theirs.waitForSelector(".rail");

  const first = async () => {
    await theirs.click("button[aria-label='Sign out']");
    await theirs.fill("input[name=username]", who.name);
    await theirs.fill("input[name=password]", PASSWORD);
    await theirs.click("button[type=submit]");
    await theirs.waitForSelector("h1:has-text('One more step')");
  };
  await first();
  assert.deepEqual(await violations(theirs), []);
  await theirs.screenshot({ path: `${SHOTS}second-factor.png` });
  await theirs.fill("input[name=code]", wrongCode(secret));
  await theirs.click("button[type=submit]");
  await theirs.waitForSelector("[role=alert]:has-text('not right')");
  await theirs.fill("input[name=code]", nextCode(secret));
  await theirs.click("button[type=submit]");
  await theirs.waitForSelector(".rail");

  for (const works of [true, false]) {
    await first();
    await theirs.click("button:has-text('Use a recovery code')");
    await theirs.fill("input[name=recovery-code]", codes[0]);
    await theirs.click("button[type=submit]");
    if (works) await theirs.waitForSelector(".rail");
    else await theirs.waitForSelector("[role=alert]:has-text('used already')");
  }
  await theirs.fill("input[name=recovery-code]", codes[1]);
  await theirs.click("button[type=submit]");
  await theirs.waitForSelector(".rail");
  await theirs.goto(`${demo.address}/account`);
  await theirs.waitForSelector("text=8 of 10 left");
};

tests["a dangerous act asks for a fresh proof, and is done only with it"] = async ({ demo, open }) => {
  const page = await open({ signedIn: false });
  await signIn(page, { ...demo, user: demo.admin_user });
  const name = `integrator-${process.pid}`;
  const ask = async () => {
    // What the server says when five minutes have passed since the last proof: nobody waits for that here.
    await page.route("**/api/v1/users", (route) => (route.request().method() === "POST" ? route.fulfill({ status: 403, contentType: "application/problem+json", json: { status: 403, code: "step-up-needed", title: "Prove again that it is you" } }) : route.continue()));
    await page.goto(`${demo.address}/admin/people`);
    await page.click("button:has-text('Invite somebody')");
    await page.locator("dialog").getByLabel("Sign-in name").fill(name);
    await page.locator("dialog").getByLabel("Display name").fill("Ingrid Integrator");
    await page.locator("dialog").getByLabel("Role").selectOption("integrator");
    await page.locator("dialog").getByLabel("All wards").check();
    await page.click("dialog button[type=submit]");
    await page.waitForSelector("h2:has-text('Confirm that it is you')");
    await page.unroute("**/api/v1/users");
  };
  await ask();
  assert.deepEqual(await violations(page), []);
  await page.screenshot({ path: `${SHOTS}step-up.png` });
  await page.locator("dialog", { hasText: "Confirm that it is you" }).last().getByRole("button", { name: "Cancel" }).click();
  await page.waitForSelector("[role=alert]:has-text('did not confirm')");
  assert.ok(!(await api(page, "/users")).users.some((user) => user.name === name), "somebody was invited without a proof");
  await ask();
  await page.click("button:has-text('Confirm with the demonstration')");
  await page.waitForSelector("dialog .one-time-text");
  assert.ok((await api(page, "/users")).users.some((user) => user.name === name));
};

tests["own sessions are listed, and another one is ended from here"] = async ({ demo, open }) => {
  const boss = await admin(open, demo);
  const { page, name, secret } = await enter(open, boss, demo, { role: "nurse" });
  const other = await open({ signedIn: false });
  await other.goto(demo.address);
  await other.fill("input[name=username]", name);
  await other.fill("input[name=password]", PASSWORD);
  await other.click("button[type=submit]");
  await other.fill("input[name=code]", nextCode(secret));
  await other.click("button[type=submit]");
  await other.waitForSelector(".ward-card");
  await page.goto(`${demo.address}/account`);
  await page.waitForSelector(".sessions li");
  assert.equal(await page.locator(".sessions li").count(), 2);
  assert.deepEqual(await violations(page), []);
  await page.screenshot({ path: `${SHOTS}account.png`, fullPage: true });
  await page.click(".sessions button:has-text('End')");
  await page.waitForFunction(() => document.querySelectorAll(".sessions li").length === 1);
  await other.waitForSelector("input[name=password]", { timeout: HAPPENS_MS });
};

tests["the glass is broken with a reason, shown loudly, and reviewed by somebody else"] = async ({ demo, open }) => {
  const boss = await admin(open, demo);
  const { patient, ward } = await somebody(boss);
  const elsewhere = (await api(boss, "/wards")).wards.find(({ id }) => id !== ward.id);
  assert.ok(elsewhere, "the demonstration has one ward only");
  const nurse = (await enter(open, boss, demo, { role: "nurse", wards: [elsewhere.id] })).page;
  await nurse.goto(`${demo.address}/patients/${patient.id}`);
  await nurse.waitForSelector(".message-bad");
  assert.ok(!(await nurse.content()).includes(patient.family.toLocaleUpperCase()), "a patient of another ward is named");

  await nurse.goto(`${demo.address}/patients`);
  const ask = async (birthDate) => {
    await nurse.locator("dialog").getByLabel("Record number").fill(patient.record_number);
    await nurse.locator("dialog").getByLabel("Born").fill(birthDate);
    await nurse.locator("dialog").getByLabel("Reason").selectOption("emergency");
    await nurse.locator("dialog").getByLabel("What happened").fill("brought in unconscious, medication unknown");
    await nurse.click("dialog button[type=submit]");
  };
  await nurse.click("button:has-text('Break the glass')");
  await nurse.waitForSelector("dialog select");
  assert.deepEqual(await violations(nurse), []);
  await nurse.screenshot({ path: `${SHOTS}break-glass.png` });
  await ask("01-Jan-1901");
  await nurse.waitForSelector("dialog [role=alert]:has-text('Nothing was opened')");
  const [year, month, day] = patient.birth_date.split("-");
  await ask(`${day}-${["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][Number(month) - 1]}-${year}`);
  await nurse.waitForSelector(`.banner-name:has-text("${patient.family.toLocaleUpperCase()}")`);
  await nurse.waitForSelector(".glass:has-text('GLASS BROKEN')");
  assert.match(await nurse.innerText(".glass"), /3 h 59 min|4 h 0 min/);
  assert.deepEqual(await violations(nurse), []);
  await nurse.screenshot({ path: `${SHOTS}glass-broken.png` });

  const auditor = (await enter(open, boss, demo, { role: "auditor" })).page;
  await auditor.goto(`${demo.address}/break-glass`);
  const card = auditor.locator(".glass-card", { hasText: patient.record_number });
  await card.waitFor();
  assert.deepEqual(await violations(auditor), []);
  await auditor.screenshot({ path: `${SHOTS}glass-review.png` });
  await card.getByText("To review when it has ended").waitFor();
  await nurse.click(".glass button:has-text('End now')");
  await nurse.waitForSelector(".glass", { state: "detached" });
  await nurse.waitForURL("**/patients");
  await nurse.waitForSelector(".glass-ended:has-text('has ended')");
  assert.ok(!(await nurse.content()).includes(patient.family.toLocaleUpperCase()), "the patient is still named after the glass was closed");
  // The auditor's page hears of it by itself.
  await card.getByRole("button", { name: "Review" }).click();
  await auditor.getByLabel("Justified", { exact: true }).check();
  await auditor.getByLabel("Note").fill("seen with the emergency ward's protocol");
  await auditor.click("dialog button[type=submit]");
  await card.waitFor({ state: "detached" });
  await auditor.click("button:has-text('Closed')");
  await auditor.locator(".glass-card", { hasText: "seen with the emergency ward" }).waitFor();

  await nurse.goto(`${demo.address}/patients/${patient.id}`);
  await nurse.waitForSelector(".message-bad");
  assert.ok(!(await nurse.content()).includes(patient.family.toLocaleUpperCase()), "the patient is still seen after the glass was closed");
};

tests["a claim code is shown as QR and text once, and can be withdrawn"] = async ({ demo, open }) => {
  const page = await open({ as: "admin", theme: "dark" });
  await page.goto(`${demo.address}/devices`);
  await page.waitForSelector("tbody tr");
  await proveAgain(page, demo);
  const serial = `WEB-${process.pid}`;
  const device = await send(page, "POST", "/devices", { name: "Cuff for the QR", kind: "blood pressure cuff", manufacturer: "Demo", model: "C1", serial, utc_offset_min: 0, expected_interval_s: null });
  await page.goto(`${demo.address}/devices/${device.id}`);
  await page.click("button:has-text('Claim code')");
  await page.click("dialog button[type=submit]");
  await page.waitForSelector("dialog .qr");
  const code = (await page.textContent("dialog .one-time-text")).trim();
  const read = await scan(page, "dialog .qr");
  assert.ok(read?.includes(serial), `the QR code does not name the device: ${read}`);
  assert.ok(read.replaceAll("-", "").includes(code.replaceAll("-", "")), "the QR code has another code than the text");
  const pin = new URLSearchParams(new URL(read).hash.slice(1)).get("pin");
  assert.match(pin, /^sha256:[0-9a-f]{64}$/);
  await page.waitForSelector(`dialog .one-time-text:has-text("${pin}")`);
  assert.deepEqual(await violations(page), []);
  await page.screenshot({ path: `${SHOTS}claim-dark.png` });
  await page.click("dialog button:has-text('Done')");
  await page.waitForSelector(".tag:has-text('Waits to be claimed')");
  assert.ok(!(await page.content()).includes(code), "the code is shown again");
  await page.click("button:has-text('Withdraw it')");
  await page.waitForSelector(".tag:has-text('No certificate')");
};

tests["what a patient denies vanishes from a clinician's open page, and comes back when withdrawn"] = async ({ demo, open }) => {
  const boss = await admin(open, demo);
  const { patient } = await somebody(boss);
  const theirs = (await enter(open, boss, demo, { role: "patient", patient: patient.id, wards: [] })).page;
  const physician = (await enter(open, boss, demo, { role: "physician" })).page;
  await physician.goto(`${demo.address}/patients/${patient.id}`);
  await physician.waitForSelector(".latest:has-text('HR')");

  await theirs.goto(`${demo.address}/me`);
  await theirs.waitForSelector(".latest");
  await theirs.waitForSelector("#who-looked ~ .table-scroll tbody tr");
  assert.deepEqual(await theirs.$$eval(".rail-label", (found) => found.map((one) => one.textContent)), ["My data"]);
  assert.deepEqual(await violations(theirs), []);
  await theirs.screenshot({ path: `${SHOTS}my-data.png`, fullPage: true });
  await theirs.click("button:has-text('New rule')");
  await theirs.getByLabel("do not allow").check();
  await theirs.getByLabel("Who", { exact: true }).selectOption("physician");
  await theirs.getByLabel("Vital signs").check();
  assert.deepEqual(await violations(theirs), []);
  await theirs.screenshot({ path: `${SHOTS}sharing-rule.png` });
  await theirs.click("dialog button:has-text('Save rule')");
  await theirs.waitForSelector(".consents .tag-bad:has-text('Denies')");
  await physician.waitForFunction(() => !document.querySelector(".latest")?.textContent.includes("HR"), null, { timeout: HAPPENS_MS });
  await theirs.waitForSelector(".latest:has-text('Heart rate')");

  await theirs.click(".consents button:has-text('Withdraw')");
  await theirs.click("dialog button:has-text('Withdraw')");
  await physician.waitForSelector(".latest:has-text('HR')", { timeout: HAPPENS_MS });
};

tests["a patient shares with somebody by their exact name, and with nobody by a part of it"] = async ({ demo, open }) => {
  const boss = await admin(open, demo);
  const { patient } = await somebody(boss);
  const theirs = (await enter(open, boss, demo, { role: "patient", patient: patient.id, wards: [] })).page;
  const physician = (await api(boss, "/users")).users.find(({ role, disabled }) => role === "physician" && !disabled);
  await theirs.goto(`${demo.address}/me`);
  await theirs.click("button:has-text('New rule')");
  await theirs.getByLabel("Kind", { exact: true }).selectOption("person");
  const ask = async (name) => {
    await theirs.getByLabel("Somebody else, by their exact name").fill(name);
    await theirs.locator("dialog .pair button:has-text('Add')").click();
  };
  await ask(physician.display.slice(0, -2));
  await theirs.waitForSelector("dialog [role=status]:has-text('Nobody has exactly this name')");
  await ask(physician.display.toLocaleUpperCase());
  await theirs.waitForSelector(`dialog .chip:has-text("${physician.display}")`);
  await theirs.getByLabel("do not allow").check();
  await theirs.getByLabel("Blood glucose").check();
  await theirs.click("dialog button:has-text('Save rule')");
  await theirs.locator(".consents li", { hasText: physician.display }).waitFor();
  const { consents } = await api(theirs, `/patients/${patient.id}/consents`);
  const [made] = consents.filter(({ rule, status }) => status === "active" && rule?.who.some(({ id }) => id === physician.id));
  assert.deepEqual([made.rule.decision, made.rule.classes], ["deny", ["glucose"]]);
  await theirs.locator(".consents li", { hasText: physician.display }).getByRole("button", { name: /^Withdraw/ }).click();
  await theirs.click("dialog button:has-text('Withdraw')");
  await theirs.locator(".consents li", { hasText: physician.display }).waitFor({ state: "detached" });
};

tests["what a patient no longer shares leaves the caregiver's open page"] = async ({ demo, open }) => {
  const boss = await admin(open, demo);
  const { patient } = await somebody(boss);
  const theirs = (await enter(open, boss, demo, { role: "patient", patient: patient.id, wards: [] })).page;
  const carer = await enter(open, boss, demo, { role: "caregiver", wards: [] });
  const rule = { decision: "permit", who: [{ kind: "caregiver", id: carer.id }], actions: [], purposes: [], classes: [], measures: [], from: null, until: null, except: [] };
  const share = () => send(theirs, "POST", `/patients/${patient.id}/consents`, rule);
  const family = patient.family.toLocaleUpperCase();
  for (const round of [1, 2]) {
    const consent = await share();
    if (round === 1) await carer.page.goto(`${demo.address}/my-people`);
    else await carer.page.reload();
    await carer.page.waitForSelector(".latest .reading-value");
    await carer.page.waitForSelector(`.own-name:has-text("${family}")`);
    await send(theirs, "POST", `/consents/${consent.id}/withdraw`, { version: consent.version });
    await carer.page.waitForSelector("text=Nobody shares anything with you now", { timeout: HAPPENS_MS });
    assert.ok(!(await carer.page.content()).includes(family), "the patient is still named");
  }
  await carer.page.goto(`${demo.address}/patients/${patient.id}`);
  await carer.page.locator("main [role=alert]").getByRole("link", { name: "My people" }).waitFor();
};

tests["an app is let in on a page that says what it may, and gets its code"] = async ({ demo, open }) => {
  const page = await open({ as: "admin" });
  await page.goto(`${demo.address}/admin/apps`);
  await page.waitForSelector("h1:has-text('Apps')");
  await proveAgain(page, demo);
  const back = "https://app.example.org/callback";
  const client = await send(page, "POST", "/clients", { name: "Growth Chart", kind: "app", redirect_uris: [back], scopes: "launch/patient openid fhirUser patient/Observation.rs", jwks: null, pem: null });
  const { patient } = await somebody(page);
  const smart = await page.evaluate(() => fetch("/fhir/.well-known/smart-configuration").then((answer) => answer.json()));
  const asked = (change = {}) =>
    new URL(
      `${demo.address}/oauth2/authorize?${new URLSearchParams({
        response_type: "code",
        client_id: client.id,
        redirect_uri: back,
        scope: "launch/patient openid patient/Observation.rs",
        state: "a-state-of-the-app",
        aud: smart.issuer ? `${demo.address}/fhir` : `${demo.address}/fhir`,
        code_challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        code_challenge_method: "S256",
        ...change,
      })}`,
    ).href;
  await page.goto(asked({ redirect_uri: "https://evil.example.org/" }));
  await page.waitForSelector("[role=alert]");
  assert.ok(page.url().startsWith(demo.address), "a wrong address to return to was followed");
  await page.goto(asked());
  await page.waitForSelector("legend:has-text('It may')");
  assert.deepEqual(await violations(page), []);
  assert.ok(await page.isDisabled("button:has-text('Let it in')"), "an app that needs a patient gets in without one");
  await page.fill("[role=combobox]", patient.record_number);
  await page.locator("[role=option]", { hasText: patient.record_number }).first().click();
  await page.screenshot({ path: `${SHOTS}authorize.png` });
  await page.route("https://app.example.org/**", (route) => route.fulfill({ contentType: "text/plain", body: "the app" }));
  await page.click("button:has-text('Let it in')");
  await page.waitForURL("https://app.example.org/**");
  const got = new URL(page.url()).searchParams;
  assert.equal(got.get("state"), "a-state-of-the-app");
  assert.ok(got.get("code"), `no code: ${page.url()}`);
};

tests["the sign-in page says what the way back from an identity provider says, in its own words"] = async ({ demo, open }) => {
  const page = await open({ signedIn: false });
  const said = async (error, detail) => {
    await page.goto("about:blank");
    await page.goto(`${demo.address}/sign-in#${new URLSearchParams({ error, detail })}`);
    const text = await page.innerText("[role=alert]");
    assert.equal(new URL(page.url()).hash, "", "it stays in the address");
    return text;
  };
  assert.match(await said("not-known", "somebody is expected by that name, but not by this way: use the link of your invitation first, or ask an administrator"), /link of your invitation/);
  assert.match(await said("not-known", "nobody here is known by that name; ask an administrator to add you"), /no account here/);
  assert.match(await said("refused", "the identity provider did not sign you in"), /did not let you in/);
  assert.doesNotMatch(await said("not-known", "call 555-0100 and say your password"), /555/);
};

/** The page's own look at one address of the API, changed before it is read: for what needs another server to come about. */
async function answered(page, path, change) {
  await page.route(`**/api/v1${path}`, async (route) => {
    if (route.request().method() !== "GET") return route.continue();
    const answer = await route.fetch();
    await route.fulfill({ status: 200, json: change(answer.ok() ? await answer.json() : {}) });
  });
}

tests["whom an identity provider vouches for by name only is told whose subject they would let in, and can stop"] = async ({ demo, open }) => {
  const page = await open({ signedIn: false });
  await answered(page, "/session", (session) => ({ ...session, linking: { issuer: "https://names.example.org", subject: "subject-7" } }));
  await page.goto(`${demo.address}/sign-in`);
  const note = page.locator(".message-note", { hasText: "subject-7" });
  await note.waitFor();
  assert.match(await note.innerText(), /names\.example\.org signs in as you/);
  assert.deepEqual(await violations(page), []);
  const [asked] = await Promise.all([page.waitForRequest(/\/api\/v1\/sign-out$/), note.getByRole("button", { name: "Stop" }).click()]);
  assert.equal(asked.method(), "POST");
};

tests["whoever comes by an identity provider can prove themself by it again, and is led back to their page"] = async ({ demo, open }) => {
  const page = await open({ as: "admin" });
  await answered(page, "/step-up/providers", () => ({ providers: [{ id: "house", name: "House of Names" }] }));
  await page.route("**/api/v1/users", (route) => (route.request().method() === "POST" ? route.fulfill({ status: 403, json: { code: "step-up-needed", title: "Prove again that it is you" } }) : route.continue()));
  await page.goto(`${demo.address}/admin/people`);
  await page.click("button:has-text('Invite somebody')");
  await page.getByLabel("Sign-in name").fill("nobody");
  await page.getByLabel("Display name").fill("Nobody");
  await page.getByLabel("All wards").check();
  await page.click("dialog button[type=submit]");
  const link = page.getByRole("link", { name: "Sign in again with House of Names" });
  assert.equal(await link.getAttribute("href"), "/api/v1/sign-in/oidc/house?again=true&next=%2Fadmin%2Fpeople");
  assert.deepEqual(await violations(page), []);
  await page.goto("about:blank");
  await page.goto(`${demo.address}/account#error=not-again&detail=x`);
  await page.waitForSelector("[role=alert]:has-text('Nothing was confirmed')");
};

tests["a bed whose readings a rule keeps back does not look like one in which nothing is measured"] = async ({ demo, open }) => {
  const page = await open();
  await page.goto(`${demo.address}/wards`);
  await page.waitForSelector(".ward-card");
  const { ward, patient } = await somebody(page);
  await answered(page, `/wards/${ward.id}/board`, (board) => ({ ...board, tiles: board.tiles.map((tile) => (tile.patient?.id === patient.id ? { ...tile, vitals: [], strips: [], withheld: ["vital-signs", "waveforms"] } : tile)) }));
  await answered(page, `/patients/${patient.id}`, (chart) => ({ ...chart, withheld: ["glucose"] }));
  await page.goto(`${demo.address}/wards/${ward.id}`);
  await page.waitForSelector(".tile-withheld:has-text('Not shared by a rule: vital signs, curves')");
  assert.match(await page.locator(".tile .sr-only", { hasText: "Not shared by a rule" }).first().textContent(), new RegExp(patient.given));
  assert.deepEqual(await violations(page), []);
  await page.goto(`${demo.address}/patients/${patient.id}`);
  await page.waitForSelector(".withheld:has-text('Not shared by a rule: blood glucose')");
};

tests["no page can be framed by another site"] = async ({ demo, open }) => {
  const page = await open({ signedIn: false });
  for (const path of ["/", "/sign-in", "/oauth2/authorize", "/admin/people", "/break-glass"]) {
    const answer = await page.goto(demo.address + path);
    const headers = answer.headers();
    assert.equal(headers["x-frame-options"], "DENY", path);
    assert.match(headers["content-security-policy"], /frame-ancestors 'none'/, path);
  }
  const other = new URL(demo.address);
  other.hostname = other.hostname === "localhost" ? "127.0.0.1" : "localhost";
  await page.route(`${other.origin}/frame`, (route) => route.fulfill({ contentType: "text/html", body: `<iframe src="${demo.address}/sign-in"></iframe>` }));
  await page.goto(`${other.origin}/frame`);
  await page.waitForSelector("iframe");
  for (const frame of page.frames().slice(1)) assert.ok(!(await frame.content().catch(() => "")).includes("id=\"app\""), "the sign-in page stands in a frame");
};
