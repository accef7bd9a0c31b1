/** How a state feels. A tone is never the only sign: a shape and a word go with it. */
export type Tone = "good" | "busy" | "warn" | "bad" | "idle";

/** Tone and word of a state as the REST API names it. */
export interface Said {
  tone: Tone;
  word: string;
}

const said = (tone: Tone, word: string): Said => ({ tone, word });

const STATES: Record<string, Said> = {
  // Link of a Unit
  Online: said("good", "Online"),
  Connected: said("warn", "Connected"),
  Offline: said("idle", "Offline"),
  // Update phase of a Unit
  none: said("idle", "Nothing desired"),
  waiting_for_unit: said("warn", "Waiting for the Unit"),
  waiting_for_active: said("busy", "Waiting for active"),
  // Items
  downloading: said("busy", "Downloading"),
  pending: said("busy", "Pending"),
  installing: said("busy", "Installing"),
  installed: said("good", "Installed"),
  removing: said("busy", "Removing"),
  removed: said("idle", "Removed"),
  failed: said("bad", "Failed"),
  unknown: said("warn", "Unknown"),
  absent: said("idle", "Absent"),
  // Instances
  activating: said("busy", "Activating"),
  active: said("good", "Active"),
  inactive: said("idle", "Inactive"),
  // Nodes
  provisioned: said("good", "Provisioned"),
  unprovisioned: said("warn", "Not provisioned"),
  paused: said("warn", "Paused"),
  error: said("bad", "Error"),
  // Units and service versions
  new: said("warn", "Not provisioned"),
  ready: said("good", "Ready"),
  // Bundles and their stages
  uploaded: said("busy", "Uploaded"),
  processing: said("busy", "Processing"),
  done: said("good", "Done"),
  waiting: said("idle", "Waiting"),
  running: said("busy", "Running"),
  skipped: said("idle", "Skipped"),
  // Claim codes
  open: said("good", "Open"),
  used: said("idle", "Used"),
  expired: said("warn", "Expired"),
  issued: said("good", "Issued"),
  // Rules
  pass: said("good", "Holds"),
  fail: said("bad", "Does not hold"),
  not_checked: said("idle", "Not looked at"),
  // Severity
  info: said("idle", "Information"),
  warning: said("warn", "Warning"),
};

/** What to show for a state. One we do not know is shown as it came. */
export function say(state: string): Said {
  return STATES[state] ?? { tone: "idle", word: state === "" ? "Unknown" : state };
}
