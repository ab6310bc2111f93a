// oidc-provider, a certified OpenID Connect provider, vouches for a physician who signs in through it in a browser.

import assert from "node:assert/strict";
import { Provider } from "oidc-provider";
import { api, launch, signIn } from "./browser.mjs";
import { check, site } from "./house.mjs";

const { address, people, provider: told } = site.trusted;
const person = people[1];
const issuer = `http://localhost:${told.port}`;

const provider = new Provider(issuer, {
    clients: [{
        client_id: "auscult",
        client_secret: told.secret,
        redirect_uris: [`${address}/api/v1/sign-in/oidc/callback`],
        grant_types: ["authorization_code"],
        response_types: ["code"],
    }],
    claims: { openid: ["sub"], profile: ["preferred_username", "name"], email: ["email", "email_verified"] },
    findAccount: (_, id) => ({
        accountId: id,
        claims: () => ({ sub: id, preferred_username: id, name: id, email: `${id}@clinic.example`, email_verified: true }),
    }),
    pkce: { required: () => true },
});
const server = await new Promise((ready) => {
    const listening = provider.listen(told.port, "127.0.0.1", () => ready(listening));
});
const browser = await launch();

/** From the button on the sign-in page through the provider's own pages, and back. */
async function comeAs(tab, name) {
    await tab.goto(`${address}/sign-in`);
    await tab.click("text=Clinic sign-in");
    await tab.waitForURL(`${issuer}/**`);
    await tab.fill("input[name=login]", name);
    await tab.fill("input[name=password]", "anything");
    await tab.click("button[type=submit]");
    await tab.click("button[type=submit]");
    await tab.waitForURL(`${address}/**`);
}

try {
    const context = await browser.newContext();
    const tab = await context.newPage();
    await check("the button on the sign-in page leads to the provider and back", () => comeAs(tab, person.name));
    await check("a name that it says proves nothing: its owner signs in here as always", async () => {
        await tab.waitForSelector("input[name=password]");
        const before = (await api(tab, "GET", "/session")).body;
        assert.equal(before.state, "signed-out");
        assert.deepEqual(before.linking, { issuer, subject: person.name });
        await signIn(tab, person);
        await tab.waitForSelector(".rail");
        const { body } = await api(tab, "GET", "/session");
        assert.equal(body.state, "signed-in");
        assert.equal(body.user.name, person.name);
        assert.equal(body.user.role, "physician");
    });
    await check("the account says who is linked to it from now on", async () => {
        const { body } = await api(tab, "GET", "/account");
        const linked = body.provider_links.map((link) => [link.issuer, link.subject]);
        assert.deepEqual(linked, [[issuer, person.name]]);
    });
    await check("then its word is the first factor; our second one is asked for", async () => {
        const later = await (await browser.newContext()).newPage();
        await comeAs(later, person.name);
        await later.waitForSelector("input[name=code]");
        const { body } = await api(later, "GET", "/session");
        assert.deepEqual([body.state, body.linking], ["second-factor-needed", null]);
        await later.context().close();
    });
    const stranger = await (await browser.newContext()).newPage();
    await check("whom nobody here knows is told so, and is not signed in", async () => {
        await comeAs(stranger, "somebody-else");
        await stranger.waitForSelector("[role=alert], .message");
        assert.match(await stranger.textContent("[role=alert]"), /Nobody was signed in/);
        assert.equal((await api(stranger, "GET", "/session")).body.state, "signed-out");
    });
    await check("an answer that was not asked for in this browser is not taken", async () => {
        await stranger.goto(`${address}/api/v1/sign-in/oidc/callback?code=c&state=s&iss=${encodeURIComponent(issuer)}`);
        await stranger.waitForSelector("[role=alert], .message");
        assert.match(await stranger.textContent("[role=alert]"), /not begun in this browser/);
        assert.equal((await api(stranger, "GET", "/session")).body.state, "signed-out");
    });
} finally {
    await browser.close();
    server.close();
}
