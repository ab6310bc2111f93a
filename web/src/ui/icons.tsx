//! The icons: drawn here, so that nothing is fetched and nothing needs an exception in the security policy.

const PATHS = {
  ward: "M3 10.5 12 4l9 6.5M5 9.5V20h14V9.5M9 20v-6h6v6",
  inbox: "M4 13h4l1.5 3h5L16 13h4M4 13l3-8h10l3 8v6H4z",
  patients: "M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2.5 20c0-3.6 2.9-6 6.5-6s6.5 2.4 6.5 6M16 4.5a3.3 3.3 0 0 1 0 6.3M17.5 14.2c2.4.6 4 2.6 4 5.8",
  devices: "M3 5h18v11H3zM8 20h8M12 16v4M6 11h3l1.5-3 2.5 6 1.500-3H18",
  quarantine: "M12 3 2.500 20h19zM12 9.500v5M12 17.500v.01",
  audit: "M6 3h9l4 4v14H6zM14 3v5h5M9 12h7M9 16h7",
  users: "M12 11.500a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4.500 20.500c0-4 3.400-6.500 7.500-6.500s7.500 2.500 7.500 6.500",
  search: "M10.500 17a6.500 6.500 0 1 0 0-13 6.500 6.500 0 0 0 0 13zM15.500 15.500 21 21",
  close: "M5 5l14 14M19 5 5 19",
  battery: "M3 8h15v8H3zM18 10.500h2.500v3H18",
  nolink: "M4 4l16 16M8.500 12.500a5 5 0 0 1 2-1.300M5 9.500a10 10 0 0 1 3-2M12 6.500a10 10 0 0 1 7 3M12 18v.01",
  link: "M8.500 13.500a5 5 0 0 1 7 0M5 10a10 10 0 0 1 14 0M12 18v.01",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M5 19l2-2M17 7l2-2",
  moon: "M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500z",
  auto: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 3v18",
  help: "M9 9a3 3 0 1 1 4.500 2.600c-1 .6-1.500 1.200-1.500 2.400M12 17.500v.01M12 2.500a9.500 9.500 0 1 0 0 19 9.500 9.500 0 0 0 0-19z",
  out: "M10 4H5v16h5M14 8l4 4-4 4M9 12h9",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  eye: "M2 12s3.600-6.500 10-6.500S22 12 22 12s-3.600 6.500-10 6.500S2 12 2 12zM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
  key: "M7.500 8.500a3.500 3.500 0 1 0 0 7 3.500 3.500 0 0 0 0-7zM11 12h10M17.500 12v3.500M21 12v2.500",
  glass: "M5 4h14v16H5zM12 4l-2 6 4 3-3 7M10 10 5 8M14 13l5-2",
  person: "M12 11a3.500 3.500 0 1 0 0-7 3.500 3.500 0 0 0 0 7zM5 20c0-3.600 3.100-6 7-6s7 2.400 7 6",
  check: "M4.500 12.500l5 5L19.500 7",
  more: "M5 12v.01M12 12v.01M19 12v.01",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 18 }: { name: IconName; size?: number }) {
  return (
    <svg className="icon" width={size} height={size} viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
