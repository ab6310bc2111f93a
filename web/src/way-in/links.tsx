//! One-time links: the set-up of the first administrator, and invitations.

import { useMutation } from "@tanstack/react-query";
import { useEffect, useState } from "react";

import { post } from "../api/client.ts";
import type { Session } from "../api/types.ts";
import { navigate } from "../router.tsx";
import { useSession } from "../session.tsx";
import { Field } from "../ui/basics.tsx";
import { Alone, AttemptFailed } from "./alone.tsx";

/** The token after `#token=`: a fragment is never sent to a server, nor written to its logs. It is taken out of the address bar at once. */
function useTokenHere(): string {
  const [token] = useState(() => new URLSearchParams(window.location.hash.slice(1)).get("token") ?? "");
  useEffect(() => {
    if (token !== "") window.history.replaceState(null, "", window.location.pathname);
  }, [token]);
  return token;
}

const leave = () => navigate("/", { replace: true });

export function Setup() {
  const { adopt } = useSession();
  const [token, setToken] = useState(useTokenHere());
  const [form, setForm] = useState({ name: "", display: "" });
  const set = (key: keyof typeof form) => (event: { target: { value: string } }) => setForm({ ...form, [key]: event.target.value });
  const start = useMutation({
    mutationFn: () => post<Session>("/setup", { token, name: form.name, display: form.display }),
    onSuccess: (next) => {
      leave();
      adopt(next);
    },
  });
  return (
    <Alone title="Set up the first administrator">
      <p>No one can sign in yet. The server printed a one-time link when it first started; it carries the token below.</p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          start.mutate();
        }}
      >
        <Field label="One-time token" hint="From the set-up link in the server's log">
          <input required value={token} autoComplete="off" spellCheck={false} onChange={(event) => setToken(event.target.value)} />
        </Field>
        <Field label="Sign-in name">
          <input name="username" required autoComplete="username" autoCapitalize="none" value={form.name} onChange={set("name")} />
        </Field>
        <Field label="Display name" hint="As colleagues read it, e.g. Dr. A. Rossi">
          <input name="display" required autoComplete="name" value={form.display} onChange={set("display")} />
        </Field>
        <AttemptFailed error={start.error} refusals={{ "bad-credentials": "This token is not right. Take the link that the server printed last." }} />
        <button type="submit" className="primary wide" disabled={start.isPending}>
          {start.isPending ? "Setting up …" : "Go on"}
        </button>
      </form>
    </Alone>
  );
}

export function Invited() {
  const { session, adopt, signOut } = useSession();
  const given = useTokenHere();
  const [token, setToken] = useState(given);
  const begin = useMutation({
    mutationFn: () => post<Session>("/sign-in/link", { token }),
    onSuccess: (next) => {
      leave();
      adopt(next);
    },
  });
  if (session.user !== null) {
    return (
      <Alone title="An invitation">
        <p>
          You are signed in as <strong>{session.user.display}</strong>. Sign out first if this invitation is for somebody else, or go on with your own work.
        </p>
        <div className="form-actions">
          <button type="button" onClick={leave}>
            Stay signed in
          </button>
          <button type="button" className="primary" onClick={() => void signOut()}>
            Sign out
          </button>
        </div>
      </Alone>
    );
  }
  return (
    <Alone title="You are invited">
      <p>With this one-time link you choose how you will sign in. It works once, and nobody but you will know your way in.</p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          begin.mutate();
        }}
      >
        {given === "" && (
          <Field label="One-time token" hint="The part of your link after #token=">
            <input required value={token} autoComplete="off" spellCheck={false} onChange={(event) => setToken(event.target.value)} />
          </Field>
        )}
        <AttemptFailed error={begin.error} refusals={{ "link-spent": "This link was used already, or is too old. Ask an administrator for a new one." }} />
        <button type="submit" className="primary wide" disabled={begin.isPending}>
          {begin.isPending ? "Opening …" : "Begin"}
        </button>
      </form>
    </Alone>
  );
}
