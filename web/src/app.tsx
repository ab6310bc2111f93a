//! Which page is shown: the way in, or the shell with the page of the path.

import { useCallback, useEffect, useState } from "react";

import { AccountPage } from "./pages/account.tsx";
import { AdminPage } from "./pages/admin/admin.tsx";
import { AuditPage } from "./pages/audit/audit.tsx";
import { AuthorizePage } from "./pages/authorize.tsx";
import { BoardPage } from "./pages/board.tsx";
import { BreakGlassPage } from "./pages/break-glass.tsx";
import { DevicePage } from "./pages/device.tsx";
import { DevicesPage } from "./pages/devices.tsx";
import { EnrolmentPage } from "./pages/enrolment.tsx";
import { InboxPage } from "./pages/inbox.tsx";
import { MePage } from "./pages/me/me.tsx";
import { MyPeoplePage } from "./pages/me/my-people.tsx";
import { NotFound } from "./pages/not-found.tsx";
import { PatientPage } from "./pages/patient.tsx";
import { PatientsPage } from "./pages/patients.tsx";
import { QuarantinePage } from "./pages/quarantine.tsx";
import { WardsPage } from "./pages/wards.tsx";
import { match, navigate, useLocation } from "./router.tsx";
import { useRights, useSession } from "./session.tsx";
import { Boundary } from "./ui/boundary.tsx";
import { homeOf } from "./ui/roles.ts";
import { Shell } from "./ui/shell.tsx";
import { Enrol, KeepCodes } from "./way-in/enrol.tsx";
import { Invited, Setup } from "./way-in/links.tsx";
import { SecondFactor } from "./way-in/second-factor.tsx";
import { SignIn } from "./way-in/sign-in.tsx";

export function App() {
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
  const { pathname } = useLocation();
  const rights = useRights();
  const atDoor = ["/", "/sign-in", "/setup"].includes(pathname);
  useEffect(() => {
    if (atDoor) navigate(homeOf(rights), { replace: true });
  }, [atDoor, rights]);

  const ward = match("/wards/:id", pathname)?.["id"];
  const patient = match("/patients/:id", pathname)?.["id"];
  let scope = "";
  if (ward !== undefined) scope = `?ward=${encodeURIComponent(ward)}`;
  else if (patient !== undefined) scope = `?patient=${encodeURIComponent(patient)}`;

  return (
    <Shell scope={scope}>
      <Boundary path={pathname}>{atDoor ? null : <Page pathname={pathname} />}</Boundary>
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
