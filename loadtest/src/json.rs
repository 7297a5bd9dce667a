//! JSON text straight into bytes: the generator must be faster than what it measures.

use base64::Engine;

/// Appends a whole number.
pub fn int(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a quoted and escaped text.
pub fn text(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    for &byte in value.as_bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// Appends `"name":`.
pub fn field(out: &mut Vec<u8>, name: &str) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Appends `"name":value` with a comma in front.
pub fn int_field(out: &mut Vec<u8>, name: &str, value: i64) {
    out.push(b',');
    field(out, name);
    int(out, value);
}

/// Appends Kafka Connect's Decimal: the unscaled value as the shortest big-endian two's complement, in base64.
pub fn decimal(out: &mut Vec<u8>, unscaled: i64) {
    let bytes = unscaled.to_be_bytes();
    let sign = if unscaled < 0 { 0xff } else { 0 };
    // A leading byte may go when the next one still carries the sign.
    let skip = (0..7).take_while(|&i| bytes[i] == sign && (bytes[i + 1] ^ sign) < 0x80).count();
    let mut buffer = [0u8; 12];
    let length =
        base64::engine::general_purpose::STANDARD.encode_slice(&bytes[skip..], &mut buffer).unwrap_or_default();
    out.push(b'"');
    out.extend_from_slice(&buffer[..length]);
    out.push(b'"');
}

/// Appends a quoted RFC 3339 time in UTC with six digits of fraction, as Debezium's `ZonedTimestamp`.
pub fn zoned_timestamp(out: &mut Vec<u8>, micros: i64) {
    let (days, rest) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    let (year, month, day) = civil(days);
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    out.push(b'"');
    padded(out, year, 4);
    for (mark, value) in [(b'-', month), (b'-', day), (b'T', seconds / 3600), (b':', seconds / 60 % 60)] {
        out.push(mark);
        padded(out, value, 2);
    }
    out.push(b':');
    padded(out, seconds % 60, 2);
    out.push(b'.');
    padded(out, fraction, 6);
    out.extend_from_slice(b"Z\"");
}

fn padded(out: &mut Vec<u8>, value: i64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value).as_bytes();
    out.resize(out.len() + width.saturating_sub(digits.len()), b'0');
    out.extend_from_slice(digits);
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar. Years are counted from March, so
/// that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn decimals_are_the_shortest_twos_complement() {
        // The bytes 04 D2, FB 2E, 00 80, 80, 00 and FF.
        for (unscaled, text) in
            [(1234, "BNI="), (-1234, "+y4="), (128, "AIA="), (-128, "gA=="), (0, "AA=="), (-1, "/w==")]
        {
            assert_eq!(written(|out| decimal(out, unscaled)), format!("\"{text}\""), "{unscaled}");
        }
    }

    #[test]
    fn times_are_civil() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_709_210_096_000_007, "2024-02-29T12:34:56.000007Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(written(|out| zoned_timestamp(out, micros)), format!("\"{text}\""));
        }
    }

    #[test]
    fn texts_are_escaped() {
        let wild = "a\"b\\c\nd\u{1}é";
        let json = written(|out| text(out, wild));
        assert_eq!(serde_json::from_str::<String>(&json).expect("valid JSON"), wild);
    }
}
