//! What a person does with the app, step by step.

import assert from "node:assert/strict";

import { api, PHONE, SHOTS, signIn, violations, WIDE } from "./browser.mjs";
import { nextCode } from "./person.mjs";

/** Longest wait for the demonstration to do something by itself, in ms. */
const HAPPENS_MS = 90_000;

/** A ward whose beds have waveforms. */
async function ward(page) {
  const { wards } = await api(page, "/wards");
  for (const one of wards) {
    const { tiles } = await api(page, `/wards/${one.id}/board`);
    if (tiles.some(({ strips }) => strips.length > 0)) return one;
  }
  return assert.fail("no ward of the demonstration has waveforms");
}

async function board(page) {
  return api(page, `/wards/${(await ward(page)).id}/board`);
}

/** A patient with values, and with waveforms where the ward has any. */
async function somebody(page) {
  const { tiles } = await board(page);
  const taken = tiles.filter((tile) => tile.patient && tile.vitals.length > 0);
  assert.ok(taken.length > 0, "no bed of the demonstration has a patient with values");
  return (taken.find((tile) => tile.strips.length > 0) ?? taken[0]).patient;
}

/** Every page of the app: name, path, and what must be on it before it counts as shown. */
async function pages(page) {
  const { devices } = await api(page, "/devices");
  const patient = await somebody(page);
  return [
    ["wards", "/wards", ".ward-card"],
    ["board", `/wards/${(await ward(page)).id}`, ".tile .reading-value"],
    ["patient", `/patients/${patient.id}`, ".uplot"],
    ["patients", "/patients", "input[type=search]"],
    ["alerts", "/alerts", ".inbox"],
    ["devices", "/devices", "tbody tr"],
    ["device", `/devices/${devices[0].id}`, ".facts"],
    ["quarantine", "/quarantine", ".filters"],
    ["audit", "/audit", "tbody tr"],
    ["audit-devices", "/audit", "tbody tr", "button:has-text('Device deliveries')"],
    ["audit-log", "/audit", "tbody tr", "button:has-text('State of the log')"],
    ["enrolment", "/devices/enrolment", "tbody tr"],
    ["reviews", "/break-glass", "h1"],
    ["account", "/account", ".sessions li"],
    ["people", "/admin/people", "tbody tr"],
    ["places", "/admin/places", "tbody tr"],
    ["roles", "/admin/roles", ".policies li"],
    ["apps", "/admin/apps", "#programs"],
    ["identity-providers", "/admin/identity-provider", "h1"],
    ["sharing", "/admin/sharing", "tbody tr"],
    ["retention", "/admin/retention", "tbody tr"],
    ["erasure", "/admin/erasure", "h1"],
    ["keys", "/admin/keys", "#main-key"],
  ];
}

async function show(page, demo, [, path, ready, then]) {
  await page.goto(demo.address + path);
  await page.waitForSelector(ready);
  if (then) await page.click(then);
  await page.waitForSelector(".waiting", { state: "detached" });
  assert.equal(await page.$("main .message-bad:has-text('did not work')"), null, `${path} shows a failure`);
  await page.waitForSelector(".pill-live");
}

const tests = {};
export { tests };

/** Tests that no other may run beside: they stop the server for all. */
export const alone = new Set(["a lost link is shown on the whole screen, and mends itself"]);

tests["sign-in refuses a wrong password and takes the right one"] = async ({ demo, open }) => {
  const page = await open({ signedIn: false });
  await page.goto(`${demo.address}/alerts`);
  await page.fill("input[name=username]", demo.user);
  await page.fill("input[name=password]", "not the password at all");
  await page.click("button[type=submit]");
  await page.waitForSelector("[role=alert]");
  assert.match(await page.textContent("[role=alert]"), /not right/);
  assert.equal(await page.inputValue("input[name=password]"), "", "the wrong password stays in the field");
  assert.deepEqual(await violations(page), []);
  await page.screenshot({ path: `${SHOTS}sign-in.png` });
  await page.fill("input[name=password]", demo.password);
  await page.click("button[type=submit]");
  await page.fill("input[name=code]", nextCode(demo.totp_secret, demo.user));
  await page.click("button[type=submit]");
  await page.waitForSelector("h1:has-text('Alerts')");
};

