use std::{io, path::PathBuf};

use crate::Backend;

/// Why a folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that leads elsewhere.
    #[error("`{name}` is no path below a folder of ours")]
    Name {
        /// As it was given.
        name: String,
    },
    /// A file or folder.
    #[error("cannot {doing} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A back-end that was asked for by name and cannot be used here.
    #[error("quotas by {backend} cannot be used here: {why}")]
    Unavailable {
        /// Which.
        backend: Backend,
        /// What is missing.
        why: String,
    },
    /// Another back-end was asked for, but the Node keeps everything in the image.
    #[error(
        "what instances keep is in the image {image}: let the back-end be `btrfs` or `auto`, or take the image away with all that is in it",
        image = image.display()
    )]
    Elsewhere {
        /// The image.
        image: PathBuf,
    },
    /// The image is there but cannot be used. Nothing was changed.
    #[error(
        "the image {image}, in which instances keep their storages and states, cannot be used: {why}. Nothing in it was \
         changed. Look at the kernel's log; `btrfs check {image}` and `btrfs restore {image} FOLDER` may help. To begin \
         with an empty one, move it and {marker} away",
        image = image.display(), marker = marker.display()
    )]
    Damaged {
        /// The image.
        image: PathBuf,
        /// What says that there was one.
        marker: PathBuf,
        /// What failed.
        why: String,
    },
    /// There is too little room on the disk.
    #[error("there is too little room on the disk of {path}: {why}", path = path.display())]
    Room {
        /// Somewhere on it.
        path: PathBuf,
        /// How much is there, how much is needed.
        why: String,
    },
    /// A program that is needed failed.
    #[error("{program}: {why}")]
    Program {
        /// Which.
        program: &'static str,
        /// What it said.
        why: String,
    },
}

impl Error {
    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }
}
