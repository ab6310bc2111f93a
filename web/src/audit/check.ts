//! Checks every part of a row's proof as the server gave it, and says which parts hold.

import type { RowProof } from "../api/audit.ts";
import { bytesOf, checkSignature, COSIGNATURE, ED25519, climb, leafHash, parseCheckpoint, parseKey, sameBytes } from "./tree.ts";

export interface Check {
  /** Everything that is there holds, and nothing that must be there is missing. */
  holds: boolean;
  /** The content gives the commitment in the leaf; `null` where the content was erased. */
  content: boolean | null;
  leaf: boolean;
  root: boolean;
  signature: boolean;
  witnesses: { name: string; holds: boolean; at: Date | null }[];
  steps: { side: "left" | "right"; siblingHex: string; resultHex: string }[];
  leafHex: string;
  rootHex: string;
  origin: string;
  signedBy: string | null;
}

export const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Length of the commitment at the end of a leaf's input, in bytes: HMAC-SHA256. */
const COMMITMENT_BYTES = 32;

/** The commitment is HMAC-SHA256 of the payload under the row's own salt; the header stands before it in the leaf. */
async function contentHolds(content: NonNullable<RowProof["content"]>, leafInput: Uint8Array): Promise<boolean> {
  const key = await crypto.subtle.importKey("raw", bytesOf(content.blinding), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const commitment = new Uint8Array(await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(content.payload)));
  const split = leafInput.length - COMMITMENT_BYTES;
  return split >= 0 && sameBytes(leafInput.slice(split), commitment) && sameBytes(leafInput.slice(0, split), bytesOf(content.header));
}

export async function checkProof(proof: RowProof): Promise<Check> {
  const leafInput = bytesOf(proof.leaf_input);
  const leaf = await leafHash(leafInput);
  const climbed = await climb(leaf, proof.index, proof.size, proof.path.map(bytesOf));
  const checkpoint = parseCheckpoint(proof.checkpoint);
  const content = proof.content === null ? null : await contentHolds(proof.content, leafInput);
  const leafHolds = sameBytes(leaf, bytesOf(proof.leaf)) && proof.index === proof.sequence - 1;
  const root = climbed !== null && checkpoint !== null && checkpoint.size === proof.size && checkpoint.origin === proof.origin && sameBytes(climbed.root, checkpoint.root);
  let signedBy: string | null = null;
  const witnesses: Check["witnesses"] = [];
  if (checkpoint !== null) {
    for (const text of proof.log_keys) {
      const key = parseKey(text);
      // A witness vouches for having seen a checkpoint, not for the log: its key is no log's key.
      if (key?.kind === ED25519 && (await checkSignature(checkpoint, key))?.holds) signedBy = key.name;
    }
    for (const text of proof.witness_keys) {
      const key = parseKey(text);
      const found = key?.kind === COSIGNATURE ? await checkSignature(checkpoint, key) : null;
      if (key && found) witnesses.push({ name: key.name, ...found });
    }
  }
  const signature = signedBy !== null;
  return {
    holds: content !== false && leafHolds && root && signature && witnesses.every((witness) => witness.holds),
    content,
    leaf: leafHolds,
    root,
    signature,
    witnesses,
    steps: climbed?.steps.map(({ side, sibling, result }) => ({ side, siblingHex: hex(sibling), resultHex: hex(result) })) ?? [],
    leafHex: hex(leaf),
    rootHex: climbed === null ? "" : hex(climbed.root),
    origin: checkpoint?.origin ?? "",
    signedBy,
  };
}
