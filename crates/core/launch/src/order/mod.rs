//! In which order instances of one Node start and stop, by what their items say of each other.
//!
//! Dependencies hold a start back and nothing else: what runs is not stopped because something it once waited for has
//! ended. Only what is on the Node, and what CM tells of other Nodes, is looked at; so the same facts always give the same
//! answer, and whoever asks again after each change misses nothing.

mod circles;
mod member;
mod starts;
mod stops;

pub use member::{Member, Progress};
pub use starts::{Elsewhere, Peer, Standstill, Starts, starts};
pub use stops::stop_waves;
