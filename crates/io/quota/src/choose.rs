use std::{fs::File, path::Path, path::PathBuf, sync::Arc};

use serde::Deserialize;

use crate::{
    Backend, Error, Kind, Quota,
    accounting::Accounting,
    image::{Image, Place},
    plain::Tops,
    project::Project,
    sys::quotactl::{self, Whose},
    user::User,
};

/// Which back-end is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// The first that works of those below, in their order.
    #[default]
    Auto,
    /// Project quota.
    Project,
    /// User quota.
    User,
    /// The btrfs image.
    Btrfs,
    /// None: folders are measured only.
    Accounting,
}

/// Where things are.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Above all storages.
    pub storages: PathBuf,
    /// Above all states.
    pub states: PathBuf,
    /// Folder of the image, if there has to be one, and of its mount point.
    pub image_dir: PathBuf,
    /// The image never grows above this, in bytes. In any case it leaves a quarter of what is free.
    pub image_max: Option<u64>,
    /// What is wanted.
    pub choice: Choice,
}

/// What was chosen.
#[derive(Debug)]
pub struct Chosen {
    /// It.
    pub quota: Arc<dyn Quota>,
    /// Why those that would have come first do not work, one sentence each.
    pub passed_over: Vec<String>,
    /// It is there but cannot be used as yet: folders will say so too, and ask again.
    pub trouble: Option<Error>,
}

/// Finds out what the Node can do, and opens it.
pub fn open(setup: &Setup) -> Result<Chosen, Error> {
    let tops = Tops {
        storages: setup.storages.clone(),
        states: setup.states.clone(),
    };
    tops.make()?;
    let place = Place::new(&setup.image_dir);
    // What was kept in the image is nowhere else: whoever has one stays with it.
    let elsewhere = place.made();
    let chosen = |quota: Arc<dyn Quota>, passed_over| Chosen {
        quota,
        passed_over,
        trouble: None,
    };
    let image = |tops: Tops, passed_over| {
        let image = Image::new(tops, place.clone(), setup.image_max);
        let trouble = image.wake().err();
        Chosen {
            quota: Arc::new(image),
            passed_over,
            trouble,
        }
    };
    let only = |backend: Backend, missing: Option<String>| match missing {
        Some(why) => Err(Error::Unavailable { backend, why }),
        None if elsewhere => Err(Error::Elsewhere {
            image: place.image(),
        }),
        None => Ok(()),
    };
    match setup.choice {
        Choice::Auto if elsewhere => Ok(image(tops, Vec::new())),
        Choice::Auto => {
            let mut passed_over = Vec::new();
            match missing(&tops, Whose::Project) {
                None => return Ok(chosen(Arc::new(Project::new(tops)), passed_over)),
                Some(why) => passed_over.push(format!("project quota: {why}")),
            }
            match missing(&tops, Whose::User) {
                None => return Ok(chosen(Arc::new(User::new(tops)), passed_over)),
                Some(why) => passed_over.push(format!("user quota: {why}")),
            }
            match crate::image::missing() {
                None => return Ok(image(tops, passed_over)),
                Some(why) => passed_over.push(format!("a btrfs image: {why}")),
            }
            Ok(chosen(Arc::new(Accounting { tops }), passed_over))
        }
        Choice::Project => {
            only(Backend::Project, missing(&tops, Whose::Project))?;
            Ok(chosen(Arc::new(Project::new(tops)), Vec::new()))
        }
        Choice::User => {
            only(Backend::User, missing(&tops, Whose::User))?;
            Ok(chosen(Arc::new(User::new(tops)), Vec::new()))
        }
        Choice::Btrfs => match crate::image::missing() {
            Some(why) if !elsewhere => Err(Error::Unavailable {
                backend: Backend::Btrfs,
                why,
            }),
            _ => Ok(image(tops, Vec::new())),
        },
        Choice::Accounting => {
            only(Backend::Accounting, None)?;
            let wish = "it was switched off by `quota.backend = \"accounting\"`".to_owned();
            Ok(chosen(Arc::new(Accounting { tops }), vec![wish]))
        }
    }
}

/// Why a quota of the file system cannot be used; nothing if it can.
fn missing(tops: &Tops, whose: Whose) -> Option<String> {
    Kind::ALL.into_iter().find_map(|kind| {
        let top: &Path = tops.of(kind);
        let enforced = File::open(top).and_then(|top| quotactl::enforced(&top, whose));
        let why = match enforced {
            Ok(true) => return None,
            Ok(false) => "is mounted without it".to_owned(),
            Err(error) => format!("does not have it ({error})"),
        };
        Some(format!("the file system of {} {why}", top.display()))
    })
}