tests["the ward board moves"] = async ({ demo, open }) => {
  const page = await open({ theme: "dark" });
  await show(page, demo, ["board", `/wards/${(await openedWard(page, demo)).id}`, ".tile .reading-value"]);
  const texts = () => page.$$eval(".tile .reading-value", (found) => found.map((one) => one.textContent).join(" "));
  const first = await texts();
  await page.waitForFunction((old) => [...document.querySelectorAll(".tile .reading-value")].map((one) => one.textContent).join(" ") !== old, first);
  const ages = await page.$$eval(".tile .reading-age", (found) => found.map((one) => one.textContent).join(" "));
  await page.waitForFunction((old) => [...document.querySelectorAll(".tile .reading-age")].map((one) => one.textContent).join(" ") !== old, ages);
};

tests["a page that shows no readings follows none: whom a stream shows reads that they were looked at"] = async ({ demo, open }) => {
  const page = await open();
  const followed = async (path) => {
    const [asked] = await Promise.all([page.waitForRequest(/\/api\/v1\/live\b/), page.goto(demo.address + path)]);
    return new URL(asked.url()).search;
  };
  assert.equal(await followed("/account"), "?only=alerts");
  assert.equal(await followed("/alerts"), "?only=alerts");
  assert.equal(decodeURIComponent(await followed("/devices")), "?only=alerts,devices");
  const { id } = await ward(page);
  assert.equal(await followed(`/wards/${id}`), `?ward=${id}`);
};

tests["live strips draw"] = async ({ demo, open }) => {
  const page = await open({ theme: "dark" });
  await show(page, demo, ["board", `/wards/${(await openedWard(page, demo)).id}`, ".strip[data-strip]"]);
  await page.waitForFunction(() => [...document.querySelectorAll(".strip[data-strip] .strip-note")].some((note) => note.textContent === ""), null, { timeout: HAPPENS_MS });
  const strip = await page.evaluateHandle(() => [...document.querySelectorAll(".strip[data-strip]")].find((one) => one.querySelector(".strip-note").textContent === ""));
  // A line that sweeps differs from one picture to the next, again and again.
  let last = await strip.asElement().screenshot();
  let changes = 0;
  for (let tries = 0; tries < 40 && changes < 6; tries += 1) {
    const next = await strip.asElement().screenshot();
    if (!next.equals(last)) changes += 1;
    last = next;
  }
  assert.equal(changes, 6, "the strip's pixels do not keep changing");
};

async function openedWard(page, demo) {
  await page.goto(`${demo.address}/wards`);
  await page.waitForSelector(".ward-card");
  return ward(page);
}

tests["the board fits one screen"] = async ({ demo, open }) => {
  const page = await open();
  await show(page, demo, ["board", `/wards/${(await openedWard(page, demo)).id}`, ".tile .reading-value"]);
  const over = await page.evaluate(() => document.documentElement.scrollHeight - document.documentElement.clientHeight);
  const tiles = await page.$$eval(".tile", (found) => found.length);
  assert.ok(tiles > 24 || over <= 0, `${tiles} beds need ${over} px more than ${WIDE.width}×${WIDE.height}`);
};

tests["a high alert flashes at 2 Hz, and stands still for whoever asks for less motion"] = async ({ demo, open }) => {
  for (const [motion, wanted] of [["no-preference", [500]], ["reduce", []]]) {
    const page = await open({ motion });
    await show(page, demo, ["board", `/wards/${(await openedWard(page, demo)).id}`, ".tile .reading-value"]);
    const banner = await page.waitForSelector(".alarm-high.alarm-raised", { timeout: HAPPENS_MS });
    assert.deepEqual(await banner.evaluate((one) => one.getAnimations().map((animation) => animation.effect.getTiming().duration)), wanted);
    assert.match(await banner.innerText(), /\*\*\*/);
  }
};

