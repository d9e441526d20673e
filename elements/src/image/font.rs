//! Digits of 5x7 pixels in cells of 6x8.

/// Columns of a cell.
pub(crate) const WIDTH: usize = 6;
/// Rows of a cell.
pub(crate) const HEIGHT: usize = 8;
/// The characters there are.
pub(crate) const GLYPHS: &[u8] = b"0123456789#.s ";

const ROWS: [[u8; 7]; GLYPHS.len()] = [
    [0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110],
    [0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110],
    [0b01110, 0b10001, 0b00001, 0b00010, 0b00100, 0b01000, 0b11111],
    [0b11111, 0b00010, 0b00100, 0b00010, 0b00001, 0b10001, 0b01110],
    [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010],
    [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110],
    [0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110],
    [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000],
    [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110],
    [0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100],
    [0b01010, 0b01010, 0b11111, 0b01010, 0b11111, 0b01010, 0b01010],
    [0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b01100, 0b01100],
    [0b00000, 0b00000, 0b01111, 0b10000, 0b01110, 0b00001, 0b11110],
    [0; 7],
];

/// True where glyph `glyph` (an index of [`GLYPHS`]) is lit at this place of its cell.
pub(crate) fn lit(glyph: usize, x: usize, y: usize) -> bool {
    y < 7 && x < 5 && ROWS[glyph][y] >> (4 - x) & 1 == 1
}
