//! The browser tests: the real server, a real browser, a person's ways through the app. Prints `N passed, N failed`.

import { mkdirSync } from "node:fs";

import { tests as administration } from "./administration.mjs";
import { tests as audit } from "./audit.mjs";
import { complaints, launch, PHONE, SHOTS, signIn, WIDE } from "./browser.mjs";
import { startDemo } from "./server.mjs";
import { alone, tests as screens } from "./tests.mjs";
import { tests as trust } from "./trust.mjs";

/** Longest time for one test, in ms. */
const TEST_MS = 180_000;
/** Longest wait for one thing to appear, in ms: the machine may be busy with other tests. */
const STEP_MS = 30_000;

const only = process.argv.slice(2);
/** Tests of one lane run one after the other, lanes beside each other: most of a test is waiting for the server or the browser. */
const lanes = [screens, { ...trust, ...audit, ...administration }];
mkdirSync(SHOTS, { recursive: true });

const demo = await startDemo();
let browser = null;
let [passed, failed] = [0, 0];

async function run(name, test) {
  const noted = [];
  const contexts = [];
  /** A new browser session; signed in with the state of the first unless told otherwise. */
  const open = async ({ size = WIDE, theme = "light", signedIn = true, as = "care", motion = "reduce" } = {}) => {
    const context = await browser.newContext({ viewport: size, colorScheme: theme, reducedMotion: motion, storageState: signedIn ? states[as] : undefined });
    context.setDefaultTimeout(STEP_MS);
    context.on("page", (page) => complaints(page, noted));
    contexts.push(context);
    return context.newPage();
  };
  const started = Date.now();
  let timer;
  try {
    await Promise.race([
      test({ demo, open }),
      new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`took longer than ${TEST_MS / 1000} s`)), TEST_MS);
      }),
    ]);
    if (noted.length > 0) throw new Error(`the page complained: ${[...new Set(noted)].join("; ")}`);
    passed += 1;
    console.log(`ok    ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  ${name}\n      ${String(error?.message ?? error).split("\n").slice(0, 12).join("\n      ")}`);
    const page = contexts.at(-1)?.pages().at(-1);
    await page?.screenshot({ path: `${SHOTS}failed-${name.replace(/\W+/g, "-")}.png` }).catch(() => undefined);
  } finally {
    clearTimeout(timer);
    for (const context of contexts) await context.close().catch(() => undefined);
  }
}

/** Signed-in browser states: of someone who cares for patients, and of the administrator. */
const states = {};
try {
  browser = await launch();
  for (const [as, user] of [["care", demo.user], ["admin", demo.admin_user ?? demo.user]]) {
    const context = await browser.newContext({ viewport: PHONE });
    await signIn(await context.newPage(), { ...demo, user });
    states[as] = await context.storageState();
    await context.close();
  }
  const wanted = lanes.map((lane) => Object.entries(lane).filter(([name]) => only.length === 0 || only.some((part) => name.includes(part))));
  await Promise.all(
    wanted.map(async (lane) => {
      for (const [name, test] of lane) if (!alone.has(name)) await run(name, test);
    }),
  );
  for (const [name, test] of wanted.flat()) if (alone.has(name)) await run(name, test);
} catch (error) {
  failed += 1;
  console.log(`FAIL  getting started\n      ${error?.stack ?? error}`);
} finally {
  await browser?.close().catch(() => undefined);
  await demo.end();
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
