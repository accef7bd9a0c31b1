use aos_types::{InstanceIdent, OwnerId};

/// Why an address could not be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Every network of the pool belongs to somebody.
    #[error("no network is left for owner {owner}: make the address pool of CM larger")]
    NoNetwork {
        /// Who asked.
        owner: OwnerId,
    },
    /// Every address of the network is taken.
    #[error("no address is left in the network of owner {owner}: make the networks of CM larger")]
    NoAddress {
        /// Whose network.
        owner: OwnerId,
    },
    /// An instance asked again for another owner's network.
    #[error("instance {ident} belongs to the network of owner {owner}")]
    OtherOwner {
        /// The instance.
        ident: InstanceIdent,
        /// Its owner.
        owner: OwnerId,
    },
}
