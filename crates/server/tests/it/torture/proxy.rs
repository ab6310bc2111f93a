//! A line that can be cut: a TCP proxy between devices and server, outside of TLS, whose far end can move.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// What the connections and their owner share.
#[derive(Default)]
struct State {
    target: Mutex<String>,
    lines: Mutex<Vec<Line>>,
}

/// One connection through the proxy.
#[derive(Clone, Default)]
struct Line {
    cut: CancellationToken,
    strand: CancellationToken,
    ended: CancellationToken,
}

/// The proxy; it ends when dropped, and so do its connections.
pub struct Proxy {
    /// Where devices connect to.
    pub address: SocketAddr,
    state: Arc<State>,
    _runtime: Runtime,
}

impl Proxy {
    /// In front of `target` (`host:port`).
    pub fn start(target: &str) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        target.clone_into(&mut state.target.lock().unwrap());
        let shared = Arc::clone(&state);
        runtime.spawn(async move {
            while let Ok((device, _)) = listener.accept().await {
                let line = Line::default();
                let target = shared.target.lock().unwrap().clone();
                let mut lines = shared.lines.lock().unwrap();
                lines.retain(|line| !line.ended.is_cancelled());
                lines.push(line.clone());
                drop(lines);
                tokio::spawn(carry(device, target, line));
            }
        });
        Proxy { address, state, _runtime: runtime }
    }

    /// Connections from now on go there.
    pub fn retarget(&self, target: &str) {
        target.clone_into(&mut self.state.target.lock().unwrap());
    }

    /// Cuts the connections that `which` picks by their number; both ends notice. Gives how many.
    pub fn cut(&self, which: impl FnMut(usize) -> bool) -> usize {
        self.each(which, |line| &line.cut)
    }

    /// Lets the device notice that its connection broke, and the server not: its socket stays open and silent.
    pub fn strand(&self, which: impl FnMut(usize) -> bool) -> usize {
        self.each(which, |line| &line.strand)
    }

    fn each(&self, mut which: impl FnMut(usize) -> bool, how: impl Fn(&Line) -> &CancellationToken) -> usize {
        let lines = self.state.lines.lock().unwrap();
        let living = lines.iter().filter(|line| !line.ended.is_cancelled() && !line.strand.is_cancelled());
        let chosen: Vec<&Line> =
            living.enumerate().filter(|(number, _)| which(*number)).map(|(_, line)| line).collect();
        chosen.iter().for_each(|line| how(line).cancel());
        chosen.len()
    }
}

async fn carry(mut device: TcpStream, target: String, line: Line) {
    let _ended = line.ended.clone().drop_guard();
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let (_, _) = (device.set_nodelay(true), server.set_nodelay(true));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut device, &mut server) => return,
        () = line.cut.cancelled() => return,
        () = line.strand.cancelled() => {}
    }
    drop(device);
    // As a router that forgot the connection: nothing comes, and nothing says so.
    line.cut.cancelled().await;
    drop(server);
}