tests["a chart says what is under the cursor, and leads to it"] = async ({ demo, open }) => {
  const page = await open();
  await openedWard(page, demo);
  const patient = await somebody(page);
  await show(page, demo, ["patient", `/patients/${patient.id}`, ".uplot"]);
  await page.click("button:has-text('15 min')");
  await page.waitForSelector(".charts:not(.charts-old)");
  const over = page.locator(".chart .u-over").first();
  await over.scrollIntoViewIfNeeded();
  const box = await over.boundingBox();
  // The newest readings stand at the right edge.
  for (let back = 4; back < box.width; back += 4) {
    await page.mouse.move(box.x + box.width - back, box.y + box.height / 2);
    if (/\/min/.test(await page.textContent(".chart-readout"))) break;
  }
  assert.match(await page.textContent(".chart-readout"), /\d\d-[A-Z][a-z]{2} \d\d:\d\d:\d\d .*\/min/);
  await page.screenshot({ path: `${SHOTS}cursor.png` });
  await page.mouse.down();
  await page.mouse.up();
  await page.waitForSelector("dialog.drawer");
};

for (const theme of ["light", "dark"]) {
  tests[`every page is accessible in the ${theme} theme`] = async ({ demo, open }) => {
    const page = await open({ theme, as: "admin" });
    await openedWard(page, demo);
    const wrong = [];
    for (const one of await pages(page)) {
      await show(page, demo, one);
      wrong.push(...(await violations(page)).map((text) => `${one[0]}: ${text}`));
      await page.screenshot({ path: `${SHOTS}${one[0]}-${theme}.png` });
    }
    assert.deepEqual(wrong, []);
  };
}

tests["every page fits a phone"] = async ({ demo, open }) => {
  const page = await open({ size: PHONE, as: "admin" });
  await openedWard(page, demo);
  const wrong = [];
  for (const one of await pages(page)) {
    await show(page, demo, one);
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (over > 0) wrong.push(`${one[0]} is ${over} px too wide`);
    await page.screenshot({ path: `${SHOTS}${one[0]}-phone.png` });
  }
  assert.deepEqual(wrong, []);
};

tests["the keyboard alone leads to a patient and to a value's bytes"] = async ({ demo, open }) => {
  const page = await open({ signedIn: false });
  await page.goto(demo.address);
  await page.waitForSelector("input[name=username]:focus");
  await page.keyboard.type(demo.user);
  await page.keyboard.press("Tab");
  await page.keyboard.type(demo.password);
  await page.keyboard.press("Enter");
  await page.waitForSelector("input[name=code]:focus");
  await page.keyboard.type(nextCode(demo.totp_secret, demo.user));
  await page.keyboard.press("Enter");
  await page.waitForSelector(".ward-card");
  const { name } = await ward(page);
  await tabTo(page, (element, wanted) => element.matches(".ward-card") && element.textContent.startsWith(wanted), name);
  await page.keyboard.press("Enter");
  await page.waitForSelector(".tile");
  await tabTo(page, (element) => element.matches("[data-tile]"));
  await page.keyboard.press("End");
  await page.keyboard.press("Home");
  for (let i = 0; i < 24 && !(await page.evaluate(() => document.activeElement.matches("a.tile"))); i += 1) await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".banner-name:focus");
  await tabTo(page, (element) => element.matches(".latest-value"));
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog.drawer .origin-value");
  await page.waitForSelector("dialog.drawer .hex-row");
  await page.screenshot({ path: `${SHOTS}provenance.png` });
  await page.keyboard.press("Escape");
  await page.waitForSelector(".latest-value:focus");
  await page.keyboard.press("?");
  await page.waitForSelector("dialog .keys");
};

/** Presses Tab until the focused element fits; the focus must be seen on the way. */
async function tabTo(page, fits, argument) {
  for (let i = 0; i < 80; i += 1) {
    await page.keyboard.press("Tab");
    const there = await page.evaluate(([source, wanted]) => new Function("element", "wanted", `return (${source})(element, wanted)`)(document.activeElement, wanted), [fits.toString(), argument]).catch(() => null);
    if (there === true) return;
  }
  assert.fail(`80 presses of Tab did not lead to ${fits}`);
}

tests["a patient is found from anywhere with the keyboard alone"] = async ({ demo, open }) => {
  const page = await open();
  await openedWard(page, demo);
  const { id, record_number: record } = await somebody(page);
  await page.keyboard.press("/");
  await page.waitForSelector("dialog [role=combobox]:focus");
  await page.keyboard.type(record);
  await page.waitForSelector(`dialog [role=option]:has-text("${record}")`);
  await page.keyboard.press("Enter");
  await page.waitForURL(`**/patients/${id}`);
};

