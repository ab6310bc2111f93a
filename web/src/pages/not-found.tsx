//! The page for a path that leads nowhere.

import { Link } from "../router.tsx";
import { PageTitle, useDocumentTitle } from "../ui/basics.tsx";

export function NotFound() {
  useDocumentTitle("Not found");
  return (
    <div className="page">
      <PageTitle>There is no such page</PageTitle>
      <p>
        The address may be mistyped. <Link to="/">Go to the start</Link>.
      </p>
    </div>
  );
}
