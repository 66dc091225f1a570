//! A wire that breaks on demand: a TCP proxy between two parts of the product, or between an agent and
//! a receiver. It passes bytes on, or cuts every connection, lets them hang, slows them down, or closes
//! one direction of them.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use countersign_shared::tasks::{OnFailure, Tasks};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    sync::watch,
};

/// A running proxy. It stops when it is dropped.
pub struct FaultProxy {
    address: SocketAddr,
    wire: watch::Sender<Wire>,
    _runtime: Runtime,
}

/// How the wire is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Whole.
    Whole,
    /// Cut: connections break, and new ones too.
    Cut,
    /// Nothing gets through; it does when the wire is whole again.
    Hanging,
    /// Whatever comes waits for so long.
    Slow(Duration),
    /// What goes towards the target ends; the other direction goes on. Stays so for the connections
    /// that are open.
    HalfClosed,
}

impl FaultProxy {
    /// Starts one in front of `target`.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(target: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let address = listener.local_addr().expect("its address");
        let (wire, state) = watch::channel(Wire::Whole);
        let (tasks, _) = Tasks::new();
        let accepting = accept(listener, target, state, tasks.clone());
        runtime.block_on(async { tasks.spawn("proxy", OnFailure::Log, accepting) });
        Self {
            address,
            wire,
            _runtime: runtime,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes the wire so, from now on, for all connections.
    ///
    /// # Panics
    /// When the proxy has ended.
    pub fn set(&self, wire: Wire) {
        self.wire.send(wire).expect("a running proxy");
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    wire: watch::Receiver<Wire>,
    tasks: Tasks,
) -> Result<(), io::Error> {
    loop {
        let (stream, _) = listener.accept().await?;
        if *wire.borrow() != Wire::Cut {
            let passing = pass_both(stream, target, wire.clone());
            tasks.spawn("connection", OnFailure::Log, passing);
        }
    }
}

async fn pass_both(
    client: TcpStream,
    target: SocketAddr,
    wire: watch::Receiver<Wire>,
) -> Result<(), Infallible> {
    // A target that is away is as good as a cut wire.
    if let Ok(server) = TcpStream::connect(target).await {
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::join!(
            pass(from_client, to_server, wire.clone(), Wire::HalfClosed),
            pass(from_server, to_client, wire, Wire::Cut),
        );
    }
    Ok(())
}

/// Passes on what comes until it ends, the wire is cut, or it is as `until`.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut wire: watch::Receiver<Wire>,
    until: Wire,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = ends(&mut wire, until) => break,
        };
        let Ok(length @ 1..) = read else { break };
        if !lets_through(&mut wire, until).await || to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown().await;
}

/// Waits until the wire is cut or as `until`.
async fn ends(wire: &mut watch::Receiver<Wire>, until: Wire) {
    // A proxy that is dropped is a wire that is cut.
    let _ = wire
        .wait_for(|now| *now == Wire::Cut || *now == until)
        .await;
}

/// Waits until something may pass; false when nothing will.
async fn lets_through(wire: &mut watch::Receiver<Wire>, until: Wire) -> bool {
    loop {
        let now = *wire.borrow_and_update();
        match now {
            now if now == Wire::Cut || now == until => return false,
            Wire::Hanging => {
                if wire.changed().await.is_err() {
                    return false;
                }
            }
            Wire::Slow(wait) => {
                tokio::time::sleep(wait).await;
                return true;
            }
            _ => return true,
        }
    }
}
