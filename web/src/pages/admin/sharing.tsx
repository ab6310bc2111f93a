//! What holds where a patient has said nothing: the site's defaults, a purpose a line.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { get, put } from "../../api/client.ts";
import type { Decision, Defaults } from "../../api/consent.ts";
import { purposeText } from "../../format/consent.ts";
import { Failure, PageTitle, useDocumentTitle, Waiting } from "../../ui/basics.tsx";
import { Table } from "../../ui/table.tsx";

/** Whoever treats a patient must be able to: a patient may deny it, a switch for all may not. */
const ALWAYS = new Set(["TREAT", "ETREAT", "BTG", "PATRQT"]);

export function SharingPage() {
  useDocumentTitle("Sharing");
  const client = useQueryClient();
  const key = ["consent-defaults"];
  const found = useQuery({ queryKey: key, queryFn: ({ signal }) => get<{ defaults: Defaults }>("/consents/defaults", signal) });
  const [draft, setDraft] = useState<Defaults | null>(null);
  const defaults = draft ?? found.data?.defaults ?? {};
  const save = useMutation({
    mutationFn: () => put<{ defaults: Defaults }>("/consents/defaults", { defaults }),
    onSuccess: (answer) => {
      client.setQueryData(key, answer);
      setDraft(null);
    },
  });
  return (
    <div className="page page-narrow">
      <PageTitle seenBy="everybody who may see sharing rules; administrators change it.">Sharing</PageTitle>
      <p>Where a patient has said nothing about a purpose, this holds. A patient's own rule always comes first. Treatment and emergencies cannot be denied for all at once. Alarms reach the ward that cares for a patient whatever is set here.</p>
      {found.isPending && <Waiting what="defaults" />}
      {found.isError && <Failure error={found.error} retry={() => void found.refetch()} />}
      {found.data && (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            save.mutate();
          }}
        >
          <Table heads={["Purpose", "Where the patient said nothing"]}>
            {Object.entries(defaults).map(([purpose, decision]) => (
              <tr key={purpose}>
                <th scope="row">
                  {purposeText(purpose)} <span className="muted mono">{purpose}</span>
                </th>
                <td data-label="Without a rule">
                  <select aria-label={purposeText(purpose)} value={decision} disabled={decision === "permit" && ALWAYS.has(purpose)} onChange={(event) => setDraft({ ...defaults, [purpose]: event.target.value as Decision })}>
                    <option value="permit">Permitted</option>
                    <option value="deny">Denied</option>
                  </select>
                </td>
              </tr>
            ))}
          </Table>
          {save.isError && <Failure error={save.error} />}
          <div className="form-actions">
            {draft !== null && (
              <button type="button" onClick={() => setDraft(null)}>
                Undo
              </button>
            )}
            <button type="submit" className="primary" disabled={draft === null || save.isPending}>
              Save
            </button>
          </div>
        </form>
      )}
    </div>
  );
}
