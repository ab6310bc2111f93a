//! Making a means to sign in: a passkey, a password, a code app. Used on the way in and in one's own account.

import { useMutation } from "@tanstack/react-query";
import { type FormEvent, useEffect, useState } from "react";

import { post, put } from "../api/client.ts";
import type { Ceremony, TotpSecret } from "../api/people.ts";
import type { Session } from "../api/types.ts";
import { makePasskey } from "../auth/webauthn.ts";
import { Failure, Field, Waiting } from "../ui/basics.tsx";
import { Icon } from "../ui/icons.tsx";
import { CopyButton } from "../ui/once.tsx";
import { QrCode } from "../ui/qr.tsx";
import { AttemptFailed, CodeInput, digits } from "./alone.tsx";

/** Least length of a password, in characters; the server decides, this only saves a round trip. */
export const PASSWORD_MIN = 12;
/** Longest name of a passkey, in characters. */
const NAME_MAX = 60;

/** What a recovery code is worth to whoever has only passkeys. */
export const CODES_NEED_PASSWORD = "A recovery code works after your password only, and you have none: set a password too, or add a passkey on a second device.";

interface MeansProps {
  onDone: (session: Session) => void;
}

/** A name to begin with: the device as its owner would call it. */
function thisDevice(): string {
  const agent = navigator.userAgent;
  const found = (["iPhone", "iPad", "Android", "Windows", "Mac", "Linux"] as const).find((word) => agent.includes(word));
  return found === undefined ? "This device" : found === "Mac" ? "This Mac" : `This ${found} device`.replace("iPhone device", "iPhone").replace("iPad device", "iPad");
}

export function PasskeyForm({ onDone }: MeansProps) {
  const [name, setName] = useState(thisDevice);
  const make = useMutation({
    mutationFn: async () => {
      const { ceremony, options } = await post<Ceremony>("/account/passkeys/begin");
      const credential = await makePasskey(options);
      return post<Session>("/account/passkeys", { ceremony, name: name.trim() || thisDevice(), credential });
    },
    onSuccess: onDone,
  });
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        make.mutate();
      }}
    >
      <Field label="Name of the passkey" hint="So that you know it again in the list">
        <input required maxLength={NAME_MAX} autoComplete="off" value={name} onChange={(event) => setName(event.target.value)} />
      </Field>
      <AttemptFailed error={make.error} />
      <button type="submit" className="primary wide" disabled={make.isPending}>
        <Icon name="key" /> {make.isPending ? "Waiting for your device …" : "Make a passkey"}
      </button>
    </form>
  );
}

export function PasswordForm({ onDone, userName }: MeansProps & { userName: string }) {
  const [password, setPassword] = useState("");
  const [again, setAgain] = useState("");
  const differs = again !== "" && again !== password;
  const save = useMutation({ mutationFn: () => put<Session>("/account/password", { password }), onSuccess: onDone });
  return (
    <form
      onSubmit={(event: FormEvent) => {
        event.preventDefault();
        if (!differs) save.mutate();
      }}
    >
      {/* Password managers want to know whose password it is. */}
      <input className="sr-only" type="text" name="username" autoComplete="username" value={userName} readOnly tabIndex={-1} aria-hidden="true" />
      <Field label="New password" hint={`At least ${PASSWORD_MIN} characters`}>
        <input name="new-password" type="password" required minLength={PASSWORD_MIN} autoComplete="new-password" value={password} onChange={(event) => setPassword(event.target.value)} />
      </Field>
      <Field label="New password again">
        <input name="new-password-again" type="password" required autoComplete="new-password" aria-invalid={differs} value={again} onChange={(event) => setAgain(event.target.value)} />
      </Field>
      {differs && (
        <p className="message message-bad" role="alert">
          The two passwords differ.
        </p>
      )}
      <AttemptFailed error={save.error} />
      <button type="submit" className="primary wide" disabled={save.isPending || differs}>
        {save.isPending ? "Saving …" : "Set password"}
      </button>
    </form>
  );
}

export function TotpForm({ onDone }: MeansProps) {
  const [code, setCode] = useState("");
  const begin = useMutation({ mutationFn: () => post<TotpSecret>("/account/totp/begin") });
  const { mutate: ask } = begin;
  useEffect(() => ask(), [ask]);
  const save = useMutation({
    mutationFn: () => post<Session>("/account/totp", { code: digits(code) }),
    onSuccess: onDone,
    onError: () => setCode(""),
  });
  if (begin.isError) return <Failure error={begin.error} retry={() => ask()} />;
  if (!begin.data) return <Waiting what="a new secret" />;
  const { secret, otpauth_uri: uri } = begin.data;
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        save.mutate();
      }}
    >
      <p>Scan this with a code app (an authenticator), then type the six digits it shows.</p>
      <div className="qr-beside">
        <QrCode text={uri} label="QR code for the code app" />
        <div>
          <p className="hint">Without a camera, type this secret into the app:</p>
          <p className="mono secret">{(secret.match(/.{1,4}/g) ?? []).join(" ")}</p>
          <CopyButton text={secret} label="Copy secret" />
          <p className="hint">On this device: <a href={uri}>open it in a code app</a>.</p>
        </div>
      </div>
      <Field label="Code">
        <CodeInput value={code} onChange={setCode} />
      </Field>
      <AttemptFailed error={save.error} refusals={{ "bad-code": "This code is not right. Check that the clock of the phone is right, wait for the next code and try again." }} />
      <button type="submit" className="primary wide" disabled={save.isPending}>
        {save.isPending ? "Checking …" : "Use this code app"}
      </button>
    </form>
  );
}
