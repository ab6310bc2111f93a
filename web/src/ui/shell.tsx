//! What stands around every page: the rail, the top bar, the state of the link, search and shortcuts.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useCallback, useEffect, useRef, useState } from "react";

import { get } from "../api/client.ts";
import type { Alert, Priority, ServerStatus, Session, WardLine } from "../api/types.ts";
import { spokenAlert } from "../format/alerts.ts";
import { agoText, clockText, dateText, zoneText } from "../format/time.ts";
import { LinkProvider, useLinkStatus, useLiveEvent, useNow } from "../live/context.tsx";
import { LiveLink } from "../live/link.ts";
import { Link, useLocation } from "../router.tsx";
import { useRights, useSession, useUser } from "../session.tsx";
import { Icon } from "./icons.tsx";
import { GlassAnnouncer, GlassBanner, useOpenReviews } from "./glass.tsx";
import { usePlaceText } from "./places.tsx";
import { entriesFor, isStaff, mayReviewBreakGlass, maySeePatients } from "./roles.ts";
import { SearchDialog } from "./search.tsx";
import { ShortcutSheet, useShortcuts } from "./shortcuts.tsx";
import { StepUp } from "./step-up.tsx";
import { prefer, usePreferences } from "./theme.ts";

/** Least time between two counts of the open alerts, in ms: a storm of alerts must not become a storm of questions. */
const COUNT_EVERY_MS = 5_000;
/** The counts are asked for again after so long even when nothing happened, in ms. */
const COUNT_AT_LEAST_EVERY_MS = 60_000;
/** How long a spoken alert stays for screen readers that are slow to reach it, in ms. */
const SPOKEN_MS = 20_000;
/** How often the server is asked whether it keeps up, in ms: overload is shown for a minute after it ends. */
const STATUS_EVERY_MS = 15_000;

interface ShellProps {
  scope: string;
  /** What is followed where nothing more is, or no longer. */
  general: string;
  /** True while another page than the one shown is being fetched. */
  busy: boolean;
  children: ReactNode;
}

export function Shell({ scope: ofPath, general, busy, children }: ShellProps) {
  const [followed, setFollowed] = useState<string | null>(null);
  const scope = followed ?? ofPath;
  const [link, setLink] = useState<LiveLink | null>(null);
  // The scope whose stream was refused, or ended because it is no longer open to this person: the general one is followed instead.
  const [refused, setRefused] = useState<string | null>(null);
  const asked = useRef(scope);
  asked.current = scope;
  const { end } = useSession();
  const client = useQueryClient();
  useEffect(() => {
    const opened = new LiveLink();
    opened.onEvent((event) => {
      if (event.type === "signed-out") end("expired");
      // A stream of one patient ends with the sight of them; one of many goes on without them.
      if (event.type !== "unseen" && event.type !== "gone") return;
      const { patient_id: patient } = event.data as { patient_id?: string };
      client.removeQueries({ predicate: ({ queryKey }) => patient !== undefined && queryKey.includes(patient) });
      void client.invalidateQueries({ queryKey: ["patients"] });
      if (event.type === "unseen") setRefused(asked.current);
    });
    opened.onRefused(() => {
      get<Session>("/session").then(
        (session) => (session.state === "signed-in" ? setRefused(asked.current) : end("expired")),
        // Unreachable: the link says so by itself.
        () => undefined,
      );
    });
    setLink(opened);
    return () => {
      opened.close();
    };
  }, [end, client]);
  useEffect(() => link?.setScope(scope === refused ? general : scope), [link, scope, general, refused]);
  const follow = useCallback((patientId: string | null) => {
    setFollowed(patientId === null ? null : `?patient=${encodeURIComponent(patientId)}`);
    // Who is shown again after their stream was refused may be followed again.
    if (patientId !== null) setRefused(null);
  }, []);
  if (link === null) return null;
  return (
    <LinkProvider link={link} follow={follow}>
      <Frame busy={busy}>{children}</Frame>
    </LinkProvider>
  );
}

