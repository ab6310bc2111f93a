//! Proving oneself again before a dangerous act: any request that needs it opens this dialog, and is then repeated.

import { useMutation } from "@tanstack/react-query";
import { useEffect, useState } from "react";

import { onStepUpNeeded, post } from "../api/client.ts";
import type { Ceremony } from "../api/people.ts";
import type { Session } from "../api/types.ts";
import { askPasskey, canUsePasskeys } from "../auth/webauthn.ts";
import { Link } from "../router.tsx";
import { useSession } from "../session.tsx";
import { AttemptFailed, CodeInput, digits } from "../way-in/alone.tsx";
import { demoToken } from "../way-in/demo.ts";
import { Dialog, Field } from "./basics.tsx";
import { Icon } from "./icons.tsx";

/** Stands beside the pages of whoever is signed in. */
export function StepUp() {
  const [asked, setAsked] = useState<{ answer: (proved: boolean) => void } | null>(null);
  useEffect(
    () =>
      onStepUpNeeded(
        () =>
          new Promise<boolean>((resolve) => {
            setAsked({
              answer: (proved) => {
                setAsked(null);
                resolve(proved);
              },
            });
          }),
      ),
    [],
  );
  return asked === null ? null : <Proof answer={asked.answer} />;
}

function Proof({ answer }: { answer: (proved: boolean) => void }) {
  const { session, adopt } = useSession();
  const { second_factors: factors } = session;
  const [code, setCode] = useState("");
  const done = (next: Session) => {
    adopt(next);
    answer(true);
  };
  const withPasskey = useMutation({
    mutationFn: async () => {
      const { ceremony, options } = await post<Ceremony>("/step-up/passkey/begin");
      const credential = await askPasskey(options);
      return post<Session>("/step-up/passkey", { ceremony, credential });
    },
    onSuccess: done,
  });
  const withCode = useMutation({
    mutationFn: () => post<Session>("/step-up/totp", { code: digits(code) }),
    onSuccess: done,
    onError: () => setCode(""),
  });
  const withDemo = useMutation({ mutationFn: () => post<Session>("/step-up/link", { token: demoToken() }), onSuccess: done });
  const passkey = factors.includes("passkey") && canUsePasskeys();
  const totp = factors.includes("totp");
  const demo = factors.includes("demo-link") && demoToken() !== null;
  return (
    <Dialog title="Confirm that it is you" onClose={() => answer(false)}>
      <p>This act needs a fresh proof. It is asked for again when five minutes have passed.</p>
      <AttemptFailed error={withCode.error ?? withPasskey.error ?? withDemo.error} refusals={{ "bad-code": "This code is not right, or was used already. Wait for the next one and try again." }} />
      {passkey && (
        <button type="button" className="primary wide" autoFocus disabled={withPasskey.isPending} onClick={() => withPasskey.mutate()}>
          <Icon name="key" /> {withPasskey.isPending ? "Waiting for your passkey …" : "Use your passkey"}
        </button>
      )}
      {passkey && totp && (
        <p className="or">
          <span>or</span>
        </p>
      )}
      {totp && (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            // The dialog stands inside a form's page: what is confirmed here must not send that form too.
            event.stopPropagation();
            withCode.mutate();
          }}
        >
          <Field label="Code" hint="The six digits that your code app shows for Auscult">
            <CodeInput autoFocus={!passkey} value={code} onChange={setCode} />
          </Field>
          <button type="submit" className={passkey ? "wide" : "primary wide"} disabled={withCode.isPending}>
            {withCode.isPending ? "Checking …" : "Confirm with the code"}
          </button>
        </form>
      )}
      {demo && (
        <button type="button" className="primary wide" autoFocus disabled={withDemo.isPending} onClick={() => withDemo.mutate()}>
          Confirm with the demonstration's link
        </button>
      )}
      {!passkey && !totp && !demo && (
        <p className="message message-bad" role="alert">
          You have no means to do so in this browser. <Link to="/account" onClick={() => answer(false)}>Your account</Link> shows yours.
        </p>
      )}
      <div className="form-actions">
        <button type="button" onClick={() => answer(false)}>
          Cancel
        </button>
      </div>
    </Dialog>
  );
}
