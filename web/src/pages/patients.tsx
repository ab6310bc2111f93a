export function PatientsPage(_: {  }) { return null; }
