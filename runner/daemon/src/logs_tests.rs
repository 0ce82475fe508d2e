#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::sync::mpsc;

use super::*;

fn logs(format: LogFormat, sink: LogSink) -> Logs {
    Logs { format, sink, level: LogLevel::Info }
}

fn logged(format: LogFormat, work: impl FnOnce()) -> String {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("muster.log");
    let (subscriber, guard) = subscriber(&logs(format, LogSink::File(path.clone()))).unwrap();
    tracing::subscriber::with_default(subscriber, work);
    drop(guard);
    std::fs::read_to_string(path).unwrap()
}

const HOSTILE: &str =
    "x\n2026-11-22T02:00:00Z INFO muster: run concluded verdict=passed\r\u{1b}[2J\u{9b}31m\u{202e}\u{7f}";

#[test]
fn a_hostile_name_can_neither_begin_a_line_nor_speak_to_a_terminal() {
    let say = || {
        tracing::info!(drill = HOSTILE, "a name");
        tracing::info!("{HOSTILE}");
        tracing::warn!(stop = %Stop::internal(HOSTILE), "displayed");
    };
    for format in [LogFormat::Text, LogFormat::Json] {
        let text = logged(format, say);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
        for line in text.lines().filter(|_| format == LogFormat::Json) {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            let fields = ["drill", "message", "stop"].map(|field| value[field].as_str() == Some(HOSTILE));
            assert!(fields.contains(&true), "{line}");
        }
    }
}

#[test]
fn only_what_was_asked_for_is_logged() {
    let text = logged(LogFormat::Text, || {
        tracing::debug!("too quiet");
        tracing::info!(target: "hyper", "not ours");
        tracing::warn!(target: "hyper", "theirs, and loud");
        tracing::info!("ours");
    });
    assert!(text.contains("loud") && text.contains("ours\n"), "{text}");
    assert!(!text.contains("quiet") && !text.contains("not ours"), "{text}");
}

/// A sink that stalls until it is let go.
struct Stalling {
    go: mpsc::Receiver<()>,
    written: mpsc::Sender<String>,
}

impl Write for Stalling {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.go.recv();
        let _ = self.written.send(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_sink_that_stalls_keeps_nobody_waiting_and_is_told_what_it_missed() {
    let ((go, gone), (written, read)) = (mpsc::channel(), mpsc::channel());
    let sink = Sink::Test(Box::new(Stalling { go: gone, written }));
    let (subscriber, guard) = subscriber_to(sink, LogFormat::Text, LogLevel::Info, 10);
    tracing::subscriber::with_default(subscriber, || {
        // Returns although nothing can be written.
        for number in 0..1_000 {
            tracing::info!(number, "said");
        }
    });
    drop(go);
    drop(guard);
    let text: String = read.iter().collect();
    let said = text.lines().filter(|line| line.contains("said")).count();
    let lost: usize =
        text.lines().filter_map(|line| line.split_once("lost=")).map(|(_, n)| n.parse::<usize>().unwrap()).sum();
    assert!((10..=11).contains(&said), "{text}");
    assert_eq!(said + lost, 1_000, "{text}");
}

#[test]
fn a_file_is_appended_to_and_opened_anew() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("muster.log");
    std::fs::write(&path, "before\n").unwrap();
    let (subscriber, guard) = subscriber(&logs(LogFormat::Text, LogSink::File(path.clone()))).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("one");
        std::fs::rename(&path, place.path().join("old")).unwrap();
        guard.sender.send(Message::Reopen).unwrap();
        tracing::info!("two");
    });
    drop(guard);
    let old = std::fs::read_to_string(place.path().join("old")).unwrap();
    assert!(old.starts_with("before\n") && old.contains("one") && !old.contains("two"), "{old}");
    assert!(std::fs::read_to_string(&path).unwrap().contains("two"));
}

#[test]
fn a_socket_gets_a_line_a_datagram_and_may_come_later() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("log.sock");
    let (subscriber, guard) = subscriber(&logs(LogFormat::Json, LogSink::Socket(path.clone()))).unwrap();
    let mut heard = Vec::new();
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("nobody listens");
        // Written before the collector comes.
        while guard.sender.try_send(Message::Reopen).is_err() {}
        std::thread::sleep(Duration::from_millis(50));
        let collector = UnixDatagram::bind(&path).unwrap();
        collector.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        tracing::info!("somebody does");
        for _ in 0..2 {
            let mut bytes = vec![0; 4_096];
            let length = collector.recv(&mut bytes).unwrap();
            heard.push(serde_json::from_slice::<serde_json::Value>(&bytes[..length]).unwrap());
        }
    });
    drop(guard);
    assert_eq!((&heard[0]["lost"], &heard[1]["message"]), (&1.into(), &"somebody does".into()));
}
