//! Breaking the glass: asking for access in an emergency, the loud banner while it stands, and the count of what waits for review.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";

import { get, post } from "../api/client.ts";
import type { Glass } from "../api/consent.ts";
import { fullName } from "../format/people.ts";
import { fromDateField, instantText } from "../format/time.ts";
import { useLiveEvent, useNow } from "../live/context.tsx";
import { Link, match, navigate } from "../router.tsx";
import { useRights } from "../session.tsx";
import { ActForm } from "./act-form.tsx";
import { Dialog, Failure, Field, Waiting } from "./basics.tsx";
import { Icon } from "./icons.tsx";
import { mayBreakGlass } from "./roles.ts";

/** Fewest and most characters of the words for a reason. */
const WORDS_MIN = 10;
const WORDS_MAX = 1_000;
/** How long a notice stays on screen, in ms. */
const NOTICE_MS = 30_000;
/** How often the review list is counted again although nothing was heard, in ms. */
const COUNT_EVERY_MS = 60_000;

/** Tells everything that shows broken glasses to look again. */
export function useGlassNews(): void {
  const client = useQueryClient();
  useLiveEvent((event) => {
    if (event.type === "break-glass" || event.type === "reset") void client.invalidateQueries({ queryKey: ["break-glass"] });
  });
}

export function useOpenReviews(enabled: boolean): { open: number; overdue: number } | null {
  const counts = useQuery({
    queryKey: ["break-glass", "review", "open"],
    queryFn: ({ signal }) => get<{ glasses: Glass[]; open: number; overdue: number }>("/break-glass?state=open", signal),
    enabled,
    refetchInterval: COUNT_EVERY_MS,
  });
  return enabled && counts.data ? counts.data : null;
}

