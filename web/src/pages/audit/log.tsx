//! The state of the log itself: how far it is signed, by which key, and who outside has seen it.

import { useQuery } from "@tanstack/react-query";

import type { LogState } from "../../api/audit.ts";
import { get } from "../../api/client.ts";
import { instantText } from "../../format/time.ts";
import { Empty, Fact, Failure, Waiting } from "../../ui/basics.tsx";
import { CopyButton } from "../../ui/once.tsx";

/** How often the state is read again, in ms: a checkpoint is signed every 10 s. */
const RENEW_MS = 10_000;

const LOGS: Record<string, string> = { acts: "Acts of people and programs", groups: "Deliveries of devices" };

const WITNESS: Record<string, { text: string; tone: string }> = {
  fresh: { text: "Has seen the newest", tone: "tag-good" },
  stale: { text: "Behind", tone: "tag-warn" },
  refused: { text: "REFUSES: the log does not fit what it saw before", tone: "tag-bad" },
  unreachable: { text: "Cannot be reached", tone: "tag-warn" },
  new: { text: "Not asked yet", tone: "" },
};

export function LogPanel() {
  const found = useQuery({ queryKey: ["audit-log"], queryFn: ({ signal }) => get<LogState>("/audit/log", signal), refetchInterval: RENEW_MS });
  if (found.isPending) return <Waiting what="the state of the log" />;
  if (found.isError) return <Failure error={found.error} retry={() => void found.refetch()} />;
  const { logs, keys, witnesses, alarms } = found.data;
  return (
    <>
      {alarms.map((alarm) => (
        <p key={alarm} className="message message-bad" role="alert">
          <strong>{alarm}</strong>
        </p>
      ))}
      <p className="muted">
        Every row is a leaf of a tree. A checkpoint is the tree's root with the log's signature: whoever keeps one can tell whether any row before it was changed, removed, added or moved since. Witnesses outside keep them too, and sign only
        what continues what they saw.
      </p>
      <div className="log-cards">
        {logs.map((log) => (
          <section key={log.log} className="card" aria-label={LOGS[log.log] ?? log.log}>
            <h2>{LOGS[log.log] ?? log.log}</h2>
            <dl className="facts">
              <Fact label="Rows">{log.rows}</Fact>
              <Fact label="Of these signed">{log.size}</Fact>
              <Fact label="Signed last">{log.checkpoint === null ? "Not yet" : instantText(log.checkpoint.at)}</Fact>
              <Fact label="Seen by witnesses">{log.checkpoint?.cosigned_by.join(", ") || "None"}</Fact>
              <Fact label="Origin">
                <span className="mono">{log.origin}</span>
              </Fact>
            </dl>
            {log.checkpoint && (
              <details>
                <summary>The checkpoint</summary>
                <pre className="source" tabIndex={0}>
                  {log.checkpoint.note}
                </pre>
                <CopyButton text={log.checkpoint.note} label="Copy checkpoint" />
                <p className="hint">Keep a copy outside: “auscult verify --against” takes it.</p>
              </details>
            )}
          </section>
        ))}
      </div>
      <section className="card" aria-labelledby="log-keys">
        <h2 id="log-keys">Keys of the log</h2>
        <ul className="lines">
          {keys.map((key) => (
            <li key={key.vkey}>
              <span className="line-main">
                <span className="mono wrap">{key.vkey}</span>
                <span className="muted">{key.active ? "Signs now" : "Signed before"}</span>
              </span>
              <span className="line-acts">
                <CopyButton text={key.vkey} />
              </span>
            </li>
          ))}
        </ul>
      </section>
      <section className="card" aria-labelledby="witnesses">
        <h2 id="witnesses">Witnesses</h2>
        {witnesses.length === 0 && <Empty>None is set up: nobody outside could tell if this log were replaced as a whole. “auscult witness serve” on another machine is one.</Empty>}
        <ul className="lines">
          {witnesses.map((witness) => (
            <li key={witness.name}>
              <span className="line-main">
                <strong>
                  {witness.name} <span className={`tag ${WITNESS[witness.state]?.tone ?? ""}`}>{WITNESS[witness.state]?.text ?? witness.state}</span>
                </strong>
                <span className="muted">
                  {witness.url}
                  {witness.last_at && `, last signed ${instantText(witness.last_at)} at ${witness.last_size} rows`}. {witness.what}
                </span>
              </span>
            </li>
          ))}
        </ul>
      </section>
    </>
  );
}
