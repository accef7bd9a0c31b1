//! Code generated from `proto/`, one module a package.
#![allow(
    missing_docs,
    clippy::all,
    clippy::large_futures,
    reason = "generated; the protos carry the documentation"
)]

/// Types shared by all services.
pub mod common {
    pub mod v1 {
        tonic::include_proto!("common.v1");
    }

    pub mod v2 {
        tonic::include_proto!("common.v2");
    }
}

/// Programs on the Unit and CM.
pub mod communicationmanager {
    pub mod v3 {
        tonic::include_proto!("communicationmanager.v3");
    }
}

/// SM and CM.
pub mod servicemanager {
    pub mod v5 {
        tonic::include_proto!("servicemanager.v5");
    }
}

/// IAM; the version service stands outside the versions.
pub mod iamanager {
    tonic::include_proto!("iamanager");

    pub mod v6 {
        tonic::include_proto!("iamanager.v6");
    }
}

/// Ours: beside servicemanager.v5, and for tools on the Unit.
pub mod aos {
    pub mod node {
        pub mod v1 {
            tonic::include_proto!("aos.node.v1");
        }
    }

    pub mod unit {
        pub mod v1 {
            tonic::include_proto!("aos.unit.v1");
        }
    }
}

/// The compiled protos as an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
