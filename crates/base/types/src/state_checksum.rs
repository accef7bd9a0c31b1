use sha3::{Digest as _, Sha3_224};

/// The checksum by which Unit and cloud tell states of an instance apart: lower-case hex of the SHA3-224 of the state's
/// bytes (`docs/protocol/unit-cloud.md`, newState).
pub fn state_checksum(state: &[u8]) -> String {
    hex::encode(Sha3_224::digest(state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_fips_202() {
        // The empty message of the standard's examples.
        assert_eq!(
            state_checksum(b""),
            "6b4e03423667dbb73b6e15454f0eb1abd4597f9a1b078e3f5b5a6bc7"
        );
        assert_ne!(state_checksum(b"1"), state_checksum(b"2"));
    }
}
