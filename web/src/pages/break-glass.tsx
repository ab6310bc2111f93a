//! The list of broken glasses that somebody must review: who, whose data, why, and closing with a finding.

import { useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { get, post, query } from "../api/client.ts";
import type { Glass } from "../api/consent.ts";
import { ageSeconds, agoText, instantText } from "../format/time.ts";
import { useNow } from "../live/context.tsx";
import { Link } from "../router.tsx";
import { useRights, useUser } from "../session.tsx";
import { ActForm } from "../ui/act-form.tsx";
import { Dialog, Empty, Failure, Field, Older, PageTitle, useDocumentTitle, Waiting } from "../ui/basics.tsx";
import { leftText, nameOf } from "../ui/glass.tsx";
import { mayReadAudit } from "../ui/roles.ts";

/** Fewest and most characters of a reviewer's note. */
const NOTE_MIN = 10;
const NOTE_MAX = 1_000;

const STATES = [
  ["open", "To review"],
  ["overdue", "Overdue"],
  ["closed", "Closed"],
] as const;
type State = (typeof STATES)[number][0];

interface List {
  glasses: Glass[];
  open: number;
  overdue: number;
  next?: string | null;
}

export function BreakGlassPage() {
  useDocumentTitle("Break-glass reviews");
  const client = useQueryClient();
  const [state, setState] = useState<State>("open");
  const [closing, setClosing] = useState<Glass | null>(null);
  const list = useInfiniteQuery({
    queryKey: ["break-glass", "list", state],
    queryFn: ({ pageParam, signal }) => get<List>(`/break-glass${query({ state, before: pageParam })}`, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next ?? undefined,
  });
  const glasses = list.data?.pages.flatMap((page) => page.glasses) ?? [];
  const counts = list.data?.pages[0];
  return (
    <div className="page">
      <PageTitle
        seenBy="auditors and administrators. Nobody reviews their own."
        actions={
          <div className="segmented" role="group" aria-label="Which">
            {STATES.map(([key, label]) => (
              <button key={key} type="button" aria-pressed={state === key} onClick={() => setState(key)}>
                {label} {key !== "closed" && counts && <span className="muted">{key === "open" ? counts.open : counts.overdue}</span>}
              </button>
            ))}
          </div>
        }
      >
        Break-glass reviews
      </PageTitle>
      {list.isPending && <Waiting what="the list" />}
      {list.isError && <Failure error={list.error} retry={() => void list.refetch()} />}
      {list.data && glasses.length === 0 && <Empty>{state === "closed" ? "Nothing was reviewed yet." : "Nothing waits for review."}</Empty>}
      <ul className="lines card-list glasses">
        {glasses.map((glass) => (
          <GlassCard key={glass.id} glass={glass} onReview={() => setClosing(glass)} />
        ))}
      </ul>
      <Older list={list} />
      {closing && (
        <ReviewDialog
          glass={closing}
          onClose={() => setClosing(null)}
          onDone={() => {
            void client.invalidateQueries({ queryKey: ["break-glass"] });
            setClosing(null);
          }}
        />
      )}
    </div>
  );
}

function GlassCard({ glass, onReview }: { glass: Glass; onReview: () => void }) {
  const now = useNow();
  const me = useUser();
  const rights = useRights();
  const own = glass.by.id === me.id;
  const left = (Date.parse(glass.until) - now) / 1000;
  const standing = glass.stands && left > 0;
  return (
    <li className={glass.is_overdue ? "glass-card glass-overdue" : "glass-card"}>
      <span className="line-main">
        <strong>
          {glass.by.display} opened {nameOf(glass)}
        </strong>
        <span>
          {glass.reason.charAt(0).toUpperCase() + glass.reason.slice(1).replaceAll("-", " ")}: “{glass.text}”
        </span>
        <span className="muted">
          {instantText(glass.opened_at)}
          {standing ? `, still open for ${leftText(left)}` : `, ended ${instantText(glass.ended_at ?? glass.until)}`}
          {!glass.review && `; review due ${instantText(glass.review_due_at)}`}
          {glass.is_overdue && `, overdue by ${agoText(ageSeconds(glass.review_due_at, now)).replace(" ago", "")}`}
        </span>
        {glass.review && (
          <span>
            <span className={glass.review.finding === "justified" ? "tag tag-good" : "tag tag-bad"}>{glass.review.finding === "justified" ? "Justified" : "Not justified"}</span> “{glass.review.note}”{" "}
            <span className="muted">
              {glass.review.by.display}, {instantText(glass.review.at)}
            </span>
          </span>
        )}
      </span>
      <span className="line-acts">
        {mayReadAudit(rights) && (
          <Link className="button" to={`/audit${query({ patient: glass.patient_id, actor: glass.by.id, break_glass: "true" })}`}>
            What was done
          </Link>
        )}
        {!glass.review &&
          (own ? (
            <span className="muted">Yours: somebody else reviews it</span>
          ) : standing ? (
            <span className="muted">To review when it has ended</span>
          ) : (
            <button type="button" className="primary" onClick={onReview} aria-label={`Review: ${glass.by.display}, ${nameOf(glass)}`}>
              Review
            </button>
          ))}
      </span>
    </li>
  );
}

/** What refusals mean here, by their codes. */
const REFUSALS = {
  "own-glass": "This is your own: somebody else must review it.",
  "changed-by-somebody-else": "Somebody else has closed this meanwhile.",
};

function ReviewDialog({ glass, onClose, onDone }: { glass: Glass; onClose: () => void; onDone: () => void }) {
  const [finding, setFinding] = useState<"justified" | "not-justified" | null>(null);
  const [note, setNote] = useState("");
  const close = useMutation({ mutationFn: () => post<Glass>(`/break-glass/${glass.id}/review`, { version: glass.version, finding, note: note.trim() }), onSuccess: onDone });
  return (
    <Dialog title={`Review: ${glass.by.display}`} onClose={onClose}>
      <p>
        {glass.by.display} opened {nameOf(glass)} on {instantText(glass.opened_at)}: “{glass.text}”
      </p>
      <ActForm action={close} verb="Close" refusals={REFUSALS} blocked={finding === null} onClose={onClose}>
        <fieldset className="radio-group">
          <legend>Finding</legend>
          <label className="check">
            <input type="radio" name="finding" required checked={finding === "justified"} onChange={() => setFinding("justified")} /> Justified
          </label>
          <label className="check">
            <input type="radio" name="finding" required checked={finding === "not-justified"} onChange={() => setFinding("not-justified")} /> Not justified
          </label>
        </fieldset>
        <Field label="Note" hint={`What you looked at and found, at least ${NOTE_MIN} characters`}>
          <textarea rows={3} required minLength={NOTE_MIN} maxLength={NOTE_MAX} value={note} onChange={(event) => setNote(event.target.value)} />
        </Field>
      </ActForm>
    </Dialog>
  );
}
