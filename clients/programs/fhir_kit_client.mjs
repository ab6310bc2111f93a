// fhir-kit-client reads, searches, pages, posts, corrects and resolves references.

import assert from "node:assert/strict";
import { at, check, heartRate, installFetch, refusal, site, transaction } from "./house.mjs";

installFetch();
const { CapabilityTool, Client } = await import("fhir-kit-client");

const client = new Client({ baseUrl: site.fhir_base });
const device = site.devices[5];
const COUNT = 25;
const search = { patient: device.patient, device: `Device/${device.id}`, code: "8867-4" };
let kept;

const resourcesOf = (bundle, type) =>
    (bundle.entry ?? []).map((entry) => entry.resource).filter((resource) => resource.resourceType === type);

await check("the capability statement is read, and says what its tool asks for", async () => {
    const statement = await client.capabilityStatement();
    assert.equal(statement.fhirVersion, "4.0.1");
    const tool = new CapabilityTool(statement);
    assert.ok(tool.resourceCan("Observation", "create"));
    assert.ok(!tool.resourceCan("AuditEvent", "create"));
});
await check("a patient is read", async () => {
    const patient = await client.read({ resourceType: "Patient", id: device.patient });
    assert.equal(patient.name[0].family, site.families[device.patient]);
});
await check("an Observation is created: 201, Location, ETag", async () => {
    kept = await client.create({ resourceType: "Observation", body: heartRate(device, at(-3000), 64) });
    const { response } = Client.httpFor(kept);
    assert.equal(response.status, 201);
    assert.match(response.headers.get("location"), new RegExp(`/fhir/Observation/${kept.id}/_history/1$`));
    assert.equal(response.headers.get("etag"), 'W/"1"');
});
await check("a faulty one is refused with an OperationOutcome that names the element", async () => {
    const body = heartRate(device, at(-10), 64);
    delete body.code;
    const error = await refusal(() => client.create({ resourceType: "Observation", body }));
    assert.ok([400, 422].includes(error.response.status), error.message);
    assert.equal(error.response.data.resourceType, "OperationOutcome");
    assert.ok(JSON.stringify(error.response.data).includes("Observation.code"));
});
await check(`a transaction of ${COUNT}`, async () => {
    const body = transaction(Array.from({ length: COUNT }, (_, n) => heartRate(device, at(-2000 + n), 60 + n)));
    const done = await client.transaction({ body });
    assert.equal(done.type, "transaction-response");
    assert.equal(done.entry.filter((entry) => entry.response.status.startsWith("201")).length, COUNT);
});
await check("a batch: one entry fails, the other is kept", async () => {
    const body = transaction([heartRate(device, at(-1000), 77), { resourceType: "Observation", status: "final" }]);
    const done = await client.batch({ body: { ...body, type: "batch" } });
    assert.equal(done.type, "batch-response");
    assert.ok(done.entry[0].response.status.startsWith("201"), done.entry[0].response.status);
    assert.match(done.entry[1].response.status, /^4/);
    assert.equal(done.entry[1].response.outcome.resourceType, "OperationOutcome");
});
await check("pages are followed to the end: nothing missing, nothing twice", async () => {
    let page = await client.search({ resourceType: "Observation", searchParams: { ...search, _count: 6, _sort: "-date" } });
    const seen = [];
    while (page) {
        assert.ok(resourcesOf(page, "Observation").length <= 6);
        seen.push(...resourcesOf(page, "Observation").map((resource) => resource.id));
        page = await client.nextPage({ bundle: page });
    }
    assert.equal(seen.length, COUNT + 2);
    assert.equal(new Set(seen).size, seen.length);
});
await check("a search by POST finds the same", async () => {
    const searchParams = { ...search, _count: 100 };
    const byGet = await client.search({ resourceType: "Observation", searchParams });
    const byPost = await client.search({ resourceType: "Observation", searchParams, options: { postSearch: true } });
    const ids = (bundle) => resourcesOf(bundle, "Observation").map((resource) => resource.id);
    assert.deepEqual(ids(byPost), ids(byGet));
});
await check("references are resolved, relative and absolute", async () => {
    const found = await client.read({ resourceType: "Observation", id: kept.id });
    const patient = await client.resolve({ reference: found.subject.reference, context: found });
    assert.equal(patient.id, device.patient);
    const absolute = await client.resolve({ reference: `${site.fhir_base}/Device/${device.id}` });
    assert.equal(absolute.id, device.id);
});
await check("_include and _revinclude", async () => {
    const included = await client.search({ resourceType: "Observation", searchParams: { ...search, _include: "Observation:device", _count: 3 } });
    assert.deepEqual(resourcesOf(included, "Device").map((each) => each.id), [device.id]);
    const reversed = await client.search({ resourceType: "Device", searchParams: { _id: device.id, _revinclude: "Observation:device" } });
    assert.ok(resourcesOf(reversed, "Observation").length > 0);
});
await check("version 1 by vread", async () => {
    const version = await client.vread({ resourceType: "Observation", id: kept.id, version: "1" });
    assert.equal(version.valueQuantity.value, 64);
});
await check("an update with the right If-Match is a correction; with an old one it is refused", async () => {
    const body = { ...(await client.read({ resourceType: "Observation", id: kept.id })), status: "corrected" };
    body.valueQuantity = { ...body.valueQuantity, value: 65 };
    const options = { headers: { "if-match": 'W/"1"' } };
    const done = await client.update({ resourceType: "Observation", id: kept.id, body, options });
    assert.equal(done.meta.versionId, "2");
    const error = await refusal(() => client.update({ resourceType: "Observation", id: kept.id, body, options }));
    assert.ok([409, 412].includes(error.response.status), error.message);
});
await check("the history of a resource shows both versions, newest first", async () => {
    const history = await client.resourceHistory({ resourceType: "Observation", id: kept.id });
    assert.equal(history.type, "history");
    assert.deepEqual(history.entry.map((entry) => entry.resource.meta.versionId), ["2", "1"]);
});
await check("the patient's compartment is searched", async () => {
    const found = await client.compartmentSearch({
        resourceType: "Observation",
        compartment: { resourceType: "Patient", id: device.patient },
        searchParams: { code: "8867-4", _count: 2 },
    });
    assert.equal(resourcesOf(found, "Observation").length, 2);
});
await check("$lastn and $everything", async () => {
    const last = await client.operation({ resourceType: "Observation", name: "$lastn", method: "GET", input: { patient: device.patient } });
    assert.equal(last.type, "searchset");
    const all = await client.operation({ resourceType: "Patient", id: device.patient, name: "$everything", method: "GET" });
    assert.ok(resourcesOf(all, "Patient").length === 1 && resourcesOf(all, "Observation").length > 0);
});
await check("what is not there is 404 with an OperationOutcome", async () => {
    const error = await refusal(() => client.read({ resourceType: "Patient", id: "nobody" }));
    assert.equal(error.response.status, 404);
    assert.equal(error.response.data.resourceType, "OperationOutcome");
});
