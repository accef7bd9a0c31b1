import { useElementSize } from "@mantine/hooks";
import { type KeyboardEvent, type PointerEvent, useState } from "react";
import { ceiling, type Spot, steps, ticks, valueAt } from "./chart";
import css from "./chart.module.css";
import { clock, day, full } from "./time";

/** One line. */
export interface Line {
  name: string;
  spots: Spot[];
}

/** A level that is too much, or that is never exceeded. */
export interface Level {
  name: string;
  value: number;
  kind: "raise" | "fall" | "quota";
}

/** A time during which there was an alert. */
export interface Span {
  name: string;
  from: number;
  till: number | null;
}

const HEIGHT = 150;
const LEFT = 62;
const RIGHT = 8;
const TOP = 10;
const BOTTOM = 22;
const DAY_MS = 86_400_000;

/**
 * Lines over time with their limits and alerts on the same axis. With the pointer, or by the arrow keys, a moment is
 * chosen and its values are told; a list of the values says the same to who cannot see the lines.
 */
export function Chart(properties: {
  title: string;
  lines: Line[];
  levels?: Level[];
  spans?: Span[];
  from: number;
  till: number;
  say: (value: number) => string;
  /** Shorter words for the axis. */
  axis?: (value: number) => string;
  binary?: boolean;
  /** The axis goes at least so far. */
  most?: number;
}) {
  const { title, lines, levels = [], spans = [], from, till, say, binary = false } = properties;
  const { ref, width: measured } = useElementSize();
  const [chosen, choose] = useState<number | null>(null);
  const width = Math.max(measured, 260);
  const inner = width - LEFT - RIGHT;
  const shown = lines.map((line) => ({ ...line, parts: steps(line.spots, from, till) }));
  const highest = Math.max(
    0,
    ...shown.flatMap((line) => line.parts.flatMap((part) => part.map(([, value]) => value))),
  );
  // A limit far above what is used would press the line flat: it is named at the edge instead.
  const near = levels.filter((level) => level.value <= Math.max(highest * 4, properties.most ?? 0));
  const top = ceiling(
    Math.max(highest * 1.05, ...near.map((level) => level.value * 1.05), properties.most ?? 0, 1),
    binary,
  );
  const x = (at: number) => LEFT + (inner * (at - from)) / Math.max(1, till - from);
  const y = (value: number) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
  const path = (part: Spot[]) =>
    part.map(([at, value], n) => `${n === 0 ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const marks = ticks(from, till, Math.max(2, Math.floor(inner / 90)));
  const moment = chosen ?? till;
  const values = shown.map((line) => ({ name: line.name, value: valueAt(line.spots, moment) }));
  const alerts = spans.filter((span) => span.from <= moment && (span.till ?? till) >= moment);

  const point = (event: PointerEvent<SVGSVGElement>) => {
    const box = event.currentTarget.getBoundingClientRect();
    const share = (event.clientX - box.left - LEFT) / Math.max(1, inner);
    choose(share < 0 || share > 1 ? null : from + share * (till - from));
  };
  const key = (event: KeyboardEvent<SVGSVGElement>) => {
    const step = (till - from) / 60;
    const to = { ArrowLeft: moment - step, ArrowRight: moment + step, Home: from, End: till }[event.key];
    if (event.key === "Escape") choose(null);
    if (to === undefined) return;
    event.preventDefault();
    choose(Math.min(till, Math.max(from, to)));
  };

  return (
    <figure className={css.chart} data-chart={title} data-till={till}>
      <figcaption>
        <b>{title}</b>
        <span className={css.values} aria-live={chosen === null ? "off" : "polite"}>
          {values.map(({ name, value }, n) => (
            <span key={name} data-line={n % 4}>
              {lines.length > 1 && <i aria-hidden="true" />}
              {lines.length > 1 && `${name} `}
              <strong data-value={value ?? ""}>{value === null ? "—" : say(value)}</strong>
            </span>
          ))}
          <time dateTime={new Date(moment).toISOString()} title={full(moment)}>
            {chosen === null ? "now" : clock(moment)}
          </time>
          {alerts.map((span) => (
            <em key={`${span.name}/${span.from}`}>alert: {span.name}</em>
          ))}
        </span>
      </figcaption>
      <div ref={ref}>
        <svg
          width={width}
          height={HEIGHT}
          role="img"
          aria-label={`${title}, ${values.map(({ name, value }) => `${name} ${value === null ? "not told" : say(value)}`).join(", ")}`}
          aria-roledescription="chart; arrow keys choose a moment"
          // biome-ignore lint/a11y/noNoninteractiveTabindex: the arrow keys choose a moment
          tabIndex={0}
          onPointerMove={point}
          onPointerLeave={() => choose(null)}
          onKeyDown={key}
          onBlur={() => choose(null)}
        >
          {[0, top / 2, top].map((value) => (
            <g key={value} className={css.grid}>
              <line x1={LEFT} x2={width - RIGHT} y1={y(value)} y2={y(value)} />
              <text x={LEFT - 6} y={y(value) + 4} textAnchor="end">
                {(properties.axis ?? say)(value)}
              </text>
            </g>
          ))}
          {marks.map((at) => (
            <g key={at} className={css.grid}>
              <line x1={x(at)} x2={x(at)} y1={HEIGHT - BOTTOM} y2={HEIGHT - BOTTOM + 4} />
              <text x={x(at)} y={HEIGHT - 6} textAnchor="middle">
                {till - from > DAY_MS ? day(at).split(",")[0] : clock(at).slice(0, 5)}
              </text>
            </g>
          ))}
          {spans
            .filter((span) => (span.till ?? till) >= from && span.from <= till)
            .map((span) => (
              <rect
                key={`${span.name}/${span.from}`}
                className={css.span}
                data-on={span.till === null || undefined}
                x={x(Math.max(from, span.from))}
                width={Math.max(2, x(Math.min(till, span.till ?? till)) - x(Math.max(from, span.from)))}
                y={TOP}
                height={HEIGHT - TOP - BOTTOM}
              >
                <title>{span.name}</title>
              </rect>
            ))}
          {near.map((level) => (
            <g key={`${level.kind}/${level.name}`} className={css.level} data-kind={level.kind}>
              <line x1={LEFT} x2={width - RIGHT} y1={y(level.value)} y2={y(level.value)} />
              <text
                x={width - RIGHT - 2}
                y={y(level.value) + (level.kind === "fall" ? 11 : -4)}
                textAnchor="end"
              >
                {level.name} {say(level.value)}
              </text>
            </g>
          ))}
          {shown.map((line, n) =>
            line.parts.map((part) => (
              <path
                key={`${line.name}/${part[0]?.[0]}`}
                className={css.line}
                data-line={n % 4}
                d={path(part)}
              />
            )),
          )}
          {chosen !== null && (
            <line className={css.cursor} x1={x(chosen)} x2={x(chosen)} y1={TOP} y2={HEIGHT - BOTTOM} />
          )}
        </svg>
      </div>
      {levels.length > near.length && (
        <p className={css.far}>
          {levels
            .filter((level) => !near.includes(level))
            .map((level) => `${level.name} at ${say(level.value)}`)
            .join(", ")}
        </p>
      )}
    </figure>
  );
}
