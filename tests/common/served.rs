//! A running service, as a program uses it.

#![allow(dead_code)]

use super::{scratch, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A running service.
pub struct Server {
    pub child: Child,
    pub address: String,
    pub admin_key: Option<String>,
}

/// What came back.
pub struct Response {
    /// HTTP's status.
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Response {
    /// Its body.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

impl Server {
    /// Starts it on a data directory.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// Starts it with more arguments.
    pub fn start_with(data: &Path, more: &[&str]) -> Self {
        Self::start_bare(data, &[&["--demo"], more].concat())
    }

    /// Starts it without the demo's datanet, in which everyone with a key may read texts.
    pub fn start_bare(data: &Path, more: &[&str]) -> Self {
        let arguments = ["serve", "--json", "--listen", "127.0.0.1:0", "--data", &text(data)];
        let mut child =
            Command::new(env!("CARGO_BIN_EXE_poa")).args(arguments).args(more).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let admin_key = line["admin_key"].as_str().map(str::to_owned);
        Self { child, address: line["address"].as_str().unwrap().to_owned(), admin_key }
    }

    /// Sends a request with headers of its own.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        self.send_bytes(method, path, headers, body.as_bytes())
    }

    /// [`Self::send`] of what need not be text.
    pub fn send_bytes(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(100))).unwrap();
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n", self.address, body.len());
        headers.iter().for_each(|(name, value)| request += &format!("{name}: {value}\r\n"));
        stream.write_all(&[request.as_bytes(), b"\r\n", body].concat()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<String, String> =
            lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect();
        let chunked = headers.get("transfer-encoding").is_some_and(|v| v == "chunked");
        Response { status, body: if chunked { unchunked(body) } else { body.to_owned() }, headers }
    }

    /// Sends JSON with a key.
    pub fn call(&self, key: &str, method: &str, path: &str, body: &Value) -> Response {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, path, &[("authorization", &format!("Bearer {key}"))], &body)
    }

    /// Reads with a key.
    pub fn get(&self, key: &str, path: &str) -> Response {
        self.call(key, "GET", path, &Value::Null)
    }

    /// The cookie of a browser that signs in with a key.
    pub fn cookie(&self, key: &str) -> String {
        let form = ("content-type", "application/x-www-form-urlencoded");
        let inside = self.send("POST", "/sign-in", &[form], &format!("key={key}"));
        inside.headers["set-cookie"].split(';').next().unwrap().to_owned()
    }

    /// A page as a key's browser gets it.
    pub fn page(&self, key: &str, path: &str) -> Response {
        self.send("GET", path, &[("cookie", &self.cookie(key))], "")
    }

    /// Kills it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for a proof.
    pub fn proven(&self, key: &str, request: &str) -> Value {
        Self::ended(|| self.get(key, &format!("/v1/requests/{request}/proof")).json())
    }

    /// Waits for a training.
    pub fn trained(&self, key: &str, training: &str) -> Value {
        Self::ended(|| self.get(key, &format!("/v1/training-jobs/{training}")).json()["job"].clone())
    }

    /// Waits for a job's end.
    pub fn ended(job: impl Fn() -> Value) -> Value {
        let start = Instant::now();
        loop {
            let job = job();
            match job["state"].as_str().unwrap() {
                "done" => return job,
                "queued" | "running" if start.elapsed() < Duration::from_secs(300) => std::thread::sleep(Duration::from_millis(300)),
                _ => panic!("{job}"),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            break;
        }
        whole += &rest[..length];
        body = &rest[length + 2..];
    }
    whole
}

/// A data directory with the demo's model in it, and its admin's key; made once.
pub fn data() -> &'static (PathBuf, String) {
    static DATA: OnceLock<(PathBuf, String)> = OnceLock::new();
    DATA.get_or_init(|| {
        let dir = scratch("serve");
        let server = Server::start(&dir);
        let key = server.admin_key.clone().unwrap();
        server.kill();
        (dir, key)
    })
}

/// The same model with nothing else in it.
pub fn fresh(name: &str) -> (PathBuf, Server, String) {
    let dir = scratch(name);
    copy(&data().0.join("models"), &dir.join("models"));
    let server = Server::start(&dir);
    let key = server.admin_key.clone().unwrap();
    (dir, server, key)
}

/// Copies a directory with what is in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &target) } else { std::fs::copy(entry.path(), target).map(|_| ()).unwrap() }
    }
}

/// A question that the demo's model knows the answer to.
pub const PROMPT: &str = "The keeper of Skarn light is";

/// The same as a body.
pub fn question(extra: &Value) -> Value {
    let mut body = json!({ "model": "demo+facts", "prompt": PROMPT, "max_tokens": 4, "temperature": 0 });
    extra.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
    body
}
