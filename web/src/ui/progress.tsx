//! How far something has come, as a bar and in figures.

export function Progress({ label, done, all }: { label: string; done: number; all: number }) {
  return (
    <div className="progress">
      <span>{label}</span>
      <progress max={Math.max(all, 1)} value={done} aria-label={label} />
      <span className="number">
        {done} of {all}
      </span>
    </div>
  );
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** `512 B`, `3.4 MiB`. */
export function bytesText(bytes: number): string {
  let [size, unit] = [bytes, 0];
  while (size >= 1024 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? size : size.toFixed(size < 10 ? 1 : 0)} ${UNITS[unit]}`;
}
