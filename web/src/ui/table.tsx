//! A table that scrolls where it is too wide, and becomes a list on a phone: its cells carry their column as `data-label`.

import type { ReactNode } from "react";

/** A column's heading: words; of figures, which stand right; or of buttons, which only a screen reader needs named. */
export type Head = string | { figures: string } | { acts: string };

interface TableProps {
  heads: Head[];
  /** Says what the table is about, where no heading before it does. */
  caption?: string;
  /** Its rows. */
  children: ReactNode;
}

export function Table({ heads, caption, children }: TableProps) {
  return (
    <div className="table-scroll">
      <table className="stack-table">
        {caption && <caption className="sr-only">{caption}</caption>}
        <thead>
          <tr>
            {heads.map((head) => (
              <Heading key={JSON.stringify(head)} head={head} />
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}

function Heading({ head }: { head: Head }) {
  if (typeof head === "string") return <th scope="col">{head}</th>;
  if ("figures" in head) {
    return (
      <th scope="col" className="number">
        {head.figures}
      </th>
    );
  }
  return (
    <th scope="col">
      <span className="sr-only">{head.acts}</span>
    </th>
  );
}
