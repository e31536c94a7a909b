//! Times as people read them.

use jiff::Timestamp;
use serde_json::Value;

/// `5s`, `3m`, `2h`, `4d`: the largest unit alone, as kubectl prints ages.
pub fn age(since: &Value, now: Timestamp) -> String {
    let Some(since) = since.as_str().and_then(|text| text.parse::<Timestamp>().ok()) else { return "-".to_owned() };
    span((now.as_second() - since.as_second()).max(0))
}

/// A number of seconds in its largest unit, two of them where the first is small.
pub fn span(seconds: i64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `2026-01-31T14:03:59Z`: UTC to the second, as times are written everywhere.
pub fn clock(time: &Value) -> String {
    let time = time.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    time.map_or("-".to_owned(), |time| format!("{time:.0}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let told = [0, 119, 120, 7199, 7200, 172_799, 172_800].map(span);
        assert_eq!(told, ["0s", "119s", "2m", "119m", "2h", "47h", "2d"]);
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        assert_eq!(age(&"2026-01-01T00:00:00Z".into(), now), "60s");
        assert_eq!(age(&Value::Null, now), "-");
        assert_eq!(clock(&"2026-01-01T08:00:00.123456+08:00".into()), "2026-01-01T00:00:00Z");
        assert_eq!(clock(&Value::Null), "-");
    }
}