function Frame({ busy, children }: Omit<ShellProps, "scope" | "general">) {
  const [open, setOpen] = useState<"search" | "shortcuts" | null>(null);
  const status = useLinkStatus();
  const rights = useRights();
  useShortcuts(rights, setOpen);
  return (
    <div className="shell" data-link={status.state}>
      <a className="skip" href="#content">
        Skip to the page
      </a>
      <Rail />
      <TopBar onSearch={() => setOpen("search")} onHelp={() => setOpen("shortcuts")} />
      <LostBanner />
      <Announcer />
      <GlassAnnouncer enabled={mayReviewBreakGlass(rights)} />
      <main id="content" tabIndex={-1} aria-busy={busy}>
        <GlassBanner />
        <OverloadBanner />
        {children}
      </main>
      <StepUp />
      {open === "search" && <SearchDialog onClose={() => setOpen(null)} />}
      {open === "shortcuts" && <ShortcutSheet onClose={() => setOpen(null)} />}
    </div>
  );
}

function useAlertCount(enabled: boolean): { open: number; high: number } | null {
  const client = useQueryClient();
  const wards = useQuery({
    queryKey: ["wards"],
    queryFn: ({ signal }) => get<{ wards: WardLine[] }>("/wards", signal),
    enabled,
    refetchInterval: COUNT_AT_LEAST_EVERY_MS,
  });
  const timer = useRef<ReturnType<typeof setTimeout> | null>(null);
  useLiveEvent((event) => {
    if (event.type !== "alert" && event.type !== "reset") return;
    timer.current ??= setTimeout(() => {
      timer.current = null;
      void client.invalidateQueries({ queryKey: ["wards"] });
    }, COUNT_EVERY_MS);
  });
  useEffect(() => () => clearTimeout(timer.current ?? undefined), []);
  if (wards.data === undefined) return null;
  const sum = (pick: (alerts: Record<Priority, number>) => number) => wards.data.wards.reduce((total, { alerts }) => total + (alerts === null ? 0 : pick(alerts)), 0);
  return { open: sum(({ high, medium, low }) => high + medium + low), high: sum(({ high }) => high) };
}

function Rail() {
  const { pathname } = useLocation();
  const rights = useRights();
  const count = useAlertCount(maySeePatients(rights));
  const glasses = useOpenReviews(mayReviewBreakGlass(rights));
  return (
    <nav className="rail" aria-label="Main">
      {entriesFor(rights).map((entry) => {
        const here = pathname === entry.to || pathname.startsWith(`${entry.to}/`);
        const alerts = entry.to === "/alerts" && count !== null && count.open > 0 ? count : null;
        const reviews = entry.to === "/break-glass" && glasses !== null && glasses.open > 0 ? glasses : null;
        return (
          <Link key={entry.to} to={entry.to} aria-current={here ? "page" : undefined}>
            <span className="rail-icon">
              <Icon name={entry.icon} size={22} />
              {reviews && (
                <span className="count">
                  {reviews.open > 99 ? "99+" : reviews.open} <span className="sr-only">to review</span>
                </span>
              )}
              {alerts && (
                <span className={alerts.high > 0 ? "count count-high" : "count"}>
                  {alerts.open > 99 ? "99+" : alerts.open} <span className="sr-only">open</span>
                </span>
              )}
            </span>
            <span className="rail-label">{entry.label}</span>
          </Link>
        );
      })}
    </nav>
  );
}

function TopBar({ onSearch, onHelp }: { onSearch: () => void; onHelp: () => void }) {
  const { session, signOut } = useSession();
  const user = useUser();
  const rights = useRights();
  const [failed, setFailed] = useState(false);
  return (
    <header className="topbar">
      <span className="brand">Auscult</span>
      <span className="topbar-site">{session.site.name}</span>
      {session.site.demo && <span className="tag">Demo</span>}
      <span className="spring" />
      {maySeePatients(rights) && (
        <button type="button" className="search-button" onClick={onSearch} aria-label="Find a patient" aria-keyshortcuts="/">
          <Icon name="search" />
          <span>Find a patient</span>
          <kbd>/</kbd>
        </button>
      )}
      {isStaff(rights) && <LinkPill />}
      <Clock />
      <ThemeButton />
      <button type="button" className="quiet square" onClick={onHelp} aria-label="Keyboard shortcuts" title="Keyboard shortcuts (?)">
        <Icon name="help" />
      </button>
      <Link to="/account" className="whoami" title={`Your account (${user.name})`}>
        <Icon name="person" />
        <span>{user.display}</span>
      </Link>
      <button
        type="button"
        className="quiet square"
        onClick={() => signOut().catch(() => setFailed(true))}
        aria-label="Sign out"
        title={failed ? "Signing out failed: the server cannot be reached" : "Sign out"}
      >
        <Icon name="out" />
      </button>
      {failed && (
        <span role="alert" className="sr-only">
          Signing out failed: the server cannot be reached.
        </span>
      )}
    </header>
  );
}

