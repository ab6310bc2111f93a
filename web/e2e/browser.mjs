//! The browser of the tests: Debian's Chromium, one signed-in state for all, and the accessibility check.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import { chromium } from "playwright-core";

const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";
const ARGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];

export const WIDE = { width: 1920, height: 1080 };
export const PHONE = { width: 390, height: 844 };
export const SHOTS = new URL("../test-results/", import.meta.url).pathname;

export function launch() {
  return chromium.launch({ executablePath: EXECUTABLE, args: ARGS });
}

/** Changes something through the JSON API with the page's own session; the problem's code where it is refused. */
export function send(page, method, path, body = {}) {
  return page.evaluate(
    async ([how, to, what]) => {
      const answer = await fetch(`/api/v1${to}`, { method: how, headers: { "content-type": "application/json", "x-auscult": "1" }, body: JSON.stringify(what) });
      const text = await answer.text();
      const read = text === "" ? {} : JSON.parse(text);
      if (!answer.ok) throw new Error(`${how} ${to} answered ${answer.status} ${read.code}: ${read.detail ?? read.title}`);
      return read;
    },
    [method, path, body],
  );
}

/** Signs a person of the demonstration in by its link, as a newcomer does. */
export async function signIn(page, { address, demo_token: token, user }) {
  await page.goto(`${address}/sign-in#demo=${token}`);
  const { site } = await api(page, "/session");
  const person = site.demo_people.find(({ name }) => name === user);
  if (!person) throw new Error(`the demonstration has nobody called ${user}: ${site.demo_people.map(({ name }) => name).join(", ")}`);
  await page.click(`.demo-people button:has-text("${person.display}")`);
  await page.waitForSelector(".rail");
}

/** Signs in with name, password and a code of the code app. */
export async function signInByPassword(page, { address, user, password, code }) {
  await page.goto(address);
  await page.fill("input[name=username]", user);
  await page.fill("input[name=password]", password);
  await page.click("button[type=submit]");
  await page.fill("input[name=code]", code);
  await page.click("button[type=submit]");
  await page.waitForSelector(".rail");
}

/** The demonstration's link counts as a fresh proof: what needs one can be asked for by the API afterwards. */
export async function proveAgain(page, demo) {
  await send(page, "POST", "/step-up/link", { token: demo.demo_token });
}

/** GET of the JSON API with the page's own session. */
export function api(page, path) {
  return page.evaluate(async (to) => {
    const answer = await fetch(`/api/v1${to}`);
    if (!answer.ok) throw new Error(`${to} answered ${answer.status}: ${await answer.text()}`);
    return answer.json();
  }, path);
}

/** What the accessibility rules find wrong, a line each. */
export async function violations(page) {
  await page.evaluate(AXE);
  const result = await page.evaluate((rules) => window.axe.run(document, { runOnly: rules, resultTypes: ["violations"] }), RULES);
  return result.violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.slice(0, 3).map((node) => node.target.join(" ")).join(" | ")}`);
}

/** Notes everything a page complains about; failed requests of a test that cuts the network do not count. */
export function complaints(page, noted) {
  page.on("pageerror", (error) => noted.push(`page error: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() !== "error") return;
    const text = message.text();
    if (!/Failed to load resource|net::ERR|WebSocket connection/.test(text)) noted.push(`console: ${text}`);
  });
}
