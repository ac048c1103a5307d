//! Text that is not to be shown as it is: for what it may hold, or for whom it may concern.

/// Whether a character is a mark or an override of the direction of writing (Unicode UAX 9), by which one address could look
/// like another (UTR 36).
pub fn turns_direction(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A name without who it is, where it is a mail address: `a…@example.org`. For what many may read.
pub fn masked(name: &str) -> String {
    let Some((local, domain)) = name.rsplit_once('@') else { return name.to_owned() };
    // `web:alice@example.org` is a mail address behind the way it came.
    let from = local.rfind(':').map_or(0, |colon| colon + 1);
    let (way, local) = local.split_at(from);
    let first: String = local.chars().take(1).collect();
    format!("{way}{first}…@{domain}")
}

/// Text that is no markup, in an element of HTML or in a quoted attribute.
pub fn html_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_address_is_masked_and_nothing_else() {
        for (name, shown) in [
            ("alice@example.org", "a…@example.org"),
            ("web:alice@example.org", "web:a…@example.org"),
            ("\"a@b\"@example.org", "\"…@example.org"),
            ("@x", "…@x"),
            ("irc:libera/bob", "irc:libera/bob"),
            ("ops", "ops"),
        ] {
            assert_eq!(masked(name), shown);
        }
    }

    #[test]
    fn nothing_of_a_text_is_markup() {
        assert_eq!(
            html_escaped("<b onclick='x'>\"&amp;\"</b>"),
            "&lt;b onclick=&#39;x&#39;&gt;&quot;&amp;amp;&quot;&lt;/b&gt;"
        );
    }
}
