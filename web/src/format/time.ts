//! Dates as dd-Mmm-yyyy, times of day on the 24-hour clock, ages in words.

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"] as const;
const two = (n: number) => String(n).padStart(2, "0");

/** `22-Nov-2026` in the viewer's zone. */
export function dateText(at: Date): string {
  return `${two(at.getDate())}-${MONTHS[at.getMonth()]}-${at.getFullYear()}`;
}

/** `14:05:09`, 24-hour clock. */
export function clockText(at: Date, withSeconds = true): string {
  const minutes = `${two(at.getHours())}:${two(at.getMinutes())}`;
  return withSeconds ? `${minutes}:${two(at.getSeconds())}` : minutes;
}

/** `22-Nov-2026 14:05:09`; text that is no time comes back as "time not known". */
export function instantText(iso: string | null | undefined): string {
  const at = iso ? new Date(iso) : null;
  return at === null || Number.isNaN(at.getTime()) ? "time not known" : `${dateText(at)} ${clockText(at)}`;
}

/** As [`instantText`], with milliseconds: for provenance, where the order of arrivals matters. */
export function preciseText(iso: string | null | undefined): string {
  const at = iso ? new Date(iso) : null;
  if (at === null || Number.isNaN(at.getTime())) return "time not known";
  return `${dateText(at)} ${clockText(at)}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

/** Sentences of the server carry instants as programs write them; people read them in their own zone. */
export function withReadableTimes(text: string): string {
  return text.replace(/\b\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:\d{2})/g, (iso) => instantText(iso));
}

/** The viewer's zone as an offset, `UTC+01:00`. */
export function zoneText(at: Date): string {
  const minutes = -at.getTimezoneOffset();
  if (minutes === 0) return "UTC";
  const size = Math.abs(minutes);
  return `UTC${minutes < 0 ? "−" : "+"}${two(Math.floor(size / 60))}:${two(size % 60)}`;
}

/** `14-Jul-1945` from `1945-07-14`, without any zone. */
export function birthDateText(birthDate: string | null): string {
  const parts = birthDate === null ? null : /^(\d{4})-(\d{2})-(\d{2})$/.exec(birthDate);
  const month = parts ? MONTHS[Number(parts[2]) - 1] : undefined;
  return parts && month ? `${parts[3]}-${month}-${parts[1]}` : "Not Known";
}

/** Age in the steps used on patient banners: days to 4 weeks, weeks to a year, months to 2 years, then years. */
export function patientAge(birthDate: string | null, today: Date): string | null {
  const parts = birthDate === null ? null : /^(\d{4})-(\d{2})-(\d{2})$/.exec(birthDate);
  if (!parts) return null;
  const [year, month, day] = [Number(parts[1]), Number(parts[2]), Number(parts[3])];
  const days = Math.floor((Date.UTC(today.getFullYear(), today.getMonth(), today.getDate()) - Date.UTC(year, month - 1, day)) / 86_400_000);
  if (days < 0) return null;
  let months = (today.getFullYear() - year) * 12 + (today.getMonth() + 1 - month);
  if (today.getDate() < day) months -= 1;
  if (days < 28) return `${days}d`;
  if (months < 12) return `${Math.floor(days / 7)}w`;
  if (months < 24) return `${months}m`;
  return `${Math.floor(months / 12)}y`;
}

/** How long ago, short: `now`, `12 s`, `4 min`, `3 h`, `2 d`. */
export function ageText(ageS: number): string {
  if (ageS < -2) return `in ${ageText(-ageS)}`;
  if (ageS < 1) return "now";
  if (ageS < 100) return `${Math.floor(ageS)} s`;
  const minutes = Math.floor(ageS / 60);
  if (minutes < 100) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h`;
  return `${Math.floor(hours / 24)} d`;
}

/** `4 min ago`, `just now`. */
export function agoText(ageS: number): string {
  const age = ageText(ageS);
  if (age === "now") return "just now";
  return age.startsWith("in ") ? age : `${age} ago`;
}

/** Seconds between an instant and now; NaN where the instant cannot be read. */
export function ageSeconds(iso: string, nowMs: number): number {
  return (nowMs - Date.parse(iso)) / 1000;
}

/** What a field for a time shows, in the viewer's zone, to the second. Browsers' own fields follow their locale's order. */
export function toLocalField(at: Date): string {
  return `${dateText(at)} ${clockText(at)}`;
}

/** The year, month (from 1) and day of `22-Nov-2026`; `null` for anything that is no date. */
function dateParts(text: string): [number, number, number] | null {
  const parts = /^(\d{1,2})-([A-Za-z]{3})-(\d{4})$/.exec(text);
  if (!parts) return null;
  const month = MONTHS.findIndex((name) => name.toLowerCase() === (parts[2] as string).toLowerCase()) + 1;
  const [year, day] = [Number(parts[3]), Number(parts[1])];
  const real = new Date(Date.UTC(year, month - 1, day));
  return month > 0 && real.getUTCMonth() === month - 1 && real.getUTCDate() === day ? [year, month, day] : null;
}

/** The instant of a field such as `22-Nov-2026 14:05` or `… 14:05:09`; `null` while it is empty, half typed or no time. */
export function fromLocalField(text: string): string | null {
  const parts = /^(\S+)\s+(\d{1,2}):(\d{2})(?::(\d{2}))?$/.exec(text.trim());
  const date = parts ? dateParts(parts[1] as string) : null;
  if (!parts || !date) return null;
  const [hour, minute, second] = [Number(parts[2]), Number(parts[3]), Number(parts[4] ?? 0)];
  if (hour > 23 || minute > 59 || second > 59) return null;
  return new Date(date[0], date[1] - 1, date[2], hour, minute, second).toISOString();
}

/** `1945-07-14` from `14-Jul-1945`; `null` for anything that is no date. */
export function fromDateField(text: string): string | null {
  const date = dateParts(text.trim());
  return date && `${date[0]}-${two(date[1])}-${two(date[2])}`;
}
