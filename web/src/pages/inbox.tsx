export function InboxPage(_: {  }) { return null; }
