//! What the scheduler decides: by itself, on a real API server, and compared with the real scheduler.
//!
//! `LANDFALL_CONTROL_PLANE` names the kubeconfig of a control plane for the last two; without it they say so and pass.

mod placing;
mod real;
