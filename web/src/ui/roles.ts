//! What each role finds in the rail. The server decides what is allowed; this only leaves out what would be refused.

import type { Role } from "../api/types.ts";
import type { IconName } from "./icons.tsx";

export interface Entry {
  to: string;
  label: string;
  icon: IconName;
  roles: readonly Role[] | "all";
}

const CARE = ["administrator", "physician", "nurse"] as const;

export const ENTRIES: readonly Entry[] = [
  { to: "/wards", label: "Wards", icon: "ward", roles: CARE },
  { to: "/alerts", label: "Alerts", icon: "inbox", roles: CARE },
  { to: "/patients", label: "Patients", icon: "patients", roles: CARE },
  { to: "/devices", label: "Devices", icon: "devices", roles: [...CARE, "biomedical-engineer"] },
  { to: "/quarantine", label: "Quarantine", icon: "quarantine", roles: ["administrator", "nurse", "biomedical-engineer"] },
  { to: "/audit", label: "Audit", icon: "audit", roles: ["administrator", "auditor"] },
  { to: "/users", label: "Users", icon: "users", roles: ["administrator"] },
];

export const HOME: Record<Role, string> = {
  administrator: "/wards",
  physician: "/wards",
  nurse: "/wards",
  "biomedical-engineer": "/devices",
  auditor: "/audit",
};

export function entriesFor(role: Role): Entry[] {
  return ENTRIES.filter((entry) => entry.roles === "all" || entry.roles.includes(role));
}

const among =
  (...roles: Role[]) =>
  (role: Role): boolean =>
    roles.includes(role);

/** See patients, their values and alerts, and the live stream. */
export const maySeePatients = among(...CARE);
/** Acknowledge and resolve alerts, set limits. */
export const mayActOnAlerts = among("physician", "nurse");
/** Register devices, set their clock rules, retire them. */
export const mayManageDevices = among("administrator", "biomedical-engineer");
export const mayAssignDevices = among(...CARE, "biomedical-engineer");
