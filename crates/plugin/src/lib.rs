//! The kubelet side of the agent: device plugin `loco.dev/seat` and the pod-resources API, over Unix sockets.
#![forbid(unsafe_code)]
