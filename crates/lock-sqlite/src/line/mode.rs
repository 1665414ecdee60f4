//! Modes in columns.

use lock_core::Mode;

/// Kind, count and maximum.
pub(crate) fn write_mode(mode: Mode) -> (u8, u32, u32) {
    match mode {
        Mode::Exclusive => (0, 1, 0),
        Mode::Shared => (1, 1, 0),
        Mode::Permit(permits) => (2, permits.count(), permits.of()),
    }
}

/// Reads what [`write_mode`] wrote.
pub(crate) fn read_mode(kind: u8, count: u32, of: u32) -> Mode {
    match kind {
        0 => Mode::Exclusive,
        1 => Mode::Shared,
        _ => Mode::permits(count, of).unwrap_or(Mode::Exclusive),
    }
}
