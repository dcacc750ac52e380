//! The smallest set of secrets that a control plane takes: one CA, two certificates, one key for service accounts, and a
//! file of tokens for everybody else.
//!
//! Made anew at each `up`, by `openssl`: EC keys, some 0.3 s.
use std::{
    fs,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::plan::{API_SERVICE, CONTROL_PLANE, Node, STATE};

/// Long enough for every test, and nobody else is to believe it.
const DAYS: &str = "30";

pub(crate) fn dir() -> PathBuf {
    Path::new(STATE).join("pki")
}

/// A file of [`dir`].
pub(crate) fn file(name: &str) -> String {
    format!("{STATE}/pki/{name}")
}

/// Makes all of it, and writes each user's kubeconfig.
pub(crate) fn make() -> Result<()> {
    let dir = dir();
    fs::create_dir_all(&dir).with_context(|| format!("{}", dir.display()))?;
    key("ca")?;
    openssl(&[
        "req",
        "-x509",
        "-new",
        "-key",
        "ca.key",
        "-subj",
        "/CN=loco-test-cluster",
        "-days",
        DAYS,
        "-out",
        "ca.crt",
    ])?;
    let names = format!(
        "subjectAltName=IP:{CONTROL_PLANE},IP:127.0.0.1,IP:{API_SERVICE},DNS:localhost,DNS:kubernetes,\
         DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local\n\
         extendedKeyUsage=serverAuth\n"
    );
    leaf("apiserver", "/CN=kube-apiserver", &names)?;
    leaf("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client", "extendedKeyUsage=clientAuth\n")?;
    openssl(&["genrsa", "-out", "sa.key", "2048"])?;
    openssl(&["rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub"])?;
    let mut tokens = String::new();
    for user in users() {
        let token = openssl(&["rand", "-hex", "16"])?.trim().to_owned();
        tokens.push_str(&user.line(&token));
        write(&PathBuf::from(kubeconfig(&user.name)), &config(&token))?;
    }
    write(&dir.join("tokens.csv"), &tokens)
}

/// Where the kubeconfig of `user` is.
pub(crate) fn kubeconfig(user: &str) -> String {
    format!("{STATE}/{}.conf", user.rsplit(':').next().unwrap_or(user))
}

struct User {
    name: String,
    group: Option<&'static str>,
}

impl User {
    /// A line of the file of tokens. The column of groups must be quoted.
    fn line(&self, token: &str) -> String {
        let group = self.group.map(|group| format!(",\"{group}\"")).unwrap_or_default();
        format!("{token},{},{}{group}\n", self.name, self.name)
    }
}

fn users() -> Vec<User> {
    let user = |name: &str, group| User { name: name.to_owned(), group };
    let mut users = vec![
        user("admin", Some("system:masters")),
        user("system:kube-controller-manager", None),
        user("system:kube-scheduler", None),
        user("system:kube-proxy", None),
    ];
    users.extend(Node::all().map(|node| user(&format!("system:node:{node}"), Some("system:nodes"))));
    users
}

/// JSON, which is YAML too.
fn config(token: &str) -> String {
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "loco",
        "clusters": [{"name": "loco", "cluster": {
            "server": format!("https://{CONTROL_PLANE}:6443"), "certificate-authority": file("ca.crt")}}],
        "users": [{"name": "loco", "user": {"token": token}}],
        "contexts": [{"name": "loco", "context": {"cluster": "loco", "user": "loco"}}],
    });
    format!("{config:#}\n")
}

fn key(name: &str) -> Result<()> {
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &format!("{name}.key")]).map(drop)
}

fn leaf(name: &str, subject: &str, extensions: &str) -> Result<()> {
    key(name)?;
    let part = |end: &str| format!("{name}.{end}");
    write(&dir().join(part("ext")), extensions)?;
    openssl(&["req", "-new", "-key", &part("key"), "-subj", subject, "-out", &part("csr")])?;
    let (csr, crt, ext) = (part("csr"), part("crt"), part("ext"));
    let signing = ["x509", "-req", "-in", &csr, "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"];
    openssl(&[&signing[..], &["-days", DAYS, "-extfile", &ext, "-out", &crt]].concat()).map(drop)
}

/// In [`dir`]. What it says on its way is only of interest if it fails.
fn openssl(args: &[&str]) -> Result<String> {
    let mut command = Command::new("openssl");
    let output = command.current_dir(dir()).args(args).stdin(Stdio::null()).output();
    let output = output.context("cannot run openssl; `cargo xtask setup --for cluster` installs it")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`openssl {}` failed: {}", args.join(" "), told.trim());
    String::from_utf8(output.stdout).context("openssl printed something that is not text")
}

/// Only root reads it.
fn write(path: &Path, text: &str) -> Result<()> {
    let file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_tokens_quotes_the_groups() {
        let lines: Vec<String> = users().iter().map(|user| user.line("t")).collect();
        assert_eq!(lines[0], "t,admin,admin,\"system:masters\"\n");
        assert_eq!(lines[1], "t,system:kube-controller-manager,system:kube-controller-manager\n");
        assert_eq!(lines[4], "t,system:node:n1,system:node:n1,\"system:nodes\"\n");
        assert_eq!(kubeconfig("system:node:n1"), "/var/lib/loco-k8s/n1.conf");
    }
}
