//! Signing in: with a passkey first, with a password, through the site's identity provider, or into the demonstration.

import { useMutation, useQuery } from "@tanstack/react-query";
import { type FormEvent, useEffect, useState } from "react";

import { get, post, query } from "../api/client.ts";
import type { Ceremony } from "../api/people.ts";
import type { Session } from "../api/types.ts";
import { askPasskey, canOfferQuietly, canUsePasskeys, stopWaiting } from "../auth/webauthn.ts";
import { roleText } from "../format/people.ts";
import { navigate, useLocation } from "../router.tsx";
import { type EndReason, useSession } from "../session.tsx";
import { Field } from "../ui/basics.tsx";
import { Icon } from "../ui/icons.tsx";
import { Alone, AttemptFailed } from "./alone.tsx";
import { demoToken } from "./demo.ts";
import { useProviderSaid } from "./provider-said.ts";

/** The server takes the answer to a passkey question for 5 min; a new one is asked before that, in ms. */
const ASK_ANEW_MS = 4 * 60_000;

const ENDED: Record<EndReason, string> = {
  expired: "Your session has ended. Sign in again to go on; nothing you had saved is lost.",
  "signed-out-here": "You have signed out.",
  "signed-out-elsewhere": "You have signed out in another tab of this browser.",
};

export async function signInWithPasskey(quiet = false): Promise<Session> {
  const { ceremony, options } = await post<Ceremony>("/sign-in/passkey/begin");
  const credential = await askPasskey(options, quiet);
  return post<Session>("/sign-in/passkey", { ceremony, credential });
}

/** `15 min`, `12 h`. */
const spanText = (seconds: number): string => (seconds >= 7200 && seconds % 3600 === 0 ? `${seconds / 3600} h` : `${Math.round(seconds / 60)} min`);

const atDoor = (path: string) => ["/", "/sign-in", "/setup", "/invite"].includes(path);

export function SignIn() {
  const { session, ended, adopt, signOut } = useSession();
  const { linking } = session;
  const here = useLocation();
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const said = useProviderSaid();
  const enter = (next: Session) => {
    adopt(next);
    if (atDoor(window.location.pathname)) navigate("/", { replace: true });
  };
  const passkeys = session.passkeys && canUsePasskeys();
  useQuietPasskey(passkeys, enter);
  const withPasskey = useMutation({ mutationFn: () => signInWithPasskey(), onSuccess: enter });
  const withPassword = useMutation({
    mutationFn: () => post<Session>("/sign-in", { name, password }),
    onSuccess: enter,
    onError: () => setPassword(""),
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    withPasskey.reset();
    withPassword.mutate();
  };
  const failure = withPassword.error ?? withPasskey.error;
  return (
    <Alone title="Sign in">
      {said !== null && failure === null && (
        <p className="message message-bad" role="alert">
          {said} Nobody was signed in.
        </p>
      )}
      {linking !== null && (
        <div className="message message-note">
          <p>
            Sign in here once, as you do without the identity provider. After this, <strong>{linking.subject}</strong> of <strong>{linking.issuer}</strong> signs in as you. If that is not you, do not sign in here.
          </p>
          <button type="button" onClick={() => void signOut()}>
            Stop
          </button>
        </div>
      )}
      {ended !== null && failure === null && said === null && linking === null && (
        <p className="message message-note" role="status">
          {ENDED[ended]}
        </p>
      )}
      <AttemptFailed
        error={failure}
        refusals={{
          "bad-credentials": withPasskey.isError ? "This passkey is not known here. Nobody was signed in." : "Name or password is not right. Nobody was signed in.",
        }}
      />
      <DemoPeople enter={enter} />
      {passkeys && (
        <>
          <button
            type="button"
            className="primary wide"
            disabled={withPasskey.isPending}
            onClick={() => {
              withPassword.reset();
              withPasskey.mutate();
            }}
          >
            <Icon name="key" /> {withPasskey.isPending ? "Waiting for your passkey …" : "Sign in with a passkey"}
          </button>
          <p className="or">
            <span>or</span>
          </p>
        </>
      )}
      <form onSubmit={submit}>
        <Field label="Name">
          <input name="username" autoComplete="username webauthn" autoCapitalize="none" required autoFocus value={name} onChange={(e) => setName(e.target.value)} />
        </Field>
        <Field label="Password">
          <input name="password" type="password" autoComplete="current-password" required value={password} onChange={(e) => setPassword(e.target.value)} />
        </Field>
        <button type="submit" className={passkeys ? "wide" : "primary wide"} disabled={withPassword.isPending}>
          {withPassword.isPending ? "Signing in …" : passkeys ? "Sign in with a password" : "Sign in"}
        </button>
      </form>
      <Providers next={atDoor(here.pathname) ? "/" : here.pathname + here.search} />
      <p className="hint">
        A session ends after {spanText(session.idle_timeout_s)} without use. Without a way in? An administrator can give you a new one-time link.
      </p>
    </Alone>
  );
}

/** Offers passkeys in the list under the name field for as long as the page stands. */
function useQuietPasskey(enabled: boolean, enter: (session: Session) => void): void {
  useEffect(() => {
    if (!enabled) return;
    let over = false;
    let timer: ReturnType<typeof setTimeout>;
    const ask = async () => {
      if (!(await canOfferQuietly()) || over) return;
      timer = setTimeout(() => void ask(), ASK_ANEW_MS);
      // Whoever does not pick one signs in another way: no failure to show.
      await signInWithPasskey(true).then((session) => !over && enter(session), () => undefined);
    };
    void ask();
    return () => {
      over = true;
      clearTimeout(timer);
      stopWaiting();
    };
    // Once for the page: `enter` is made anew with every drawing.
  }, [enabled]);
}

function Providers({ next }: { next: string }) {
  const providers = useQuery({
    queryKey: ["identity-providers"],
    queryFn: ({ signal }) => get<{ providers: { id: string; name: string }[] }>("/identity-providers", signal),
    retry: false,
  });
  const list = providers.data?.providers ?? [];
  if (list.length === 0) return null;
  return (
    <div className="providers">
      <p className="or">
        <span>or</span>
      </p>
      {list.map((provider) => (
        <a key={provider.id} className="button wide" href={`/api/v1/sign-in/oidc/${encodeURIComponent(provider.id)}${query({ next })}`}>
          Sign in with {provider.name}
        </a>
      ))}
    </div>
  );
}

/** The people of the demonstration, for whoever came with its link. */
function DemoPeople({ enter }: { enter: (session: Session) => void }) {
  const { session } = useSession();
  const [token] = useState(demoToken);
  const go = useMutation({ mutationFn: (name: string) => post<Session>("/sign-in/link", { token, name }), onSuccess: enter });
  const people = session.site.demo_people ?? [];
  if (token === null || people.length === 0) return null;
  return (
    <section className="demo-people" aria-labelledby="demo-people">
      <h2 id="demo-people">Look around as</h2>
      <AttemptFailed error={go.error} />
      <ul>
        {people.map((person) => (
          <li key={person.name}>
            <button type="button" className="wide" disabled={go.isPending} onClick={() => go.mutate(person.name)}>
              <strong>{person.display}</strong> <span className="muted">{roleText(person.role)}</span>
            </button>
          </li>
        ))}
      </ul>
      <p className="or">
        <span>or sign in as people do</span>
      </p>
    </section>
  );
}
