//! Sign-in through the site's own identity provider (OpenID Connect): which one, who is let in, as what.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { get, put, remove } from "../../api/client.ts";
import type { Provider } from "../../api/oauth.ts";
import type { Role } from "../../api/types.ts";
import { roleText } from "../../format/people.ts";
import { ActForm } from "../../ui/act-form.tsx";
import { Dialog, Empty, Failure, Field, PageTitle, useDocumentTitle, Waiting } from "../../ui/basics.tsx";
import { CopyButton } from "../../ui/once.tsx";

const ROLES: Role[] = ["nurse", "physician", "biomedical-engineer", "auditor", "integrator", "administrator"];

const EMPTY: Omit<Provider, "version"> = {
  id: "",
  name: "",
  issuer: "",
  client_id: "",
  has_secret: false,
  uses_key: false,
  scopes: "openid profile email",
  name_claim: "preferred_username",
  allowed_domains: [],
  provisioning: "existing",
  role_claim: null,
  roles: [],
  trusts_mfa: false,
  mfa_values: ["mfa", "otp", "hwk"],
  enabled: true,
};

type Open = { add: true } | { edit: Provider } | { drop: Provider } | null;

export function IdentityProvidersPage() {
  useDocumentTitle("Identity providers");
  const client = useQueryClient();
  const [open, setOpen] = useState<Open>(null);
  const providers = useQuery({ queryKey: ["provider-settings"], queryFn: ({ signal }) => get<{ providers: Provider[] }>("/identity-providers/settings", signal) });
  const close = () => setOpen(null);
  const changed = () => {
    void client.invalidateQueries({ queryKey: ["provider-settings"] });
    close();
  };
  const callback = `${window.location.origin}/api/v1/sign-in/oidc/callback`;
  return (
    <div className="page">
      <PageTitle
        seenBy="administrators."
        actions={
          <button type="button" className="primary" onClick={() => setOpen({ add: true })}>
            Add a provider
          </button>
        }
      >
        Identity providers
      </PageTitle>
      <p className="muted">
        People then sign in where they do for everything else. Register Auscult there with this address to return to: <span className="mono">{callback}</span> <CopyButton text={callback} />
      </p>
      {providers.isPending && <Waiting what="providers" />}
      {providers.isError && <Failure error={providers.error} retry={() => void providers.refetch()} />}
      {providers.data && providers.data.providers.length === 0 && <Empty>None: people sign in with passkeys, or with password and code.</Empty>}
      <ul className="lines card-list">
        {providers.data?.providers.map((provider) => (
          <li key={provider.id}>
            <span className="line-main">
              <strong>
                {provider.name} {!provider.enabled && <span className="tag">Off</span>}
              </strong>
              <span className="mono muted">{provider.issuer}</span>
              <span className="muted">
                {provider.provisioning === "existing" ? "Lets in only people who are invited here" : "Takes in new people with the role their group gives"};{" "}
                {provider.trusts_mfa ? "its second factor counts" : "our second factor is asked for as well"}
              </span>
            </span>
            <span className="line-acts">
              <button type="button" onClick={() => setOpen({ edit: provider })} aria-label={`Change ${provider.name}`}>
                Change
              </button>
              <button type="button" className="danger" onClick={() => setOpen({ drop: provider })} aria-label={`Remove ${provider.name}`}>
                Remove
              </button>
            </span>
          </li>
        ))}
      </ul>
      {open !== null && "add" in open && <ProviderDialog onClose={close} onDone={changed} />}
      {open !== null && "edit" in open && <ProviderDialog provider={open.edit} onClose={close} onDone={changed} />}
      {open !== null && "drop" in open && <RemoveDialog provider={open.drop} onClose={close} onDone={changed} />}
    </div>
  );
}

interface DoneProps {
  onClose: () => void;
  onDone: () => void;
}

const list = (text: string) =>
  text
    .split(/[\s,]+/)
    .map((word) => word.trim())
    .filter(Boolean);

