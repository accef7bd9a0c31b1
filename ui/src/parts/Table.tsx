import type { ReactNode } from "react";
import { Link } from "wouter";
import css from "./parts.module.css";

/** A column: its head, and what stands in it for a row. */
export interface Column<Row> {
  head: string;
  cell: (row: Row) => ReactNode;
  number?: boolean;
  width?: string | number;
  /** Left out on narrow screens. */
  minor?: boolean;
  /** Left out on narrow screens when the cell has nothing to say. */
  bare?: (row: Row) => boolean;
}

/**
 * A table on wide screens, a list of cards on narrow ones. With `to` the whole row leads there; the link itself is in
 * the first cell, so keyboard and screen reader meet it once.
 */
export function Table<Row>(properties: {
  label: string;
  columns: Column<Row>[];
  rows: Row[];
  name: (row: Row) => string;
  to?: (row: Row) => string;
  mark?: (row: Row) => Record<string, string>;
}) {
  const { columns, rows, to } = properties;
  return (
    <div className={css.wrap}>
      <table className={css.table} aria-label={properties.label}>
        <thead>
          <tr>
            {columns.map((column) => (
              <th
                key={column.head}
                scope="col"
                data-number={column.number || undefined}
                style={{ width: column.width }}
              >
                {column.head === "" ? <span className="only-heard">Actions</span> : column.head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={properties.name(row)} data-opens={to ? true : undefined} {...properties.mark?.(row)}>
              {columns.map((column, at) => (
                <td
                  key={column.head}
                  data-label={column.head || undefined}
                  data-number={column.number || undefined}
                  data-empty={column.minor || column.bare?.(row) || undefined}
                >
                  {at === 0 && to ? (
                    <Link href={to(row)} data-stretch className={css.name}>
                      {column.cell(row)}
                    </Link>
                  ) : (
                    column.cell(row)
                  )}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** A name with a second line below it. */
export function Named({ name, sub }: { name: ReactNode; sub?: ReactNode }) {
  return (
    <>
      <span className={css.name}>{name}</span>
      {sub && <span className={css.sub}>{sub}</span>}
    </>
  );
}
