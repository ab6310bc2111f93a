//! Strips for a component: a stage over its element, and what each strip has to say.

import { useEffect, useRef, useState, type RefObject } from "react";

import { useLink } from "../live/context.tsx";
import { useThemeName } from "../ui/theme.ts";
import type { StripStatus } from "./messages.ts";
import { Stage } from "./stage.ts";

/** Strip states by id. Draws only while `active`: a page without strips opens no socket. */
export function useStage(container: RefObject<HTMLElement | null>, active: boolean): Map<string, StripStatus> {
  const link = useLink();
  const theme = useThemeName();
  const stage = useRef<Stage | null>(null);
  const [status, setStatus] = useState<Map<string, StripStatus>>(new Map());

  useEffect(() => {
    if (!active || container.current === null) return;
    const opened = new Stage(container.current, (strips) => {
      opened.setSkew(link.now() - Date.now());
      setStatus((known) => (sameStates(known, strips) ? known : new Map(strips.map((strip) => [strip.id, strip]))));
    });
    stage.current = opened;
    return () => {
      stage.current = null;
      opened.close();
    };
  }, [active, container, link]);

  useEffect(() => stage.current?.refresh(), [theme]);

  return status;
}

/** Whole seconds of delay and the state are all that is shown: anything finer would draw the page for nothing. */
function sameStates(known: Map<string, StripStatus>, strips: StripStatus[]): boolean {
  return (
    known.size === strips.length &&
    strips.every((strip) => {
      const old = known.get(strip.id);
      return old?.state === strip.state && Math.floor(old.delay_ms / 1_000) === Math.floor(strip.delay_ms / 1_000);
    })
  );
}
