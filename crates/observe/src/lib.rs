//! What happens on a LAN, from its frames alone: machines, sessions, players, each with the frame that shows it. Pure: frames and times in, state out.
#![forbid(unsafe_code)]
