//! AVC decoder configuration (ISO/IEC 14496-15, 5.3.3.1), SPS and access units.
