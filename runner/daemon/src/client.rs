//! Talks to a daemon over its socket.
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use futures_util::{Stream, StreamExt as _, stream};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// An answer begins within it, and a stream says something.
const PATIENCE: Duration = Duration::from_mins(1);
/// A line of a stream; the ledger's largest event is far below it.
const LINE: usize = 4 * 1_024 * 1_024;

pub(crate) struct Client {
    http: reqwest::Client,
    socket: PathBuf,
}

/// What the daemon says is wrong.
#[derive(Deserialize)]
struct Problem {
    detail: String,
    advice: Option<String>,
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Told {
    pub(crate) kind: String,
    pub(crate) data: String,
}

impl Client {
    /// None where nobody answers: nobody listens, or it is another user's.
    pub(crate) fn at(socket: &Path) -> Result<Option<Self>, Stop> {
        match std::os::unix::net::UnixStream::connect(socket) {
            Ok(_) => {}
            // A path that is too long cannot be anybody's socket.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound
                        | ErrorKind::ConnectionRefused
                        | ErrorKind::PermissionDenied
                        | ErrorKind::InvalidInput
                ) =>
            {
                return Ok(None);
            }
            Err(error) => {
                return Err(error).or_stop(Reason::Internal, format!("asking the daemon at {}", socket.display()));
            }
        }
        let http = reqwest::Client::builder()
            .unix_socket(socket)
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(PATIENCE)
            .build()
            .or_stop(Reason::Internal, "preparing to ask the daemon")?;
        Ok(Some(Self { http, socket: socket.to_owned() }))
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Stop> {
        self.json(self.send(Method::GET, path).await?).await
    }

    /// Asks for a change.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, Stop> {
        self.json(self.send(Method::POST, path).await?).await
    }

    /// The words of `/healthz` or `/readyz`; what it says is wrong is the error.
    pub(crate) async fn probe(&self, path: &str) -> Result<String, Stop> {
        let response = self.http.get(format!("http://localhost{path}")).send().await;
        let response = response.or_stop(Reason::Internal, self.tried())?;
        let status = response.status();
        let said = response.text().await.or_stop(Reason::Internal, self.tried())?;
        if status.is_success() { Ok(said) } else { Err(Stop::internal(said.trim().to_owned())) }
    }

    async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<T, Stop> {
        response.json().await.or_stop(Reason::Internal, self.tried())
    }

    async fn send(&self, method: Method, path: &str) -> Result<Response, Stop> {
        // The name is for form: the socket is where it goes.
        let mut request = self.http.request(method.clone(), format!("http://localhost{path}"));
        if method == Method::POST {
            request = request.header("content-type", "application/json").body("{}");
        }
        let response = request.send().await.or_stop(Reason::Internal, self.tried())?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let problem = response.json::<Problem>().await.ok();
        let problem =
            problem.unwrap_or_else(|| Problem { detail: format!("the daemon answers {status}"), advice: None });
        let stop = Stop::internal(problem.detail);
        Err(match problem.advice {
            Some(advice) => stop.advise(advice),
            None => stop,
        })
    }

    /// What happens to a run, from event `seen` on; ends where the daemon ends it.
    pub(crate) async fn follow(
        &self,
        path: &str,
        seen: u64,
    ) -> Result<Option<impl Stream<Item = Result<Told, Stop>> + use<>>, Stop> {
        let request = self.http.get(format!("http://localhost{path}")).header("last-event-id", seen.to_string());
        let response = request.send().await.or_stop(Reason::Internal, self.tried())?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        if !response.status().is_success() {
            return Err(Stop::internal(format!("{}: {}", self.tried(), response.status())));
        }
        let tried = self.tried();
        let start = (Box::pin(response.bytes_stream()), Events::default(), tried);
        Ok(Some(stream::unfold(start, |(mut bytes, mut events, tried)| async {
            loop {
                if let Some(told) = events.next() {
                    return Some((Ok(told), (bytes, events, tried)));
                }
                let read = bytes.next().await?.or_stop(Reason::Internal, &tried).and_then(|read| events.push(&read));
                if let Err(stop) = read {
                    return Some((Err(stop), (bytes, events, tried)));
                }
            }
        })))
    }

    fn tried(&self) -> String {
        format!("asking the daemon at {}", self.socket.display())
    }
}

/// What came of a stream and was not told yet.
#[derive(Default)]
struct Events {
    bytes: Vec<u8>,
    told: Told,
}

impl Events {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        if self.bytes.len() + bytes.len() > LINE {
            return Err(Stop::internal("the daemon's stream has a line that is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Whatever is whole by now.
    fn next(&mut self) -> Option<Told> {
        while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            match line.trim_end_matches(['\r', '\n']).split_once(':') {
                Some(("event", kind)) => kind.trim_start().clone_into(&mut self.told.kind),
                Some(("data", data)) => self.told.data.push_str(data.strip_prefix(' ').unwrap_or(data)),
                Some(_) => {}
                None if self.told.kind.is_empty() && self.told.data.is_empty() => {}
                None => return Some(std::mem::take(&mut self.told)),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_when_they_are_whole() {
        let mut events = Events::default();
        let text = "event: ledger\ndata: {\"a\": 1}\nid: 4\n\n:\n\nevent: stopping\ndata: {}\n\n";
        let mut told = Vec::new();
        for byte in text.as_bytes() {
            events.push(&[*byte]).expect("it is short");
            told.extend(events.next());
        }
        let event = |kind: &str, data: &str| Told { kind: kind.to_owned(), data: data.to_owned() };
        assert_eq!(told, [event("ledger", "{\"a\": 1}"), event("stopping", "{}")]);
    }
}
