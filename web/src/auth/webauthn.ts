//! Passkeys: the browser's credentials as the JSON the server speaks, also where the browser has no words for that yet.

type Json = Record<string, unknown>;

/** Bytes as base64url without padding, as WebAuthn's JSON forms carry them. */
export function toBase64Url(bytes: ArrayBuffer | Uint8Array): string {
  let text = "";
  for (const byte of new Uint8Array(bytes)) text += String.fromCharCode(byte);
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

export function fromBase64Url(text: string): Uint8Array<ArrayBuffer> {
  const raw = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(raw, (letter) => letter.charCodeAt(0));
}

export const canUsePasskeys = (): boolean => typeof window !== "undefined" && "PublicKeyCredential" in window;

/** Whether the browser can offer passkeys in the list under the name field, without a dialog of its own. */
export async function canOfferQuietly(): Promise<boolean> {
  if (!canUsePasskeys()) return false;
  return (await PublicKeyCredential.isConditionalMediationAvailable?.()) ?? false;
}

const described = (list: unknown): PublicKeyCredentialDescriptor[] =>
  ((list as Json[] | undefined) ?? []).map((one) => ({ ...one, id: fromBase64Url(one["id"] as string) }) as unknown as PublicKeyCredentialDescriptor);

/** The options of `create` from their JSON form. */
export function creationOptions(json: Json): PublicKeyCredentialCreationOptions {
  const user = json["user"] as Json;
  return {
    ...json,
    challenge: fromBase64Url(json["challenge"] as string),
    user: { ...user, id: fromBase64Url(user["id"] as string) },
    excludeCredentials: described(json["excludeCredentials"]),
  } as unknown as PublicKeyCredentialCreationOptions;
}

/** The options of `get` from their JSON form. */
export function requestOptions(json: Json): PublicKeyCredentialRequestOptions {
  return {
    ...json,
    challenge: fromBase64Url(json["challenge"] as string),
    allowCredentials: described(json["allowCredentials"]),
  } as unknown as PublicKeyCredentialRequestOptions;
}

/** A credential as the JSON form of the specification (RegistrationResponseJSON, AuthenticationResponseJSON). */
function credentialJson(credential: PublicKeyCredential): Json {
  if (typeof credential.toJSON === "function") return credential.toJSON() as unknown as Json;
  const { response } = credential;
  const parts: Json = { clientDataJSON: toBase64Url(response.clientDataJSON) };
  if (response instanceof AuthenticatorAttestationResponse) {
    parts["attestationObject"] = toBase64Url(response.attestationObject);
    parts["transports"] = response.getTransports?.() ?? [];
  } else if (response instanceof AuthenticatorAssertionResponse) {
    parts["authenticatorData"] = toBase64Url(response.authenticatorData);
    parts["signature"] = toBase64Url(response.signature);
    if (response.userHandle) parts["userHandle"] = toBase64Url(response.userHandle);
  }
  return {
    id: credential.id,
    rawId: toBase64Url(credential.rawId),
    type: credential.type,
    authenticatorAttachment: credential.authenticatorAttachment,
    clientExtensionResults: credential.getClientExtensionResults(),
    response: parts,
  };
}

/** The person closed the browser's dialog, or it took too long: no failure to report. */
export class PasskeyDeclined extends Error {
  constructor() {
    super("No passkey was used. Nothing was changed.");
    this.name = "PasskeyDeclined";
  }
}

function said(cause: unknown): never {
  if (cause instanceof DOMException && (cause.name === "NotAllowedError" || cause.name === "AbortError")) throw new PasskeyDeclined();
  if (cause instanceof DOMException && cause.name === "InvalidStateError") throw new Error("This device already has a passkey for this account.");
  if (cause instanceof DOMException && cause.name === "SecurityError") {
    throw new Error("The browser does not allow passkeys under this address. Open the page under the address that the site was set up for.");
  }
  throw cause;
}

/** A page holds one question to the authenticator at a time: a new one ends the one that waits quietly. */
let waiting: AbortController | null = null;

function begin(): AbortSignal {
  waiting?.abort();
  waiting = new AbortController();
  return waiting.signal;
}

export function stopWaiting(): void {
  waiting?.abort();
  waiting = null;
}

export async function makePasskey(options: Json): Promise<Json> {
  try {
    const made = await navigator.credentials.create({ publicKey: creationOptions(options), signal: begin() });
    return credentialJson(made as PublicKeyCredential);
  } catch (cause) {
    return said(cause);
  }
}

/** Asks for a passkey; `quiet` offers it in the name field's list and waits. */
export async function askPasskey(options: Json, quiet = false): Promise<Json> {
  try {
    const found = await navigator.credentials.get({
      publicKey: requestOptions(options),
      signal: begin(),
      ...(quiet ? { mediation: "conditional" as const } : {}),
    });
    return credentialJson(found as PublicKeyCredential);
  } catch (cause) {
    return said(cause);
  }
}
