//! The proof of an audit row, checked in the browser: RFC 6962 hashes, an inclusion path, a signed checkpoint and its witnesses.

/** Raw bytes of standard base64. */
export function bytesOf(base64: string): Uint8Array<ArrayBuffer> {
  const raw = atob(base64);
  return Uint8Array.from(raw, (letter) => letter.charCodeAt(0));
}

export function base64Of(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

const joined = (...parts: Uint8Array[]): Uint8Array<ArrayBuffer> => {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
};

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

/** Hash of a leaf's content (RFC 6962, 2.1: 0x00 before the content). */
export const leafHash = (content: Uint8Array): Promise<Uint8Array<ArrayBuffer>> => sha256(joined(Uint8Array.of(0), content));

/** Hash of an inner node (RFC 6962, 2.1: 0x01 before the two halves). */
export const nodeHash = (left: Uint8Array, right: Uint8Array): Promise<Uint8Array<ArrayBuffer>> => sha256(joined(Uint8Array.of(1), left, right));

/** One step on the way from a leaf to the root. */
export interface Step {
  sibling: Uint8Array;
  /** On which side the sibling stands. */
  side: "left" | "right";
  /** What the two make together. */
  result: Uint8Array<ArrayBuffer>;
}

/**
 * Climbs from a leaf to the root (RFC 9162, 2.1.3.2). `index` counts from 0, `size` is the number of leaves under the root.
 * `null` where the path has the wrong length or the index lies outside the tree.
 */
export async function climb(leaf: Uint8Array<ArrayBuffer>, index: number, size: number, path: Uint8Array[]): Promise<{ root: Uint8Array<ArrayBuffer>; steps: Step[] } | null> {
  if (!Number.isSafeInteger(index) || !Number.isSafeInteger(size) || index < 0 || index >= size) return null;
  // Plain division, not bit shifts: those would cut numbers over 2³¹.
  let [at, last] = [index, size - 1];
  let result = leaf;
  const steps: Step[] = [];
  for (const sibling of path) {
    if (last === 0 || sibling.length !== 32) return null;
    if (at % 2 === 1 || at === last) {
      result = await nodeHash(sibling, result);
      steps.push({ sibling, side: "left", result });
      while (at % 2 === 0 && at !== 0) {
        at = Math.floor(at / 2);
        last = Math.floor(last / 2);
      }
    } else {
      result = await nodeHash(result, sibling);
      steps.push({ sibling, side: "right", result });
    }
    at = Math.floor(at / 2);
    last = Math.floor(last / 2);
  }
  return last === 0 ? { root: result, steps } : null;
}

/** A key that signs notes: name, the hash that names it in signature lines, kind and bytes. */
export interface NoteKey {
  name: string;
  hash: string;
  kind: number;
  key: Uint8Array<ArrayBuffer>;
}

/** Signature kinds of C2SP signed-note: Ed25519, and the cosignature of a witness. */
export const ED25519 = 1;
export const COSIGNATURE = 4;

/** A key in the form `name+hash+base64(kind ‖ key)`; `null` where it is not of that form. */
export function parseKey(text: string): NoteKey | null {
  const parts = /^([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/.exec(text.trim());
  if (!parts) return null;
  const bytes = bytesOf(parts[3] as string);
  if (bytes.length !== 33) return null;
  return { name: parts[1] as string, hash: parts[2] as string, kind: bytes[0] as number, key: bytes.slice(1) };
}

export interface SignatureLine {
  name: string;
  /** The key's hash, eight hexadecimal digits. */
  hash: string;
  signature: Uint8Array<ArrayBuffer>;
}

export interface Checkpoint {
  /** What is signed: the note's text with its last line break. */
  body: string;
  origin: string;
  size: number;
  root: Uint8Array<ArrayBuffer>;
  signatures: SignatureLine[];
}

/** Reads a signed checkpoint (C2SP tlog-checkpoint); `null` where it is none. */
export function parseCheckpoint(note: string): Checkpoint | null {
  const split = note.indexOf("\n\n");
  if (split < 0) return null;
  const body = note.slice(0, split + 1);
  const [origin, size, root] = body.split("\n");
  if (!origin || !/^(0|[1-9]\d*)$/.test(size ?? "") || !root) return null;
  const signatures: SignatureLine[] = [];
  for (const line of note.slice(split + 2).split("\n")) {
    const parts = /^— (\S+) (\S+)$/.exec(line);
    if (!parts) continue;
    const bytes = bytesOf(parts[2] as string);
    const hash = Array.from(bytes.slice(0, 4), (byte) => byte.toString(16).padStart(2, "0")).join("");
    signatures.push({ name: parts[1] as string, hash, signature: bytes.slice(4) });
  }
  return { body, origin, size: Number(size), root: bytesOf(root), signatures };
}

async function ed25519(key: Uint8Array<ArrayBuffer>, signature: Uint8Array<ArrayBuffer>, message: Uint8Array<ArrayBuffer>): Promise<boolean> {
  const imported = await crypto.subtle.importKey("raw", key, "Ed25519", false, ["verify"]);
  return crypto.subtle.verify("Ed25519", imported, signature, message);
}

/** The time a witness puts into its cosignature, with whether the signature holds; `null` where this key did not sign. */
export async function checkSignature(checkpoint: Checkpoint, key: NoteKey): Promise<{ holds: boolean; at: Date | null } | null> {
  const line = checkpoint.signatures.find(({ name, hash }) => name === key.name && hash === key.hash);
  if (!line) return null;
  const text = new TextEncoder();
  if (key.kind === ED25519) return { holds: await ed25519(key.key, line.signature, text.encode(checkpoint.body)), at: null };
  if (key.kind !== COSIGNATURE || line.signature.length !== 72) return { holds: false, at: null };
  const seconds = Number(new DataView(line.signature.buffer).getBigUint64(0));
  const message = text.encode(`cosignature/v1\ntime ${seconds}\n${checkpoint.body}`);
  return { holds: await ed25519(key.key, line.signature.slice(8), message), at: new Date(seconds * 1000) };
}

export const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((byte, index) => byte === b[index]);
