//! Whether the API server is reached through a proxy: as kubectl decides it, from the kubeconfig's `proxy-url`, else from
//! the environment.

use std::net::IpAddr;

use http::Uri;

/// A variable's value, by its name; upper case comes first. An empty one is none.
type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The schemes that a proxy may have.
const SCHEMES: [&str; 3] = ["http", "https", "socks5"];

/// The proxy to `cluster`. `found`: what the kubeconfig says, or what its reader has taken from the environment.
///
/// # Errors
/// A sentence that names the variable and the remedy.
pub fn choose(found: Option<Uri>, cluster: &Uri, variable: Variable) -> Result<Option<Uri>, String> {
    let name = if cluster.scheme_str() == Some("http") { "HTTP_PROXY" } else { "HTTPS_PROXY" };
    let asked = either(variable, "HTTPS_PROXY").map(|text| url("HTTPS_PROXY", &text)).transpose()?;
    let proxy = match found {
        // kubectl looks at no variable where the kubeconfig names a proxy.
        Some(found) if Some(&with_scheme(&found)) != asked.as_ref() => {
            return known("proxy-url of the kubeconfig", with_scheme(&found)).map(Some);
        }
        _ => either(variable, name).map(|text| url(name, &text)).transpose()?,
    };
    let direct = is_direct(cluster, &either(variable, "NO_PROXY").unwrap_or_default());
    proxy.filter(|_| !direct).map(|proxy| known(name, proxy)).transpose()
}

fn either(variable: Variable, name: &str) -> Option<String> {
    let set = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
    set(name).or_else(|| set(&name.to_lowercase()))
}

fn url(name: &str, text: &str) -> Result<Uri, String> {
    let text = text.trim();
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    whole
        .parse()
        .map_err(|_| format!("{name} is {text:?}, which is no URL: write for example http://proxy.example.com:3128"))
}

/// A host alone is a proxy that speaks HTTP.
fn with_scheme(uri: &Uri) -> Uri {
    let whole = || format!("http://{}", uri.authority()?).parse().ok();
    if uri.scheme().is_some() { uri.clone() } else { whole().unwrap_or_else(|| uri.clone()) }
}

fn known(name: &str, proxy: Uri) -> Result<Uri, String> {
    match proxy.scheme_str() {
        Some(scheme) if SCHEMES.contains(&scheme) => Ok(proxy),
        scheme => Err(format!(
            "{name} names a proxy of the scheme {:?}; http://, https:// and socks5:// are understood",
            scheme.unwrap_or_default()
        )),
    }
}

/// `NO_PROXY` as Go reads it: names with all that is below them, addresses, ranges of addresses, `*`; each may end with a
/// port. The own machine needs no entry.
fn is_direct(cluster: &Uri, except: &str) -> bool {
    let host = cluster.host().unwrap_or_default().trim_matches(['[', ']']).to_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    let port = cluster.port_u16().unwrap_or(if cluster.scheme_str() == Some("http") { 80 } else { 443 });
    let entries = except.split(',').map(|entry| entry.trim().to_lowercase()).filter(|entry| !entry.is_empty());
    entries.into_iter().any(|entry| is_excepted(&host, address, port, &entry))
}

fn is_excepted(host: &str, address: Option<IpAddr>, port: u16, entry: &str) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some((net, bits)) = entry.split_once('/') {
        let range = net.parse().ok().zip(bits.parse().ok());
        return range.zip(address).is_some_and(|((net, bits), address)| is_within(address, net, bits));
    }
    let (name, wanted) = match entry.rsplit_once(':') {
        // An address of version 6 has colons of its own.
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => match digits.parse::<u16>() {
            Ok(wanted) => (name, Some(wanted)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    };
    if wanted.is_some_and(|wanted| wanted != port) {
        return false;
    }
    if let Ok(named) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
        return address == Some(named);
    }
    let name = name.strip_prefix('*').unwrap_or(name);
    match name.strip_prefix('.') {
        Some(_) => host.ends_with(name),
        None => host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')),
    }
}

