//! One task for each Unit, and never two.

use std::{collections::HashMap, sync::Mutex};

use tokio::sync::mpsc;
use uuid::Uuid;

use crate::link::Note;

/// Notes that may wait for one task.
const MAILBOX: usize = 32;

/// Where the task of each Unit takes its notes. Notes are given while the lock is held, so a task that finds its box
/// empty under the lock can go without losing one.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<HashMap<Uuid, mpsc::Sender<Note>>>);

impl Registry {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, mpsc::Sender<Note>>> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Gives a note to the task of a Unit; starts one with `spawn` if there is none. False if its box is full.
    pub(crate) fn tell(
        &self,
        unit: Uuid,
        note: Note,
        spawn: impl FnOnce(mpsc::Receiver<Note>),
    ) -> bool {
        let mut tasks = self.lock();
        let note = match tasks.get(&unit) {
            Some(task) => match task.try_send(note) {
                Ok(()) => return true,
                Err(mpsc::error::TrySendError::Full(_)) => return false,
                Err(mpsc::error::TrySendError::Closed(note)) => note,
            },
            None => note,
        };
        let (sender, receiver) = mpsc::channel(MAILBOX);
        let told = sender.try_send(note).is_ok();
        tasks.insert(unit, sender);
        spawn(receiver);
        told
    }

    /// Gives a note to the task of a Unit if there is one.
    pub(crate) fn tell_if_there(&self, unit: Uuid, note: Note) {
        if let Some(task) = self.lock().get(&unit) {
            // A full box holds a note to recompose already, and what else is to be sent goes out then too.
            let _ = task.try_send(note);
        }
    }

    /// The Units that have a task.
    pub(crate) fn units(&self) -> Vec<Uuid> {
        self.lock().keys().copied().collect()
    }

    /// Lets the task of `unit` go if nothing waits for it.
    pub(crate) fn retire(&self, unit: Uuid, mailbox: &mpsc::Receiver<Note>) -> bool {
        let mut tasks = self.lock();
        if !mailbox.is_empty() {
            return false;
        }
        tasks.remove(&unit);
        true
    }

    /// Takes a task that failed off the list, with whatever waits for it.
    pub(crate) fn remove(&self, unit: Uuid) {
        self.lock().remove(&unit);
    }
}
