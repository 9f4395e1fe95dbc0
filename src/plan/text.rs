//! Text that others wrote (the output of hooks, errors of drivers, annotations, names), before a terminal, a log line,
//! an Event or status shows it: one line, and nothing in it that a terminal obeys.

use std::borrow::Cow;

/// It ends a line, steers a terminal, or turns round or hides what stands beside it.
pub fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Each such character is written out: `\n`, `\u{1b}`. What has none is as it was, so that twice is as good as once.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_but(text, |_| false)
}

/// The same for what has lines of its own.
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_but(text, |c| c == '\n')
}

fn escape_but(text: &str, stays: fn(char) -> bool) -> Cow<'_, str> {
    let bad = |c: char| is_control(c) && !stays(c);
    if !text.contains(bad) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if bad(c) { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    Cow::Owned(escaped)
}

/// JSON that is written already: what JSON lets stand in its strings is escaped as JSON does.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    let unit = |unit: &u16| format!("\\u{unit:04x}");
    escape_written(json, |c| c.encode_utf16(&mut [0; 2]).iter().map(unit).collect::<Vec<_>>().concat())
}

/// YAML that is written already. In a plain scalar the escape is what is read.
pub fn escape_yaml(yaml: &str) -> Cow<'_, str> {
    escape_written(yaml, |c| match u32::from(c) {
        short @ ..=0xffff => format!("\\u{short:04x}"),
        long => format!("\\U{long:08x}"),
    })
}

fn escape_written(text: &str, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    let bad = |c: char| is_control(c) && (c == '\u{7f}' || !c.is_ascii());
    if !text.contains(bad) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if bad(c) { escape(c) } else { c.to_string() }).collect())
}

/// Of what others say so many bytes, in status or in memory.
pub const SAID: usize = 1024;

/// What others said, bounded, as a sentence of ours may show it.
pub fn said(text: &str) -> String {
    escape(&head(text, SAID)).into_owned()
}

/// Its beginning, of at most so many bytes, with a sign that something is left out.
pub fn head(text: &str, most: usize) -> Cow<'_, str> {
    const MORE: &str = "...";
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(most.saturating_sub(MORE.len()));
    Cow::Owned(format!("{}{MORE}", &text[..end]))
}

/// Its end, of at most so many bytes.
pub fn tail(text: &str, most: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(most))..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_written_out_and_all_else_stays() {
        for (text, shown) in [
            ("", ""),
            (r#"plain ÄÖ 漢字 🎉 \n "quoted""#, r#"plain ÄÖ 漢字 🎉 \n "quoted""#),
            ("a\nb\r\tc\0", r"a\nb\r\tc\u{0}"),
            ("\x1b[31mred\x1b]0;title\x07\x7f", r"\u{1b}[31mred\u{1b}]0;title\u{7}\u{7f}"),
            ("\u{9b}31m\u{85}", r"\u{9b}31m\u{85}"),
            ("\u{202e}txt.exe\u{2066}\u{2028}\u{2029}\u{feff}", r"\u{202e}txt.exe\u{2066}\u{2028}\u{2029}\u{feff}"),
        ] {
            assert_eq!(escape(text), shown);
            assert_eq!(escape(&escape(text)), shown, "twice is as good as once");
        }
        assert_eq!(escape_lines("a\nb\rc"), "a\nb\\rc");
    }

    #[test]
    fn json_stays_json_and_says_the_same() {
        for text in ["a\nb", "\u{7f}\u{9b}\u{2028}\u{202e}", "\u{e0041}x"] {
            let json = serde_json::to_string(&[text]).unwrap();
            let escaped = escape_json(&json);
            assert!(!escaped.contains(is_control), "{escaped}");
            assert_eq!(serde_json::from_str::<Vec<String>>(&escaped).unwrap(), [text]);
        }
    }

    #[test]
    fn text_is_cut_between_characters() {
        let text = "ÄÖÜ".repeat(10);
        for most in 3..70 {
            assert!(head(&text, most).len() <= most && tail(&text, most).len() <= most, "{most}");
            assert!(head(&text, most).len() + 4 > most.min(60) && tail(&text, most).len() + 2 > most.min(60), "{most}");
        }
        assert_eq!((head("abc", 3), tail("abc", 3)), ("abc".into(), "abc"));
        assert_eq!((head("abcdefg", 5), tail("abcdefg", 5)), ("ab...".into(), "cdefg"));
    }
}
