//! One's own account: ways in, recovery codes, where one is signed in, and which apps one has let in.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { get, post, put, remove } from "../api/client.ts";
import type { Grant } from "../api/oauth.ts";
import type { Account, OwnSession, Passkey } from "../api/people.ts";
import type { Session } from "../api/types.ts";
import { canUsePasskeys } from "../auth/webauthn.ts";
import { roleText } from "../format/people.ts";
import { ageSeconds, agoText, instantText } from "../format/time.ts";
import { useNow } from "../live/context.tsx";
import { useSession, useUser } from "../session.tsx";
import { ActForm } from "../ui/act-form.tsx";
import { Dialog, Empty, Fact, Failure, Field, PageTitle, useDocumentTitle, Waiting } from "../ui/basics.tsx";
import { CodeSheet } from "../ui/once.tsx";
import { AttemptFailed } from "../way-in/alone.tsx";
import { CODES_NEED_PASSWORD, PasskeyForm, PasswordForm, TotpForm } from "../way-in/means.tsx";
import { useProviderSaid } from "../way-in/provider-said.ts";

const LAST_WAY = "This is your last complete way in. Add another one first.";
const SIGNED_IN_BY: Record<string, string> = { passkey: "Passkey", password: "Password with a second factor", "recovery-code": "Password and a recovery code", link: "One-time link", provider: "Identity provider", demo: "Demonstration's link" };

export function AccountPage() {
  useDocumentTitle("Your account");
  const user = useUser();
  const said = useProviderSaid();
  return (
    <div className="page page-narrow">
      {said !== null && (
        <p className="message message-bad" role="alert">
          {said} Nothing was confirmed.
        </p>
      )}
      <PageTitle seenBy="you alone. Administrators see that you have a passkey or a code app, never more than that, and can end your sessions.">Your account</PageTitle>
      <section className="card">
        <dl className="facts">
          <Fact label="Name">{user.display}</Fact>
          <Fact label="Sign-in name">{user.name}</Fact>
          <Fact label="Role">{roleText(user.role)}</Fact>
          {user.care_teams.length > 0 && <Fact label="Care teams">{user.care_teams.join(", ")}</Fact>}
        </dl>
      </section>
      <WaysIn />
      <Sessions />
      <Grants />
    </div>
  );
}

type Open = "passkey" | "password" | "totp" | "codes" | { rename: Passkey } | { drop: Passkey } | "drop-totp" | null;

