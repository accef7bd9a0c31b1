import { useDebouncedValue } from "@mantine/hooks";
import type { UseQueryOptions } from "@tanstack/react-query";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import type { Page } from "~/api/types";
import css from "./parts.module.css";
import { Trouble } from "./small";

/** Something that can be picked. */
export interface Choice {
  id: string;
  name: string;
  sub: string;
}

/**
 * Picks things by searching for them, so that nobody types an id. The search is done by the server. `read` gives the
 * query for a search text, `choice` what to show for what it finds.
 */
export function Picker<Item>(properties: {
  label: string;
  placeholder: string;
  nothing: string;
  // biome-ignore lint/suspicious/noExplicitAny: the key of the query does not matter here
  read: (search: string) => UseQueryOptions<Page<Item>, Error, Page<Item>, any>;
  choice: (item: Item) => Choice;
  picked: Choice[];
  pick: (picked: Choice[]) => void;
  hidden?: Set<string>;
}) {
  const [text, setText] = useState("");
  const [search] = useDebouncedValue(text.trim(), 160);
  const found = useQuery(properties.read(search));
  const chosen = new Set(properties.picked.map((choice) => choice.id));
  const choices = (found.data?.items ?? [])
    .map(properties.choice)
    .filter((choice) => !properties.hidden?.has(choice.id));
  // What is picked stays in sight when the search no longer finds it.
  const kept = properties.picked.filter((choice) => !choices.some((other) => other.id === choice.id));
  const shown = search === "" ? [...kept, ...choices] : choices;
  const toggle = (choice: Choice) =>
    properties.pick(
      chosen.has(choice.id)
        ? properties.picked.filter((other) => other.id !== choice.id)
        : [...properties.picked, choice],
    );
  const more = (found.data?.total ?? 0) - (found.data?.items.length ?? 0);
  return (
    <fieldset style={{ border: 0, margin: 0, padding: 0, minWidth: 0 }}>
      <legend style={{ padding: 0, marginBottom: 4, fontWeight: 500 }}>{properties.label}</legend>
      <div className={css.picker}>
        <input
          type="search"
          aria-label={`Search: ${properties.label}`}
          placeholder={properties.placeholder}
          value={text}
          onChange={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key !== "Enter") return;
            event.preventDefault();
            if (shown.length === 1 && shown[0]) toggle(shown[0]);
          }}
        />
        <ul>
          {shown.map((choice) => (
            <li key={choice.id}>
              <label>
                <input type="checkbox" checked={chosen.has(choice.id)} onChange={() => toggle(choice)} />
                <span>
                  {choice.name}
                  <span className={css.sub}>{choice.sub}</span>
                </span>
              </label>
            </li>
          ))}
        </ul>
        {found.error && <Trouble error={found.error} />}
        {!found.error && shown.length === 0 && (
          <div className={css.none}>
            {found.isPending
              ? "Searching…"
              : search === ""
                ? properties.nothing
                : `Nothing is called “${search}”.`}
          </div>
        )}
        <div className={css.foot} role="status">
          {properties.picked.length} picked
          {more > 0 && ` · ${more} more, search to narrow`}
        </div>
      </div>
    </fieldset>
  );
}
