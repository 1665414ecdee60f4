//! The servers and the proxy that other tests break things with do what they say.

mod etcd;
mod groups;
mod proxy;
mod single;
