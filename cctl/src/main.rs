//! cctl is the person's command line: it asks the daemons, gives them orders, follows the events and runs the demo. It
//! holds no state.

mod args;
mod ask;
mod backup;
mod demo;
mod failure;
mod line;
mod notify;
mod orders;
mod out;
mod pages;
mod questions;
mod record;
mod recording;
mod replay;
mod resume;
mod show;
mod text;
mod watch;

use args::{Args, Command};
use common::message::{
    AlarmRow, DownRow, Explanation, IncidentId, MaintenanceRow, Request, ServerRow, ServerStatus, ServiceRow,
    SilenceRow, StreamSnapshot,
};
use failure::{Failure, Outcome};
use out::Out;
use std::process::ExitCode;

fn main() -> ExitCode {
    failure::exit_code(run(common::startup::parse_args()))
}

/// One arm for each subcommand.
fn run(Args { global, command }: Args) -> Result<Outcome, Failure> {
    let out = Out::new(global.color);
    let global = &global;
    match command {
        Command::ServerList => questions::ask::<Vec<ServerRow>>(global, out, &Request::query("server-list")),
        Command::ServerStatus { host } => {
            let request = Request { host: Some(host.to_string()), ..Request::query("server-status") };
            questions::ask::<ServerStatus>(global, out, &request)
        }
        Command::ServiceList { host } => {
            let request = Request { host: host.map(|host| host.to_string()), ..Request::query("service-list") };
            questions::ask::<Vec<ServiceRow>>(global, out, &request)
        }
        Command::DownList => questions::ask::<Vec<DownRow>>(global, out, &Request::query("down-list")),
        Command::LastValue { pattern } => {
            let request = Request { pattern: Some(pattern.as_str().to_owned()), ..Request::query("last-value") };
            questions::last_value(global, out, &request)
        }
        Command::AlarmList => questions::ask::<Vec<AlarmRow>>(global, out, &Request::query("alarm-list")),
        Command::Events { after, limit } => questions::events(global, out, after, limit),
        Command::Snapshot => questions::ask::<StreamSnapshot>(global, out, &Request::query("snapshot")),
        Command::Health { daemon } => questions::health(global, out, &daemon),
        Command::SilenceList => questions::ask::<Vec<SilenceRow>>(global, out, &Request::query("silence-list")),
        Command::MaintenanceList => {
            questions::ask::<Vec<MaintenanceRow>>(global, out, &Request::query("maintenance-list"))
        }
        Command::Explain { address } => {
            if let Ok(incident) = IncidentId::try_from(address.clone()) {
                return notify::explain(global, out, incident);
            }
            let request = Request { pattern: Some(address), ..Request::query("explain") };
            questions::ask::<Explanation>(global, out, &request)
        }
        Command::Silence(quiet) => orders::quiet(global, out, "silence", quiet),
        Command::Unsilence(wanted) => orders::unsilence(global, out, wanted),
        Command::Maintenance(quiet) => orders::quiet(global, out, "maintenance", quiet),
        Command::Ack(ack) => orders::ack(global, out, ack),
        Command::Unack(unack) => orders::unack(global, out, unack),
        Command::Rule(rules) => orders::rules(global, out, rules),
        Command::Subscriber(subscribers) => orders::subscribers(global, out, subscribers),
        Command::Forget(forget) => orders::forget(global, out, forget),
        Command::Reload(giver) => orders::reload(global, out, giver),
        Command::Ledger(wanted) => notify::ledger(global, out, &wanted),
        Command::TestNotify(test) => notify::test(global, out, &test),
        Command::Backup { dir } => backup::run(global, &dir),
        Command::Watch(watch) => watch::run(global, out, &watch),
        Command::Record(wanted) => record::run(global, &wanted),
        Command::Replay(wanted) => replay::run(global, out, &wanted),
        Command::Demo { dir } => demo::run(global, out, &dir),
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { dir } => pages::man(dir.as_deref()),
    }
}
