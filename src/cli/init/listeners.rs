//! Which addresses of this machine's loopback are worth asking: what listens, as the kernel tells, or the usual ports where it does not.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Ports on which such servers listen when nobody says otherwise, the likeliest first: FastAPI and vLLM, a second of them, Ollama,
/// llama.cpp, SGLang, LM Studio, LiteLLM, TGI in a container, Flask and TabbyAPI.
pub(super) const USUAL_PORTS: [u16; 9] = [8000, 8001, 11_434, 8080, 30_000, 1234, 4000, 3000, 5000];

/// Most ports that are asked.
pub(super) const PORTS_MAX: usize = 32;

/// Ports of servers that speak something else, and some of which log a question in HTTP as an attack: SSH, mail, DNS, NetBIOS, SMB,
/// CUPS, MySQL, PostgreSQL, AMQP, Redis, Kafka, memcached, MongoDB.
const NOT_HTTP: [u16; 18] =
    [22, 25, 53, 111, 139, 445, 465, 587, 631, 993, 2049, 3306, 5432, 5672, 6379, 9092, 11_211, 27_017];

/// `st` of /proc/net/tcp: the socket listens.
const LISTEN: &str = "0A";

/// One port, and where on loopback it may answer, the likeliest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) port: u16,
    pub(super) addresses: Vec<SocketAddr>,
}

/// What is to be asked, and how many ports are left out because they are too many.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Candidates {
    pub(super) asked: Vec<Candidate>,
    pub(super) left_out: usize,
    /// The kernel told what listens. Else the usual ports are tried.
    pub(super) told_by_kernel: bool,
}

impl Candidates {
    /// Of this machine. `ports`, if there are any, are those alone that are asked.
    pub(super) fn here(ports: &[u16]) -> Self {
        if !ports.is_empty() {
            return Self {
                asked: ports.iter().map(|port| by_port(*port)).collect(),
                left_out: 0,
                told_by_kernel: false,
            };
        }
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/net/{name}")).ok();
        Self::of(read("tcp").as_deref(), read("tcp6").as_deref())
    }

    /// Of the kernel's tables of TCP sockets, where there are such.
    fn of(tcp: Option<&str>, tcp6: Option<&str>) -> Self {
        if tcp.or(tcp6).is_none() {
            return Self { asked: USUAL_PORTS.map(by_port).to_vec(), left_out: 0, told_by_kernel: false };
        }
        let mut ports: BTreeMap<u16, Vec<SocketAddr>> = BTreeMap::new();
        let lines = tcp.into_iter().chain(tcp6).flat_map(str::lines);
        for address in lines.filter_map(listening).flat_map(on_loopback) {
            let addresses = ports.entry(address.port()).or_default();
            if !NOT_HTTP.contains(&address.port()) && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let mut all: Vec<Candidate> = ports
            .into_iter()
            .filter(|(_, addresses)| !addresses.is_empty())
            .map(|(port, mut addresses)| {
                addresses.sort();
                Candidate { port, addresses }
            })
            .collect();
        all.sort_by_key(|candidate| {
            USUAL_PORTS.iter().position(|usual| *usual == candidate.port).unwrap_or(USUAL_PORTS.len())
        });
        let left_out = all.len().saturating_sub(PORTS_MAX);
        all.truncate(PORTS_MAX);
        Self { asked: all, left_out, told_by_kernel: true }
    }
}

fn by_port(port: u16) -> Candidate {
    let at = |ip: IpAddr| SocketAddr::new(ip, port);
    Candidate { port, addresses: vec![at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into())] }
}

/// The address on which a line's socket listens; `None` of other lines and other sockets.
fn listening(line: &str) -> Option<SocketAddr> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (address, _, state) = (words.next()?, words.next()?, words.next()?);
    let (ip, port) = address.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    (state == LISTEN && port != 0).then_some(SocketAddr::new(ip_of(ip)?, port))
}

/// The kernel writes an address as hexadecimal words of 32 bits, each in this machine's order of bytes.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, place) in bytes.chunks_exact_mut(4).enumerate() {
                place.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// Where on loopback a socket answers: one on every address does on both of its families, one on another address nowhere.
