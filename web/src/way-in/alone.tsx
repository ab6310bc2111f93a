//! The frame of the pages on the way in: one card, the site's name, nothing of any patient.

import type { AriaAttributes, ReactNode } from "react";

import { PasskeyDeclined } from "../auth/webauthn.ts";
import { useSession } from "../session.tsx";
import { Refused, useDocumentTitle } from "../ui/basics.tsx";

export function Alone({ title, children, wide = false }: { title: string; children: ReactNode; wide?: boolean }) {
  const { session } = useSession();
  useDocumentTitle(title);
  return (
    <main className={wide ? "alone alone-wide" : "alone"}>
      <div className="card">
        <p className="brand">Auscult</p>
        <h1>{title}</h1>
        <p className="site">
          {session.site.name}
          {session.site.demo && <span className="tag">Demonstration: no real patients</span>}
        </p>
        {children}
      </div>
    </main>
  );
}

/** What is said about an attempt that failed; closing the browser's own dialog is no failure. */
export function AttemptFailed({ error, refusals = {} }: { error: unknown; refusals?: Record<string, string> }) {
  if (error instanceof PasskeyDeclined) {
    return (
      <p className="message message-note" role="status">
        {error.message}
      </p>
    );
  }
  return <Refused error={error} refusals={refusals} />;
}

interface CodeInputProps extends AriaAttributes {
  value: string;
  onChange: (code: string) => void;
  autoFocus?: boolean;
}

/** The field for six digits of a code app: phones and password managers fill it in. */
export function CodeInput({ value, onChange, autoFocus = false, ...aria }: CodeInputProps) {
  return (
    <input
      {...aria}
      className="code-input"
      name="code"
      inputMode="numeric"
      autoComplete="one-time-code"
      pattern="[0-9 ]{6,7}"
      title="Six digits"
      required
      autoFocus={autoFocus}
      value={value}
      onChange={(event) => onChange(event.target.value)}
    />
  );
}

/** A code as the server wants it: without the gap that some apps show. */
export const digits = (code: string): string => code.replace(/\s+/g, "");
