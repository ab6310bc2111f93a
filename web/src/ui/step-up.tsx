//! Proving oneself again before a dangerous act: any request that needs it opens this dialog, and is then repeated.

import { useMutation, useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";

import { get, onStepUpNeeded, post, query } from "../api/client.ts";
import type { Ceremony } from "../api/people.ts";
import type { Session } from "../api/types.ts";
import { askPasskey, canUsePasskeys } from "../auth/webauthn.ts";
import { Link, useLocation } from "../router.tsx";
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
  const { session, adopt, signOut } = useSession();
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
  const here = useLocation();
  const again = useQuery({
    queryKey: ["step-up-providers"],
    queryFn: ({ signal }) => get<{ providers: { id: string; name: string }[] }>("/step-up/providers", signal),
    retry: false,
  });
  const providers = again.data?.providers ?? [];
  const passkey = factors.includes("passkey") && canUsePasskeys();
  const totp = factors.includes("totp");
  const demo = factors.includes("demo-link") && demoToken() !== null;
  const nothing = !passkey && !totp && !demo && providers.length === 0 && !again.isPending;
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
      {providers.map(({ id, name }) => (
        <a key={id} className="button wide" href={`/api/v1/sign-in/oidc/${encodeURIComponent(id)}${query({ again: "true", next: here.pathname + here.search })}`}>
          Sign in again with {name}
        </a>
      ))}
      {providers.length > 0 && <p className="hint">You come back to this page, and begin there again what you were about to do.</p>}
      {nothing && (
        <p className="message message-bad" role="alert">
          You have no means to do so in this browser. <Link to="/account" onClick={() => answer(false)}>Your account</Link> shows yours. A sign-in with a second factor counts for five minutes, too: sign in again, and repeat what you were about to do.
        </p>
      )}
      <div className="form-actions">
        <button type="button" onClick={() => answer(false)}>
          Cancel
        </button>
        {nothing && (
          <button type="button" className="primary" onClick={() => void signOut()}>
            Sign in again
          </button>
        )}
      </div>
    </Dialog>
  );
}