fn on_loopback(address: SocketAddr) -> Vec<SocketAddr> {
    let at = |ip: IpAddr| SocketAddr::new(ip, address.port());
    match address.ip() {
        ip if ip.is_loopback() => vec![address],
        IpAddr::V4(ip) if ip.is_unspecified() => vec![at(Ipv4Addr::LOCALHOST.into())],
        IpAddr::V6(ip) if ip.is_unspecified() => by_port(address.port()).addresses,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(address: &str, state: &str) -> String {
        format!(
            "   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 1000 0 1 1 0 100 0 0 10 0\n"
        )
    }

    fn v4(ip: [u8; 4], port: u16) -> String {
        format!("{:08X}:{port:04X}", u32::from_ne_bytes(ip))
    }

    fn v6(ip: &str, port: u16) -> String {
        let bytes = ip.parse::<Ipv6Addr>().unwrap().octets();
        let words = bytes.chunks(4).map(|word| format!("{:08X}", u32::from_ne_bytes(word.try_into().unwrap())));
        format!("{}:{port:04X}", words.collect::<String>())
    }

    fn asked(candidates: &Candidates) -> Vec<String> {
        let shown =
            |candidate: &Candidate| candidate.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join("|");
        candidates.asked.iter().map(shown).collect()
    }

    #[test]
    fn what_listens_on_loopback_or_on_every_address_is_asked_on_loopback() {
        let tcp = [
            HEAD.to_owned(),
            line(&v4([127, 0, 0, 1], 8123), LISTEN),
            line(&v4([0, 0, 0, 0], 8000), LISTEN),
            line(&v4([192, 168, 0, 5], 8002), LISTEN),
            line(&v4([127, 0, 0, 1], 8003), "01"),
        ]
        .concat();
        let tcp6 = [
            HEAD.to_owned(),
            line(&v6("::1", 8004), LISTEN),
            line(&v6("::", 8005), LISTEN),
            line(&v6("::ffff:127.0.0.1", 8006), LISTEN),
            line(&v6("fd00::1", 8007), LISTEN),
        ]
        .concat();
        let candidates = Candidates::of(Some(&tcp), Some(&tcp6));
        let wanted = ["127.0.0.1:8000", "[::1]:8004", "127.0.0.1:8005|[::1]:8005", "127.0.0.1:8006", "127.0.0.1:8123"];
        assert_eq!(asked(&candidates), wanted);
        assert!(candidates.told_by_kernel);
    }

    #[test]
    fn servers_that_speak_something_else_are_left_in_peace() {
        let tcp: String = NOT_HTTP.iter().map(|port| line(&v4([127, 0, 0, 1], *port), LISTEN)).collect();
        assert_eq!(Candidates::of(Some(&tcp), None).asked, []);
    }

    #[test]
    fn of_too_many_ports_the_usual_ones_are_asked_and_the_rest_is_counted() {
        let tcp: String = (7000..=8000).map(|port| line(&v4([127, 0, 0, 1], port), LISTEN)).collect();
        let candidates = Candidates::of(Some(&tcp), None);
        assert_eq!((candidates.asked.len(), candidates.left_out), (PORTS_MAX, 1001 - PORTS_MAX));
        assert_eq!((candidates.asked[0].port, candidates.asked[1].port), (8000, 7000));
    }

    #[test]
    fn lines_that_are_none_say_nothing() {
        for garbage in [
            "",
            HEAD,
            "0: :",
            "0: ZZZZZZZZ:1F90 x 0A",
            "0: 0100007F:1F9 x",
            "0: 0100007F x 0A",
            "0: 01:1F90 x 0A",
            "0: ää00007F:1F90 x 0A",
        ] {
            assert_eq!(Candidates::of(Some(garbage), Some(garbage)).asked, [], "{garbage}");
        }
    }

    #[test]
    fn where_the_kernel_does_not_tell_the_usual_ports_are_tried() {
        let candidates = Candidates::of(None, None);
        assert_eq!(candidates.asked.len(), USUAL_PORTS.len());
        assert_eq!(asked(&candidates)[0], "127.0.0.1:8000|[::1]:8000");
        assert_eq!(Candidates::here(&[4711]).asked, [by_port(4711)]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_tells_of_a_listener() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        assert!(table.lines().filter_map(listening).any(|found| found == address));
    }
}
