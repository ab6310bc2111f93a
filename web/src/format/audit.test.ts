//! How rows of the audit log read.

import { describe, expect, it } from "vitest";

import { doneText } from "./audit.ts";

describe("what was done, for the patient", () => {
  it("is a sentence", () => {
    expect(doneText({ action: "read", object: "trend" })).toBe("Looked at your trends");
    expect(doneText({ action: "search", object: "Observation" })).toBe("Looked at your readings");
    expect(doneText({ action: "stream", object: "live events" })).toBe("Watched live: your readings and alerts");
    expect(doneText({ action: "create", object: "Patient" })).toBe("Took you in");
    expect(doneText({ action: "create", object: "User" })).toBe("Gave you an account");
    expect(doneText({ action: "stream", object: "live alerts" })).toBe("Saw that you had an alert");
    expect(doneText({ action: "assign", object: "Assignment" })).toBe("Assigned a device");
  });

  it("stays in the words of the log where there are no plainer ones, and hides nothing", () => {
    expect(doneText({ action: "read", object: "a thing to come" })).toBe("read a thing to come");
    expect(doneText({ action: "dance", object: "Patient" })).toBe("dance Patient");
    expect(doneText({ action: "erase", object: null })).toBe("erase");
  });
});
