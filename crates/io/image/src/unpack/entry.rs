//! Reads the headers of a tar entry by entry, with the caps that the tar reader itself does not have.

use std::{
    ffi::OsStr,
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use tar::{EntryType, PaxExtensions};

use super::{Error, Limits, Refusal};

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File { size: u64 },
    Folder,
    SymbolicLink(Vec<u8>),
    HardLink(PathBuf),
}

/// One entry with a path that is safe to use beneath the folder.
#[derive(Debug)]
pub(super) struct Item {
    /// Relative, without `.` or `..`; empty is the folder itself.
    pub path: PathBuf,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Extended attributes, names in full.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What earlier headers said about the entry that follows.
#[derive(Default)]
pub(super) struct Pending {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads one raw entry: gives an item, or keeps what it says about the next one.
pub(super) fn read(
    entry: &mut tar::Entry<'_, impl Read>,
    pending: &mut Pending,
    limits: &Limits,
) -> Result<Option<Item>, Error> {
    let header_path = entry.header().path_bytes().into_owned();
    let refused = |refusal| Error::refused(&header_path, refusal);
    let kind = entry.header().entry_type();
    match kind {
        EntryType::XGlobalHeader => {
            bounded(entry, limits)?;
            return Ok(None);
        }
        EntryType::GNULongName => {
            pending.path = Some(trimmed(bounded(entry, limits)?));
            return Ok(None);
        }
        EntryType::GNULongLink => {
            pending.link = Some(trimmed(bounded(entry, limits)?));
            return Ok(None);
        }
        EntryType::XHeader => {
            let records = bounded(entry, limits)?;
            extended(&records, pending).map_err(refused)?;
            return Ok(None);
        }
        _ => {}
    }
    let said = std::mem::take(pending);
    let header = entry.header();
    let bad = |what| move |_| Error::refused(&[], Refusal::Header(what));
    let size = header.entry_size().map_err(bad("has no readable size"))?;
    let raw_path = said.path.unwrap_or(header_path.clone());
    if said.size.is_some_and(|other| other != size) {
        return Err(Error::refused(
            &raw_path,
            Refusal::Header("gives two different sizes"),
        ));
    }
    let path = safe_path(&raw_path, limits)?;
    let link = || -> Result<Vec<u8>, Error> {
        said.link
            .clone()
            .or_else(|| header.link_name_bytes().map(|name| name.into_owned()))
            .filter(|name| !name.is_empty())
            .ok_or_else(|| Error::refused(&raw_path, Refusal::Header("names no link target")))
    };
    let kind = match kind {
        EntryType::Regular | EntryType::Continuous => Kind::File { size },
        EntryType::Directory => Kind::Folder,
        EntryType::Symlink => {
            let target = link()?;
            safe_target(&raw_path, &path, &target, limits)?;
            Kind::SymbolicLink(target)
        }
        EntryType::Link => {
            let target = link()?;
            Kind::HardLink(safe_path(&target, limits).map_err(|_| {
                Error::refused(&raw_path, Refusal::HardLink(super::error::short(&target)))
            })?)
        }
        // Every instance has a /dev of its own over this one.
        EntryType::Char | EntryType::Block | EntryType::Fifo if path.starts_with("dev") => {
            return Ok(None);
        }
        EntryType::Char | EntryType::Block => {
            return Err(Error::refused(&raw_path, Refusal::Kind("device")));
        }
        EntryType::Fifo => return Err(Error::refused(&raw_path, Refusal::Kind("pipe"))),
        EntryType::GNUSparse => {
            return Err(Error::refused(&raw_path, Refusal::Kind("sparse file")));
        }
        _ => {
            return Err(Error::refused(
                &raw_path,
                Refusal::Kind("thing of an unknown kind"),
            ));
        }
    };
    if path.as_os_str().is_empty() && kind != Kind::Folder {
        return Err(Error::refused(&raw_path, Refusal::Name("is empty")));
    }
    let id = |said: Option<u64>, header: std::io::Result<u64>| {
        u32::try_from(said.unwrap_or(header.unwrap_or_default()))
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| Error::refused(&raw_path, Refusal::Header("has an impossible owner")))
    };
    Ok(Some(Item {
        path,
        kind,
        mode: header.mode().unwrap_or(0o644) & 0o7777,
        uid: id(said.uid, header.uid())?,
        gid: id(said.gid, header.gid())?,
        mtime: said.mtime.unwrap_or_else(|| {
            i64::try_from(header.mtime().unwrap_or_default()).unwrap_or_default()
        }),
        xattrs: said.xattrs,
    }))
}

/// The content of a header entry, which must be small.
fn bounded(entry: &mut tar::Entry<'_, impl Read>, limits: &Limits) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    entry
        .take(limits.header + 1)
        .read_to_end(&mut content)
        .map_err(super::extract::damaged)?;
    if content.len() as u64 > limits.header {
        return Err(Error::TooMuch {
            what: "bytes in one extended header",
            cap: limits.header,
        });
    }
    Ok(content)
}

/// GNU long names end with a zero byte.
fn trimmed(mut name: Vec<u8>) -> Vec<u8> {
    while name.last() == Some(&0) {
        name.pop();
    }
    name
}

fn extended(records: &[u8], pending: &mut Pending) -> Result<(), Refusal> {
    fn number<T: std::str::FromStr>(value: &[u8]) -> Result<Option<T>, Refusal> {
        std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse().ok())
            .map(Some)
            .ok_or(Refusal::Header("holds a number that is none"))
    }
    for record in PaxExtensions::new(records) {
        let record = record.map_err(|_| Refusal::Header("holds a malformed record"))?;
        let value = record.value_bytes();
        match record.key_bytes() {
            b"path" => pending.path = Some(value.to_vec()),
            b"linkpath" => pending.link = Some(value.to_vec()),
            b"size" => pending.size = number(value)?,
            b"uid" => pending.uid = number(value)?,
            b"gid" => pending.gid = number(value)?,
            b"mtime" => {
                let whole = value.split(|b| *b == b'.').next().unwrap_or_default();
                pending.mtime = number(whole)?;
            }
            key if key.starts_with(b"GNU.sparse.") => {
                return Err(Refusal::Kind("sparse file"));
            }
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if is_label(name) {
                        continue;
                    }
                    attribute(name)?;
                    pending.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
    }
    Ok(())
}

/// Labels and signatures of the security module of the machine where the image was made: they mean nothing here.
fn is_label(name: &[u8]) -> bool {
    name.starts_with(b"security.") && name != b"security.capability"
}

/// Only attributes that cannot forge a whiteout or a label of the host's security module are taken.
fn attribute(name: &[u8]) -> Result<(), Refusal> {
    if name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
        || name == b"security.capability"
        || name.starts_with(b"system.posix_acl_")
    {
        Ok(())
    } else {
        Err(Refusal::Attribute(super::error::short(name)))
    }
}

/// A path that stays beneath the folder, without `.` parts.
pub(super) fn safe_path(raw: &[u8], limits: &Limits) -> Result<PathBuf, Error> {
    let refuse = |refusal| Err(Error::refused(raw, refusal));
    if raw.first() == Some(&b'/') {
        return refuse(Refusal::Absolute);
    }
    if raw.len() > limits.path {
        return refuse(Refusal::Name("is too long"));
    }
    let mut path = PathBuf::new();
    let mut depth = 0;
    for part in raw.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return refuse(Refusal::Escapes),
            part if part.contains(&0) => return refuse(Refusal::Name("holds a zero byte")),
            part if part.len() > 255 => {
                return refuse(Refusal::Name("has a part longer than 255 bytes"));
            }
            part => {
                depth += 1;
                path.push(OsStr::from_bytes(part));
            }
        }
    }
    if depth > limits.depth {
        return refuse(Refusal::Name("lies too deep"));
    }
    Ok(path)
}

/// A symbolic link may point anywhere in the image: from the image's root if absolute, else from where it lies. It may not
/// climb above the root.
fn safe_target(raw: &[u8], path: &Path, target: &[u8], limits: &Limits) -> Result<(), Error> {
    let refuse = |refusal| Err(Error::refused(raw, refusal));
    if target.len() > limits.path || target.contains(&0) {
        return refuse(Refusal::Header("names an impossible link target"));
    }
    let mut depth = if target.first() == Some(&b'/') {
        0
    } else {
        path.components().count().saturating_sub(1)
    };
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return refuse(Refusal::LinkEscapes(super::error::short(target))),
            },
            _ => depth += 1,
        }
    }
    Ok(())
}
