import { ChevronRight } from "lucide-react";
import { type ReactNode, useEffect } from "react";
import { Link } from "wouter";
import css from "./parts.module.css";

/** The head of a room: where it is, what it is called, what can be done here. Sets the title of the page. */
export function Head(properties: {
  title: ReactNode;
  page: string;
  trail?: [string, string][];
  under?: ReactNode;
  children?: ReactNode;
}) {
  const { page } = properties;
  useEffect(() => {
    document.title = `${page} · AosCloud`;
  }, [page]);
  return (
    <div className={css.head}>
      <div className={css.titles}>
        {properties.trail && (
          <nav className={css.trail} aria-label="Where you are">
            {properties.trail.map(([name, to]) => (
              <span key={to} style={{ display: "contents" }}>
                <Link href={to}>{name}</Link>
                <ChevronRight size={12} aria-hidden />
              </span>
            ))}
          </nav>
        )}
        <h1 tabIndex={-1}>{properties.title}</h1>
        {properties.under && <div className={css.under}>{properties.under}</div>}
      </div>
      {properties.children && <div className={css.doing}>{properties.children}</div>}
    </div>
  );
}

/** A part of a room with a title. */
export function Card(properties: {
  title?: string;
  note?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
  inside?: boolean;
}) {
  const { title, note, actions } = properties;
  return (
    <section className={css.card} aria-label={title}>
      {title && (
        <header>
          <h2>{title}</h2>
          {note !== undefined && <span className={css.note}>{note}</span>}
          {actions && <div className={css.actions}>{actions}</div>}
        </header>
      )}
      {properties.inside ? <div className={css.inside}>{properties.children}</div> : properties.children}
    </section>
  );
}
