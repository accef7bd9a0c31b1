//! Deliberate bugs. A simulator that does not find them would not find others.

macro_rules! mutations {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// One deliberate bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutation { $($(#[$doc])* $variant,)* }

        impl Mutation {
            /// All of them with their names.
            pub const ALL: &[(Self, &'static str)] = &[$((Self::$variant, $name),)*];
        }
    };
}

mutations! {
    /// CM takes blobs whose signature is bad.
    SkipSignatureCheck = "skip-signature-check",
    /// CM takes blobs whose bytes are not those of their digest.
    SkipDigestCheck = "skip-digest-check",
    /// A Node runs what CM served without looking at its digest.
    NodeSkipsDigest = "node-skips-digest",
    /// A Node runs what is on its disk without looking at it.
    NodeTrustsDisk = "node-trusts-disk",
    /// Images of the installed set are evicted when there is no space.
    EvictsInstalled = "evicts-installed",
    /// Places are given to the Nodes and not stored.
    PlacesNotStored = "places-not-stored",
    /// After a boot a Node waits for CM.
    NoRestoreWithoutCm = "no-restore-without-cm",
    /// A Node stops the old instance although the new image is not there.
    StopWithoutInstall = "stop-without-install",
    /// A Node stores its list after it was carried out.
    StoreAfterSwitch = "store-after-switch",
    /// A Node says that images are installed without having them.
    InstallSaysYes = "install-says-yes",
    /// SM takes an adopted process for a healthy one.
    AdoptedIsActive = "adopted-is-active",
    /// A paused Node that is away keeps every update from happening.
    AbsentNodeBlocks = "absent-node-blocks",
    /// What a Node could not install is not tried again.
    HeldIsForgotten = "held-is-forgotten",
    /// An instance that ended is never started again.
    NoRestart = "no-restart",
}

impl Mutation {
    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(one, _)| *one == self)
            .map_or("", |(_, name)| name)
    }
}
