//! A small TCP balancer, outside of TLS: new connections go round the nodes that can be reached.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

#[derive(Default)]
struct State {
    targets: Mutex<Vec<String>>,
    next: AtomicUsize,
}

/// It ends when dropped, and so do its connections.
pub struct Balancer {
    /// Where clients connect to.
    pub address: SocketAddr,
    state: Arc<State>,
    _runtime: Runtime,
}

impl Balancer {
    /// In front of these (`host:port`).
    pub fn start(targets: Vec<String>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { targets: Mutex::new(targets), next: AtomicUsize::new(0) });
        let shared = Arc::clone(&state);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, Arc::clone(&shared)));
            }
        });
        Balancer { address, state, _runtime: runtime }
    }

    /// A node has come back at another address.
    pub fn retarget(&self, node: usize, target: String) {
        self.state.targets.lock().unwrap()[node] = target;
    }
}

async fn carry(mut client: TcpStream, state: Arc<State>) {
    let targets = state.targets.lock().unwrap().clone();
    let first = state.next.fetch_add(1, Ordering::Relaxed);
    for turn in 0..targets.len() {
        let target = &targets[(first + turn) % targets.len()];
        // A node that is dead refuses at once; the next one gets the connection.
        if let Ok(mut node) = TcpStream::connect(target).await {
            let _ = (client.set_nodelay(true), node.set_nodelay(true));
            let _ = tokio::io::copy_bidirectional(&mut client, &mut node).await;
            return;
        }
    }
}
