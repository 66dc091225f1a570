//! Proxies, just enough of them: HTTP CONNECT and SOCKS5, with a user and a password, and a note of
//! what they were asked for.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign_agent::egress::{Egress, Proxy, ProxyCredentials};
use countersign_shared::tasks::Tasks;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::TcpStream,
};

use super::{bench::loopback, receiver::Receiver};

pub(crate) const USER: &str = "agent";
pub(crate) const PASSWORD: &str = "hunter2:x";

/// What a proxy was asked for, in order.
pub(crate) type Asked = Arc<Mutex<Vec<String>>>;

/// A running proxy.
pub(crate) struct StandIn {
    pub(crate) url: String,
    pub(crate) asked: Asked,
}

impl StandIn {
    pub(crate) async fn http(tasks: &Tasks) -> Self {
        let asked = Asked::default();
        let note = Arc::clone(&asked);
        let address =
            Receiver::accepting(tasks, move |tcp| serve_http(tcp, Arc::clone(&note))).await;
        let url = format!("http://{address}");
        Self { url, asked }
    }

    pub(crate) async fn socks5(tasks: &Tasks) -> Self {
        let asked = Asked::default();
        let note = Arc::clone(&asked);
        let address =
            Receiver::accepting(tasks, move |tcp| serve_socks5(tcp, Arc::clone(&note))).await;
        let url = format!("socks5://{address}");
        Self { url, asked }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// To loopback through the proxy at `url`.
pub(crate) fn through(url: &str, password: Option<&str>) -> Egress {
    let credentials = password.map(|password| ProxyCredentials {
        user: USER.to_owned().into(),
        password: password.to_owned().into(),
    });
    let address = url.parse().unwrap();
    Egress {
        proxy: Some(Proxy {
            address,
            credentials,
        }),
        ..loopback()
    }
}

async fn relay(mut client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

async fn serve_http(mut tcp: TcpStream, asked: Asked) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap().to_owned();
    asked.lock().unwrap().push(target.clone());
    let credentials = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let known = format!("\r\nProxy-Authorization: Basic {credentials}\r\n");
    if !head.contains(&known) {
        let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
        return tcp.write_all(refusal).await;
    }
    tcp.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await?;
    relay(tcp, target.parse().unwrap()).await
}

async fn serve_socks5(mut tcp: TcpStream, asked: Asked) -> io::Result<()> {
    let mut greeting = [0; 3];
    tcp.read_exact(&mut greeting).await?;
    if greeting != [5, 1, 2] {
        return tcp.write_all(&[5, 0xff]).await;
    }
    tcp.write_all(&[5, 2]).await?;
    assert_eq!(tcp.read_u8().await?, 1);
    let user = text(&mut tcp).await?;
    let password = text(&mut tcp).await?;
    let right = (user.as_str(), password.as_str()) == (USER, PASSWORD);
    tcp.write_all(&[1, u8::from(!right)]).await?;
    let mut request = [0; 4];
    tcp.read_exact(&mut request).await?;
    // Connect to an IPv4 address: a name would be resolved here, by somebody else.
    assert_eq!(request, [5, 1, 0, 1]);
    let address = IpAddr::V4(Ipv4Addr::from(tcp.read_u32().await?));
    let target = SocketAddr::new(address, tcp.read_u16().await?);
    asked.lock().unwrap().push(target.to_string());
    tcp.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    relay(tcp, target).await
}

/// A text with its length before it (RFC 1929).
async fn text(tcp: &mut TcpStream) -> io::Result<String> {
    let mut bytes = vec![0; usize::from(tcp.read_u8().await?)];
    tcp.read_exact(&mut bytes).await?;
    Ok(String::from_utf8(bytes).unwrap())
}
