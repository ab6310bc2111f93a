//! Passkeys as JSON: bytes go both ways unharmed, and options keep all they came with.

import { describe, expect, it } from "vitest";

import { creationOptions, fromBase64Url, requestOptions, toBase64Url } from "./webauthn.ts";

describe("base64url", () => {
  it("brings every byte back, without padding", () => {
    for (let length = 0; length < 70; length += 1) {
      const bytes = Uint8Array.from({ length }, (_, index) => (index * 37 + length) % 256);
      const text = toBase64Url(bytes);
      expect(text).not.toMatch(/[+/=]/);
      expect(fromBase64Url(text)).toEqual(bytes);
    }
  });
});

describe("options", () => {
  it("of a new passkey have bytes where the browser wants bytes, and all else as it came", () => {
    const read = creationOptions({
      challenge: "AQID",
      rp: { id: "localhost", name: "Auscult" },
      user: { id: "BAUG", name: "nora", displayName: "Nora" },
      pubKeyCredParams: [{ type: "public-key", alg: -7 }],
      excludeCredentials: [{ type: "public-key", id: "Bwg", transports: ["internal"] }],
      authenticatorSelection: { residentKey: "required", userVerification: "required" },
    });
    expect(read.challenge).toEqual(Uint8Array.of(1, 2, 3));
    expect(read.user.id).toEqual(Uint8Array.of(4, 5, 6));
    expect(read.user.displayName).toBe("Nora");
    expect(read.excludeCredentials).toEqual([{ type: "public-key", id: Uint8Array.of(7, 8), transports: ["internal"] }]);
    expect(read.authenticatorSelection?.userVerification).toBe("required");
  });

  it("of a sign-in may name no credential: the authenticator knows its own", () => {
    expect(requestOptions({ challenge: "AQID", rpId: "localhost", userVerification: "required" }).allowCredentials).toEqual([]);
  });
});