function ProviderDialog({ provider, onClose, onDone }: DoneProps & { provider?: Provider }) {
  const [form, setForm] = useState({ ...(provider ?? EMPTY) });
  const [secret, setSecret] = useState("");
  const [domains, setDomains] = useState((provider?.allowed_domains ?? []).join(", "));
  const [mfa, setMfa] = useState((provider ?? EMPTY).mfa_values.join(", "));
  const set = (key: keyof typeof form) => (event: { target: { value: string } }) => setForm({ ...form, [key]: event.target.value });
  const mapped = form.roles;
  const setMapped = (roles: Provider["roles"]) => setForm({ ...form, roles });
  const save = useMutation({
    mutationFn: () => {
      const { id: _id, has_secret: _has, ...body } = form;
      return put<Provider>(`/identity-providers/settings/${encodeURIComponent(form.id)}`, {
        ...body,
        client_secret: secret === "" ? null : secret,
        allowed_domains: list(domains),
        mfa_values: list(mfa),
        role_claim: form.role_claim || null,
      });
    },
    onSuccess: onDone,
  });
  // A secret goes to whom it was given for: the server forgets it with another issuer.
  const keepsSecret = form.has_secret && form.issuer === provider?.issuer;
  return (
    <Dialog title={provider === undefined ? "Add a provider" : `Change ${provider.name}`} onClose={onClose} wide>
      <ActForm action={save} verb="Save" onClose={onClose}>
        {provider === undefined && (
          <Field label="Short id" hint="Lower-case letters, digits and hyphens; part of addresses">
            <input required autoFocus autoComplete="off" pattern="[a-z0-9\-]+" value={form.id} onChange={set("id")} />
          </Field>
        )}
        <Field label="Name" hint="On the button: Sign in with …">
          <input required autoComplete="off" value={form.name} onChange={set("name")} />
        </Field>
        <Field label="Issuer" hint="https://…, exactly as the provider says it">
          <input required type="url" autoComplete="off" value={form.issuer} onChange={set("issuer")} />
        </Field>
        <Field label="Client id">
          <input required autoComplete="off" value={form.client_id} onChange={set("client_id")} />
        </Field>
        <label className="check">
          <input type="checkbox" checked={form.uses_key} onChange={(event) => setForm({ ...form, uses_key: event.target.checked })} />
          Prove ourselves by our own key instead of a secret (private_key_jwt)
        </label>
        {!form.uses_key && (
          <Field label="Client secret" hint={keepsSecret ? "One is kept; leave empty to keep it" : "Kept sealed, never shown again"}>
            <input type="password" autoComplete="new-password" value={secret} onChange={(event) => setSecret(event.target.value)} />
          </Field>
        )}
        <Field label="Scopes">
          <input required autoComplete="off" value={form.scopes} onChange={set("scopes")} />
        </Field>
        <Field label="Claim with the sign-in name">
          <input required autoComplete="off" value={form.name_claim} onChange={set("name_claim")} />
        </Field>
        <Field label="Only these mail domains" hint="Separated by commas; empty for any">
          <input autoComplete="off" value={domains} onChange={(event) => setDomains(event.target.value)} />
        </Field>
        <fieldset className="radio-group">
          <legend>Who is let in</legend>
          <label className="check">
            <input type="radio" name="provisioning" checked={form.provisioning === "existing"} onChange={() => setForm({ ...form, provisioning: "existing" })} /> Only people who are invited here
          </label>
          <label className="check">
            <input type="radio" name="provisioning" checked={form.provisioning === "just-in-time"} onChange={() => setForm({ ...form, provisioning: "just-in-time" })} /> Whoever the provider sends, with the role of
            their group
          </label>
        </fieldset>
        <Field label="Claim with the groups" hint="Empty: roles are given here only">
          <input autoComplete="off" value={form.role_claim ?? ""} onChange={set("role_claim")} />
        </Field>
        {form.role_claim && (
          <fieldset className="radio-group">
            <legend>Groups and roles</legend>
            {mapped.map((one, index) => (
              <div key={index} className="pair">
                <input
                  required
                  aria-label={`Group ${index + 1}`}
                  placeholder="Group"
                  value={one.value}
                  onChange={(event) => setMapped(mapped.with(index, { ...one, value: event.target.value }))}
                />
                <select aria-label={`Role of group ${index + 1}`} value={one.role} onChange={(event) => setMapped(mapped.with(index, { ...one, role: event.target.value as Role }))}>
                  {ROLES.map((role) => (
                    <option key={role} value={role}>
                      {roleText(role)}
                    </option>
                  ))}
                </select>
                <button type="button" onClick={() => setMapped(mapped.filter((_, at) => at !== index))} aria-label={`Remove group ${index + 1}`}>
                  Remove
                </button>
              </div>
            ))}
            <button type="button" onClick={() => setMapped([...mapped, { value: "", role: "nurse", wards: null }])}>
              Add a group
            </button>
          </fieldset>
        )}
        <label className="check">
          <input type="checkbox" checked={form.trusts_mfa} onChange={(event) => setForm({ ...form, trusts_mfa: event.target.checked })} />
          Its second factor counts as ours
        </label>
        {form.trusts_mfa && (
          <Field label="How it says so" hint="Values of amr or acr, separated by commas">
            <input required autoComplete="off" value={mfa} onChange={(event) => setMfa(event.target.value)} />
          </Field>
        )}
        <label className="check">
          <input type="checkbox" checked={form.enabled} onChange={(event) => setForm({ ...form, enabled: event.target.checked })} />
          Offer it on the sign-in page
        </label>
      </ActForm>
    </Dialog>
  );
}

function RemoveDialog({ provider, onClose, onDone }: DoneProps & { provider: Provider }) {
  const drop = useMutation({ mutationFn: () => remove<void>(`/identity-providers/settings/${encodeURIComponent(provider.id)}`), onSuccess: onDone });
  return (
    <Dialog title={`Remove ${provider.name}`} onClose={onClose}>
      <ActForm action={drop} verb="Remove" dangerous onClose={onClose}>
        <p>People who have no other way in cannot sign in any more until they get a new one-time link.</p>
      </ActForm>
    </Dialog>
  );
}
