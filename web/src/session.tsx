//! Who is signed in. The end of a session empties everything that was read under it, in every tab.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { createContext, type ReactNode, useCallback, useContext, useEffect, useMemo, useRef, useState } from "react";

import { get, onSessionEnded, post } from "./api/client.ts";
import type { Role, Session, User } from "./api/types.ts";
import { permissionName, type Rights } from "./ui/roles.ts";

/** Why the sign-in page is shown. */
export type EndReason = "expired" | "signed-out-here" | "signed-out-elsewhere";

interface SessionValue {
  session: Session;
  ended: EndReason | null;
  /** Takes over what a sign-in or the set-up answered. */
  adopt: (session: Session) => void;
  signOut: () => Promise<void>;
  /** The session is over: said by an answer, an event, or another tab. */
  end: (reason: EndReason) => void;
}

const SessionContext = createContext<SessionValue | null>(null);
const CHANNEL = "auscult.session";

export function useSession(): SessionValue {
  const value = useContext(SessionContext);
  if (value === null) throw new Error("no session around this component");
  return value;
}

export function useUser(): User {
  const { session } = useSession();
  if (session.user === null) throw new Error("nobody is signed in");
  return session.user;
}

export function useRole(): Role {
  return useUser().role;
}

/** What the person who is signed in may do. */
export function useRights(): Rights {
  const { session } = useSession();
  const role = useRole();
  return useMemo(() => ({ role, may: new Set(session.permissions.map(permissionName)) }), [role, session.permissions]);
}

interface ProviderProps {
  children: ReactNode;
  waiting: ReactNode;
  failed: (error: unknown, retry: () => void) => ReactNode;
}

export function SessionProvider({ children, waiting, failed }: ProviderProps) {
  const client = useQueryClient();
  const [ended, setEnded] = useState<EndReason | null>(null);
  const tabs = useRef<BroadcastChannel | null>(null);
  // The live stream may hear of one's own signing out before its answer is here.
  const leaving = useRef(false);
  const session = useQuery({ queryKey: ["session"], queryFn: ({ signal }) => get<Session>("/session", signal), staleTime: Infinity, retry: 2 });

  const adopt = useCallback(
    (next: Session) => {
      client.setQueryData(["session"], next);
      if (next.state === "signed-in") setEnded(null);
    },
    [client],
  );

  const end = useCallback(
    (reason: EndReason) => {
      const known = client.getQueryData<Session>(["session"]);
      // Whoever has still to prove who they are after an identity provider's word is signed out, and can stop.
      if (known === undefined || (known.state === "signed-out" && known.linking === null) || known.state === "setup-needed") return;
      setEnded(leaving.current ? "signed-out-here" : reason);
      // First the page changes, then what was read is forgotten: nothing of a patient stays on screen or in memory.
      client.setQueryData(["session"], {
        ...known,
        state: "signed-out",
        user: null,
        permissions: [],
        second_factors: [],
        expires_at: null,
        fresh_until: null,
        recovery_codes_left: null,
        linking: null,
      });
      void client.cancelQueries({ predicate: (query) => query.queryKey[0] !== "session" });
      client.removeQueries({ predicate: (query) => query.queryKey[0] !== "session" });
    },
    [client],
  );

  const signOut = useCallback(async () => {
    leaving.current = true;
    try {
      await post("/sign-out");
      end("signed-out-here");
    } finally {
      leaving.current = false;
    }
    tabs.current?.postMessage("signed-out");
  }, [end]);

  useEffect(() => onSessionEnded(() => end("expired")), [end]);
  useEffect(() => {
    const channel = new BroadcastChannel(CHANNEL);
    tabs.current = channel;
    channel.onmessage = ({ data }) => {
      if (data === "signed-out") end("signed-out-elsewhere");
    };
    return () => channel.close();
  }, [end]);

  if (session.isPending) return waiting;
  if (session.isError) return failed(session.error, () => void session.refetch());
  return <SessionContext value={{ session: session.data, ended, adopt, signOut, end }}>{children}</SessionContext>;
}
