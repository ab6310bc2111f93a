//! Starts the real binary with its demonstration data, and ends it again.

import { spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import { SHOTS } from "./browser.mjs";

/** Longest wait for the line that says that the server is ready, in ms: it builds a database and signs certificates. */
const READY_MS = 120_000;
/** Longest wait for an orderly end, in ms. */
const END_MS = 10_000;

const BINARY = process.env.AUSCULT_BIN ?? new URL("../../target/debug/auscult", import.meta.url).pathname;

/** What the server logs; the screenshots lie beside it. */
const LOG = `${SHOTS}server.log`;

/** `{ address, user, password, demo_token, totp_secret, end }` of a running demonstration. */
export async function startDemo() {
  const log = openSync(LOG, "w");
  const child = spawn(BINARY, ["demo", "--port", "0", "--print-json"], { stdio: ["ignore", "pipe", log] });
  closeSync(log);
  const exited = new Promise((resolve) => child.once("exit", (code, signal) => resolve(signal ?? code)));
  const end = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGCONT");
    child.kill("SIGTERM");
    const late = setTimeout(() => child.kill("SIGKILL"), END_MS);
    await exited;
    clearTimeout(late);
  };
  let timer;
  try {
    const ready = await Promise.race([
      firstJson(child.stdout),
      new Promise((_, reject) => child.once("error", (cause) => reject(new Error(`${BINARY} could not be started: ${cause.message}`)))),
      exited.then((how) => {
        throw new Error(`${BINARY} ended before it was ready (${how})`);
      }),
      new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`${BINARY} was not ready within ${READY_MS / 1000} s`)), READY_MS);
      }),
    ]);
    // Frozen, the server keeps its connections and says nothing: the worst way for a link to die.
    const freeze = () => child.kill("SIGSTOP");
    const thaw = () => child.kill("SIGCONT");
    // Passkeys are bound to the name of the host: the app is opened under the one that the link has.
    return { ...ready, address: new URL(ready.link).origin, end, freeze, thaw };
  } catch (error) {
    await end();
    const last = readFileSync(LOG, "utf8").trimEnd().split("\n").slice(-20).join("\n");
    throw new Error(`${error.message}; its last words (${LOG}):\n${last}`);
  } finally {
    clearTimeout(timer);
  }
}

/** The first line that is a JSON object with an address; the rest of the output is read on and dropped. */
function firstJson(stream) {
  return new Promise((resolve) => {
    createInterface({ input: stream }).on("line", (line) => {
      if (!line.startsWith("{")) return;
      const found = JSON.parse(line);
      if (found.address) resolve(found);
    });
  });
}