tests["the identity banner says who and what is not recorded"] = async ({ demo, open }) => {
  const page = await open();
  await openedWard(page, demo);
  const patient = await somebody(page);
  await show(page, demo, ["patient", `/patients/${patient.id}`, ".banner"]);
  const text = await page.innerText(".banner");
  for (const part of [`${patient.family.toLocaleUpperCase()}, ${patient.given}`, "Born", "Gender", patient.record_number, "Allergies not recorded"]) {
    assert.ok(text.includes(part), `the banner does not say "${part}": ${text}`);
  }
  assert.match(text, /\d\d-[A-Z][a-z]{2}-\d{4} \(\d+[ymwd]\)/);
  assert.ok(!(await page.title()).includes(patient.family), "the title of the tab names the patient");
};

/** The page of the address stands there, not the one before, which stays while the next is fetched. */
async function arrived(page) {
  await page.waitForSelector("main[aria-busy=false] h1");
}

/** What each role finds in its rail. */
const RAILS = {
  nurse: ["Wards", "Alerts", "Patients", "Devices", "Quarantine"],
  physician: ["Wards", "Alerts", "Patients", "Devices"],
  "biomedical-engineer": ["Devices", "Quarantine"],
  auditor: ["Audit", "Reviews"],
  integrator: ["Devices", "Admin"],
  patient: ["My data"],
  caregiver: ["My people"],
  administrator: ["Wards", "Alerts", "Patients", "Devices", "Quarantine", "Audit", "Reviews", "Admin"],
};

tests["each role finds its own pages, and none that refuses it"] = async ({ demo, open }) => {
  const { site } = await api(await opened(open, demo), "/session");
  // Not those whom other tests take in meanwhile: their roles change between the list and their sign-in.
  const people = site.demo_people.filter(({ name }) => demo.users.includes(name));
  assert.deepEqual(people.map(({ role }) => role).sort(), Object.keys(RAILS).sort());
  for (const { name, role } of people) {
    const page = await open({ signedIn: false });
    await signIn(page, { ...demo, user: name });
    assert.deepEqual(await page.$$eval(".rail-label", (found) => found.map((one) => one.textContent)), RAILS[role], role);
    for (const label of RAILS[role]) {
      await page.click(`.rail a:has-text("${label}")`);
      await page.waitForSelector(".rail a[aria-current=page]");
      await arrived(page);
      const tabs = label === "Admin" ? await page.$$eval(".tabs a", (found) => found.map((one) => one.textContent)) : [null];
      for (const tab of tabs) {
        if (tab !== null) await page.click(`.tabs a:has-text("${tab}")`);
        await arrived(page);
        await page.waitForSelector(".waiting", { state: "detached" });
        assert.equal(await page.$("main .message-bad:has-text('did not work')"), null, `${label} ${tab ?? ""} refuses the ${role}`);
        await page.waitForSelector(".seen-by, .board-foot");
      }
    }
  }
};

async function opened(open, demo) {
  const page = await open();
  await page.goto(demo.address);
  return page;
}

tests["an alert is acknowledged with a note"] = async ({ demo, open }) => {
  const page = await open();
  await show(page, demo, ["alerts", "/alerts", ".inbox"]);
  await page.waitForSelector("button:has-text('Acknowledge')", { timeout: HAPPENS_MS });
  const card = page.locator(".alert-card", { has: page.locator("button:has-text('Acknowledge')") }).first();
  const text = await card.locator(".alarm-text").textContent();
  const { alerts } = await api(page, "/alerts?state=open");
  // Beds of many wards have one name.
  const { wards } = await api(page, "/wards");
  assert.ok(wards.length > 1, "the demonstration has one ward only");
  await page.waitForFunction((names) => [...document.querySelectorAll(".alert-who strong")].every((where) => names.some((name) => where.textContent.endsWith(`, ${name}`))), wards.map(({ name }) => name));
  const wanted = alerts.filter((alert) => alert.text === text && alert.state === "raised").map(({ id }) => id);
  await card.locator("button:has-text('Acknowledge')").click();
  await page.fill("dialog textarea", "seen at the bedside");
  await page.screenshot({ path: `${SHOTS}acknowledge.png` });
  await page.click("dialog button[type=submit]");
  await page.waitForSelector("dialog", { state: "detached" });
  const after = (await api(page, "/alerts?state=all")).alerts.filter(({ id }) => wanted.includes(id));
  const taken = after.filter(({ state, steps }) => state !== "raised" && steps.some(({ note }) => note === "seen at the bedside"));
  assert.equal(taken.length, 1, `not exactly one of the alerts "${text}" was acknowledged`);
};

