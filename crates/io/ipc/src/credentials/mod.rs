//! How a component gets its certificates: from the IAM of its Node, which tells where they are and when they change.
//!
//! Before the Unit has joined a cloud there is neither a root nor a certificate. A component waits for both here and goes on
//! by itself when they come; a renewed certificate is taken over without a restart.

mod follow;
mod root;

pub use follow::keep_certificate;
pub use root::wait_for_root;
