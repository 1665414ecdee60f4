//! The network-like backend keeps its word under every fault, and each planted defect is caught.

mod network {
    pub(crate) mod cancel;
    pub(crate) mod faults;
    pub(crate) mod leases;
    pub(crate) mod locks;
    pub(crate) mod plants;
    pub(crate) mod sets;
    pub(crate) mod setup;
}
