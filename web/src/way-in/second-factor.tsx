//! The second step after a password: the code app, or a recovery code.

import { useMutation } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";

import { post } from "../api/client.ts";
import type { Session } from "../api/types.ts";
import { canUsePasskeys } from "../auth/webauthn.ts";
import { navigate } from "../router.tsx";
import { useSession } from "../session.tsx";
import { Field } from "../ui/basics.tsx";
import { Alone, AttemptFailed, CodeInput, digits } from "./alone.tsx";
import { signInWithPasskey } from "./sign-in.tsx";

export function SecondFactor() {
  const { session, adopt, signOut } = useSession();
  const { second_factors: factors, linking } = session;
  const [with_, setWith] = useState<"totp" | "recovery">(factors.includes("totp") || !factors.includes("recovery-code") ? "totp" : "recovery");
  const [code, setCode] = useState("");
  const enter = (next: Session) => {
    adopt(next);
    if (["/", "/sign-in"].includes(window.location.pathname)) navigate("/", { replace: true });
  };
  const send = useMutation({
    mutationFn: () => (with_ === "totp" ? post<Session>("/sign-in/totp", { code: digits(code) }) : post<Session>("/sign-in/recovery", { code: code.trim() })),
    onSuccess: enter,
    onError: () => setCode(""),
  });
  const passkey = useMutation({ mutationFn: () => signInWithPasskey(), onSuccess: enter });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    send.mutate();
  };
  const change = (to: "totp" | "recovery") => {
    send.reset();
    setCode("");
    setWith(to);
  };
  return (
    <Alone title="One more step">
      {linking === null ? (
        <p>The first step is done. Prove with a second means that it is you.</p>
      ) : (
        <p className="message message-note">
          After this, <strong>{linking.subject}</strong> of <strong>{linking.issuer}</strong> signs in as you. If that is not you, go back.
        </p>
      )}
      <AttemptFailed
        error={send.error ?? passkey.error}
        refusals={{
          "bad-code": with_ === "totp" ? "This code is not right, or was used already. Wait for the next one and try again." : "This recovery code is not right, or was used already.",
        }}
      />
      {factors.includes("passkey") && canUsePasskeys() && (
        <>
          <button type="button" className="wide" disabled={passkey.isPending} onClick={() => passkey.mutate()}>
            Use a passkey instead
          </button>
          <p className="or">
            <span>or</span>
          </p>
        </>
      )}
      <form onSubmit={submit}>
        {with_ === "totp" ? (
          <Field label="Code" hint="The six digits that your code app shows for Auscult">
            <CodeInput key="totp" autoFocus value={code} onChange={setCode} />
          </Field>
        ) : (
          <Field label="Recovery code" hint="One of the ten that you kept; it works once">
            <input key="recovery" name="recovery-code" className="mono" required autoFocus autoComplete="off" autoCapitalize="none" spellCheck={false} value={code} onChange={(event) => setCode(event.target.value)} />
          </Field>
        )}
        <button type="submit" className="primary wide" disabled={send.isPending}>
          {send.isPending ? "Checking …" : "Go on"}
        </button>
      </form>
      <p className="ways">
        {with_ === "totp" && factors.includes("recovery-code") && (
          <button type="button" className="link" onClick={() => change("recovery")}>
            Use a recovery code
          </button>
        )}
        {with_ === "recovery" && factors.includes("totp") && (
          <button type="button" className="link" onClick={() => change("totp")}>
            Use the code app
          </button>
        )}
        <button type="button" className="link" onClick={() => void signOut()}>
          Sign in as somebody else
        </button>
      </p>
    </Alone>
  );
}
