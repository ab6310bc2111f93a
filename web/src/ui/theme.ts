//! Light or dark, as the system says or as the person chose; and the other preferences this browser remembers.

import { useSyncExternalStore } from "react";

export type ThemeChoice = "system" | "light" | "dark";

interface Preferences {
  theme: ThemeChoice;
  /** Initials instead of names on the board. */
  privacy: boolean;
  /** Single-key shortcuts (WCAG 2.1.4: they can be turned off). */
  shortcuts: boolean;
}

const KEY = "auscult.preferences";
const DEFAULTS: Preferences = { theme: "system", privacy: false, shortcuts: true };
const changes = new Set<() => void>();
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function load(): Preferences {
  try {
    return { ...DEFAULTS, ...(JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Preferences>) };
  } catch {
    return DEFAULTS;
  }
}

let current = load();

function themeName(): "light" | "dark" {
  if (current.theme !== "system") return current.theme;
  return dark.matches ? "dark" : "light";
}

function apply(): void {
  document.documentElement.dataset["theme"] = themeName();
  changes.forEach((tell) => tell());
}

dark.addEventListener("change", apply);
apply();

const subscribe = (listener: () => void) => {
  changes.add(listener);
  return () => changes.delete(listener);
};

export function usePreferences(): Preferences {
  return useSyncExternalStore(subscribe, () => current);
}

/** The theme that is in force. */
export function useThemeName(): "light" | "dark" {
  return useSyncExternalStore(subscribe, themeName);
}

export function prefer(change: Partial<Preferences>): void {
  current = { ...current, ...change };
  try {
    localStorage.setItem(KEY, JSON.stringify(current));
  } catch {
    // A browser that keeps nothing still works, for this visit.
  }
  apply();
}
