//! Which unpacked layers somebody runs from, and whether their files are still as they were installed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use aos_image::{
    BlobStore, ItemImage,
    graph::{Caps, Layer},
    unpack::LayerStore,
};
use aos_types::{AosCode, Digest, ErrorInfo};

use crate::images::{Images, blocking};

/// For so long a layer is not looked at again: one that is started over and over costs no more than that.
const LOOKED_AT: Duration = Duration::from_secs(600);

/// Gives the first process of every instance that runs, with the manifest of its image.
type Users = Box<dyn Fn() -> Vec<(u32, Digest)> + Send + Sync>;

/// What is known of unpacked layers beyond what lies on the disk.
#[derive(Default)]
pub(crate) struct Layers {
    users: OnceLock<Users>,
    /// When each was found whole, by all but the content of its files; by the name of its folder.
    whole: Mutex<BTreeMap<String, Instant>>,
    /// The content of a file is another one.
    changed: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layers")
            .field("changed", &self.changed)
            .finish_non_exhaustive()
    }
}

impl Layers {
    /// Says who runs instances. Only the first one counts.
    pub(crate) fn ask(&self, users: Users) {
        let _ = self.users.set(users);
    }

    /// Whether a layer is whole, as far as that can be seen without reading its files.
    pub(crate) fn looks_whole(&self, store: &LayerStore, layer: &Layer) -> bool {
        let names = LayerStore::names(layer);
        if names.iter().any(|name| self.changed().contains(name)) {
            return false;
        }
        let key = layer_key(layer);
        let recent = self
            .whole()
            .get(&key)
            .is_some_and(|at| at.elapsed() < LOOKED_AT);
        if recent {
            return true;
        }
        let whole = store.looks_intact(layer).unwrap_or(false);
        match whole {
            true => self.whole().insert(key, Instant::now()),
            false => self.whole().remove(&key),
        };
        whole
    }

    /// It was unpacked anew.
    fn renewed(&self, layer: &Layer) {
        for name in LayerStore::names(layer) {
            self.changed().remove(&name);
        }
        self.whole().remove(&layer_key(layer));
    }

    /// The images that something runs from.
    pub(crate) fn running(&self) -> BTreeSet<Digest> {
        self.users().into_iter().map(|(_, image)| image).collect()
    }

    fn users(&self) -> Vec<(u32, Digest)> {
        self.users.get().map(|users| users()).unwrap_or_default()
    }

    fn whole(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Instant>> {
        // Plain data, whole at every moment.
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both digests, as layers with the same files may differ in links.
fn layer_key(layer: &Layer) -> String {
    let [_, both] = LayerStore::names(layer);
    both
}

/// What lies on the disk, for work off the async threads.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) blobs: BlobStore,
    pub(crate) layers: LayerStore,
    pub(crate) caps: Caps,
    pub(crate) in_use: Arc<Layers>,
}

impl Disk {
    /// Makes room for a layer that is damaged. What still runs from it goes on with the files it has: nothing is taken from
    /// under it.
    pub(crate) fn clear_damaged(&self, layer: &Layer) -> Result<(), aos_image::unpack::Error> {
        let names = LayerStore::names(layer);
        if self.users_of(&names).is_empty() {
            self.layers.remove(layer)?;
        } else {
            tracing::warn!(layer = %layer.diff_id, "a damaged layer is put aside, as something runs from it");
            self.layers.set_aside(layer, &Mark::now().to_string())?;
        }
        self.in_use.renewed(layer);
        Ok(())
    }

    /// Removes layers that were put aside and that nothing runs from any more.
    pub(crate) fn clear_aside(&self) -> Result<(), aos_image::unpack::Error> {
        for (mark, name) in self.layers.aside()? {
            let since = Mark::parse(&mark).filter(|mark| mark.boot == boot());
            // What was started later has the new one.
            let used = since.is_some_and(|since| {
                let users = self.users_of(std::slice::from_ref(&name));
                users
                    .into_iter()
                    .any(|pid| began(pid).is_none_or(|at| at <= since.ticks))
            });
            if !used {
                self.layers.remove_aside(&mark, &name)?;
            }
        }
        Ok(())
    }

    /// The processes that run from a layer of one of these names. One whose image cannot be read may run from any.
    fn users_of(&self, names: &[String]) -> Vec<u32> {
        let users = self.in_use.users().into_iter();
        let uses = |manifest: &Digest| {
            ItemImage::load(&self.blobs, manifest, &self.caps).map_or(true, |image| {
                let mut own = image.layers.iter().flat_map(LayerStore::names);
                own.any(|name| names.contains(&name))
            })
        };
        users
            .filter(|(_, manifest)| uses(manifest))
            .map(|(pid, _)| pid)
            .collect()
    }
}

impl Images {
    /// Reads all files of an image's layers and compares them with the digests of when they were unpacked, with pauses so
    /// that it takes a small part of the disk's time. Gives the layers that are not as they were; they are fetched again when
    /// they are needed next. `checked` are left out, and grow.
    pub(crate) async fn read_all(
        &self,
        manifest: Digest,
        checked: &mut BTreeSet<String>,
    ) -> Result<Vec<Digest>, ErrorInfo> {
        let (blobs, caps) = (self.blobs.clone(), self.caps);
        let image = blocking(move || ItemImage::load(&blobs, &manifest, &caps))
            .await?
            .map_err(|error| ErrorInfo::from_error(AosCode::InvalidChecksum, &error))?;
        let mut bad = Vec::new();
        for layer in &image.layers {
            let key = layer_key(layer);
            if checked.insert(key.clone()) {
                let begun = Instant::now();
                let (layers, wanted) = (self.layers.clone(), layer.clone());
                let whole = blocking(move || match layers.get(&wanted)? {
                    Some(_) => layers.is_intact(&wanted),
                    // Gone meanwhile, or about to come.
                    None => Ok(true),
                });
                let whole = whole
                    .await?
                    .map_err(|error| ErrorInfo::from_error(AosCode::Failed, &error))?;
                if !whole {
                    self.in_use.changed().extend(LayerStore::names(layer));
                }
                tokio::time::sleep((begun.elapsed() * REST).min(LONGEST_REST)).await;
            }
            let changed = self.in_use.changed();
            if LayerStore::names(layer)
                .iter()
                .any(|name| changed.contains(name))
            {
                bad.push(layer.diff_id);
            }
        }
        Ok(bad)
    }
}

/// A pause is so many times as long as the work before it.
const REST: u32 = 9;
const LONGEST_REST: Duration = Duration::from_secs(60);

/// A moment in the life of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    boot: String,
    /// Hundredths of a second since the boot.
    ticks: u64,
}

impl Mark {
    fn now() -> Self {
        Self {
            boot: boot(),
            ticks: uptime(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (boot, ticks) = text.split_once('.')?;
        Some(Self {
            boot: boot.to_owned(),
            ticks: ticks.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.boot, self.ticks)
    }
}

/// The beginning of the id of this boot.
fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect()
}

fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let digits: String = text
        .split(' ')
        .next()
        .unwrap_or_default()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    digits.parse().unwrap_or(u64::MAX)
}

/// When a process began, in the same unit (proc_pid_stat(5), field 22); nothing if it is gone.
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_tells_what_began_before_it() {
        let mark = Mark::now();
        assert_eq!(Mark::parse(&mark.to_string()), Some(mark.clone()));
        assert!(mark.boot.len() == 16 && !mark.to_string().contains('-'));
        assert!(began(std::process::id()).unwrap() <= mark.ticks);
        assert_eq!(Mark::parse("nonsense"), None);
        assert_eq!(began(u32::MAX), None);
    }
}
