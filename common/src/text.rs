//! What text of others may hold that is not to be shown as it is.

/// Whether a character is a mark or an override of the direction of writing (Unicode UAX 9), by which one address could look
/// like another (UTR 36).
pub fn turns_direction(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