function WaysIn() {
  const client = useQueryClient();
  const { session, adopt } = useSession();
  const now = useNow();
  const [open, setOpen] = useState<Open>(null);
  const account = useQuery({ queryKey: ["account"], queryFn: ({ signal }) => get<Account>("/account", signal) });
  const take = (next: Account) => {
    client.setQueryData(["account"], next);
    setOpen(null);
  };
  const adopted = (next: Session) => {
    adopt(next);
    void account.refetch();
    void client.invalidateQueries({ queryKey: ["own-sessions"] });
    setOpen(null);
  };
  if (account.isPending) return <Waiting what="your ways in" />;
  if (account.isError) return <Failure error={account.error} retry={() => void account.refetch()} />;
  const { passkeys, totp, has_password: hasPassword, recovery_codes_left: codesLeft } = account.data;
  const passkeysWork = session.passkeys && canUsePasskeys();
  return (
    <>
      <section className="card" aria-labelledby="passkeys">
        <header className="card-head">
          <h2 id="passkeys">Passkeys</h2>
          {passkeysWork && (
            <button type="button" onClick={() => setOpen("passkey")}>
              Add a passkey
            </button>
          )}
        </header>
        {!session.passkeys && <p className="muted">Passkeys do not work under this address; whoever runs the site sets its public address.</p>}
        {passkeys.length === 0 && <p className="muted">None yet. A passkey is the safest way in, and the quickest.</p>}
        <ul className="lines">
          {passkeys.map((passkey) => (
            <li key={passkey.id}>
              <span className="line-main">
                <strong>{passkey.name}</strong>
                <span className="muted">
                  Added {instantText(passkey.added_at)}, {passkey.last_used_at === null ? "never used" : `used ${agoText(ageSeconds(passkey.last_used_at, now))}`}
                  {passkey.is_synced && ", kept in step between your devices"}
                </span>
              </span>
              <span className="line-acts">
                <button type="button" onClick={() => setOpen({ rename: passkey })} aria-label={`Rename ${passkey.name}`}>
                  Rename
                </button>
                <button type="button" className="danger" onClick={() => setOpen({ drop: passkey })} aria-label={`Remove ${passkey.name}`}>
                  Remove
                </button>
              </span>
            </li>
          ))}
        </ul>
      </section>
      <section className="card" aria-labelledby="password">
        <h2 id="password">Password and code app</h2>
        <ul className="lines">
          <li>
            <span className="line-main">
              <strong>Password</strong>
              <span className="muted">{hasPassword ? "Set" : "None: you do not need one with a passkey"}</span>
            </span>
            <span className="line-acts">
              <button type="button" onClick={() => setOpen("password")}>
                {hasPassword ? "Change password" : "Set a password"}
              </button>
            </span>
          </li>
          <li>
            <span className="line-main">
              <strong>Code app</strong>
              <span className="muted">{totp === null ? "None" : `Added ${instantText(totp.added_at)}`}</span>
            </span>
            <span className="line-acts">
              <button type="button" onClick={() => setOpen("totp")}>
                {totp === null ? "Add a code app" : "Replace the code app"}
              </button>
              {totp !== null && (
                <button type="button" className="danger" onClick={() => setOpen("drop-totp")} aria-label="Remove the code app">
                  Remove
                </button>
              )}
            </span>
          </li>
        </ul>
      </section>
      {account.data.provider_links.length > 0 && (
        <section className="card" aria-labelledby="providers">
          <h2 id="providers">Identity providers</h2>
          <ul className="lines">
            {account.data.provider_links.map((link) => (
              <li key={link.id}>
                <span className="line-main">
                  <strong>{link.issuer}</strong>
                  <span className="muted">
                    You are {link.subject} there, since {instantText(link.linked_at)}
                  </span>
                </span>
              </li>
            ))}
          </ul>
          <p className="hint">Whoever they name so signs in as you. If that is not you, ask an administrator to remove it.</p>
        </section>
      )}
      <section className="card" aria-labelledby="codes">
        <header className="card-head">
          <h2 id="codes">Recovery codes</h2>
          <button type="button" onClick={() => setOpen("codes")}>
            New recovery codes
          </button>
        </header>
        <p className={codesLeft < 3 ? "bad" : undefined}>
          {codesLeft === 0 ? "You have none left. Make new ones, so that a lost phone does not lock you out." : `${codesLeft} of 10 left.`}
        </p>
        {!hasPassword && <p className="hint">{CODES_NEED_PASSWORD}</p>}
      </section>
      {open === "passkey" && (
        <Dialog title="Add a passkey" onClose={() => setOpen(null)}>
          <PasskeyForm onDone={adopted} />
        </Dialog>
      )}
      {open === "password" && (
        <Dialog title={hasPassword ? "Change password" : "Set a password"} onClose={() => setOpen(null)}>
          <p>Your other sessions end.</p>
          <PasswordForm onDone={adopted} userName={account.data.user.name} />
        </Dialog>
      )}
      {open === "totp" && (
        <Dialog title={totp === null ? "Add a code app" : "Replace the code app"} onClose={() => setOpen(null)}>
          <TotpForm onDone={adopted} />
        </Dialog>
      )}
      {open === "codes" && <CodesDialog onClose={() => setOpen(null)} onMade={() => void account.refetch()} />}
      {open === "drop-totp" && (
        <RemoveDialog title="Remove the code app" path="/account/totp" onClose={() => setOpen(null)} onDone={take}>
          Codes from the app no longer sign you in.
        </RemoveDialog>
      )}
      {open !== null && typeof open === "object" && "drop" in open && (
        <RemoveDialog title={`Remove ${open.drop.name}`} path={`/account/passkeys/${encodeURIComponent(open.drop.id)}`} onClose={() => setOpen(null)} onDone={take}>
          This passkey no longer signs you in here. It stays on your device until you delete it there.
        </RemoveDialog>
      )}
      {open !== null && typeof open === "object" && "rename" in open && <RenameDialog passkey={open.rename} onClose={() => setOpen(null)} onDone={take} />}
    </>
  );
}

interface RemoveProps {
  title: string;
  path: string;
  children: string;
  onClose: () => void;
  onDone: (account: Account) => void;
}

function RemoveDialog({ title, path, children, onClose, onDone }: RemoveProps) {
  const drop = useMutation({ mutationFn: () => remove<Account>(path), onSuccess: onDone });
  return (
    <Dialog title={title} onClose={onClose}>
      <ActForm action={drop} verb="Remove" refusals={{ "last-way-in": LAST_WAY }} dangerous onClose={onClose}>
        <p>{children}</p>
      </ActForm>
    </Dialog>
  );
}

function RenameDialog({ passkey, onClose, onDone }: { passkey: Passkey; onClose: () => void; onDone: (account: Account) => void }) {
  const [name, setName] = useState(passkey.name);
  const save = useMutation({ mutationFn: () => put<Account>(`/account/passkeys/${encodeURIComponent(passkey.id)}`, { name: name.trim() }), onSuccess: onDone });
  return (
    <Dialog title="Rename passkey" onClose={onClose}>
      <ActForm action={save} verb="Save" onClose={onClose}>
        <Field label="Name">
          <input required maxLength={60} autoFocus value={name} onChange={(event) => setName(event.target.value)} />
        </Field>
      </ActForm>
    </Dialog>
  );
}