fn is_within(address: IpAddr, net: IpAddr, bits: u32) -> bool {
    let same = |address: u128, net: u128, width: u32| {
        let dropped = width.saturating_sub(bits);
        bits <= width && address.checked_shr(dropped).unwrap_or(0) == net.checked_shr(dropped).unwrap_or(0)
    };
    match (address, net) {
        (IpAddr::V4(address), IpAddr::V4(net)) => same(u32::from(address).into(), u32::from(net).into(), 32),
        (IpAddr::V6(address), IpAddr::V6(net)) => same(address.into(), net.into(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(found: Option<&str>, cluster: &str, set: &[(&str, &str)]) -> Result<Option<String>, String> {
        let variable = |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        let found = found.map(|found| found.parse().unwrap());
        choose(found, &cluster.parse().unwrap(), &variable).map(|proxy| proxy.map(|proxy| proxy.to_string()))
    }

    const CLUSTER: &str = "https://api.prod.example.com:6443";

    #[test]
    fn the_kubeconfig_comes_first_then_the_environment() {
        let env = [("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", "api.prod.example.com")];
        for (found, cluster, set, expected) in [
            (None, CLUSTER, &[][..], None),
            (Some("socks5://jump:1080"), CLUSTER, &env[..], Some("socks5://jump:1080/")),
            (Some("http://proxy:3128"), CLUSTER, &env[..1], Some("http://proxy:3128/")),
            (None, CLUSTER, &env[..1], Some("http://proxy:3128/")),
            (Some("http://proxy:3128"), CLUSTER, &env, None),
            (None, CLUSTER, &[("https_proxy", "proxy:3128")], Some("http://proxy:3128/")),
            (Some("proxy:3128"), CLUSTER, &[("https_proxy", "proxy:3128")], Some("http://proxy:3128/")),
            (None, CLUSTER, &[("HTTPS_PROXY", " ")], None),
            // As Go has it, and not as our client library, which asks whether the proxy itself needs one.
            (
                None,
                CLUSTER,
                &[("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", "proxy,")],
                Some("http://proxy:3128/"),
            ),
            (None, "https://127.0.0.1:6443", &env[..1], None),
            (None, "https://localhost:6443", &env[..1], None),
            (Some("http://proxy:3128"), "http://api:8080", &env[..1], None),
            (None, "http://api:8080", &[("HTTP_PROXY", "http://plain:3128")], Some("http://plain:3128/")),
        ] {
            assert_eq!(chosen(found, cluster, set).unwrap().as_deref(), expected, "{found:?} {cluster} {set:?}");
        }
    }

    #[test]
    fn no_proxy_is_read_as_go_reads_it() {
        for (except, direct) in [
            ("", false),
            ("*", true),
            ("example.com", true),
            (".example.com", true),
            ("*.example.com", true),
            ("ample.com", false),
            ("other,, API.prod.example.com ,", true),
            ("api.prod.example.com:6443", true),
            ("api.prod.example.com:443", false),
            (".api.prod.example.com", false),
        ] {
            assert_eq!(is_direct(&CLUSTER.parse().unwrap(), except), direct, "{except:?}");
        }
        for (cluster, except, direct) in [
            ("https://10.1.2.3", "10.0.0.0/8", true),
            ("https://10.1.2.3", "0.0.0.0/0", true),
            ("https://10.1.2.3", "10.1.2.3", true),
            ("https://10.1.2.3", "10.1.2.3:443", true),
            ("https://10.1.2.3", "10.1.2.4/32", false),
            ("https://10.1.2.3", "10.0.0.0/99", false),
            ("https://[fd00::1]:6443", "fd00::/8", true),
            ("https://[fd00::1]:6443", "fd00::1", true),
            ("https://[fd00::1]:6443", "[fd00::1]:6443", true),
            ("https://[fd00::1]:6443", "::/0", true),
        ] {
            assert_eq!(is_direct(&cluster.parse().unwrap(), except), direct, "{cluster} {except:?}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_told_with_its_variable() {
        let ftp = chosen(None, CLUSTER, &[("HTTPS_PROXY", "ftp://proxy")]).unwrap_err();
        assert!(ftp.starts_with("HTTPS_PROXY names a proxy of the scheme \"ftp\""), "{ftp}");
        let odd = chosen(None, CLUSTER, &[("https_proxy", "http://a b")]).unwrap_err();
        assert!(odd.contains("HTTPS_PROXY is \"http://a b\", which is no URL"), "{odd}");
    }
}
