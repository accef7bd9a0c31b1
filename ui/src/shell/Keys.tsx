import { Modal } from "@mantine/core";
import { ROOMS } from "./rooms";
import css from "./shell.module.css";

/** The keys there are. */
export function Keys({ opened, close }: { opened: boolean; close: () => void }) {
  return (
    <Modal opened={opened} onClose={close} title="Keyboard" size="sm">
      <dl className={css.keys}>
        {ROOMS.map((room) => (
          <div key={room.to}>
            <dt>{room.name}</dt>
            <dd>
              <kbd>g</kbd> <kbd>{room.key}</kbd>
            </dd>
          </div>
        ))}
        <div>
          <dt>Search for anything</dt>
          <dd>
            <kbd>/</kbd>
          </dd>
        </div>
        <div>
          <dt>This list</dt>
          <dd>
            <kbd>?</kbd>
          </dd>
        </div>
        <div>
          <dt>Close a dialog</dt>
          <dd>
            <kbd>Esc</kbd>
          </dd>
        </div>
      </dl>
    </Modal>
  );
}
