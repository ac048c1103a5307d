//! Numbers as people write them in rules, `90%`, `0.5`, `5g`, and as they are shown to people.

/// Text that is no number of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("number is {text:?}, but must be {must_be}")]
pub struct NumberError {
    text: String,
    must_be: &'static str,
}

/// Reads a number of a rule: a sign if any, digits with a fraction if any, and one suffix if any.
///
/// `k`, `m`, `g` and `t` in either case multiply by powers of 1024. `%` changes nothing, since what it is
/// compared with goes from 0 to 100. The result is finite.
pub fn parse_bytes_number(text: &str) -> Result<f64, NumberError> {
    let refused = |must_be| NumberError { text: text.to_owned(), must_be };

    let (digits, factor) = split_suffix(text);
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    // The standard library would also read `inf`, `nan`, `1e9` and `.5`.
    let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(whole) || !are_digits(fraction) {
        return Err(refused("digits with at most one of k m g t %, such as 90%, 0.5 or 5g"));
    }
    match digits.parse::<f64>() {
        Ok(number) if (number * factor).is_finite() => Ok(number * factor),
        Ok(_) | Err(_) => Err(refused("less than 1.8e308")),
    }
}

/// The text before the suffix, and what the suffix multiplies by.
fn split_suffix(text: &str) -> (&str, f64) {
    const KIB: f64 = 1024.0;
    let factor = match text.bytes().last() {
        Some(b'k' | b'K') => KIB,
        Some(b'm' | b'M') => KIB * KIB,
        Some(b'g' | b'G') => KIB * KIB * KIB,
        Some(b't' | b'T') => KIB * KIB * KIB * KIB,
        Some(b'%') => 1.0,
        Some(_) | None => return (text, 1.0),
    };
    (&text[..text.len() - 1], factor)
}

/// A number with at most four digits after the point, no zeros at the end.
pub fn for_people(value: f64) -> String {
    if value != 0.0 && value.abs() < 0.0001 || value.abs() >= 1e15 {
        return format!("{value:e}");
    }
    let digits = format!("{value:.4}");
    digits.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 93.0, 93.25, 1.0 / 3.0, -0.5, 0.000_012, 123_456_789_012.0, 1e20].map(for_people);
        assert_eq!(shown, ["0", "93", "93.25", "0.3333", "-0.5", "1.2e-5", "123456789012", "1e20"]);
    }

    #[track_caller]
    #[expect(clippy::float_cmp, reason = "every number here is exact in binary")]
    fn reads(text: &str, expected: f64) {
        assert_eq!(parse_bytes_number(text).expect(text), expected);
    }

    #[test]
    fn plain_numbers_are_read() {
        reads("0", 0.0);
        reads("42", 42.0);
        reads("0.5", 0.5);
        reads("-1.25", -1.25);
        reads("+7", 7.0);
        reads("007", 7.0);
    }

    #[test]
    fn suffixes_are_powers_of_1024_in_either_case() {
        reads("1k", 1024.0);
        reads("2M", 2_097_152.0);
        reads("5g", 5_368_709_120.0);
        reads("1.5G", 1_610_612_736.0);
        reads("1t", 1_099_511_627_776.0);
        reads("-1K", -1024.0);
    }

    #[test]
    fn a_percent_sign_changes_nothing() {
        reads("90%", 90.0);
        reads("0.5%", 0.5);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "",
            " ",
            "-",
            "k",
            "%",
            "nan",
            "NaN",
            "inf",
            "-inf",
            "infinity",
            "1e9",
            "0x10",
            ".5",
            "5.",
            "1.2.3",
            "--1",
            "1,5",
            "5 g",
            " 5g",
            "5g ",
            "5gb",
            "5kk",
            "5%%",
            "5k%",
            "1_000",
            "٣",
            "5\u{212a}",
        ] {
            let error = parse_bytes_number(text).expect_err(text);
            assert_eq!(
                error.to_string(),
                format!("number is {text:?}, but must be digits with at most one of k m g t %, such as 90%, 0.5 or 5g")
            );
        }
    }

    #[test]
    fn what_would_become_infinite_is_refused() {
        let max = format!("17{}", "0".repeat(307));
        assert!(parse_bytes_number(&max).is_ok());
        for text in [format!("{max}k"), format!("-{max}t"), "9".repeat(400)] {
            let error = parse_bytes_number(&text).expect_err("is infinite");
            assert_eq!(error.to_string(), format!("number is {text:?}, but must be less than 1.8e308"));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_no_result_is_infinite(text in "[-+]?[0-9]{0,400}\\.?[0-9]{0,5}[kmgtKMGT%]?|.*") {
            if let Ok(number) = parse_bytes_number(&text) {
                proptest::prop_assert!(number.is_finite());
            }
        }
    }
}
