//! The people of the tests: an administrator, whoever they invite, and somebody in a bed.

import assert from "node:assert/strict";

import { api, proveAgain, send } from "./browser.mjs";
import { nextCode } from "./person.mjs";

/** Longest wait for the server to do something by itself (a checkpoint, an event), in ms. */
export const HAPPENS_MS = 60_000;
export const PASSWORD = "a long enough password";

let invited = 0;
/** Takes somebody in as the administrator `page` is signed in as; answers the one-time link and the name. */
export async function invite(page, demo, person) {
  await proveAgain(page, demo);
  invited += 1;
  const name = `${person.role}-${process.pid}-${invited}`;
  const { user, invitation } = await send(page, "POST", "/users", { name, display: `Test ${name}`, wards: null, ...person });
  return { id: user.id, name, link: demo.address + invitation.path };
}

/** A new browser in which an invited person has made their way in with password and code app. */
export async function enter(open, page, demo, person, options = {}) {
  const who = await invite(page, demo, person);
  const theirs = await open({ signedIn: false, ...options });
  await theirs.goto(who.link);
  await theirs.click("button:has-text('Begin')");
  await theirs.waitForSelector("h1:has-text('Make your way in')");
  await send(theirs, "PUT", "/account/password", { password: PASSWORD });
  const { secret } = await send(theirs, "POST", "/account/totp/begin");
  await send(theirs, "POST", "/account/totp", { code: nextCode(secret) });
  await theirs.goto(demo.address);
  await theirs.waitForSelector(".rail");
  return { ...who, page: theirs, secret };
}

/** The administrator, on the page of that path. */
export async function admin(open, demo, path = "/admin/people", ready = "tbody tr") {
  const page = await open({ as: "admin" });
  await page.goto(demo.address + path);
  await page.waitForSelector(ready);
  // What needs a fresh proof is done without being asked; that it is asked for has a test of its own.
  await proveAgain(page, demo);
  return page;
}

/** Somebody in a bed with vital signs, and the ward of the bed. */
export async function somebody(page, not = () => false) {
  for (const ward of (await api(page, "/wards")).wards) {
    const { tiles } = await api(page, `/wards/${ward.id}/board`);
    const tile = tiles.find(({ patient, vitals }) => patient && vitals.some(({ measure }) => measure === "heart_rate") && !not(patient));
    if (tile) return { ...tile, ward };
  }
  return assert.fail("no bed of the demonstration has a patient with a heart rate");
}
