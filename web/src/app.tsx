//! Which page is shown: the way in, or the shell with the page of the path.

import { type ComponentType, lazy, Suspense, useCallback, useDeferredValue, useEffect, useState } from "react";

import { BoardPage } from "./pages/board.tsx";
import { InboxPage } from "./pages/inbox.tsx";
import { NotFound } from "./pages/not-found.tsx";
import { WardsPage } from "./pages/wards.tsx";
import { match, navigate, useLocation } from "./router.tsx";
import { useRights, useSession } from "./session.tsx";
import { Waiting } from "./ui/basics.tsx";
import { Boundary } from "./ui/boundary.tsx";
import { homeOf, isStaff } from "./ui/roles.ts";
import { Shell } from "./ui/shell.tsx";
import { SecondFactor } from "./way-in/second-factor.tsx";
import { SignIn } from "./way-in/sign-in.tsx";

/** A page that is fetched when it is first shown. Signing in, the wards and their boards come with the app itself. */
const later = <P extends object>(load: () => Promise<ComponentType<P>>) => lazy(async () => ({ default: await load() }));

const AccountPage = later(async () => (await import("./pages/account.tsx")).AccountPage);
const AdminPage = later(async () => (await import("./pages/admin/admin.tsx")).AdminPage);
const AuditPage = later(async () => (await import("./pages/audit/audit.tsx")).AuditPage);
const AuthorizePage = later(async () => (await import("./pages/authorize.tsx")).AuthorizePage);
const BreakGlassPage = later(async () => (await import("./pages/break-glass.tsx")).BreakGlassPage);
const DevicePage = later(async () => (await import("./pages/device.tsx")).DevicePage);
const DevicesPage = later(async () => (await import("./pages/devices.tsx")).DevicesPage);
const Enrol = later(async () => (await import("./way-in/enrol.tsx")).Enrol);
const EnrolmentPage = later(async () => (await import("./pages/enrolment.tsx")).EnrolmentPage);
const Invited = later(async () => (await import("./way-in/links.tsx")).Invited);
const KeepCodes = later(async () => (await import("./way-in/enrol.tsx")).KeepCodes);
const MePage = later(async () => (await import("./pages/me/me.tsx")).MePage);
const MyPeoplePage = later(async () => (await import("./pages/me/my-people.tsx")).MyPeoplePage);
const PatientPage = later(async () => (await import("./pages/patient.tsx")).PatientPage);
const PatientsPage = later(async () => (await import("./pages/patients.tsx")).PatientsPage);
const QuarantinePage = later(async () => (await import("./pages/quarantine.tsx")).QuarantinePage);
const Setup = later(async () => (await import("./way-in/links.tsx")).Setup);

export function App() {
  return (
    <Suspense fallback={<Waiting what="Auscult" />}>
      <Way />
    </Suspense>
  );
}

function Way() {
  const { session } = useSession();
  const { pathname } = useLocation();
  // Set when a way in has just been made complete: recovery codes are offered before anything else.
  const [completed, setCompleted] = useState(false);
  const onComplete = useCallback(() => setCompleted(true), []);
  useEffect(() => {
    if (session.state === "signed-out") setCompleted(false);
  }, [session.state]);
  switch (session.state) {
    case "setup-needed":
      return <Setup />;
    case "signed-out":
      return pathname === "/invite" ? <Invited /> : <SignIn />;
    case "second-factor-needed":
      return <SecondFactor />;
    case "enrolment-needed":
      return <Enrol onComplete={onComplete} />;
    case "signed-in":
      if (completed) return <KeepCodes onDone={() => setCompleted(false)} />;
      if (pathname === "/invite") return <Invited />;
      if (pathname === "/oauth2/authorize") return <AuthorizePage key={session.user?.id} />;
      // Another person's pages must not inherit anything of the one before.
      return <SignedIn key={session.user?.id} />;
  }
}

function SignedIn() {
  const { pathname: wanted } = useLocation();
  // While a page is being fetched the one before stays: nothing flashes, and what is on screen stays live.
  const pathname = useDeferredValue(wanted);
  const rights = useRights();
  const atDoor = ["/", "/sign-in", "/setup"].includes(pathname);
  useEffect(() => {
    if (atDoor) navigate(homeOf(rights), { replace: true });
  }, [atDoor, rights]);

  const ward = match("/wards/:id", pathname)?.["id"];
  const patient = match("/patients/:id", pathname)?.["id"];
  // Whom a stream shows reads that they were looked at: pages without readings follow none.
  const general = !isStaff(rights) ? "" : match("/devices/:id", pathname) !== null || pathname === "/devices" ? "?only=alerts,devices" : "?only=alerts";
  let scope = general;
  if (ward !== undefined) scope = `?ward=${encodeURIComponent(ward)}`;
  else if (patient !== undefined) scope = `?patient=${encodeURIComponent(patient)}`;

  return (
    <Shell scope={scope} general={general} busy={pathname !== wanted}>
      <Boundary path={pathname}>
        <Suspense
          fallback={
            <div className="page">
              <Waiting what="the page" />
            </div>
          }
        >
          {atDoor ? null : <Page pathname={pathname} />}
        </Suspense>
      </Boundary>
    </Shell>
  );
}

function Page({ pathname }: { pathname: string }) {
  const path = pathname.replace(/\/$/, "");
  const id = (pattern: string) => match(pattern, path)?.["id"];
  const ward = id("/wards/:id");
  if (ward !== undefined) return <BoardPage key={ward} wardId={ward} />;
  const patient = id("/patients/:id");
  if (patient !== undefined) return <PatientPage key={patient} patientId={patient} />;
  if (path === "/devices/enrolment") return <EnrolmentPage />;
  const device = id("/devices/:id");
  if (device !== undefined) return <DevicePage key={device} deviceId={device} />;
  const quarantined = id("/quarantine/:id");
  if (quarantined !== undefined) return <QuarantinePage itemId={quarantined} />;
  if (path === "/admin" || path.startsWith("/admin/")) return <AdminPage pathname={path} />;
  switch (path) {
    case "/wards":
      return <WardsPage />;
    case "/patients":
      return <PatientsPage />;
    case "/alerts":
      return <InboxPage />;
    case "/devices":
      return <DevicesPage />;
    case "/quarantine":
      return <QuarantinePage itemId={null} />;
    case "/audit":
      return <AuditPage />;
    case "/break-glass":
      return <BreakGlassPage />;
    case "/account":
      return <AccountPage />;
    case "/me":
      return <MePage />;
    case "/my-people":
      return <MyPeoplePage />;
    default:
      return <NotFound />;
  }
}
