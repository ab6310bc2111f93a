//! Making one's way in complete: a passkey, or a password and a code app; then recovery codes to keep.

import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";

import { get, post } from "../api/client.ts";
import type { Account } from "../api/people.ts";
import type { Session } from "../api/types.ts";
import { canUsePasskeys } from "../auth/webauthn.ts";
import { useSession } from "../session.tsx";
import { Failure, Waiting } from "../ui/basics.tsx";
import { CodeSheet } from "../ui/once.tsx";
import { Alone, AttemptFailed } from "./alone.tsx";
import { PasskeyForm, PasswordForm, TotpForm } from "./means.tsx";

export function Enrol({ onComplete }: { onComplete: () => void }) {
  const { session, adopt, signOut } = useSession();
  const passkeys = session.passkeys && canUsePasskeys();
  const [how, setHow] = useState<"passkey" | "password">(passkeys ? "passkey" : "password");
  const account = useQuery({ queryKey: ["account"], queryFn: ({ signal }) => get<Account>("/account", signal) });
  const done = (next: Session) => {
    if (next.state === "signed-in") onComplete();
    adopt(next);
    if (next.state !== "signed-in") void account.refetch();
  };
  return (
    <Alone title="Make your way in" wide>
      <p>
        {account.data && (
          <>
            Welcome, <strong>{account.data.user.display}</strong>.{" "}
          </>
        )}
        Patients' data stand behind this sign-in, so it needs more than a password. Choose one:
      </p>
      {account.isPending && <Waiting what="your account" />}
      {account.isError && <Failure error={account.error} retry={() => void account.refetch()} />}
      {account.data && (
        <>
          {passkeys && (
            <div className="segmented" role="group" aria-label="How you will sign in">
              <button type="button" aria-pressed={how === "passkey"} onClick={() => setHow("passkey")}>
                Passkey <span className="muted">recommended</span>
              </button>
              <button type="button" aria-pressed={how === "password"} onClick={() => setHow("password")}>
                Password and code app
              </button>
            </div>
          )}
          {how === "passkey" ? (
            <section className="means">
              <p>Your phone, computer or security key keeps the passkey and opens it with your finger, face or PIN. Nothing to remember, nothing that a forged page could steal.</p>
              <PasskeyForm onDone={done} />
            </section>
          ) : (
            <section className="means">
              {!passkeys && <p className="message message-note">Passkeys do not work {session.passkeys ? "in this browser" : "under this address"}.</p>}
              <p className="step-of">{account.data.has_password ? "Step 2 of 2: the code app" : "Step 1 of 2: a password"}</p>
              {account.data.has_password ? <TotpForm onDone={done} /> : <PasswordForm onDone={done} userName={account.data.user.name} />}
            </section>
          )}
        </>
      )}
      <p className="ways">
        <button type="button" className="link" onClick={() => void signOut()}>
          Not now: sign out
        </button>
      </p>
    </Alone>
  );
}

/** Shown once after the way in is complete. */
export function KeepCodes({ onDone }: { onDone: () => void }) {
  const { session } = useSession();
  const [kept, setKept] = useState(false);
  const account = useQuery({ queryKey: ["account"], queryFn: ({ signal }) => get<Account>("/account", signal) });
  const make = useMutation({ mutationFn: () => post<{ codes: string[] }>("/account/recovery-codes") });
  const host = window.location.host;
  if (account.data?.has_password === false) {
    return (
      <Alone title="If you lose your device" wide>
        <p>Your passkey is your only way in so far. When it is gone, a password together with a recovery code lets you in: choose the password now, and the codes come next. Or add a passkey on a second device later, in your account.</p>
        <PasswordForm onDone={() => void account.refetch()} userName={account.data.user.name} />
        <div className="form-actions">
          <button type="button" onClick={onDone}>
            Later
          </button>
        </div>
      </Alone>
    );
  }
  return (
    <Alone title="If you lose your device" wide>
      {account.isPending && <Waiting what="your account" />}
      {make.data === undefined ? (
        <>
          <p>After your password, a recovery code lets you in when your code app or passkey is gone. Keep the codes on paper, or in a password manager, away from this device.</p>
          <AttemptFailed error={make.error} />
          <div className="form-actions">
            <button type="button" onClick={onDone}>
              Later
            </button>
            <button type="button" className="primary" disabled={make.isPending} onClick={() => make.mutate()}>
              Show recovery codes
            </button>
          </div>
        </>
      ) : (
        <>
          <p>
            These ten codes are <strong>shown once, now</strong>. Each lets you in once after your password, in place of your code app or passkey.
          </p>
          <CodeSheet codes={make.data.codes} heading={`Recovery codes of ${session.user?.name ?? "my account"} for Auscult at ${host}`} fileName="auscult-recovery-codes.txt" />
          <label className="check">
            <input type="checkbox" checked={kept} onChange={(event) => setKept(event.target.checked)} /> I have kept them
          </label>
          <button type="button" className="primary wide" disabled={!kept} onClick={onDone}>
            Go on
          </button>
        </>
      )}
    </Alone>
  );
}
