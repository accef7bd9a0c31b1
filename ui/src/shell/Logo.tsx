/** The mark of AosCloud: a Unit in its loop. */
export function Logo({ big }: { big?: boolean }) {
  const size = big ? 34 : 22;
  return (
    <span style={{ display: "inline-flex", alignItems: "center", gap: big ? 12 : 9, color: "var(--text)" }}>
      <svg width={size} height={size} viewBox="0 0 32 32" aria-hidden="true">
        <circle
          cx="16"
          cy="16"
          r="12.5"
          fill="none"
          stroke="var(--accent-text)"
          strokeWidth="3.4"
          strokeDasharray="60 20"
          strokeLinecap="round"
          transform="rotate(-62 16 16)"
        />
        <circle cx="16" cy="16" r="4.6" fill="var(--accent-text)" />
      </svg>
      <span style={{ fontSize: big ? 23 : 16, fontWeight: 600, letterSpacing: "-0.02em" }}>
        Aos<span style={{ color: "var(--text-3)", fontWeight: 400 }}>Cloud</span>
      </span>
    </span>
  );
}
