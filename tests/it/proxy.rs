//! The way through a proxy, by the program itself: nobody is behind it, and what it is asked for tells enough.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: 'https://api.invalid:6443'PROXY}}]
users: [{name: u, user: {token: t}}]
";

/// A proxy that lets nobody through: its address, and the first line of each request.
fn proxy() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    (address, told)
}

/// What the command says with these variables, and with this in the kubeconfig's cluster.
fn said(name: &str, cluster: &str, set: &[(&str, &str)]) -> String {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("proxy-{name}.yaml"));
    std::fs::write(&file, KUBECONFIG.replace("PROXY", cluster)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sts-backup"));
    for variable in ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
        command.env_remove(variable).env_remove(variable.to_lowercase());
    }
    let output = command.arg("--kubeconfig").arg(&file).args(["list", "backups"]).envs(set.iter().copied()).output();
    let output = output.unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_api_server_is_asked_for_through_the_proxy_that_is_named() {
    let (address, told) = proxy();
    let url = format!("http://{address}");
    said("variable", "", &[("HTTPS_PROXY", &url)]);
    assert_eq!(told.recv().unwrap().trim(), "CONNECT api.invalid:6443 HTTP/1.1");
    while told.try_recv().is_ok() {}
    said("bare", "", &[("https_proxy", &address)]);
    assert_eq!(told.recv().unwrap().trim(), "CONNECT api.invalid:6443 HTTP/1.1");
    while told.try_recv().is_ok() {}
    said("kubeconfig", &format!(", proxy-url: '{url}'"), &[("NO_PROXY", "api.invalid")]);
    assert_eq!(told.recv().unwrap().trim(), "CONNECT api.invalid:6443 HTTP/1.1");
    while told.try_recv().is_ok() {}
    let direct = said("excepted", "", &[("HTTPS_PROXY", &url), ("NO_PROXY", "invalid")]);
    assert!(told.try_recv().is_err(), "{direct}");
}

#[test]
fn what_is_wrong_with_a_proxy_is_said_with_the_variable_and_the_remedy() {
    for (set, words) in [
        (vec![("HTTPS_PROXY", "ftp://127.0.0.1:1")], ["HTTPS_PROXY", "http://, https:// and socks5://"]),
        (
            vec![("HTTPS_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", "a b")],
            ["NO_PROXY cannot be understood", "separated by commas"],
        ),
    ] {
        let said = said("wrong", "", &set);
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert!(!said.contains("kube/"), "{said}");
    }
}
