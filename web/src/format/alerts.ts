//! How an alert reads: colour is never alone, the symbol and the words say the same.

import type { Alert, Priority } from "../api/types.ts";
import { withReadableTimes } from "./time.ts";

const RANK: Record<Priority, number> = { high: 3, medium: 2, low: 1 };

/** The symbol that goes with the colour, as bedside monitors print it. */
export function stars(priority: Priority): string {
  return "*".repeat(RANK[priority]);
}

export function priorityText(priority: Priority): string {
  return { high: "High", medium: "Medium", low: "Low" }[priority];
}

/** Where it stands, in words; the condition and the person's answer are two different things. */
export function stateText(alert: Alert): string {
  if (alert.state === "resolved") return "Resolved";
  if (alert.state === "acknowledged") return alert.condition_active ? "Acknowledged" : "Acknowledged, condition ended";
  return alert.latched ? "Not acknowledged, condition ended (latched)" : "Not acknowledged";
}

/** What was noticed: parameter, value, comparator and limit, as the server says it. */
export function alertText(alert: Alert): string {
  return withReadableTimes(alert.text);
}

/** `*** High priority: HR 134 > 120 /min. Not acknowledged.` */
export function spokenAlert(alert: Alert): string {
  const kind = alert.technical ? "technical alert" : "alert";
  return `${priorityText(alert.priority)} priority ${kind}: ${alertText(alert)}. ${stateText(alert)}.`;
}

/** The most urgent first: unanswered before answered, then priority, then the newest. */
export function byUrgency(a: Alert, b: Alert): number {
  const answered = Number(a.state !== "raised") - Number(b.state !== "raised");
  return answered || RANK[b.priority] - RANK[a.priority] || b.raised_at.localeCompare(a.raised_at);
}

/** Those that are still open, most urgent first. */
export function openAlerts(alerts: Alert[]): Alert[] {
  return alerts.filter((alert) => alert.state !== "resolved").sort(byUrgency);
}

/** How far along its life an alert is: a later version of the same alert never has less. */
function progress(alert: Alert): number {
  return alert.steps.length * 2 + (alert.condition_active ? 0 : 1);
}

/** Of two versions of one alert, the later one: a repeated or late event must not undo an acknowledgement. */
export function laterAlert(known: Alert, incoming: Alert): Alert {
  return progress(incoming) >= progress(known) ? incoming : known;
}
