//! Why a machine cannot see a game: a ladder of rungs over what was observed. Pure.
#![forbid(unsafe_code)]
