//! The network-like backend keeps its word under every fault, and each planted defect is caught.

mod network {
    pub mod cancel;
    pub mod faults;
    pub mod leases;
    pub mod plants;
    pub mod setup;
}
