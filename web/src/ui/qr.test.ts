//! QR codes say what they were given, up to the length of a one-time link or a claim.

import jsQR from "jsqr";
import { describe, expect, it } from "vitest";

import { qrPath } from "./qr.tsx";

/** Pixels a module in the picture that is read back. */
const SCALE = 4;

/** Draws the path as the browser would: runs of dark modules on white. */
function draw({ size, path }: { size: number; path: string }): Uint8ClampedArray {
  const width = size * SCALE;
  const data = new Uint8ClampedArray(width * width * 4).fill(255);
  for (const [, x, y, run] of path.matchAll(/M(\d+) (\d+)h(\d+)v1h-\d+z/g)) {
    for (let dy = 0; dy < SCALE; dy += 1) {
      for (let dx = 0; dx < Number(run) * SCALE; dx += 1) {
        const at = ((Number(y) * SCALE + dy) * width + Number(x) * SCALE + dx) * 4;
        data.fill(0, at, at + 3);
      }
    }
  }
  return data;
}

describe("a QR code", () => {
  it.each([
    "A",
    "otpauth://totp/Auscult:nora?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Auscult",
    `https://auscult.example.org/invite#token=${"Ab1-".repeat(16)}`,
    `{"url":"https://auscult.example.org/enrol/v1/claim","pin":"${"0f".repeat(32)}","serial":"SN-Ü 4711","code":"${"X7KQ2".repeat(6)}"}`,
  ])("reads back as %s", (text) => {
    const drawn = qrPath(text);
    const width = drawn.size * SCALE;
    expect(jsQR(draw(drawn), width, width)?.data).toBe(text);
  });
});
