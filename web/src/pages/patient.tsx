export function PatientPage(_: { patientId: string | null }) { return null; }
