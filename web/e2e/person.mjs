//! People in the tests: how they prove themselves, and how the browser does it for them.

import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const JSQR = readFileSync(createRequire(import.meta.url).resolve("jsqr/dist/jsQR.js"), "utf8");
/** RFC 6238's step, in s. */
const STEP_S = 30;

function fromBase32(text) {
  const bits = [...text.toUpperCase().replace(/[^A-Z2-7]/g, "")].map((letter) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(letter).toString(2).padStart(5, "0")).join("");
  return Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => parseInt(byte, 2)));
}

/** The code of one step (RFC 6238, six digits, SHA-1). */
export function codeAt(secret, step) {
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(step));
  const mac = createHmac("sha1", fromBase32(secret)).update(counter).digest();
  const at = mac[19] & 15;
  return String((mac.readUInt32BE(at) & 0x7fffffff) % 1_000_000).padStart(6, "0");
}

const used = new Map();

/** A code that its owner has not used yet: a used step is never taken again, one ahead of the clock is. */
export function nextCode(secret, whose = secret) {
  const now = Math.floor(Date.now() / 1000 / STEP_S);
  const step = Math.max(now, (used.get(whose) ?? 0) + 1);
  used.set(whose, step);
  return codeAt(secret, step);
}

/** A code of six digits that is not right now. */
export function wrongCode(secret) {
  const now = Math.floor(Date.now() / 1000 / STEP_S);
  const near = [-2, -1, 0, 1, 2].map((off) => codeAt(secret, now + off));
  return ["000000", "111111", "222222", "333333", "444444", "555555"].find((code) => !near.includes(code));
}

/** A phone or computer with a finger on it: passkeys are made and used without anybody. Answers the way to take it away. */
export async function withAuthenticator(page) {
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("WebAuthn.enable");
  const { authenticatorId } = await cdp.send("WebAuthn.addVirtualAuthenticator", {
    options: { protocol: "ctap2", ctap2Version: "ctap2_1", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true },
  });
  return {
    credentials: async () => (await cdp.send("WebAuthn.getCredentials", { authenticatorId })).credentials,
  };
}

/** What a scanner reads from the QR code in `selector`. */
export async function scan(page, selector) {
  const picture = await page.locator(selector).screenshot();
  const reader = await page.context().browser().newPage();
  try {
    await reader.addScriptTag({ content: JSQR });
    return await reader.evaluate(async (base64) => {
      const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
      const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
      // Twice the size: a scanner sees more pixels than a screenshot has.
      const canvas = new OffscreenCanvas(bitmap.width * 2, bitmap.height * 2);
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
      // Only dark on white: not every scanner turns a picture round.
      return window.jsQR(data, canvas.width, canvas.height, { inversionAttempts: "dontInvert" })?.data ?? null;
    }, picture.toString("base64"));
  } finally {
    await reader.close();
  }
}
