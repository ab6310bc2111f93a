//! Paths to pages: history without reloads, links that are links, patterns with named parts.

import { type AnchorHTMLAttributes, type MouseEvent, useSyncExternalStore } from "react";

const changes = new Set<() => void>();
const tell = () => changes.forEach((listener) => listener());
window.addEventListener("popstate", tell);

const subscribe = (listener: () => void) => {
  changes.add(listener);
  return () => changes.delete(listener);
};

const here = () => window.location.pathname + window.location.search;

/** Path and query of the page. */
export function useLocation(): URL {
  const text = useSyncExternalStore(subscribe, here);
  return new URL(text, window.location.origin);
}

export function navigate(to: string, options: { replace?: boolean } = {}): void {
  if (to === here()) return;
  if (options.replace) window.history.replaceState(null, "", to);
  else window.history.pushState(null, "", to);
  tell();
  if (!options.replace) window.scrollTo(0, 0);
}

/** The named parts of `path` by a pattern such as `/patients/:id`; `null` where it does not fit. */
export function match(pattern: string, path: string): Record<string, string> | null {
  const [want, have] = [pattern.split("/"), path.replace(/\/$/, "").split("/")];
  if (want.length !== have.length) return null;
  const parts: Record<string, string> = {};
  for (const [index, piece] of want.entries()) {
    const text = have[index] ?? "";
    if (piece.startsWith(":")) parts[piece.slice(1)] = decodeURIComponent(text);
    else if (piece !== text) return null;
  }
  return parts;
}

type LinkProps = AnchorHTMLAttributes<HTMLAnchorElement> & { to: string; ref?: React.Ref<HTMLAnchorElement> };

/** A link of the app: opens here with a plain click, elsewhere with the browser's own gestures. */
export function Link({ to, onClick, ...rest }: LinkProps) {
  const follow = (event: MouseEvent<HTMLAnchorElement>) => {
    onClick?.(event);
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    navigate(to);
  };
  return <a href={to} onClick={follow} {...rest} />;
}
