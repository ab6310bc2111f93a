//! What each person finds in the rail. The server decides what is allowed; this only leaves out what would be refused.

import type { Role } from "../api/types.ts";
import type { IconName } from "./icons.tsx";

/** Who somebody is and what the policies let them do. */
export interface Rights {
  role: Role;
  /** Permissions by their names in the policies: `read-chart`. */
  may: ReadonlySet<string>;
}

/** `read-chart`, however an answer spells it. */
export const permissionName = (text: string): string => text.replace(/(?<=.)(?=[A-Z])/g, "-").toLowerCase();

/** Patients and those they named see their own pages, not the hospital's. */
export const isStaff = ({ role }: Rights): boolean => role !== "patient" && role !== "caregiver";

const staffMay =
  (...permissions: string[]) =>
  (rights: Rights): boolean =>
    isStaff(rights) && permissions.some((one) => rights.may.has(one));

export interface Entry {
  to: string;
  label: string;
  icon: IconName;
  shows: (rights: Rights) => boolean;
}

/** The pages under "Administration", in the order of their tabs. */
export const ADMIN: readonly Entry[] = [
  { to: "/admin/people", label: "People", icon: "users", shows: staffMay("manage-people") },
  { to: "/admin/places", label: "Places", icon: "ward", shows: staffMay("manage-people") },
  { to: "/admin/roles", label: "Roles and policies", icon: "audit", shows: staffMay("manage-policies") },
  { to: "/admin/apps", label: "Apps", icon: "devices", shows: staffMay("manage-apps", "manage-programs") },
  { to: "/admin/identity-provider", label: "Identity providers", icon: "link", shows: staffMay("manage-identity-provider") },
  { to: "/admin/sharing", label: "Sharing", icon: "patients", shows: staffMay("manage-defaults") },
  { to: "/admin/retention", label: "Retention", icon: "quarantine", shows: staffMay("manage-retention") },
  { to: "/admin/erasure", label: "Erasure and export", icon: "close", shows: staffMay("erase-data") },
  { to: "/admin/keys", label: "Keys", icon: "key", shows: staffMay("manage-keys") },
];

export const adminFor = (rights: Rights): Entry[] => ADMIN.filter((entry) => entry.shows(rights));

/** See patients, their values and alerts. */
export const maySeePatients = staffMay("read-chart");

export const ENTRIES: readonly Entry[] = [
  { to: "/me", label: "My data", icon: "users", shows: ({ role }) => role === "patient" },
  { to: "/my-people", label: "My people", icon: "patients", shows: ({ role }) => role === "caregiver" },
  { to: "/wards", label: "Wards", icon: "ward", shows: maySeePatients },
  { to: "/alerts", label: "Alerts", icon: "inbox", shows: maySeePatients },
  { to: "/patients", label: "Patients", icon: "patients", shows: maySeePatients },
  { to: "/devices", label: "Devices", icon: "devices", shows: staffMay("read-devices") },
  { to: "/quarantine", label: "Quarantine", icon: "quarantine", shows: staffMay("mend-quarantine") },
  { to: "/audit", label: "Audit", icon: "audit", shows: staffMay("read-audit") },
  { to: "/break-glass", label: "Reviews", icon: "glass", shows: staffMay("review-break-glass") },
  { to: "/admin", label: "Admin", icon: "key", shows: (rights) => adminFor(rights).length > 0 },
];

export const entriesFor = (rights: Rights): Entry[] => ENTRIES.filter((entry) => entry.shows(rights));

/** Where somebody begins: the first page that is theirs. */
export const homeOf = (rights: Rights): string => entriesFor(rights)[0]?.to ?? "/account";

/** Acknowledge and resolve alerts, set limits. */
export const mayActOnAlerts = staffMay("act-on-alerts");
export const mayAdmitPatients = staffMay("admit-patients");
/** Register devices, set their clock rules, retire them. */
export const mayManageDevices = staffMay("manage-devices");
export const mayAssignDevices = staffMay("assign-devices");
export const mayEnrolDevices = staffMay("enrol-devices");
export const mayBreakGlass = staffMay("break-glass");
export const mayReviewBreakGlass = staffMay("review-break-glass");
export const mayReadAudit = staffMay("read-audit");
export const mayExportPatients = staffMay("export-patient");
export const mayReadConsents = staffMay("read-consents");
export const mayManageConsents = (rights: Rights): boolean => rights.may.has("manage-consents");
