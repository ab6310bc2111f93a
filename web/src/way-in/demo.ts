//! The link of the demonstration: its token stays in this tab, out of the address bar.

const KEY = "auscult.demo";

/** The token of the demonstration's link, where this tab came with it. */
export function demoToken(): string | null {
  const given = new URLSearchParams(window.location.hash.slice(1)).get("demo");
  try {
    if (given !== null) sessionStorage.setItem(KEY, given);
    return given ?? sessionStorage.getItem(KEY);
  } catch {
    return given;
  } finally {
    if (given !== null) window.history.replaceState(null, "", window.location.pathname + window.location.search);
  }
}
