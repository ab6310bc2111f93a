export function DevicePage(_: { deviceId: string | null }) { return null; }
