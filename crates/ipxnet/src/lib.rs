//! DOSBox's IPX tunnel (IPXNET, UDP 213): a relay between tunnel clients and the segment's own IPX.
#![forbid(unsafe_code)]
