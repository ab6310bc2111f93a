//! What is said on the way back from an identity provider.

import { useEffect, useState } from "react";

/** What the way back from an identity provider says, by its word. Only known words are shown: the address of a page is anybody's to write. */
const PROVIDER_SAID: Record<string, string> = {
  refused: "The identity provider did not let you in, or you stopped there.",
  "not-begun": "This sign-in was not begun in this browser, or too long ago. Begin again.",
  "not-believed": "What the identity provider says of you is not believed. Begin again; if that does not help, ask an administrator.",
  "provider-failed": "The identity provider could not be asked. Try again in a moment.",
  unavailable: "This server cannot sign you in now. Try again in a moment.",
  "unknown-provider": "This identity provider is not in use here any more.",
  "not-again": "The identity provider did not say that you have just signed in there.",
  "not-known": "The identity provider knows you, but you may not come in here by it. Ask an administrator.",
};

/** Why somebody whom the provider knows is not let in, by the beginning of the server's reason. */
const NOT_KNOWN: [begins: string, text: string][] = [
  ["nobody here is known", "The identity provider knows you, but you have no account here. Ask an administrator to add you."],
  ["this person may not", "Your account here is disabled. Ask an administrator."],
  ["somebody else at the provider", "Somebody else at the identity provider came as this person before. Ask an administrator."],
  ["somebody is expected", "You are expected here, but not by this way: use the link of your invitation first, or ask an administrator."],
  ["no rule of this site", "No rule of this site gives you a role. Ask an administrator."],
  ["the mail address is not", "Your mail address at the identity provider is not of a domain that may sign in here."],
];

/** What was said on the way back from an identity provider; it is taken out of the address bar. */
export function useProviderSaid(): string | null {
  const [said] = useState(() => new URLSearchParams(window.location.hash.slice(1)));
  const [word, reason] = [said.get("error"), said.get("detail") ?? ""];
  useEffect(() => {
    if (word !== null) window.history.replaceState(null, "", window.location.pathname + window.location.search);
  }, [word]);
  if (word === null) return null;
  const known = word === "not-known" ? NOT_KNOWN.find(([begins]) => reason.startsWith(begins))?.[1] : undefined;
  return known ?? PROVIDER_SAID[word] ?? "Signing in through the identity provider did not work.";
}
