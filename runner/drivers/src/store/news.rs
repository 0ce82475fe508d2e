//! What an outbox keeps of an alert, and when its words are news.
use drill::port::Alert;

/// Bytes of a message or of advice.
const MAX_TEXT: usize = 4_096;
/// Bytes of details as JSON.
const MAX_DETAILS: usize = 65_536;

/// The alert within bounds: what it is about is never lost, however long its words are.
pub(super) fn bounded(alert: &Alert) -> Alert {
    let details = match alert.details.to_string().len() {
        0..=MAX_DETAILS => alert.details.clone(),
        bytes => serde_json::json!({ "leftOut": format!("{bytes} bytes are more than an alert may hold") }),
    };
    Alert {
        subject: cut(&alert.subject),
        message: cut(&alert.message),
        advice: alert.advice.as_deref().map(cut),
        details,
        ..alert.clone()
    }
}

pub(super) fn cut(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

/// Whether `new` tells more than `old` did. Numbers and the run's own name change with each run; a person has learnt nothing.
pub(super) fn is_news(old: &Alert, new: &Alert) -> bool {
    words(old) != words(new) || old.details != new.details
}

fn words(alert: &Alert) -> String {
    let mut text = format!("{}\n{}", alert.message, alert.advice.as_deref().unwrap_or_default());
    if let Some(run) = &alert.run {
        text = text.replace(run.as_str(), "#");
    }
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        let c = if c.is_ascii_digit() { '#' } else { c };
        if c != '#' || !folded.ends_with('#') {
            folded.push(c);
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(message: &str) -> Alert {
        Alert {
            kind: "drill-failed".to_owned(),
            subject: "orders".to_owned(),
            drill: None,
            run: None,
            at: jiff::Timestamp::UNIX_EPOCH,
            message: message.to_owned(),
            advice: None,
            details: serde_json::json!({}),
        }
    }

    #[test]
    fn other_numbers_are_no_news_and_other_words_are() {
        let old = alert("restored in 31 s, 1 s over");
        assert!(!is_news(&old, &alert("restored in 128 s, 98 s over")));
        assert!(is_news(&old, &alert("a row is missing")));
        assert!(is_news(&old, &Alert { details: serde_json::json!({ "digest": "sha256:1" }), ..old.clone() }));
        assert!(is_news(&old, &Alert { advice: Some("look".to_owned()), ..old.clone() }));
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        let long = bounded(&Alert { details: "x".repeat(MAX_DETAILS).into(), ..alert(&"ü".repeat(5_000)) });
        assert_eq!(long.message.len(), MAX_TEXT + "…".len());
        assert_eq!(long.details["leftOut"], "65538 bytes are more than an alert may hold");
        assert_eq!(bounded(&alert("short")), alert("short"));
    }
}
