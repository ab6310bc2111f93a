//! Proofs of audit rows: every row of trees of many sizes, every kind of lie, signatures of the log and of witnesses.

import { describe, expect, it } from "vitest";

import { base64Of, checkSignature, climb, leafHash, nodeHash, parseCheckpoint, parseKey, sameBytes } from "./tree.ts";

const leaves = (count: number) => Array.from({ length: count }, (_, index) => new TextEncoder().encode(`row ${index}`));
const hex = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Root and path as RFC 6962, 2.1 and 2.1.1, define them: by recursion, the other way round than `climb`. */
async function root(all: Uint8Array[]): Promise<Uint8Array<ArrayBuffer>> {
  if (all.length === 1) return leafHash(all[0] as Uint8Array);
  const half = 2 ** Math.floor(Math.log2(all.length - 1));
  return nodeHash(await root(all.slice(0, half)), await root(all.slice(half)));
}
async function path(at: number, all: Uint8Array[]): Promise<Uint8Array<ArrayBuffer>[]> {
  if (all.length === 1) return [];
  const half = 2 ** Math.floor(Math.log2(all.length - 1));
  return at < half
    ? [...(await path(at, all.slice(0, half))), await root(all.slice(half))]
    : [...(await path(at - half, all.slice(half))), await root(all.slice(0, half))];
}

describe("inclusion", () => {
  it("hashes an empty leaf as RFC 6962 says", async () => {
    expect(hex(await leafHash(new Uint8Array()))).toBe("6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
  });

  it("leads from every row of every tree up to 33 rows to its root, and to no other", async () => {
    for (let size = 1; size <= 33; size += 1) {
      const all = leaves(size);
      const top = await root(all);
      for (let at = 0; at < size; at += 1) {
        const leaf = await leafHash(all[at] as Uint8Array);
        const way = await path(at, all);
        const found = await climb(leaf, at, size, way);
        expect(found && sameBytes(found.root, top), `${at} of ${size}`).toBe(true);
        const elsewhere = size === 1 ? null : await climb(leaf, (at + 1) % size, size, way);
        expect(elsewhere !== null && sameBytes(elsewhere.root, top), `${at} of ${size} in another place`).toBe(false);
        expect(await climb(leaf, at, size, [...way, leaf]), "a path that is too long").toBeNull();
        if (way.length > 0) expect(await climb(leaf, at, size, way.slice(1)).then((short) => short !== null && sameBytes(short.root, top))).toBe(false);
      }
    }
  });

  it("takes no index outside the tree, and counts beyond 2³²", async () => {
    const leaf = await leafHash(new Uint8Array([1]));
    expect(await climb(leaf, 3, 3, [])).toBeNull();
    expect(await climb(leaf, -1, 3, [])).toBeNull();
    const far = 2 ** 33;
    const way = Array.from({ length: 33 }, () => leaf);
    expect((await climb(leaf, far - 1, far, way))?.steps.every(({ side }) => side === "left")).toBe(true);
  });
});

async function signer(name: string, kind: number) {
  const pair = (await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"])) as CryptoKeyPair;
  const key = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  const hash = "0a1b2c3d";
  const sign = async (message: string, before: Uint8Array = new Uint8Array()) => {
    const signature = new Uint8Array(await crypto.subtle.sign("Ed25519", pair.privateKey, new TextEncoder().encode(message)));
    return `— ${name} ${base64Of(Uint8Array.of(0x0a, 0x1b, 0x2c, 0x3d, ...before, ...signature))}\n`;
  };
  return { vkey: `${name}+${hash}+${base64Of(Uint8Array.of(kind, ...key))}`, sign };
}

describe("checkpoints", () => {
  const body = `hospital.example/log\n7\n${base64Of(new Uint8Array(32))}\n`;

  it("hold when the log's key signed them, and not when a digit was changed", async () => {
    const log = await signer("hospital.example/log", 1);
    const note = `${body}\n${await log.sign(body)}`;
    const key = parseKey(log.vkey);
    const read = parseCheckpoint(note);
    expect(read?.size).toBe(7);
    expect(await checkSignature(read!, key!)).toEqual({ holds: true, at: null });
    const forged = parseCheckpoint(note.replace("\n7\n", "\n8\n"));
    expect(await checkSignature(forged!, key!)).toEqual({ holds: false, at: null });
  });

  it("say when a witness saw them", async () => {
    const witness = await signer("witness.example", 4);
    const seconds = 1_800_000_000;
    const stamp = new Uint8Array(8);
    new DataView(stamp.buffer).setBigUint64(0, BigInt(seconds));
    const note = `${body}\n${await witness.sign(`cosignature/v1\ntime ${seconds}\n${body}`, stamp)}`;
    expect(await checkSignature(parseCheckpoint(note)!, parseKey(witness.vkey)!)).toEqual({ holds: true, at: new Date(seconds * 1000) });
    const other = await signer("another.example", 4);
    expect(await checkSignature(parseCheckpoint(note)!, parseKey(other.vkey)!)).toBeNull();
  });

  it("are not taken from what is none", () => {
    expect(parseCheckpoint("nothing")).toBeNull();
    expect(parseCheckpoint("origin\n-1\nAAAA\n\n")).toBeNull();
    expect(parseKey("name+zz+AAAA")).toBeNull();
  });
});
