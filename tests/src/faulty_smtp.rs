//! A mail server that fails where and how a test says: `tests/python/faulty_smtp.py`.

use crate::pki::Pki;
use crate::{Process, python, repository, wait_for};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// The server. See the script for stages and faults.
#[derive(Debug)]
pub struct FaultySmtp {
    process: Process,
    said: Arc<Mutex<Vec<Value>>>,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl FaultySmtp {
    /// Listens, without a fault so far. With a certificate it requires STARTTLS, then AUTH as `mon` with `s3cret`.
    pub fn start(pki: Option<&Pki>) -> Self {
        Self::start_with(pki, &[])
    }

    /// As [`Self::start`], but TLS comes first.
    pub fn start_tls(pki: &Pki) -> Self {
        Self::start_with(Some(pki), &["first"])
    }

    fn start_with(pki: Option<&Pki>, how: &[&str]) -> Self {
        let mut command = Command::new(python());
        // aiosmtpd warns of what the tests want: AUTH without STARTTLS.
        command.arg("-Wignore").arg(repository().join("tests/python/faulty_smtp.py"));
        if let Some(pki) = pki {
            command.arg(&pki.cert).arg(&pki.key);
        }
        let mut process = Process::start(command.args(how).stdin(Stdio::piped()).stdout(Stdio::piped()));
        let said = Arc::<Mutex<Vec<Value>>>::default();
        let (lines, heard) = (BufReader::new(process.stdout()).lines(), said.clone());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                heard.lock().expect("it does not panic").push(serde_json::from_str(&line).expect("a line of JSON"));
            }
        });
        let mut server = Self { process, said, port: 0 };
        let port = wait_for("the faulty server listens", || server.said("port").first().cloned());
        server.port = port.as_u64().and_then(|port| port.try_into().ok()).expect("a port");
        server
    }

    /// From now on it fails so at this stage.
    #[track_caller]
    pub fn fail(&mut self, stage: &str, fault: &str) {
        self.plan(&json!({ "stage": stage, "fault": fault }));
    }

    /// From now on it works.
    #[track_caller]
    pub fn mend(&mut self) {
        self.plan(&json!({}));
    }

    #[track_caller]
    fn plan(&mut self, plan: &Value) {
        let planned = self.said("planned").len();
        writeln!(self.process.stdin(), "{plan}").expect("it runs");
        wait_for("the plan is taken", || (self.said("planned").len() > planned).then_some(()));
    }

    /// The mails that it has accepted: `from`, `to`, `data`.
    pub fn mails(&self) -> Vec<Value> {
        self.said("mail")
    }

    fn said(&self, what: &str) -> Vec<Value> {
        let said = self.said.lock().expect("it does not panic");
        said.iter().filter_map(|line| line.get(what)).cloned().collect()
    }
}
