//! Configurations by which other web servers serve a tree as [`crate::http`] does: nginx, Apache and Caddy.
//!
//! All but `/direct/ALIAS` is files. What that answers is in maps that every publication writes, see
//! `stream/direct.rs`; nginx and Caddy read them when they are told to, Apache by itself.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::http::POLICY;
use crate::stream::Stream;
use crate::{Error, Result};

/// A web server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// nginx, from 1.18 on.
    Nginx,
    /// Apache's httpd, from 2.4.34 on.
    Apache,
    /// Caddy, from 2.6 on.
    Caddy,
}

/// What differs from site to site.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// Name by which clients call it; without one, whatever each request says.
    pub host: Option<String>,
    /// Address and port to listen on; without, port 443 of all.
    pub listen: Option<String>,
    /// Certificate chain and private key, PEM files; without them Caddy gets its own, and for the others
    /// those of certbot for the name are meant.
    pub tls: Option<(PathBuf, PathBuf)>,
}

impl Stream {
    /// The configuration by which `server` serves this stream.
    ///
    /// # Errors
    /// [`Error::Hosting`] when a path or name cannot stand in it.
    pub fn export_config(&self, server: Server, site: &Site) -> Result<String> {
        let root = std::path::absolute(self.root()).map_err(Error::io(self.root()))?;
        let host = site.host.as_deref().map(word).transpose()?;
        let listen = site.listen.as_deref().map(word).transpose()?;
        let (certificate, key) = if let Some((certificate, key)) = &site.tls {
            (path(certificate)?, path(key)?)
        } else {
            let live = format!("/etc/letsencrypt/live/{}", host.unwrap_or("localhost"));
            (format!("{live}/fullchain.pem"), format!("{live}/privkey.pem"))
        };
        let fill = |text: &str, rest: &[(&str, &str)]| {
            let mut text = text.to_owned();
            for (name, value) in rest {
                text = text.replace(name, value);
            }
            text.replace("@CERTIFICATE@", &certificate).replace("@KEY@", &key).replace("@POLICY@", POLICY)
        };
        let root = path(&root)?;
        Ok(match server {
            Server::Nginx => fill(
                include_str!("nginx.conf"),
                &[
                    ("@LISTEN@", listen.unwrap_or("443")),
                    ("@NAME@", host.unwrap_or("_")),
                    ("@HOST@", host.unwrap_or("$http_host")),
                    ("@ROOT@", &root),
                ],
            ),
            Server::Apache => {
                let name = host.map(|host| format!("    ServerName {host}\n")).unwrap_or_default();
                let (maps, rules) = self.apache(&root)?;
                fill(
                    include_str!("apache.conf"),
                    &[
                        ("@LISTEN@", listen.unwrap_or("*:443")),
                        ("@NAME@", &name),
                        ("@HOST@", host.unwrap_or("%{HTTP_HOST}")),
                        ("@MAPS@", &maps),
                        ("@RULES@", &rules),
                        ("@ROOT@", &root),
                    ],
                )
            }
            Server::Caddy => {
                let tls = site.tls.as_ref().map(|_| "    tls \"@CERTIFICATE@\" \"@KEY@\"\n");
                let (bind, port) = match listen.map(|listen| listen.rsplit_once(':').unwrap_or(("", listen)))
                {
                    Some((address, port)) => (address, format!(":{port}")),
                    None => ("", String::new()),
                };
                let bind = if bind.is_empty() { String::new() } else { format!("    bind {bind}\n") };
                let address = match host {
                    Some(host) => format!("https://{}{port}", host.split(':').next().unwrap_or(host)),
                    None if port.is_empty() => "https://".into(),
                    None => format!("https://{port}"),
                };
                fill(
                    include_str!("Caddyfile"),
                    &[
                        ("@SITE@", &address),
                        ("@BIND@", &bind),
                        ("@TLS@", tls.unwrap_or_default()),
                        ("@HOST@", host.unwrap_or("{hostport}")),
                        ("@ROOT@", &root),
                    ],
                )
            }
        })
    }

    /// Apache knows a map by a name in its configuration: one for each distribution.
    fn apache(&self, root: &str) -> Result<(String, String)> {
        let (mut maps, mut rules) = (String::new(), String::new());
        for distribution in self.direct_maps()? {
            let file = format!("{root}/.documents/current/direct/{distribution}.map");
            let map = format!("millstream-{distribution}");
            let pattern = distribution.replace('.', "\\.").replace('+', "\\+");
            let by = |n: u32| format!("{map}:$1/%{{ENV:MILLSTREAM_ARCH_{n}}}");
            let _ = writeln!(maps, "    RewriteMap {map} \"txt:{file}\"");
            let _ = writeln!(
                rules,
                "    RewriteRule \"^/direct/({pattern}/.*[^/])$\" - \
                 [E=MILLSTREAM_FOUND:${{{map}:$1|${{{}|${{{}|${{{}}}}}}}}}]",
                by(1),
                by(2),
                by(3)
            );
        }
        Ok((maps, rules))
    }
}

/// A path as it can stand between double quotes in any of the configurations.
fn path(path: &Path) -> Result<String> {
    let text = path.to_str().unwrap_or_default();
    let plain = |c: char| c.is_alphanumeric() || "/._+@,=~- ".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    let reason = "it holds characters that mean something else in a configuration; use a link to it";
    Err(Error::Hosting { value: path.display().to_string(), reason: reason.into() })
}

/// A host's name, or an address with a port.
fn word(text: &str) -> Result<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]*_".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Ok(text);
    }
    let reason = "expected the name of a host, or an address and a port";
    Err(Error::Hosting { value: text.to_owned(), reason: reason.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_directive_is_refused() {
        for bad in ["", "a;b", "a b", "a\nb", "$host", "{x}", "a\"b", "a#b"] {
            assert!(word(bad).is_err(), "{bad}");
        }
        for good in ["images.example", "127.0.0.1:8443", "[::1]:443", "*:443"] {
            assert!(word(good).is_ok(), "{good}");
        }
        for bad in
            ["", "/srv/a\"b", "/srv/$x", "/srv/a\\b", "/srv/{x}", "/srv/a\nb", "/srv/%{x}", "/srv/@ROOT@\0"]
        {
            assert!(path(Path::new(bad)).is_err(), "{bad}");
        }
        assert!(path(Path::new("/srv/my images/a+b_c")).is_ok());
    }
}
