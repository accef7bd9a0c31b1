//! A service that is reachable over HTTP: it says which instance of which version answered, and how often it did.
//!
//! `/` is a page for people, `/json` the same for programs, `/quit?code=N` ends it with that exit code so that one can
//! see what the Unit makes of it.

mod stop;

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

/// A request line and its headers may be this long together.
const MAX_REQUEST: u64 = 8 * 1024;
/// A client has this long to send its request and to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);

static HITS: AtomicU64 = AtomicU64::new(0);

fn main() -> io::Result<()> {
    stop::on_sigterm();
    let port = variable("PORT", "80");
    let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    println!(
        "hello {} listens on port {port}",
        variable("APP_VERSION", "?")
    );
    for client in listener.incoming() {
        match client {
            Ok(client) => {
                let handled = thread::Builder::new().stack_size(64 * 1024).spawn(move || {
                    if let Err(error) = answer(client) {
                        println!("a request failed: {error}");
                    }
                });
                if let Err(error) = handled {
                    println!("a request was dropped: {error}");
                }
            }
            Err(error) => println!("a connection failed: {error}"),
        }
    }
    Ok(())
}

fn variable(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn answer(mut client: TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(client.try_clone()?.take(MAX_REQUEST)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The rest of the request is read and not used, so that the client is not cut off while it sends.
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).unwrap_or("/");
    let (status, kind, body) = match path {
        "/" => ("200 OK", "text/html; charset=utf-8", page(hit())),
        "/json" => ("200 OK", "application/json", json(hit())),
        _ => match path
            .strip_prefix("/quit?code=")
            .and_then(|code| code.parse::<i32>().ok())
        {
            Some(code) => {
                println!("asked to end with code {code}");
                process::exit(code)
            }
            None => (
                "404 Not Found",
                "text/plain",
                "There is / and /json.\n".to_owned(),
            ),
        },
    };
    println!("{request} -> {status}");
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn hit() -> u64 {
    HITS.fetch_add(1, Ordering::Relaxed) + 1
}

fn host() -> String {
    std::fs::read_to_string("/etc/hostname")
        .or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"))
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

fn json(hits: u64) -> String {
    format!(
        "{{\"item\":\"{}\",\"subject\":\"{}\",\"instance\":\"{}\",\"version\":\"{}\",\"host\":\"{}\",\"hits\":{hits}}}\n",
        plain(&variable("AOS_ITEM_ID", "")),
        plain(&variable("AOS_SUBJECT_ID", "")),
        plain(&variable("AOS_INSTANCE_INDEX", "")),
        plain(&variable("APP_VERSION", "?")),
        plain(&host()),
    )
}

fn page(hits: u64) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Hello from a Unit</title>\
         <style>body{{font:16px/1.5 system-ui;margin:4rem auto;max-width:36rem}}dt{{color:#666}}</style>\
         <h1>Hello from a Unit</h1><dl><dt>Version<dd>{}<dt>Instance<dd>{}<dt>Host<dd>{}<dt>Answers given<dd>{hits}</dl>\n",
        plain(&variable("APP_VERSION", "?")),
        plain(&variable("AOS_INSTANCE_INDEX", "?")),
        plain(&host()),
    )
}

/// Drops what would have a meaning in JSON or HTML; none of it belongs in these values.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() && !"\"\\<>&".contains(*c))
        .collect()
}
