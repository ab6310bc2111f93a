// SMART Backend Services with jose: services prove themselves by assertions signed with keys that openssl made.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import * as jose from "jose";
import { check, site } from "./house.mjs";

const { address, services } = site.trusted;
const configuration = await (await fetch(`${address}/fhir/.well-known/smart-configuration`)).json();
const SCOPES = "system/Observation.rs system/Patient.r";

async function assertion(algorithm, change = {}) {
    const { id, key } = services[algorithm];
    const signer = await jose.importPKCS8(readFileSync(key, "utf8"), algorithm);
    const claims = { jti: randomUUID(), ...change };
    const token = new jose.SignJWT(claims).setProtectedHeader({ alg: algorithm, typ: "JWT" }).setIssuer(id).setSubject(id);
    return token.setAudience(change.aud ?? configuration.token_endpoint).setExpirationTime(change.exp ?? "2m").sign(signer);
}

async function ask(signed, scope = SCOPES) {
    const answer = await fetch(configuration.token_endpoint, {
        method: "POST",
        body: new URLSearchParams({
            grant_type: "client_credentials",
            scope,
            client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            client_assertion: signed,
        }),
    });
    return { status: answer.status, body: await answer.json() };
}

const read = (path, token) => fetch(`${address}/fhir/${path}`, { headers: { authorization: `Bearer ${token}` } });

for (const algorithm of ["ES384", "RS384"]) {
    await check(`${algorithm}: a token, a search, and no more than was granted`, async () => {
        const { status, body } = await ask(await assertion(algorithm), `${SCOPES} system/Device.rs`);
        assert.equal(status, 200, JSON.stringify(body));
        assert.equal(body.scope, SCOPES);
        const found = await read("Observation?_count=5", body.access_token);
        assert.equal(found.status, 200);
        assert.equal((await found.json()).resourceType, "Bundle");
        assert.equal((await read("Device", body.access_token)).status, 403);
        assert.equal((await read("Patient", body.access_token)).status, 403);
    });
    await check(`${algorithm}: an assertion is good once`, async () => {
        const signed = await assertion(algorithm);
        assert.equal((await ask(signed)).status, 200);
        const again = await ask(signed);
        assert.equal(again.status, 401);
        assert.equal(again.body.error, "invalid_client");
    });
}
await check("an assertion for another server is refused", async () => {
    assert.equal((await ask(await assertion("ES384", { aud: "https://elsewhere.example/token" }))).status, 401);
});
await check("an assertion that lasts an hour is refused", async () => {
    assert.equal((await ask(await assertion("ES384", { exp: "1h" }))).status, 401);
});
await check("the key of one service does not prove another", async () => {
    const signer = await jose.importPKCS8(readFileSync(services.RS384.key, "utf8"), "RS384");
    const { id } = services.ES384;
    const token = new jose.SignJWT({ jti: randomUUID() }).setProtectedHeader({ alg: "RS384" }).setIssuer(id).setSubject(id);
    assert.equal((await ask(await token.setAudience(configuration.token_endpoint).setExpirationTime("2m").sign(signer))).status, 401);
});
await check("our published keys are public keys that jose reads", async () => {
    const keys = await (await fetch(configuration.jwks_uri)).json();
    assert.ok(keys.keys.length > 0);
    for (const key of keys.keys) {
        assert.equal(key.d, undefined);
        await jose.importJWK(key, key.alg);
    }
});