function CodesDialog({ onClose, onMade }: { onClose: () => void; onMade: () => void }) {
  const user = useUser();
  const make = useMutation({ mutationFn: () => post<{ codes: string[] }>("/account/recovery-codes"), onSuccess: onMade });
  return (
    <Dialog title="Recovery codes" onClose={onClose}>
      {make.data === undefined ? (
        <>
          <p>Ten new codes are made and shown once. The old ones stop working.</p>
          <AttemptFailed error={make.error} />
          <div className="form-actions">
            <button type="button" onClick={onClose}>
              Cancel
            </button>
            <button type="button" className="primary" disabled={make.isPending} onClick={() => make.mutate()}>
              Make new codes
            </button>
          </div>
        </>
      ) : (
        <>
          <p>
            <strong>Shown once, now.</strong> Keep them on paper or in a password manager.
          </p>
          <CodeSheet codes={make.data.codes} heading={`Recovery codes of ${user.name} for Auscult at ${window.location.host}`} fileName="auscult-recovery-codes.txt" />
          <div className="form-actions">
            <button type="button" className="primary" onClick={onClose}>
              I have kept them
            </button>
          </div>
        </>
      )}
    </Dialog>
  );
}

function Sessions() {
  const client = useQueryClient();
  const now = useNow();
  const key = ["own-sessions"];
  const sessions = useQuery({ queryKey: key, queryFn: ({ signal }) => get<{ sessions: OwnSession[] }>("/account/sessions", signal) });
  const take = (list: { sessions: OwnSession[] }) => client.setQueryData(key, list);
  const end = useMutation({ mutationFn: (id: string) => remove<{ sessions: OwnSession[] }>(`/account/sessions/${encodeURIComponent(id)}`), onSuccess: take });
  const endOthers = useMutation({ mutationFn: () => post<{ sessions: OwnSession[] }>("/account/sessions/end-others"), onSuccess: take });
  const list = sessions.data?.sessions ?? [];
  return (
    <section className="card" aria-labelledby="sessions">
      <header className="card-head">
        <h2 id="sessions">Where you are signed in</h2>
        {list.length > 1 && (
          <button type="button" className="danger" disabled={endOthers.isPending} onClick={() => endOthers.mutate()}>
            End all others
          </button>
        )}
      </header>
      {sessions.isPending && <Waiting what="your sessions" />}
      {sessions.isError && <Failure error={sessions.error} retry={() => void sessions.refetch()} />}
      {(end.error ?? endOthers.error) !== null && <Failure error={end.error ?? endOthers.error} />}
      <ul className="lines sessions">
        {list.map((one) => (
          <li key={one.id}>
            <span className="line-main">
              <strong>
                {one.browser ?? "A browser"} {one.is_current && <span className="tag">This session</span>}
              </strong>
              <span className="muted">
                {one.address ?? "Address not known"}, signed in {instantText(one.started_at)} ({SIGNED_IN_BY[one.signed_in_by] ?? one.signed_in_by}), used {agoText(ageSeconds(one.seen_at, now))}
              </span>
            </span>
            {!one.is_current && (
              <span className="line-acts">
                <button type="button" className="danger" disabled={end.isPending} onClick={() => end.mutate(one.id)} aria-label={`End the session of ${one.browser ?? "a browser"} at ${one.address ?? "an unknown address"}`}>
                  End
                </button>
              </span>
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}

function Grants() {
  const client = useQueryClient();
  const grants = useQuery({ queryKey: ["grants"], queryFn: ({ signal }) => get<{ grants: Grant[] }>("/grants", signal) });
  const end = useMutation({
    mutationFn: (id: string) => remove<void>(`/grants/${encodeURIComponent(id)}`),
    onSettled: () => void client.invalidateQueries({ queryKey: ["grants"] }),
  });
  const list = grants.data?.grants ?? [];
  return (
    <section className="card" aria-labelledby="grants">
      <h2 id="grants">Apps you have let in</h2>
      {grants.isPending && <Waiting what="apps" />}
      {grants.isError && <Failure error={grants.error} retry={() => void grants.refetch()} />}
      {end.isError && <Failure error={end.error} />}
      {grants.data && list.length === 0 && <Empty>No app acts in your name.</Empty>}
      <ul className="lines">
        {list.map((grant) => (
          <li key={grant.id}>
            <span className="line-main">
              <strong>{grant.client.name}</strong>
              <span className="muted">
                Since {instantText(grant.created_at)}
                {grant.patient && `, for ${grant.patient.display}`}
                {grant.is_offline ? ", also while you are away" : ", while you are signed in"}
                {grant.expires_at && `, until ${instantText(grant.expires_at)}`}
              </span>
              <span className="mono muted">{grant.scopes}</span>
            </span>
            <span className="line-acts">
              <button type="button" className="danger" disabled={end.isPending} onClick={() => end.mutate(grant.id)} aria-label={`Stop ${grant.client.name}`}>
                Stop
              </button>
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}
