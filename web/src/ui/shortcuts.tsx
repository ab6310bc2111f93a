//! Single-key shortcuts, the sheet that lists them, and the switch that turns them off.

import { useEffect, useRef } from "react";

import { navigate } from "../router.tsx";
import { Dialog } from "./basics.tsx";
import { entriesFor, maySeePatients, type Rights } from "./roles.ts";
import { prefer, usePreferences } from "./theme.ts";

/** The second key of a pair (`g` then `w`) must follow within this, in ms. */
const PAIR_MS = 1_500;

const PLACES: Record<string, string> = {
  w: "/wards",
  a: "/alerts",
  p: "/patients",
  d: "/devices",
  q: "/quarantine",
  l: "/audit",
};

function typing(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName));
}

export function useShortcuts(rights: Rights, open: (what: "search" | "shortcuts") => void): void {
  const { shortcuts } = usePreferences();
  const pairAt = useRef(0);
  useEffect(() => {
    if (!shortcuts) return;
    const allowed = new Set(entriesFor(rights).map((entry) => entry.to));
    const onKey = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || typing(event.target)) return;
      if (document.querySelector("dialog[open]") !== null) return;
      const paired = Date.now() - pairAt.current < PAIR_MS;
      pairAt.current = 0;
      if (paired) {
        const to = PLACES[event.key];
        if (to !== undefined && allowed.has(to)) {
          event.preventDefault();
          navigate(to);
        }
      } else if (event.key === "g") pairAt.current = Date.now();
      else if (event.key === "?") {
        event.preventDefault();
        open("shortcuts");
      } else if (event.key === "/" && maySeePatients(rights)) {
        event.preventDefault();
        open("search");
      }
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, [shortcuts, rights, open]);
}

const SHEET: [string[], string][] = [
  [["/"], "Find a patient"],
  [["?"], "This sheet"],
  [["g", "w"], "Wards"],
  [["g", "a"], "Alerts"],
  [["g", "p"], "Patients"],
  [["g", "d"], "Devices"],
  [["g", "q"], "Quarantine"],
  [["g", "l"], "Audit log"],
];

const ALWAYS: [string[], string][] = [
  [["←", "→", "↑", "↓"], "Move between beds on the ward board"],
  [["Home", "End"], "First and last bed"],
  [["Enter"], "Open the bed's patient"],
  [["Esc"], "Close what is open"],
];

export function ShortcutSheet({ onClose }: { onClose: () => void }) {
  const { shortcuts } = usePreferences();
  return (
    <Dialog title="Keyboard shortcuts" onClose={onClose}>
      <label className="check">
        <input type="checkbox" checked={shortcuts} onChange={(event) => prefer({ shortcuts: event.target.checked })} />
        Single-key shortcuts are on
      </label>
      <Keys rows={SHEET} off={!shortcuts} />
      <h3>Always</h3>
      <Keys rows={ALWAYS} off={false} />
    </Dialog>
  );
}

function Keys({ rows, off }: { rows: [string[], string][]; off: boolean }) {
  return (
    <dl className={off ? "keys keys-off" : "keys"}>
      {rows.map(([keys, what]) => (
        <div key={what}>
          <dt>
            {keys.map((key) => (
              <kbd key={key}>{key}</kbd>
            ))}
          </dt>
          <dd>{what}</dd>
        </div>
      ))}
    </dl>
  );
}
