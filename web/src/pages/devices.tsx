export function DevicesPage(_: {  }) { return null; }
