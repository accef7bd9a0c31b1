//! Which requests of ioctl(2) an instance may make: all but those by which it could leave the limits of what it keeps.
//!
//! Where limits are project quotas, the owner of a file may take it out of its project; where they are qgroups, whoever may
//! write to a folder may make a subvolume in it, which has no limit of its own. Neither takes a right, so only the filter is
//! left. A filter of this kind knows "these bits are so" and not "none of these": so what is allowed is said by the
//! shortest prefixes that nothing forbidden begins with.

/// The kind and number of a request: its lower 16 bits. What is above them, direction and size, does not matter.
const BITS: u32 = 16;
/// What is refused: flags and project of a file, new subvolumes and snapshots of btrfs.
const REFUSED: [u16; 6] = [
    // FS_IOC_SETFLAGS, which can end the inheritance of a project, and FS_IOC_FSSETXATTR.
    0x6602, 0x5820,
    // SNAP_CREATE, SUBVOL_CREATE, and the same in their second version.
    0x9401, 0x940e, 0x9417, 0x9418,
];

/// Bits of a request that count, and what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) mask: u64,
    pub(super) value: u64,
}

/// What is allowed: a request that any of these fits.
pub(super) fn allowed() -> Vec<Prefix> {
    let mut prefixes = Vec::new();
    split(0, 0, &mut prefixes);
    prefixes
}

/// Takes the requests whose first `length` bits are those of `value`: all of them, none, or each half by itself.
fn split(length: u32, value: u16, prefixes: &mut Vec<Prefix>) {
    let mask = mask(length);
    if !REFUSED.iter().any(|refused| refused & mask == value) {
        prefixes.push(Prefix {
            mask: mask.into(),
            value: value.into(),
        });
    } else if length < BITS {
        split(length + 1, value, prefixes);
        split(length + 1, value | 1 << (BITS - 1 - length), prefixes);
    }
}

/// The first bits, from above.
const fn mask(length: u32) -> u16 {
    (0xffff_0000_u32 >> length) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_requests_but_those_are_allowed_once() {
        let allowed = allowed();
        assert!(allowed.len() < 80, "{} rules are too many", allowed.len());
        for request in 0..=u16::MAX {
            // What is above the lower bits must not matter: the kernel looks at 32 of 64.
            let argument = u64::from(request) | 0xdead_beef_5000_0000;
            let fits = |prefix: &&Prefix| argument & prefix.mask == prefix.value;
            let expected = usize::from(!REFUSED.contains(&request));
            assert_eq!(
                allowed.iter().filter(fits).count(),
                expected,
                "{request:#x}"
            );
        }
    }
}
