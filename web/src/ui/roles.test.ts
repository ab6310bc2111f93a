//! What people find in the rail follows what they may do.

import { describe, expect, it } from "vitest";

import type { Role } from "../api/types.ts";
import { entriesFor, homeOf, isStaff, permissionName } from "./roles.ts";

const rights = (role: Role, ...may: string[]) => ({ role, may: new Set(may) });

describe("the rail", () => {
  it("shows staff what they may, in a fixed order, and begins with the first", () => {
    const nurse = rights("nurse", "read-chart", "read-devices", "mend-quarantine");
    expect(entriesFor(nurse).map(({ label }) => label)).toEqual(["Wards", "Alerts", "Patients", "Devices", "Quarantine"]);
    expect(homeOf(nurse)).toBe("/wards");
    expect(homeOf(rights("auditor", "read-audit", "review-break-glass"))).toBe("/audit");
    expect(homeOf(rights("integrator", "manage-apps"))).toBe("/admin");
  });

  it("shows a patient their own page alone, whatever they may read", () => {
    const patient = rights("patient", "read-chart", "read-consents", "export-patient", "read-devices");
    expect(entriesFor(patient).map(({ to }) => to)).toEqual(["/me"]);
    expect(isStaff(patient)).toBe(false);
  });

  it("leads whoever may do nothing to their account", () => {
    expect(homeOf(rights("nurse"))).toBe("/account");
  });
});

it("permissions are named alike, however they are spelt", () => {
  expect(["ReadChart", "read-chart", "ManageIdentityProvider"].map(permissionName)).toEqual(["read-chart", "read-chart", "manage-identity-provider"]);
});
