// The client of @medplum/core reads, searches, pages, posts, corrects and validates.

import assert from "node:assert/strict";
import { at, check, fetchWithCertificate, heartRate, installFetch, refusal, site, transaction } from "./house.mjs";

installFetch();
const { MedplumClient, OperationOutcomeError } = await import("@medplum/core");

const client = new MedplumClient({
    baseUrl: site.https_base,
    fhirUrlPath: "fhir/",
    fetch: fetchWithCertificate,
    // Each answer is meant to come from the server.
    cacheTime: 0,
});
const device = site.devices[6];
const COUNT = 25;
const own = `patient=${device.patient}&device=Device/${device.id}`;
let kept;

await check("a patient is read", async () => {
    const patient = await client.readResource("Patient", device.patient);
    assert.equal(patient.name[0].family, site.families[device.patient]);
});
await check("an Observation is created and read back through its reference", async () => {
    kept = await client.createResource(heartRate(device, at(-3000), 64.5));
    const read = await client.readReference({ reference: `Observation/${kept.id}` });
    assert.equal(read.valueQuantity.value, 64.5);
});
await check("a faulty one raises Medplum's OperationOutcomeError that names the element", async () => {
    const body = { ...heartRate(device, at(-10), 64), status: "done" };
    const error = await refusal(() => client.createResource(body));
    assert.ok(error instanceof OperationOutcomeError, error);
    assert.ok(JSON.stringify(error.outcome).includes("Observation.status"));
});
await check(`a transaction of ${COUNT}`, async () => {
    const bundle = transaction(Array.from({ length: COUNT }, (_, n) => heartRate(device, at(-2000 + n), 60 + n)));
    const done = await client.executeBatch(bundle);
    assert.equal(done.entry.filter((entry) => entry.response.status.startsWith("201")).length, COUNT);
});
await check("search(), searchOne(), searchResources()", async () => {
    const bundle = await client.search("Observation", `${own}&_count=5&_sort=-date`);
    assert.equal(bundle.entry.length, 5);
    const one = await client.searchOne("Observation", `${own}&_sort=-date`);
    assert.equal(one.valueQuantity.value, 60 + COUNT - 1);
    const found = await client.searchResources("Observation", `${own}&_count=100`);
    assert.equal(found.length, COUNT + 1);
});
await check("searchResourcePages() meets each once", async () => {
    const seen = [];
    for await (const page of client.searchResourcePages("Observation", `${own}&_count=6&_sort=date`)) {
        seen.push(...page.map((resource) => resource.id));
    }
    assert.equal(seen.length, COUNT + 1);
    assert.equal(new Set(seen).size, seen.length);
});
await check("_total=accurate", async () => {
    const bundle = await client.search("Observation", `${own}&_count=1&_total=accurate`);
    assert.equal(bundle.total, COUNT + 1);
});
await check("_summary=count has a total and no entries", async () => {
    const bundle = await client.search("Observation", `${own}&_summary=count`);
    assert.equal(bundle.total, COUNT + 1);
    assert.equal(bundle.entry, undefined);
});
await check("createResourceIfNoneExist() by identifier makes one", async () => {
    const identifier = [{ system: "urn:example:clients", value: `medplum-${Date.now()}` }];
    const resource = { ...heartRate(device, at(-900), 81), identifier };
    const query = `identifier=${identifier[0].system}|${identifier[0].value}`;
    const ids = await Promise.all(
        Array.from({ length: 8 }, () => client.createResourceIfNoneExist(resource, query).then((made) => made.id)),
    );
    assert.equal(new Set(ids).size, 1);
});
await check("updateResource() is a correction", async () => {
    const updated = await client.updateResource({ ...kept, status: "corrected", valueQuantity: { ...kept.valueQuantity, value: 65.5 } });
    assert.equal(updated.meta.versionId, "2");
    assert.equal(updated.valueQuantity.value, 65.5);
});
await check("readHistory() and readVersion()", async () => {
    const history = await client.readHistory("Observation", kept.id);
    assert.deepEqual(history.entry.map((entry) => entry.resource.meta.versionId), ["2", "1"]);
    const first = await client.readVersion("Observation", kept.id, "1");
    assert.equal(first.valueQuantity.value, 64.5);
});
await check("readPatientEverything()", async () => {
    const bundle = await client.readPatientEverything(device.patient);
    const types = new Set(bundle.entry.map((entry) => entry.resource.resourceType));
    assert.ok(types.has("Patient") && types.has("Observation"), [...types].join());
});
await check("validateResource() through the server's $validate", async () => {
    const good = await client.validateResource(heartRate(device, at(-5), 70));
    assert.ok(!good.issue.some((issue) => ["error", "fatal"].includes(issue.severity)), JSON.stringify(good));
    const judged = await client.validateResource({ ...heartRate(device, at(-5), 70), code: undefined }).catch((error) => error.outcome);
    assert.ok(JSON.stringify(judged).includes("Observation.code"));
});
