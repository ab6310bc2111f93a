//! The alerts of all wards that are open to this person: what needs an answer first.

import { type InfiniteData, useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { get, query } from "../api/client.ts";
import type { Alert } from "../api/types.ts";
import { byUrgency, laterAlert } from "../format/alerts.ts";
import { useLiveEvent, useNow } from "../live/context.tsx";
import { AlertCard } from "../ui/alert-card.tsx";
import { Empty, Failure, Older, PageTitle, useDocumentTitle, Waiting } from "../ui/basics.tsx";

type Show = "open" | "all";

interface Page {
  alerts: Alert[];
  /** Given back as `before`, it leads to the next page; nothing at the end. */
  next_before?: string | null;
}

type Pages = InfiniteData<Page, string | null>;

/** Takes one alert over into the pages of a list, whichever of the two versions is the later. */
function taken(known: Pages | undefined, incoming: Alert): Pages | undefined {
  if (known === undefined) return known;
  const isKnown = known.pages.some(({ alerts }) => alerts.some(({ id }) => id === incoming.id));
  const pages = known.pages.map((page, at) => {
    if (!isKnown) return at === 0 ? { ...page, alerts: [incoming, ...page.alerts] } : page;
    return { ...page, alerts: page.alerts.map((alert) => (alert.id === incoming.id ? laterAlert(alert, incoming) : alert)) };
  });
  return { ...known, pages };
}

export function InboxPage() {
  useDocumentTitle("Alerts");
  const [show, setShow] = useState<Show>("open");
  const client = useQueryClient();
  const now = useNow();
  const alerts = useInfiniteQuery({
    queryKey: ["alerts", show],
    queryFn: ({ pageParam, signal }) => get<Page>(`/alerts${query({ state: show, before: pageParam })}`, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next_before ?? undefined,
  });
  const take = (incoming: Alert) => {
    client.setQueriesData<Pages>({ queryKey: ["alerts"] }, (known) => taken(known, incoming));
  };
  useLiveEvent((event) => {
    if (event.type === "alert") take(event.data as Alert);
    else if (["reset", "hello", "gone"].includes(event.type)) void client.invalidateQueries({ queryKey: ["alerts"] });
  });
  const all = alerts.data?.pages.flatMap((page) => page.alerts) ?? [];
  const raised = all.filter((alert) => alert.state === "raised").sort(byUrgency);
  const acknowledged = all.filter((alert) => alert.state === "acknowledged").sort(byUrgency);
  const resolved = all.filter((alert) => alert.state === "resolved");
  return (
    <div className="page">
      <PageTitle
        seenBy="clinicians of the wards, each their own, and administrators."
        actions={
          <div className="segmented" role="group" aria-label="Which alerts">
            <button type="button" aria-pressed={show === "open"} onClick={() => setShow("open")}>
              Open
            </button>
            <button type="button" aria-pressed={show === "all"} onClick={() => setShow("all")}>
              All
            </button>
          </div>
        }
      >
        Alerts
      </PageTitle>
      {alerts.isPending && <Waiting what="alerts" />}
      {alerts.isError && <Failure error={alerts.error} retry={() => void alerts.refetch()} />}
      {alerts.data && (
        <div className="inbox">
          <Column title="Not acknowledged" alerts={raised} now={now} onChanged={take} none="Nothing waits for an answer." />
          <Column title="Acknowledged" alerts={acknowledged} now={now} onChanged={take} none="Nothing is being worked on." />
          {show === "all" && <Column title="Resolved" alerts={resolved} now={now} onChanged={take} none="Nothing was resolved yet." />}
        </div>
      )}
      <Older list={alerts} />
    </div>
  );
}

function Column({ title, alerts, now, onChanged, none }: { title: string; alerts: Alert[]; now: number; onChanged: (alert: Alert) => void; none: string }) {
  return (
    <section className="inbox-column" aria-label={title}>
      <h2>
        {title} <span className="muted">{alerts.length}</span>
      </h2>
      {alerts.length === 0 && <Empty>{none}</Empty>}
      {alerts.map((alert) => (
        <AlertCard key={alert.id} alert={alert} now={now} withSubject onChanged={onChanged} />
      ))}
    </section>
  );
}
