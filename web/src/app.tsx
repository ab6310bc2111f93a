//! Which page is shown: the way in, or the shell with the page of the path.

import { useEffect } from "react";

import { AuditPage } from "./pages/audit.tsx";
import { BoardPage } from "./pages/board.tsx";
import { DevicePage } from "./pages/device.tsx";
import { DevicesPage } from "./pages/devices.tsx";
import { InboxPage } from "./pages/inbox.tsx";
import { NotFound } from "./pages/not-found.tsx";
import { PatientPage } from "./pages/patient.tsx";
import { PatientsPage } from "./pages/patients.tsx";
import { QuarantinePage } from "./pages/quarantine.tsx";
import { Setup, SignIn } from "./pages/sign-in.tsx";
import { UsersPage } from "./pages/users.tsx";
import { WardsPage } from "./pages/wards.tsx";
import { match, navigate, useLocation } from "./router.tsx";
import { useRole, useSession } from "./session.tsx";
import { HOME } from "./ui/roles.ts";
import { Shell } from "./ui/shell.tsx";

export function App() {
  const { session } = useSession();
  if (session.state === "setup-needed") return <Setup />;
  if (session.state === "signed-out") return <SignIn />;
  // Another person's pages must not inherit anything of the one before.
  return <SignedIn key={session.user?.id} />;
}

function SignedIn() {
  const { pathname } = useLocation();
  const role = useRole();
  const atDoor = ["/", "/sign-in", "/setup"].includes(pathname);
  useEffect(() => {
    if (atDoor) navigate(HOME[role], { replace: true });
  }, [atDoor, role]);

  const ward = match("/wards/:id", pathname)?.["id"];
  const patient = match("/patients/:id", pathname)?.["id"];
  let scope = "";
  if (ward !== undefined) scope = `?ward=${encodeURIComponent(ward)}`;
  else if (patient !== undefined) scope = `?patient=${encodeURIComponent(patient)}`;

  return (
    <Shell scope={scope}>
      {atDoor ? null : <Page pathname={pathname} />}
    </Shell>
  );
}

function Page({ pathname }: { pathname: string }) {
  const id = (pattern: string) => match(pattern, pathname)?.["id"];
  const ward = id("/wards/:id");
  if (ward !== undefined) return <BoardPage key={ward} wardId={ward} />;
  const patient = id("/patients/:id");
  if (patient !== undefined) return <PatientPage key={patient} patientId={patient} />;
  const device = id("/devices/:id");
  if (device !== undefined) return <DevicePage key={device} deviceId={device} />;
  const quarantined = id("/quarantine/:id");
  switch (quarantined === undefined ? pathname.replace(/\/$/, "") : "/quarantine") {
    case "/wards":
      return <WardsPage />;
    case "/patients":
      return <PatientsPage />;
    case "/alerts":
      return <InboxPage />;
    case "/devices":
      return <DevicesPage />;
    case "/quarantine":
      return <QuarantinePage itemId={quarantined ?? null} />;
    case "/audit":
      return <AuditPage />;
    case "/users":
      return <UsersPage />;
    default:
      return <NotFound />;
  }
}
