//! One handler an operation. They read the request, ask the store, and word the answer; they decide nothing else.

pub(crate) mod account;
pub(crate) mod audit;
pub(crate) mod bundles;
pub(crate) mod claim_codes;
pub(crate) mod enrolment;
pub(crate) mod events;
pub(crate) mod logs;
pub(crate) mod monitoring;
pub(crate) mod orders;
pub(crate) mod services;
pub(crate) mod states;
pub(crate) mod subjects;
pub(crate) mod unit_models;
pub(crate) mod units;