function LinkPill() {
  const { state } = useLinkStatus();
  const text = { connecting: "Connecting", live: "Live", lost: "Link lost" }[state];
  return (
    <span className={`pill pill-${state}`} role="status">
      <Icon name={state === "lost" ? "nolink" : "link"} size={16} />
      {text}
    </span>
  );
}

function Clock() {
  const at = new Date(useNow());
  return (
    <span className="clock" title={`${dateText(at)}, ${zoneText(at)}`}>
      <span className="clock-date">{dateText(at)}</span> {clockText(at)}
    </span>
  );
}

function ThemeButton() {
  const { theme } = usePreferences();
  const next = theme === "system" ? "dark" : theme === "dark" ? "light" : "system";
  const icon = theme === "system" ? "auto" : theme === "dark" ? "moon" : "sun";
  return (
    <button
      type="button"
      className="quiet square"
      onClick={() => prefer({ theme: next })}
      aria-label={`Theme: ${theme}. Change to ${next}`}
      title={`Theme: ${theme}`}
    >
      <Icon name={icon} />
    </button>
  );
}

/** Nothing on screen is current while this stands. */
function LostBanner() {
  const { state, lastEventAt } = useLinkStatus();
  const now = useNow();
  if (state !== "lost") return null;
  const last = lastEventAt === null ? null : new Date(lastEventAt);
  return (
    <div className="lost" role="alert">
      <Icon name="nolink" size={40} />
      <div>
        <strong>LINK LOST: nothing on this screen is current</strong>
        <p>
          {last === null
            ? "No word from the server since this page opened."
            : `Last word from the server at ${clockText(last)}.`}{" "}
          Look at the bedside monitors. This page is trying to reconnect.
        </p>
      </div>
      {last !== null && <LostAge sinceMs={last.getTime()} nowMs={now} />}
    </div>
  );
}

/** Something had to give way: what is missing on screen will come late, and nobody may take it for quiet. */
function OverloadBanner() {
  const status = useQuery({
    queryKey: ["status"],
    queryFn: ({ signal }) => get<ServerStatus>("/status", signal),
    refetchInterval: STATUS_EVERY_MS,
  });
  const shedding = status.data?.ingest.shedding ?? [];
  const full = status.data?.quarantine.is_full === true;
  if (shedding.length === 0 && !full) return null;
  const what = shedding.includes("live")
    ? "Live and stored readings are being refused"
    : "Stored readings are being refused; live readings and alarms are taken";
  return (
    <div className="overload" role="status">
      <Icon name="inbox" size={22} />
      <p>
        {shedding.length > 0 && (
          <>
            <strong>The server does not keep up.</strong> {what}. Devices keep what was refused and send it again: it will
            come late.{" "}
          </>
        )}
        {full && (
          <>
            <strong>The quarantine is full.</strong> What cannot be read or placed is refused until somebody looks through
            it.{" "}
          </>
        )}
        Tell whoever runs the server.
      </p>
    </div>
  );
}

/** Counts on for the eye; hidden from screen readers, which would read every second aloud. */
function LostAge({ sinceMs }: { sinceMs: number; nowMs: number }) {
  return (
    <span className="lost-age" aria-hidden="true">
      {agoText((Date.now() - sinceMs) / 1000)}
    </span>
  );
}

/** Speaks new alerts to screen readers, once each. */
function Announcer() {
  const [urgent, setUrgent] = useState("");
  const [other, setOther] = useState("");
  const said = useRef(new Set<string>());
  const placeText = usePlaceText();
  useLiveEvent((event) => {
    if (event.type === "unseen" || event.type === "gone") {
      setUrgent("");
      setOther("");
    }
    if (event.type !== "alert") return;
    const alert = event.data as Alert;
    if (alert.state !== "raised" || alert.latched || said.current.has(alert.id)) return;
    said.current.add(alert.id);
    const text = `${alert.place ? placeText(alert.place) : alert.device.name}. ${spokenAlert(alert)}`;
    if (alert.priority === "high") setUrgent(text);
    else setOther(text);
  });
  useEffect(() => {
    // Once it was spoken it is of no more use, and it names a patient's bed.
    const timer = setTimeout(() => {
      setUrgent("");
      setOther("");
    }, SPOKEN_MS);
    return () => clearTimeout(timer);
  }, [urgent, other]);
  return (
    <>
      <div className="sr-only" role="alert">
        {urgent}
      </div>
      <div className="sr-only" role="status">
        {other}
      </div>
    </>
  );
}
