//! Administration: tabs for what this person may administer, and the page of the one that is open.

import { useEffect, useRef } from "react";

import { Link, navigate } from "../../router.tsx";
import { useRights } from "../../session.tsx";
import { adminFor } from "../../ui/roles.ts";
import { NotFound } from "../not-found.tsx";
import { AppsPage } from "./apps.tsx";
import { ErasurePage } from "./erasure.tsx";
import { IdentityProvidersPage } from "./identity-providers.tsx";
import { KeysPage } from "./keys.tsx";
import { PeoplePage } from "./people.tsx";
import { PlacesPage } from "./places.tsx";
import { RetentionPage } from "./retention.tsx";
import { RolesPage } from "./roles.tsx";
import { SharingPage } from "./sharing.tsx";

export function AdminPage({ pathname }: { pathname: string }) {
  const tabs = adminFor(useRights());
  const first = tabs[0]?.to;
  useEffect(() => {
    if (pathname === "/admin" && first !== undefined) navigate(first, { replace: true });
  }, [pathname, first]);
  // Nine tabs are wider than a phone: the open one is brought into sight.
  const nav = useRef<HTMLElement>(null);
  useEffect(() => {
    // In braces: some browsers answer with a promise, which is no way to clean up.
    nav.current?.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  }, [pathname]);
  if (tabs.length === 0) return <NotFound />;
  return (
    <>
      <nav ref={nav} className="tabs" aria-label="Administration">
        {tabs.map((tab) => (
          <Link key={tab.to} to={tab.to} aria-current={pathname === tab.to ? "page" : undefined}>
            {tab.label}
          </Link>
        ))}
      </nav>
      {pathname !== "/admin" && <Section pathname={pathname} />}
    </>
  );
}

function Section({ pathname }: { pathname: string }) {
  switch (pathname) {
    case "/admin/people":
      return <PeoplePage />;
    case "/admin/places":
      return <PlacesPage />;
    case "/admin/roles":
      return <RolesPage />;
    case "/admin/apps":
      return <AppsPage />;
    case "/admin/identity-provider":
      return <IdentityProvidersPage />;
    case "/admin/sharing":
      return <SharingPage />;
    case "/admin/retention":
      return <RetentionPage />;
    case "/admin/erasure":
      return <ErasurePage />;
    case "/admin/keys":
      return <KeysPage />;
    default:
      return <NotFound />;
  }
}
