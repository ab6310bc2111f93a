//! The way in: sign-in, and the set-up of the first person from the one-time link.

import { useMutation } from "@tanstack/react-query";
import { type FormEvent, type ReactNode, useState } from "react";

import { ApiError, explain, post } from "../api/client.ts";
import type { Session } from "../api/types.ts";
import { navigate } from "../router.tsx";
import { type EndReason, useSession } from "../session.tsx";
import { Field, useDocumentTitle } from "../ui/basics.tsx";

const ENDED: Record<EndReason, string> = {
  expired: "Your session has ended. Sign in again to go on; nothing you had saved is lost.",
  "signed-out-here": "You have signed out.",
  "signed-out-elsewhere": "You have signed out in another tab of this browser.",
};

function Alone({ title, children }: { title: string; children: ReactNode }) {
  const { session } = useSession();
  useDocumentTitle(title);
  return (
    <main className="alone">
      <div className="card">
        <p className="brand">Auscult</p>
        <h1>{title}</h1>
        <p className="site">
          {session.site.name}
          {session.site.demo && <span className="tag">Demonstration: no real patients</span>}
        </p>
        {children}
      </div>
    </main>
  );
}

export function SignIn() {
  const { session, ended, adopt } = useSession();
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const attempt = useMutation({
    mutationFn: () => post<Session>("/sign-in", { name, password }),
    onSuccess: (next) => {
      adopt(next);
      if (window.location.pathname === "/sign-in") navigate("/", { replace: true });
    },
    onError: () => setPassword(""),
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    attempt.mutate();
  };
  const wrong = attempt.error instanceof ApiError && attempt.error.code === "bad-credentials";
  return (
    <Alone title="Sign in">
      {ended !== null && !attempt.isError && (
        <p className="message message-note" role="status">
          {ENDED[ended]}
        </p>
      )}
      {attempt.isError && (
        <p className="message message-bad" role="alert">
          {wrong ? "Name or password is not right. Nobody was signed in." : explain(attempt.error)}
        </p>
      )}
      <form onSubmit={submit}>
        <Field label="Name">
          <input name="username" autoComplete="username" autoCapitalize="none" required autoFocus value={name} onChange={(e) => setName(e.target.value)} />
        </Field>
        <Field label="Password">
          <input name="password" type="password" autoComplete="current-password" required value={password} onChange={(e) => setPassword(e.target.value)} />
        </Field>
        <button type="submit" className="primary wide" disabled={attempt.isPending}>
          {attempt.isPending ? "Signing in …" : "Sign in"}
        </button>
      </form>
      <p className="hint">
        A session ends after {Math.round(session.idle_timeout_s / 60)} min without use.
      </p>
    </Alone>
  );
}

/** Least length of a password, in characters; the server decides, this only saves a round trip. */
const PASSWORD_MIN = 12;

export function Setup() {
  const { adopt } = useSession();
  const [token, setToken] = useState(() => new URLSearchParams(window.location.hash.slice(1)).get("token") ?? "");
  const [form, setForm] = useState({ name: "", display: "", password: "", again: "" });
  const set = (key: keyof typeof form) => (event: { target: { value: string } }) => setForm({ ...form, [key]: event.target.value });
  const differs = form.again !== "" && form.again !== form.password;
  const start = useMutation({
    mutationFn: () => post<Session>("/setup", { token, name: form.name, display: form.display, password: form.password }),
    onSuccess: (next) => {
      adopt(next);
      // The token is spent, and must not stay in the address bar.
      navigate("/", { replace: true });
    },
  });
  return (
    <Alone title="Set up the first administrator">
      <p>No one can sign in yet. The server printed a one-time link when it first started; it carries the token below.</p>
      {start.isError && (
        <p className="message message-bad" role="alert">
          {explain(start.error)}
        </p>
      )}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (!differs) start.mutate();
        }}
      >
        <Field label="One-time token" hint="From the set-up link in the server's log">
          <input required value={token} autoComplete="off" onChange={(e) => setToken(e.target.value)} />
        </Field>
        <Field label="Sign-in name">
          <input required autoComplete="username" autoCapitalize="none" value={form.name} onChange={set("name")} />
        </Field>
        <Field label="Display name" hint="As colleagues read it, e.g. Dr. A. Rossi">
          <input required autoComplete="name" value={form.display} onChange={set("display")} />
        </Field>
        <Field label="Password" hint={`At least ${PASSWORD_MIN} characters`}>
          <input required type="password" minLength={PASSWORD_MIN} autoComplete="new-password" value={form.password} onChange={set("password")} />
        </Field>
        <Field label="Password again">
          <input required type="password" autoComplete="new-password" value={form.again} onChange={set("again")} aria-invalid={differs} />
        </Field>
        {differs && (
          <p className="message message-bad" role="alert">
            The two passwords differ.
          </p>
        )}
        <button type="submit" className="primary wide" disabled={start.isPending}>
          {start.isPending ? "Setting up …" : "Create administrator and sign in"}
        </button>
      </form>
    </Alone>
  );
}
