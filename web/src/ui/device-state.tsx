//! The state of a device's link, as a badge with words.

import type { DeviceState } from "../api/types.ts";
import { Icon } from "./icons.tsx";

const WORDS = { live: "Live", silent: "Silent", never: "Never heard" } as const;

export function LinkBadge({ device }: { device: Pick<DeviceState, "link"> }) {
  return (
    <span className={`link-badge link-${device.link}`}>
      <Icon name={device.link === "live" ? "link" : "nolink"} size={14} /> {WORDS[device.link]}
    </span>
  );
}
