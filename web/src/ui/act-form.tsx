//! The form of a dialog that does one act: its fields, why it was refused, the way out, and the act itself.

import { useMutation } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";

import { Field, Refused } from "./basics.tsx";

/** Said wherever two people change the same thing at the same time, unless a dialog knows better. */
const CHANGED = { "changed-by-somebody-else": "Somebody else has changed this meanwhile. Close this, look, and repeat your change." };

interface ActFormProps {
  /** What is done when the form is submitted. */
  action: { isPending: boolean; error: unknown; mutate: () => void };
  /** The verb on the button. */
  verb: string;
  /** What a refusal means here, by its code, where it means more than the server says. */
  refusals?: Record<string, string>;
  /** True while the form cannot be submitted yet. */
  blocked?: boolean;
  dangerous?: boolean;
  onClose: () => void;
  children: ReactNode;
}

export function ActForm({ action, verb, refusals = {}, blocked = false, dangerous = false, onClose, children }: ActFormProps) {
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (!blocked) action.mutate();
      }}
    >
      {children}
      <Refused error={action.error} refusals={{ ...CHANGED, ...refusals }} />
      <div className="form-actions">
        <button type="button" onClick={onClose}>
          Cancel
        </button>
        <button type="submit" className={dangerous ? "danger" : "primary"} disabled={action.isPending || blocked}>
          {verb}
        </button>
      </div>
    </form>
  );
}

interface ReasonFormProps<T> {
  act: (reason: string) => Promise<T>;
  onDone: (answer: T) => void;
  verb: string;
  /** What a reason is like here. */
  hint?: string;
  dangerous?: boolean;
  onClose: () => void;
  /** What the act means, in words. */
  children: ReactNode;
}

/** The form of an act that needs nothing but a reason. */
export function ReasonForm<T>({ act, onDone, verb, hint, dangerous = false, onClose, children }: ReasonFormProps<T>) {
  const [reason, setReason] = useState("");
  const action = useMutation({ mutationFn: () => act(reason.trim()), onSuccess: onDone });
  return (
    <ActForm action={action} verb={verb} dangerous={dangerous} onClose={onClose}>
      {children}
      <Field label="Reason" {...(hint === undefined ? {} : { hint })}>
        <input required autoFocus autoComplete="off" value={reason} onChange={(event) => setReason(event.target.value)} />
      </Field>
    </ActForm>
  );
}
