//! Init segments and parts, held against another parser and against real decoders.
