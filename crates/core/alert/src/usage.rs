use std::collections::BTreeMap;

/// Bytes that went over the network in the period that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Received.
    pub download: u64,
    /// Sent.
    pub upload: u64,
}

/// What somebody uses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// Processing power, in DMIPS.
    pub cpu: u64,
    /// Memory, in bytes.
    pub ram: u64,
    /// Bytes used of each partition.
    pub partitions: BTreeMap<String, u64>,
    /// Traffic, if it is counted.
    pub traffic: Option<Traffic>,
}

impl Usage {
    /// No less than `other` in anything: a Node uses at least what its instances use, whatever was read when.
    pub(crate) fn at_least(&mut self, other: &Self) {
        self.cpu = self.cpu.max(other.cpu);
        self.ram = self.ram.max(other.ram);
        if let (Some(own), Some(least)) = (&mut self.traffic, other.traffic) {
            own.download = own.download.max(least.download);
            own.upload = own.upload.max(least.upload);
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.cpu = self.cpu.saturating_add(other.cpu);
        self.ram = self.ram.saturating_add(other.ram);
        if let Some(more) = other.traffic {
            let all = self.traffic.get_or_insert_default();
            all.download = all.download.saturating_add(more.download);
            all.upload = all.upload.saturating_add(more.upload);
        }
    }
}
