//! What a run leaves to read: one line per mutating request, as JSON or for people. The log of a run's Job is its
//! audit trail, so a line says what was asked of which object and what came of it, never what was inside.

use std::fmt::{self, Write as _};
use std::io::{IsTerminal, Write as _};
use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{filter, registry};

use crate::plan::text::{escape, escape_json};

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object per line.
    Json,
    /// For people; the default on a terminal.
    Text,
}

impl Format {
    pub fn or_default(chosen: Option<Format>) -> Format {
        let natural = || if std::io::stdout().is_terminal() { Format::Text } else { Format::Json };
        chosen.unwrap_or_else(natural)
    }
}

static FORMAT: OnceLock<Format> = OnceLock::new();

/// Starts the log. A second start (in tests) changes nothing.
pub fn start(format: Format) {
    let ours = filter::filter_fn(|meta| meta.target().starts_with("sts_backup") && *meta.level() <= Level::INFO);
    if registry().with(Lines { format }.with_filter(ours)).try_init().is_err() {
        return;
    }
    let _ = FORMAT.set(format);
    if format == Format::Json {
        std::panic::set_hook(Box::new(|panic| complain(&panic.to_string())));
    }
}

/// A sentence on stderr. In a pod it stands in one log with the lines of stdout, so beside a log in JSON it is a line of
/// JSON as well, unless a person reads it on a terminal.
pub fn complain(sentence: &str) {
    let mut err = std::io::stderr().lock();
    let json = FORMAT.get() == Some(&Format::Json) && !err.is_terminal();
    let _ = writeln!(err, "{}", complaint(json, sentence));
}

fn complaint(json: bool, sentence: &str) -> String {
    if !json {
        return escape(sentence).into_owned();
    }
    let fields = Fields(vec![("message", sentence.into())]);
    escape_json(&fields.json(Level::ERROR)).into_owned()
}

/// A mutating request and what came of it.
#[derive(Debug, Default)]
pub struct Audit<'a> {
    pub run: Option<String>,
    pub step: &'a str,
    pub verb: &'a str,
    /// `kind/namespace/name`
    pub object: &'a str,
    pub uid: Option<&'a str>,
    /// ok, exists, refused, error or unknown
    pub outcome: &'a str,
    /// The HTTP status, where there was an answer.
    pub code: Option<u16>,
    pub duration: Duration,
    pub message: Option<String>,
}

/// What a hook's line says beside that.
#[derive(Debug)]
pub struct Hook<'a> {
    pub pod: &'a str,
    pub container: &'a str,
    pub argv: &'a str,
    pub exit_code: Option<i32>,
    pub stdout: &'a str,
    pub stderr: &'a str,
}

impl Audit<'_> {
    pub fn write_hook(&self, hook: &Hook) {
        let ms = u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX);
        let text = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    run = self.run,
                    step = self.step,
                    verb = self.verb,
                    object = self.object,
                    uid = self.uid,
                    pod = hook.pod,
                    container = hook.container,
                    argv = hook.argv,
                    exitCode = hook.exit_code,
                    stdout = text(hook.stdout),
                    stderr = text(hook.stderr),
                    outcome = self.outcome,
                    durationMs = ms,
                    message = self.message
                )
            };
        }
        if self.outcome == "ok" { line!(info) } else { line!(warn) }
    }

    pub fn write(&self) {
        let ms = u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX);
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    run = self.run,
                    step = self.step,
                    verb = self.verb,
                    object = self.object,
                    uid = self.uid,
                    outcome = self.outcome,
                    code = self.code,
                    durationMs = ms,
                    message = self.message
                )
            };
        }
        if matches!(self.outcome, "ok" | "exists") { line!(info) } else { line!(warn) }
    }
}

/// The last line of a run's log: the whole of it for machines, `sentence` for people.
pub fn summary(format: Format, summary: &impl Serialize, sentence: &str) {
    #[derive(Serialize)]
    struct Line<'a, T> {
        time: String,
        summary: &'a T,
    }
    let line = Line { time: now(), summary };
    let text = match format {
        Format::Json => serde_json::to_string(&line),
        Format::Text => Ok(sentence.to_owned()),
    };
    if let Ok(text) = text {
        print(format, &text);
    }
}

/// RFC 3339 in UTC, to the millisecond.
fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

/// One line, whatever others have written into it. A reader that has gone away is no reason to stop a run.
fn print(format: Format, line: &str) {
    let line = match format {
        Format::Json => escape_json(line),
        Format::Text => escape(line),
    };
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

struct Lines {
    format: Format,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event, _: Context<S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = event.metadata().level();
        let line = match self.format {
            Format::Json => fields.json(*level),
            Format::Text => fields.text(*level),
        };
        print(self.format, &line);
    }
}

