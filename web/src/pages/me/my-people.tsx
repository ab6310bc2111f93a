//! The caregiver's page: the people who named them, and of each what they share.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { get } from "../../api/client.ts";
import type { PatientLine } from "../../api/types.ts";
import { fullName } from "../../format/people.ts";
import { useLiveEvent } from "../../live/context.tsx";
import { Empty, Failure, PageTitle, useDocumentTitle, Waiting } from "../../ui/basics.tsx";
import { Readings } from "./me.tsx";

export function MyPeoplePage() {
  useDocumentTitle("My people");
  const client = useQueryClient();
  const [chosen, setChosen] = useState<string | null>(null);
  const people = useQuery({ queryKey: ["my-people"], queryFn: ({ signal }) => get<{ patients: PatientLine[] }>("/my-people", signal) });
  useLiveEvent((event) => {
    if (["unseen", "gone", "assignment", "reset"].includes(event.type)) void client.invalidateQueries({ queryKey: ["my-people"] });
  });
  const list = people.data?.patients ?? [];
  const shown = list.find(({ id }) => id === chosen) ?? list[0];
  return (
    <div className="page">
      <PageTitle seenBy="you. You see what each of them shares with you, for as long as they share it.">My people</PageTitle>
      {people.isPending && <Waiting what="your people" />}
      {people.isError && <Failure error={people.error} retry={() => void people.refetch()} />}
      {people.data && list.length === 0 && <Empty>Nobody shares anything with you now. Whoever wants to names you in their own sharing rules.</Empty>}
      {list.length > 1 && (
        <div className="segmented" role="group" aria-label="Who">
          {list.map((one) => (
            <button key={one.id} type="button" aria-pressed={one.id === shown?.id} onClick={() => setChosen(one.id)}>
              {fullName(one)}
            </button>
          ))}
        </div>
      )}
      {shown && <Readings key={shown.id} patientId={shown.id} />}
    </div>
  );
}
