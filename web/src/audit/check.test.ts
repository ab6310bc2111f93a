//! A row's proof as the server gives it: it holds as a whole, and no part can be turned without being noticed.

import { beforeAll, describe, expect, it } from "vitest";

import type { RowProof } from "../api/audit.ts";
import { checkProof } from "./check.ts";
import { base64Of, bytesOf, leafHash, nodeHash } from "./tree.ts";

const text = new TextEncoder();
const join = (...parts: Uint8Array[]) => Uint8Array.from(parts.flatMap((part) => [...part]));

async function signer(name: string, kind: number) {
  const pair = (await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"])) as CryptoKeyPair;
  const key = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  const hash = Uint8Array.of(kind, 2, 3, 4);
  return {
    vkey: `${name}+${[...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("")}+${base64Of(join(Uint8Array.of(kind), key))}`,
    line: async (message: string, before = new Uint8Array()) =>
      `— ${name} ${base64Of(join(hash, before, new Uint8Array(await crypto.subtle.sign("Ed25519", pair.privateKey, text.encode(message)))))}\n`,
  };
}

async function prove(witnessed: boolean): Promise<RowProof> {
  const [log, witness] = [await signer("auscult/ab/acts", 1), await signer("witness.example", 4)];
  const [header, payload, blinding] = [text.encode("header of row 2"), `{"action":"read"}`, crypto.getRandomValues(new Uint8Array(32))];
  const mac = await crypto.subtle.importKey("raw", blinding, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const input = join(header, new Uint8Array(await crypto.subtle.sign("HMAC", mac, text.encode(payload))));
  const [first, leaf, third] = [await leafHash(text.encode("row 1")), await leafHash(input), await leafHash(text.encode("row 3"))];
  const root = await nodeHash(await nodeHash(first, leaf), third);
  const origin = "auscult/ab/acts/1";
  const body = `${origin}\n3\n${base64Of(root)}\n`;
  const stamp = new Uint8Array(8);
  new DataView(stamp.buffer).setBigUint64(0, 1_800_000_000n);
  const cosigned = witnessed ? await witness.line(`cosignature/v1\ntime 1800000000\n${body}`, stamp) : "";
  return {
    log: "acts",
    origin,
    sequence: 2,
    index: 1,
    size: 3,
    leaf_input: base64Of(input),
    leaf: base64Of(leaf),
    path: [base64Of(first), base64Of(third)],
    root: base64Of(root),
    checkpoint: `${body}\n${await log.line(body)}${cosigned}`,
    log_keys: [log.vkey],
    witness_keys: [witness.vkey],
    content: { header: base64Of(header), blinding: base64Of(blinding), payload },
    tlog_proof: "",
  };
}

const turned = (base64: string) => {
  const bytes = bytesOf(base64);
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
  return base64Of(bytes);
};

describe("the proof of a row", () => {
  let proof: RowProof;
  beforeAll(async () => {
    proof = await prove(true);
  });

  it("holds, and says who signed and who saw it", async () => {
    const check = await checkProof(proof);
    expect(check).toMatchObject({ holds: true, content: true, leaf: true, root: true, signature: true, signedBy: "auscult/ab/acts" });
    expect(check.witnesses).toEqual([{ name: "witness.example", holds: true, at: new Date(1_800_000_000_000) }]);
    expect(check.steps.map(({ side }) => side)).toEqual(["left", "right"]);
  });

  it("holds where the content was erased, and without a witness", async () => {
    expect(await checkProof({ ...proof, content: null })).toMatchObject({ holds: true, content: null });
    expect(await checkProof(await prove(false))).toMatchObject({ holds: true, witnesses: [] });
  });

  const lies: [string, (proof: RowProof) => RowProof][] = [
    ["leaf input", (one) => ({ ...one, leaf_input: turned(one.leaf_input) })],
    ["leaf", (one) => ({ ...one, leaf: turned(one.leaf) })],
    ["first step", (one) => ({ ...one, path: [turned(one.path[0] as string), one.path[1] as string] })],
    ["missing step", (one) => ({ ...one, path: one.path.slice(1) })],
    ["place", (one) => ({ ...one, index: 2 })],
    ["row", (one) => ({ ...one, sequence: 3 })],
    ["size", (one) => ({ ...one, size: 4 })],
    ["payload", (one) => ({ ...one, content: { ...one.content!, payload: `${one.content!.payload} ` } })],
    ["salt", (one) => ({ ...one, content: { ...one.content!, blinding: turned(one.content!.blinding) } })],
    ["header", (one) => ({ ...one, content: { ...one.content!, header: turned(one.content!.header) } })],
    ["checkpoint", (one) => ({ ...one, checkpoint: one.checkpoint.replace("\n3\n", "\n4\n") })],
    ["origin", (one) => ({ ...one, origin: "auscult/ab/acts/2" })],
    ["log's key", (one) => ({ ...one, log_keys: one.witness_keys })],
    ["signatures", (one) => ({ ...one, checkpoint: one.checkpoint.slice(0, one.checkpoint.indexOf("— ")) })],
    ["witness", (one) => ({ ...one, checkpoint: one.checkpoint.replace(/(witness\.example \S{20})(\S)/, (_, front: string, last: string) => front + (last === "A" ? "B" : "A")) })],
  ];
  it.each(lies)("does not hold with a turned %s", async (_, lie) => {
    expect((await checkProof(lie(proof))).holds).toBe(false);
  });
});
