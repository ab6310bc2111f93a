// What the JavaScript programs share: results as lines of JSON, and TLS with the program's certificate.

import { readFileSync } from "node:fs";
import { Agent, fetch, Headers, Request, Response, WebSocket } from "undici";

/** What this program was told about the server: the file that its first argument names. */
export const site = JSON.parse(readFileSync(process.argv[2], "utf8"));

const dispatcher = new Agent({
    connect: {
        ca: readFileSync(site.authority),
        cert: readFileSync(site.program.certificate),
        key: readFileSync(site.program.key),
    },
});

/** `fetch` with the program's certificate. */
export function fetchWithCertificate(address, init) {
    return fetch(address, { ...init, dispatcher });
}

/** Puts it, and what goes with it, where libraries look that take none; Node.js 20 has no WebSocket of its own. */
export function installFetch() {
    Object.assign(globalThis, { fetch: fetchWithCertificate, Headers, Request, Response, WebSocket });
}

/** Runs a check, which holds unless something is thrown. */
export async function check(name, work) {
    try {
        await work();
        console.log(JSON.stringify({ check: name, ok: true, detail: "" }));
    } catch (error) {
        const detail = `${error?.name ?? "Error"}: ${error?.message ?? error} ${error?.cause ?? ""}`.trim();
        console.log(JSON.stringify({ check: name, ok: false, detail }));
    }
}

/** The error that the work must end with. */
export async function refusal(work) {
    try {
        await work();
    } catch (error) {
        return error;
    }
    throw new Error("it was taken");
}

/** An instant so many seconds from now. */
export const at = (seconds) => new Date(Date.now() + seconds * 1000).toISOString();

const concept = (system, code) => ({ coding: [{ system, code }] });

/** A heart rate that conforms to the vital-signs profile. */
export function heartRate(device, when, value) {
    return {
        resourceType: "Observation",
        status: "final",
        category: [concept("http://terminology.hl7.org/CodeSystem/observation-category", "vital-signs")],
        code: concept("http://loinc.org", "8867-4"),
        subject: { reference: `Patient/${device.patient}` },
        device: { reference: `Device/${device.id}` },
        effectiveDateTime: when,
        valueQuantity: { value, unit: "beats/minute", system: "http://unitsofmeasure.org", code: "/min" },
    };
}

/** A transaction that creates these resources. */
export function transaction(resources) {
    const entry = resources.map((resource) => ({
        resource,
        request: { method: "POST", url: resource.resourceType },
    }));
    return { resourceType: "Bundle", type: "transaction", entry };
}
