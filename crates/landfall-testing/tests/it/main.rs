//! The schemas, against real objects of real kinds; the control plane and its fake kubelet, against real controllers.

#[cfg(feature = "control-plane")]
mod control_plane;
mod schemas;
