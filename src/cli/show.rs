//! `netcombiner show`: how the tunnels are.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::prelude::*;

use super::args::{CliError, unexpected};
use super::help;
use crate::config::units::IfName;
use crate::control::{self, Answer, AskError, Form, Request};
use crate::host::RUN_DIRECTORY;

pub(super) const HELP: &str = "\
usage: netcombiner show [NAME] [dump | --json] [--run-dir DIR]

Shows the running tunnels, or one of them.

  NAME           a tunnel, like nc0
  dump           for scripts: one line a path, fields between tabs: interface, path,
                 link, device, transport, state, endpoint, rtt (ms), loss (0-1), rate
                 sent, rate received (bit/s), bytes sent, bytes received, handshake age
                 (s); what is not known is -
  --json         everything, as one JSON array of tunnels (of one object with NAME)
  --run-dir DIR  where the sockets are kept

Exit code: 0; 1 when NAME is not running, or without the right to ask.
";

pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, CliError> {
    let mut words: Vec<OsString> = Vec::new();
    let mut run_dir = PathBuf::from(RUN_DIRECTORY);
    let mut form = Form::Pretty;
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return help::print(HELP),
            Long("run-dir") => run_dir = parser.value()?.into(),
            Long("json") => form = Form::Json,
            Value(word) if word == "dump" => form = Form::Dump,
            Value(word) if words.is_empty() => words.push(word),
            other @ (Short(_) | Long(_) | Value(_)) => return Err(unexpected(&other, "show")),
        }
    }
    let mut out = io::stdout().lock();
    if let Some(word) = words.first() {
        let name: IfName = word
            .to_string_lossy()
            .parse()
            .map_err(|error| CliError::usage(format!("{error}")))?;
        let mut text = ask(&run_dir, name.as_str(), form)
            .map_err(|reason| CliError::failed(format!("{name}: {reason}")))?;
        if form == Form::Json {
            text.push('\n');
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut all = Vec::new();
    let names = control::tunnels(&run_dir).map_err(|error| {
        let is_roots = error.kind() == io::ErrorKind::PermissionDenied;
        let hint = if is_roots {
            " (it belongs to root: run this as root)"
        } else {
            ""
        };
        CliError::failed(format!("{}: {error}{hint}", run_dir.display()))
    })?;
    for name in names {
        match ask(&run_dir, &name, form) {
            Ok(text) => all.push(text),
            // A killed one's socket, or one that goes down at this moment.
            Err(reason) => writeln!(io::stderr().lock(), "netcombiner: {name}: {reason}")?,
        }
    }
    let text = match form {
        Form::Json => array(&all),
        Form::Pretty => all.join("\n"),
        Form::Dump => all.concat(),
    };
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn ask(run_dir: &Path, name: &str, form: Form) -> Result<String, String> {
    match control::ask(&control::socket_path(run_dir, name), Request::Show(form)) {
        Ok(Answer::Text(text)) => Ok(text),
        Ok(Answer::Error(reason)) if reason.starts_with("not a request") => {
            let restart = format!("netcombiner down {name}, then netcombiner up {name}");
            Err(format!(
                "its daemon is of another version ({reason}): restart it: {restart}"
            ))
        }
        Ok(Answer::Error(reason)) => Err(reason),
        Ok(Answer::Stopping) => Err("it is stopping".to_owned()),
        Err(error @ AskError::NotRunning) => {
            Err(format!("{error} (start it: netcombiner up {name})"))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// JSON texts as one JSON array, moved in: no text within them has a line feed.
fn array(texts: &[String]) -> String {
    if texts.is_empty() {
        return "[]\n".to_owned();
    }
    let moved_in = |text: &String| format!("  {}", text.replace('\n', "\n  "));
    let texts: Vec<String> = texts.iter().map(moved_in).collect();
    format!("[\n{}\n]\n", texts.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_as_serde_writes_it() {
        let values = [serde_json::json!({"a": 1}), serde_json::json!({"b": "\n"})];
        for some in [&values[..], &values[..1], &[]] {
            let text = |value| serde_json::to_string_pretty(value).unwrap();
            let texts: Vec<String> = some.iter().map(text).collect();
            let whole = serde_json::to_string_pretty(&some).unwrap();
            assert_eq!(array(&texts), whole + "\n");
        }
    }
}
