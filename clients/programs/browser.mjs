// What the programs in a browser share: Chromium without a window, and how a person proves themselves to the web app.

import { createHmac } from "node:crypto";
import { chromium } from "playwright-core";

/** RFC 6238's step, in s. */
const STEP_S = 30;
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** A browser that asks nobody on the network but whom it is sent to. */
export function launch() {
    const executablePath = process.env.AUSCULT_CHROMIUM ?? "/usr/bin/chromium";
    const args = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"];
    return chromium.launch({ executablePath, args });
}

/** The code that a person's authenticator app shows now. */
export function codeNow(secret) {
    const bits = [...secret.replace(/=+$/, "")].map((letter) => LETTERS.indexOf(letter).toString(2).padStart(5, "0")).join("");
    const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
    const counter = Buffer.alloc(8);
    counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 1000 / STEP_S)));
    const mac = createHmac("sha1", key).update(counter).digest();
    const at = mac[19] & 15;
    return String((mac.readUInt32BE(at) & 0x7fffffff) % 1_000_000).padStart(6, "0");
}

/** Fills in what the sign-in page asks a person with a password and an authenticator app for. */
export async function signIn(page, person) {
    await page.fill("input[name=username]", person.name);
    await page.fill("input[name=password]", person.password);
    await page.click("button[type=submit]");
    await giveCode(page, person);
}

/** Gives the second factor. */
export async function giveCode(page, person) {
    await page.fill("input[name=code]", codeNow(person.totp_secret));
    await page.click("button[type=submit]");
}

/** Asks the web app's own interface as the page. */
export function api(page, method, path) {
    return page.evaluate(
        async ([how, to]) => {
            const answer = await fetch(`/api/v1${to}`, { method: how, headers: { "x-auscult": "1" } });
            const text = await answer.text();
            return { status: answer.status, body: text === "" ? null : JSON.parse(text) };
        },
        [method, path],
    );
}