tests["a quarantined reading is mended, run again and charted"] = async ({ demo, open }) => {
  const page = await open();
  await show(page, demo, ["quarantine", "/quarantine", ".filters"]);
  await page.waitForSelector("tbody tr:has-text('Assigned to nobody') a", { timeout: HAPPENS_MS });
  await page.click("tbody tr:has-text('Assigned to nobody') th a");
  await page.waitForSelector("dialog.drawer .hex-row");
  await page.screenshot({ path: `${SHOTS}quarantined.png` });
  const patient = await somebody(page);
  await page.click("dialog.drawer .mend-actions button:has-text('Assign')");
  await page.fill("dialog [role=combobox]", patient.family);
  await page.locator("dialog [role=option]", { hasText: patient.record_number }).first().click();
  await page.screenshot({ path: `${SHOTS}assign.png` });
  await page.click("dialog button.primary:has-text('Assign')");
  await page.waitForSelector("dialog [role=combobox]", { state: "detached" });
  await page.waitForSelector("dialog.dialog", { state: "detached" });
  await page.click("dialog.drawer button:has-text('Run again')");
  await page.waitForSelector("dialog.drawer .message-good:has-text('Charted')");
};

tests["limits are changed and kept"] = async ({ demo, open }) => {
  const page = await open();
  await openedWard(page, demo);
  const patient = await somebody(page);
  await show(page, demo, ["patient", `/patients/${patient.id}`, "#limits"]);
  await page.click("button:has-text('Change')");
  const row = page.locator("fieldset.limit-row", { hasText: "Heart rate" });
  if ((await row.count()) === 0) await page.selectOption("dialog .field select", "heart_rate");
  await row.getByLabel("Above").fill("10");
  await row.getByLabel("Below").fill("40");
  await page.waitForSelector(".limit-fault");
  assert.ok(await page.isDisabled("dialog button[type=submit]"), "limits that contradict each other can be saved");
  await row.getByLabel("Above").fill("143");
  await page.click("dialog button[type=submit]");
  await page.waitForSelector("dialog", { state: "detached" });
  await page.waitForSelector(".limit-list:has-text('below 40 or above 143')");
  const { limits } = await api(page, `/patients/${patient.id}`);
  assert.equal(limits.find(({ measure }) => measure === "heart_rate").high, 143);
};

tests["a lost link is shown on the whole screen, and mends itself"] = async ({ demo, open }) => {
  const page = await open({ theme: "dark" });
  await show(page, demo, ["board", `/wards/${(await openedWard(page, demo)).id}`, ".tile .reading-value"]);
  demo.freeze();
  try {
    await page.waitForSelector(".lost");
    assert.match(await page.innerText(".lost"), /nothing on this screen is current/);
    await page.waitForFunction(() => document.querySelectorAll(".tile .reading-value").length === document.querySelectorAll(".tile .reading-stale .reading-value, .tile .reading-none .reading-value").length);
    await page.screenshot({ path: `${SHOTS}link-lost.png` });
  } finally {
    demo.thaw();
  }
  await page.waitForSelector(".lost", { state: "detached", timeout: HAPPENS_MS });
  await page.waitForSelector(".tile .reading:not(.reading-stale):not(.reading-none) .reading-value");
};

tests["a session that ends in one tab leaves nothing in the other"] = async ({ demo, open }) => {
  const page = await open({ signedIn: false });
  await signIn(page, demo);
  await show(page, demo, ["board", `/wards/${(await openedWard(page, demo)).id}`, ".tile .reading-value"]);
  const { family } = await somebody(page);
  assert.ok((await page.content()).includes(family.toLocaleUpperCase()));
  const other = await page.context().newPage();
  await other.goto(`${demo.address}/wards`);
  await other.click("button[aria-label='Sign out']");
  await other.waitForSelector("input[name=password]");
  await page.waitForSelector("input[name=password]");
  assert.match(await page.innerText("main"), /sign(ed)? (out|in)|session/i);
  assert.ok(!(await page.content()).includes(family.toLocaleUpperCase()), "the patient's name is still on the page");
};
