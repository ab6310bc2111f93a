export function AuditPage(_: {  }) { return null; }
