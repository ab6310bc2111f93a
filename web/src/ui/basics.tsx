//! Small pieces that every page uses: headings, messages, dialogs, drawers, fields.

import { cloneElement, isValidElement, type ReactNode, useEffect, useId, useLayoutEffect, useRef, useState } from "react";

import { ApiError, explain } from "../api/client.ts";
import { useLinkLost } from "../live/context.tsx";
import { Icon } from "./icons.tsx";

/** The page's heading. Takes the focus on arrival, so that a screen reader says where one is. */
export function PageTitle({ children, actions, seenBy }: { children: ReactNode; actions?: ReactNode; seenBy?: string }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus({ preventScroll: true }), []);
  return (
    <div className="page-title">
      <h1 ref={heading} tabIndex={-1}>
        {children}
      </h1>
      {actions && <div className="actions">{actions}</div>}
      {seenBy && <SeenBy>{seenBy}</SeenBy>}
    </div>
  );
}

/** Who sees the page, in a line below its heading. */
export function SeenBy({ children }: { children: ReactNode }) {
  return (
    <p className="seen-by">
      <Icon name="eye" size={15} /> Seen by: {children}
    </p>
  );
}

export function useDocumentTitle(title: string): void {
  useEffect(() => {
    document.title = `${title} – Auscult`;
  }, [title]);
}

export function Failure({ error, retry }: { error: unknown; retry?: () => void }) {
  // What is asked wrongly, not permitted or not there is so the second time, too.
  const refused = error instanceof ApiError && [400, 403, 404].includes(error.status);
  return (
    <div className="message message-bad" role="alert">
      <strong>That did not work.</strong> {explain(error)}
      {retry && !refused && (
        <button type="button" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

export function Waiting({ what }: { what: string }) {
  return (
    <p className="waiting" role="status">
      Loading {what} …
    </p>
  );
}

export function Empty({ children }: { children: ReactNode }) {
  return <p className="empty">{children}</p>;
}

/** The button that fetches the next page of a list, while there is one. */
export function Older({ list }: { list: { hasNextPage: boolean; isFetchingNextPage: boolean; fetchNextPage: () => Promise<unknown> } }) {
  if (!list.hasNextPage) return null;
  return (
    <button type="button" className="more" disabled={list.isFetchingNextPage} onClick={() => void list.fetchNextPage()}>
      Older
    </button>
  );
}

interface DialogProps {
  title: string;
  onClose: () => void;
  children: ReactNode;
  /** A drawer stands at the right edge over the full height. */
  drawer?: boolean;
  wide?: boolean;
}

/** A modal dialog: the browser holds the focus inside, Escape closes, the focus returns to where it was. */
export function Dialog({ title, onClose, children, drawer = false, wide = false }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  // The page's own banner stands behind a modal dialog.
  const lost = useLinkLost();
  // A field can take the focus only in a dialog that is open: the contents come after the opening, so that `autoFocus` holds.
  const [opened, setOpened] = useState(false);
  useLayoutEffect(() => {
    const element = dialog.current;
    const before = document.activeElement;
    element?.showModal();
    setOpened(true);
    return () => {
      element?.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  const kind = drawer ? "drawer" : wide ? "dialog dialog-wide" : "dialog";
  return (
    <dialog
      ref={dialog}
      className={kind}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onClick={(event) => {
        if (event.target === dialog.current) onClose();
      }}
    >
      <div className="dialog-body">
        <header>
          <h2 id={id}>{title}</h2>
          <button type="button" className="quiet square" onClick={onClose} aria-label="Close">
            <Icon name="close" />
          </button>
        </header>
        {lost && (
          <p className="message message-bad" role="alert">
            <strong>Link lost:</strong> nothing shown here is current.
          </p>
        )}
        {opened && children}
      </div>
    </dialog>
  );
}

interface RefusedProps {
  error: unknown;
  /** What a refusal means here, by its code, where it means more than the server says. */
  refusals?: Record<string, string>;
}

/** Why an act was refused; nothing while it was not. */
export function Refused({ error, refusals = {} }: RefusedProps) {
  if (error === null || error === undefined) return null;
  const code = error instanceof ApiError ? error.code : "";
  return (
    <p className="message message-bad" role="alert">
      {refusals[code] ?? explain(error)}
    </p>
  );
}

export function Field({ label, hint, children }: { label: string; hint?: string; children: ReactNode }) {
  const id = useId();
  // The hint describes the field; it is no part of its name, which a screen reader repeats at every turn.
  const names = { "aria-labelledby": `${id}-label`, "aria-describedby": hint ? `${id}-hint` : undefined };
  return (
    <label className="field">
      <span className="field-label" id={`${id}-label`}>
        {label}
      </span>
      {isValidElement<typeof names>(children) ? cloneElement(children, names) : children}
      {hint && (
        <span className="hint" id={`${id}-hint`}>
          {hint}
        </span>
      )}
    </label>
  );
}

/** A labelled fact. */
export function Fact({ label, children }: { label: string; children: ReactNode }) {
  return (
    <div className="fact">
      <dt>{label}</dt>
      <dd>{children}</dd>
    </div>
  );
}