/** `3 h 59 min`, `12 min`, `40 s`. */
export function leftText(seconds: number): string {
  if (seconds <= 0) return "no time";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Says on every page, loudly, that somebody sees a patient only because they broke the glass. */
export function GlassBanner() {
  const rights = useRights();
  const client = useQueryClient();
  const now = useNow();
  useGlassNews();
  const enabled = mayBreakGlass(rights);
  const mine = useQuery({
    queryKey: ["break-glass", "mine"],
    queryFn: ({ signal }) => get<{ glasses: Glass[] }>("/break-glass/mine", signal),
    enabled,
    refetchInterval: COUNT_EVERY_MS,
  });
  const [ended, setEnded] = useState(false);
  useEffect(() => {
    if (!ended) return;
    const timer = setTimeout(() => setEnded(false), NOTICE_MS);
    return () => clearTimeout(timer);
  }, [ended]);
  const end = useMutation({
    mutationFn: (id: string) => post<Glass>(`/break-glass/${id}/end`),
    onSuccess: (glass) => {
      setEnded(true);
      // What was seen through the glass leaves the screen with it.
      if (match("/patients/:id", window.location.pathname)?.["id"] === glass.patient_id) navigate("/patients");
    },
    onSettled: () => void client.invalidateQueries({ queryKey: ["break-glass"] }),
  });
  const standing = (enabled ? (mine.data?.glasses ?? []) : []).filter((glass) => glass.stands && Date.parse(glass.until) > now);
  return (
    <>
      <div role="status">{ended && <p className="message message-note glass-ended">Your emergency access has ended. Somebody else reviews what was done with it.</p>}</div>
      {standing.length > 0 && <Standing glasses={standing} now={now} end={end} />}
    </>
  );
}

interface StandingProps {
  glasses: Glass[];
  now: number;
  end: { isPending: boolean; isError: boolean; error: unknown; mutate: (id: string) => void };
}

function Standing({ glasses, now, end }: StandingProps) {
  return (
    <section className="glass" aria-label="Broken glass">
      {glasses.map((glass) => (
        <div key={glass.id} className="glass-line">
          <Icon name="glass" size={26} />
          <p>
            <strong>GLASS BROKEN</strong> for{" "}
            <Link to={`/patients/${glass.patient_id}`}>{nameOf(glass)}</Link>. Everything you see and do is recorded and will be reviewed. Ends in{" "}
            <span className="number">{leftText((Date.parse(glass.until) - now) / 1000)}</span>.
          </p>
          <button type="button" disabled={end.isPending} onClick={() => end.mutate(glass.id)}>
            End now
          </button>
        </div>
      ))}
      {end.isError && <Failure error={end.error} />}
    </section>
  );
}

export function nameOf(glass: Glass): string {
  if (glass.patient === null) return "a patient who is no longer here";
  const { family, given, record_number: record } = glass.patient;
  return family ? `${fullName({ family, given: given ?? "" })}, record ${record}` : `record ${record}`;
}

/** The button that opens the request, for those who may break the glass. */
export function BreakGlassButton() {
  const [open, setOpen] = useState(false);
  if (!mayBreakGlass(useRights())) return null;
  return (
    <>
      <button type="button" className="danger" onClick={() => setOpen(true)}>
        <Icon name="glass" /> Break the glass
      </button>
      {open && <BreakGlassDialog onClose={() => setOpen(false)} />}
    </>
  );
}

/** What refusals mean here, by their codes. */
const REFUSALS = {
  "not-found": "No patient has this record number and this birth date. Nothing was opened. Check both with somebody who knows the patient.",
  "not-needed": "You may see this patient already: find them by name. Nothing was opened.",
};

export function BreakGlassDialog({ onClose }: { onClose: () => void }) {
  const client = useQueryClient();
  const reasons = useQuery({
    queryKey: ["break-glass", "reasons"],
    queryFn: ({ signal }) => get<{ reasons: { code: string; display: string }[]; hours: number }>("/break-glass/reasons", signal),
    staleTime: Infinity,
  });
  const [form, setForm] = useState({ record_number: "", birth_date: "", reason: "", text: "" });
  const set = (key: keyof typeof form) => (event: { target: { value: string } }) => setForm({ ...form, [key]: event.target.value });
  const birthDate = fromDateField(form.birth_date);
  const badDate = form.birth_date.trim() !== "" && birthDate === null;
  const ask = useMutation({
    mutationFn: () => post<Glass>("/break-glass", { ...form, record_number: form.record_number.trim(), birth_date: birthDate, text: form.text.trim() }),
    onSuccess: (glass) => {
      void client.invalidateQueries({ queryKey: ["break-glass"] });
      onClose();
      navigate(`/patients/${glass.patient_id}`);
    },
  });
  return (
    <Dialog title="Break the glass" onClose={onClose}>
      <p className="message message-bad">
        <strong>For emergencies.</strong> You get access to one patient for {reasons.data?.hours ?? 4} hours. The patient sees that you
        did; auditors see why, and somebody else reviews it.
      </p>
      {reasons.isPending && <Waiting what="reasons" />}
      {reasons.isError && <Failure error={reasons.error} retry={() => void reasons.refetch()} />}
      {reasons.data && (
        <ActForm action={ask} verb="Break the glass" refusals={REFUSALS} blocked={birthDate === null} dangerous onClose={onClose}>
          <Field label="Record number" hint="Whole, as on the wristband: there is no browsing here">
            <input required autoFocus autoComplete="off" spellCheck={false} value={form.record_number} onChange={set("record_number")} />
          </Field>
          <Field label="Born" hint={badDate ? "This is no date. Write day, month and year as in 14-Jul-1945" : "As 14-Jul-1945"}>
            <input required autoComplete="off" aria-invalid={badDate} value={form.birth_date} onChange={set("birth_date")} />
          </Field>
          <Field label="Reason">
            <select required value={form.reason} onChange={set("reason")}>
              <option value="" disabled>
                Choose …
              </option>
              {reasons.data.reasons.map(({ code: word, display }) => (
                <option key={word} value={word}>
                  {display}
                </option>
              ))}
            </select>
          </Field>
          <Field label="What happened" hint={`At least ${WORDS_MIN} characters; whoever reviews this reads it`}>
            <textarea rows={3} required minLength={WORDS_MIN} maxLength={WORDS_MAX} value={form.text} onChange={set("text")} />
          </Field>
        </ActForm>
      )}
    </Dialog>
  );
}

/** Speaks a new breaking of the glass to whoever reviews them. */
export function GlassAnnouncer({ enabled }: { enabled: boolean }) {
  const [said, setSaid] = useState("");
  useLiveEvent((event) => {
    const data = (event.data ?? {}) as { state?: string };
    if (!enabled || event.type !== "break-glass") return;
    if (data.state === "opened") setSaid(`Somebody broke the glass at ${instantText(new Date().toISOString())}. It waits for review.`);
    else if (data.state === "overdue") setSaid("A breaking of the glass is overdue for review.");
  });
  useEffect(() => {
    if (said === "") return;
    // The notice leaves by itself; the list and its count stay.
    const timer = setTimeout(() => setSaid(""), NOTICE_MS);
    return () => clearTimeout(timer);
  }, [said]);
  return (
    <div role="status" className="glass-notice-holder">
      {said !== "" && (
        <p className="glass-notice">
          <Icon name="glass" /> {said} <Link to="/break-glass">Open the list</Link>
        </p>
      )}
    </div>
  );
}
