export function QuarantinePage(_: { itemId: string | null }) { return null; }
