//! Who this Unit is: what CM learns from IAM, and the little it asks of it.
//!
//! Before the Unit has joined a cloud there is no root certificate and no `cm` certificate: `aos_ipc::wait_for_root` and
//! [`Credentials::keep`] wait for them, and CM goes on by itself when they are there. Certificates that are renewed are
//! taken over without a restart.

mod credentials;
mod iam;
mod offline;

pub(crate) use credentials::Credentials;
pub(crate) use iam::IamClient;
