//! Things that are shown once and never again: recovery codes, one-time links, claim codes; with ways to keep them.

import { useState } from "react";

/** Saves a text as a file of the browser's downloads. */
export function saveText(name: string, text: string, type = "text/plain"): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}

export function CopyButton({ text, label = "Copy" }: { text: string; label?: string }) {
  const [state, setState] = useState<"idle" | "copied" | "failed">("idle");
  const copy = () =>
    navigator.clipboard.writeText(text).then(
      () => setState("copied"),
      () => setState("failed"),
    );
  return (
    <>
      <button type="button" onClick={copy}>
        {state === "copied" ? "Copied" : label}
      </button>
      <span className="sr-only" role="status">
        {state === "copied" && "Copied."}
        {state === "failed" && "The browser does not allow copying; select the text instead."}
      </span>
    </>
  );
}

/** A one-time link or code with a button that copies it. */
export function OneTimeText({ label, text }: { label: string; text: string }) {
  return (
    <div className="one-time">
      <span className="field-label">{label}</span>
      <output className="one-time-text mono">{text}</output>
      <CopyButton text={text} />
    </div>
  );
}

interface CodesProps {
  codes: string[];
  /** Stands at the head of what is printed or saved: whose codes, where. */
  heading: string;
  fileName: string;
}

/** Recovery codes: a list to read, and three ways to keep it. */
export function CodeSheet({ codes, heading, fileName }: CodesProps) {
  const text = `${heading}\n\n${codes.join("\n")}\n\nEach code works once. Whoever has them can sign in as you: keep them away from your password.\n`;
  return (
    <div className="code-sheet">
      <ol className="codes mono" aria-label="Recovery codes">
        {codes.map((code) => (
          <li key={code}>{code}</li>
        ))}
      </ol>
      <p className="code-sheet-heading">{heading}</p>
      <div className="form-actions code-actions">
        <CopyButton text={codes.join("\n")} label="Copy all" />
        <button type="button" onClick={() => window.print()}>
          Print
        </button>
        <button type="button" onClick={() => saveText(fileName, text)}>
          Download
        </button>
      </div>
    </div>
  );
}