/// The fields of an event in the order in which they were written.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn json(&self, level: Level) -> String {
        let mut line = format!("{{\"time\":\"{}\",\"level\":\"{}\"", now(), level.as_str().to_lowercase());
        for (name, value) in &self.0 {
            let _ = write!(line, ",\"{name}\":{value}");
        }
        line + "}"
    }

    fn text(&self, level: Level) -> String {
        let get = |name: &str| self.0.iter().find(|(field, _)| *field == name).map(|(_, value)| plain(value));
        sentence(Timestamp::now(), &level.as_str().to_lowercase(), get)
    }
}

fn plain(value: &Value) -> String {
    if let Value::String(text) = value { text.clone() } else { value.to_string() }
}

/// A line for people, by its fields.
fn sentence(time: Timestamp, level: &str, get: impl Fn(&str) -> Option<String>) -> String {
    let mut line = time.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string();
    if let Some(outcome) = get("outcome") {
        let _ = write!(line, " {outcome:<7}");
    } else if level != "info" {
        let _ = write!(line, " {level}");
    }
    if let (Some(step), Some(verb), Some(object)) = (get("step"), get("verb"), get("object")) {
        let ms = get("durationMs").unwrap_or_default();
        let _ = write!(line, " {step:<9} {verb} {object} ({ms} ms)");
    }
    if let Some(message) = get("message") {
        let _ = write!(line, "{} {message}", if get("step").is_some() { ":" } else { "" });
    }
    line
}

/// A line that a run has left as JSON, for people; one that is none of ours as it is.
pub fn translate(line: &str) -> String {
    let Ok(Value::Object(fields)) = serde_json::from_str::<Value>(line) else { return line.to_owned() };
    let Some(time) = fields.get("time").and_then(Value::as_str).and_then(|time| time.parse().ok()) else {
        return line.to_owned();
    };
    let found = fields.get("summary").and_then(Value::as_object);
    let of = found.unwrap_or(&fields);
    let get = |name: &str| of.get(name).filter(|value| !value.is_null()).map(plain);
    if found.is_none() {
        return sentence(time, &get("level").unwrap_or_else(|| "info".into()), get);
    }
    // The last line: of a backup its last run, of a restore its status.
    let words = ["id", "runId", "outcome", "phase", "reason", "message"].into_iter().filter_map(get);
    let message = format!("end: {}", words.collect::<Vec<_>>().join(", "));
    sentence(time, "info", |name| (name == "message").then(|| message.clone()))
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push((field.name(), Value::String(format!("{value:?}"))));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.into()));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.push((field.name(), value.into()));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.push((field.name(), value.into()));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.push((field.name(), value.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_is_read_as_the_text_that_a_terminal_would_have_shown() {
        let read = |line: &str| translate(line).split_once(' ').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        let audit = r#"{"time":"2026-03-02T12:00:00.123Z","level":"info","step":"Lock","verb":"update",
            "object":"lease/shop/sts-backup-pg","uid":null,"outcome":"ok","code":200,"durationMs":7,"message":"taken"}"#;
        assert_eq!(read(audit), "ok      Lock      update lease/shop/sts-backup-pg (7 ms): taken");
        let said = r#"{"time":"2026-03-02T12:00:00Z","level":"warn","message":"no answer"}"#;
        assert_eq!(read(said), "warn no answer");
        let end = r#"{"time":"2026-03-02T12:00:00Z","summary":{"id":"20260302-120000","outcome":"Failed","reason":"HookFailed"}}"#;
        assert_eq!(read(end), "end: 20260302-120000, Failed, HookFailed");
        for other in ["", "thread 'main' panicked", "{}", "[1]", r#"{"time":"now"}"#] {
            assert_eq!(translate(other), other);
        }
    }

    #[test]
    fn a_complaint_is_one_line_of_json_or_one_line_of_text() {
        let forged = "HookFailed: stderr: no\n{\"time\":\"now\",\"outcome\":\"ok\"}\r\u{2028}\u{9b}2J";
        let json = complaint(true, forged);
        assert!(!json.contains(crate::plan::text::is_control), "{json}");
        let read: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((read["level"].as_str(), read["message"].as_str()), (Some("error"), Some(forged)));
        let text = complaint(false, forged);
        assert!(
            !text.contains(crate::plan::text::is_control) && text.starts_with("HookFailed: stderr: no\\n{"),
            "{text}"
        );
    }
}
