// fhirclient launches standalone in a browser: a public app with PKCE, let in by a nurse for one patient.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { api, launch, signIn } from "./browser.mjs";
import { at, check, fetchWithCertificate, heartRate, site } from "./house.mjs";

const { address, app, people } = site.trusted;
const LIBRARY = readFileSync(createRequire(import.meta.url).resolve("fhirclient/build/fhir-client.min.js"));
const SCOPE = "launch/patient patient/Patient.r patient/Observation.rs?category=vital-signs openid fhirUser offline_access";
const device = site.devices[8];
const other = site.devices.find((one) => one.patient !== device.patient);
const VALUES = [61, 62, 63];

// The app: two pages and the library, on an origin of its own.
const redirectUri = `http://localhost:${app.port}/callback`;
const authorize = { clientId: app.id, scope: SCOPE, iss: `${address}/fhir`, redirectUri, pkceMode: "required" };
const page = (script) => `<!doctype html><title>app</title><script src="/fhir-client.js"></script><script>${script}</script>`;
const pages = {
    "/launch": page(`FHIR.oauth2.authorize(${JSON.stringify(authorize)});`),
    "/callback": page("FHIR.oauth2.ready().then((c) => { window.client = c; }, (e) => { window.failure = String(e); });"),
};
const server = createServer((request, response) => {
    const path = new URL(request.url, redirectUri).pathname;
    const found = path === "/fhir-client.js" ? LIBRARY : pages[path];
    response.writeHead(found ? 200 : 404, { "content-type": path.endsWith(".js") ? "text/javascript" : "text/html" });
    response.end(found ?? "");
});
await new Promise((ready) => server.listen(app.port, "127.0.0.1", ready));

const browser = await launch();
const context = await browser.newContext();
const tab = await context.newPage();
const inApp = (run, argument) => tab.evaluate(run, argument);

try {
    await check("measurements for the app to read are posted", async () => {
        for (const [second, value] of VALUES.entries()) {
            const answer = await fetchWithCertificate(`${site.fhir_base}/Observation`, {
                method: "POST",
                headers: { "content-type": "application/fhir+json" },
                body: JSON.stringify(heartRate(device, at(-7000 + second), value)),
            });
            assert.equal(answer.status, 201, await answer.text());
        }
    });
    await check("the launch leads to the sign-in of the site, and then to the question", async () => {
        await tab.goto(`http://localhost:${app.port}/launch`);
        await tab.waitForURL(`${address}/**`);
        await signIn(tab, people[0]);
        await tab.waitForSelector("text=Trend viewer");
        const text = await tab.textContent("main, body");
        assert.match(text, /vital signs/);
        assert.match(text, new RegExp(`localhost:${app.port}`));
    });
    await check("the nurse chooses a patient and lets it in", async () => {
        await tab.fill("[role=combobox]", site.families[device.patient].slice(0, 4));
        await tab.click("[role=option]");
        await tab.click("text=Let it in");
        await tab.waitForURL(`${redirectUri}?**`);
        await tab.waitForFunction(() => window.client !== undefined || window.failure !== undefined);
        assert.equal(await inApp(() => window.failure ?? null), null);
    });
    await check("the token is for the patient who was chosen, and lasts five minutes", async () => {
        const told = await inApp(() => window.client.state.tokenResponse);
        assert.equal(told.patient, device.patient);
        assert.equal(told.expires_in, 300);
        assert.equal(told.token_type, "Bearer");
    });
    await check("the app knows who let it in", async () => {
        assert.match(await inApp(() => window.client.user.fhirUser), /^Practitioner\//);
    });
    await check("it reads the patient", async () => {
        const patient = await inApp(() => window.client.patient.read());
        assert.equal(patient.name[0].family, site.families[device.patient]);
    });
    await check("it reads the vital signs", async () => {
        const query = `Observation?patient=${device.patient}&device=Device/${device.id}&code=8867-4&_count=100`;
        const bundle = await inApp((asked) => window.client.request(asked), query);
        const values = bundle.entry.map((entry) => entry.resource.valueQuantity.value).sort();
        assert.deepEqual(values.filter((value) => VALUES.includes(value)), VALUES);
    });
    const refused = (asked) =>
        inApp((what) => window.client.request(what).then(() => 200, (error) => error.status ?? error.statusCode ?? String(error)), asked);
    await check("another patient is not there for it", async () => {
        assert.equal(await refused(`Patient/${other.patient}`), 404);
    });
    await check("what it did not ask for is refused", async () => {
        assert.equal(await refused("Device"), 403);
        assert.equal(await refused("AuditEvent"), 403);
    });
    await check("it may not write", async () => {
        const body = heartRate(device, at(-10), 99);
        assert.equal(await refused({ url: "Observation", method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/fhir+json" } }), 403);
    });
    await check("its refresh token turns over", async () => {
        const [before, after] = await inApp(async () => {
            const first = window.client.state.tokenResponse.refresh_token;
            await window.client.refresh();
            return [first, window.client.state.tokenResponse.refresh_token];
        });
        assert.notEqual(before, after);
        const patient = await inApp(() => window.client.patient.read());
        assert.equal(patient.id, device.patient);
    });
    await check("a registered app does not get its code sent elsewhere", async () => {
        const wrong = await context.newPage();
        const query = new URLSearchParams({
            response_type: "code", client_id: app.id, redirect_uri: "http://localhost:1/elsewhere", scope: SCOPE, state: "s",
            aud: `${address}/fhir`, code_challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", code_challenge_method: "S256",
        });
        await wrong.goto(`${address}/oauth2/authorize?${query}`);
        await wrong.waitForSelector("text=not one that the program registered");
        assert.ok(wrong.url().startsWith(address));
        await wrong.close();
    });
    await check("the question is in nobody's frame", async () => {
        const answer = await fetch(`${address}/oauth2/authorize?client_id=${app.id}`);
        assert.match(answer.headers.get("content-security-policy"), /frame-ancestors 'none'/);
    });
    await check("let in no longer, it gets nothing at once", async () => {
        const own = await context.newPage();
        await own.goto(`${address}/account`);
        const { body } = await api(own, "GET", "/grants");
        assert.equal(body.grants[0].client.name, "Trend viewer");
        assert.equal((await api(own, "DELETE", `/grants/${body.grants[0].id}`)).status, 204);
        const status = await inApp(
            async ([base, id]) => {
                const token = window.client.state.tokenResponse.access_token;
                return (await fetch(`${base}/fhir/Patient/${id}`, { headers: { authorization: `Bearer ${token}` } })).status;
            },
            [address, device.patient],
        );
        assert.equal(status, 401);
    });
} finally {
    await browser.close();
    server.close();
}
