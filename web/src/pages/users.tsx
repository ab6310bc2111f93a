export function UsersPage(_: {  }) { return null; }
