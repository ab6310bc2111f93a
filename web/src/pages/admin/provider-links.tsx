//! By which identity provider somebody comes: who they are there, taking that away, and letting somebody come by one.

import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";

import { get, put, remove } from "../../api/client.ts";
import type { PersonLine, ProviderLink } from "../../api/people.ts";
import { instantText } from "../../format/time.ts";
import { ActForm } from "../../ui/act-form.tsx";
import { Dialog, Empty, Failure, Field, Waiting } from "../../ui/basics.tsx";

interface Offered {
  id: string;
  name: string;
}

export function useProviders() {
  return useQuery({ queryKey: ["providers"], queryFn: ({ signal }) => get<{ providers: Offered[] }>("/identity-providers", signal) });
}

/** Somebody who has no way in of their own yet: only they can be awaited from a provider. */
export const isNew = (person: PersonLine): boolean => !person.has_password && !person.has_totp && person.passkeys === 0 && person.provider_links.length === 0;

interface DialogProps {
  person: PersonLine;
  onClose: () => void;
  onChanged: () => void;
}

export function ProviderDialog({ person, onClose, onChanged }: DialogProps) {
  const [dropping, setDropping] = useState<ProviderLink | null>(null);
  const drop = useMutation({
    mutationFn: () => remove<PersonLine>(`/users/${person.id}/provider-links/${encodeURIComponent(dropping?.id ?? "")}`),
    onSuccess: () => {
      setDropping(null);
      onChanged();
    },
  });
  if (dropping !== null) {
    return (
      <Dialog title={`Remove a link of ${person.display}`} onClose={onClose}>
        <ActForm action={drop} verb="Remove" dangerous onClose={() => setDropping(null)}>
          <p>
            <strong>{dropping.subject}</strong> of {dropping.issuer} cannot sign in as {person.display} any more, and all sessions of {person.display} end. If it was by this link that they came the first time, the password, code app and passkeys set up since are gone, too: make a new link for the right person then.
          </p>
        </ActForm>
      </Dialog>
    );
  }
  return (
    <Dialog title={`Identity provider of ${person.display}`} onClose={onClose}>
      {person.provider_links.length > 0 && <p>Whoever the provider names so signs in as {person.display}.</p>}
      <ul className="lines">
        {person.provider_links.map((link) => (
          <li key={link.id}>
            <span className="line-main">
              <strong>{link.subject}</strong>
              <span className="muted">
                of {link.issuer}, since {instantText(link.linked_at)}
              </span>
            </span>
            <span className="line-acts">
              <button type="button" className="danger" onClick={() => setDropping(link)} aria-label={`Remove ${link.subject} of ${link.issuer}`}>
                Remove
              </button>
            </span>
          </li>
        ))}
      </ul>
      {isNew(person) && <Await person={person} onClose={onClose} onChanged={onChanged} />}
      {!isNew(person) && person.provider_links.length === 0 && <Empty>None: {person.display} signs in here.</Empty>}
    </Dialog>
  );
}

function Await({ person, onClose, onChanged }: DialogProps) {
  const providers = useProviders();
  const [chosen, setChosen] = useState(person.awaited_provider ?? "");
  const save = useMutation({
    mutationFn: () => put<PersonLine>(`/users/${person.id}/awaited-provider`, { provider: chosen === "" ? null : chosen }),
    onSuccess: () => {
      onChanged();
      onClose();
    },
  });
  if (providers.isPending) return <Waiting what="providers" />;
  if (providers.isError) return <Failure error={providers.error} retry={() => void providers.refetch()} />;
  return (
    <ActForm action={save} verb="Save" blocked={chosen === (person.awaited_provider ?? "")} onClose={onClose}>
      <Field label="Let them come by" hint={`The first who comes from there under the sign-in name ${person.name} becomes this person`}>
        <select value={chosen} onChange={(event) => setChosen(event.target.value)}>
          <option value="">No provider</option>
          {person.awaited_provider !== null && !providers.data.providers.some(({ id }) => id === person.awaited_provider) && <option value={person.awaited_provider}>{person.awaited_provider} (not in use)</option>}
          {providers.data.providers.map(({ id, name }) => (
            <option key={id} value={id}>
              {name}
            </option>
          ))}
        </select>
      </Field>
      {chosen !== "" && <p className="message message-note">Their one-time link stops working.</p>}
    </ActForm>
  );
}
