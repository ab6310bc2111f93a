//! The bounds of the MQTT endpoint, each with its unit and its reason.

use std::time::Duration;

use pipeline::intake::FRAME_LIMIT_BYTES;

/// Connections at one time, in all states. One process must fit its descriptors and buffers; a larger
/// fleet is spread over several nodes behind a balancer.
pub const MAX_CONNECTIONS: usize = 5_000;

/// Time for the TLS handshake. Two slow mobile round trips and a slow certificate check fit; an idle
/// socket does not hold a place for long.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time from the end of the handshake to a complete CONNECT, for the same reason.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for one whole packet from its first byte: a largest packet over a link of 10 kB/s.
pub const PACKET_TIMEOUT: Duration = Duration::from_secs(120);

/// Time for the client to take what was written. Acknowledgements are a few bytes: a client that does
/// not read them for so long is gone.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time that commits under way have at the end of a connection, to be acknowledged or at least noted.
/// A commit takes milliseconds; seconds mean that storage is in trouble.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for which a message that has to give way to more urgent ones is held, and the socket not read, where the client
/// cannot be told to come again (version 3.1.1, QoS 0). Then the connection ends: the client has the message still, and
/// a held connection holds back its alarms too.
pub const HOLD: Duration = Duration::from_secs(30);

/// TLS handshakes at one time, from the client's first byte on. Each costs some milliseconds of a processor in all; in a
/// storm of reconnects the others wait for their turn, so that devices that are connected are served between them.
pub const MAX_HANDSHAKES: usize = 128;

/// Time that a second connection of a client waits for the first to end: its drain, and a little more.
pub const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(15);

/// Time for reading and discarding what a refused client still sends, so that our last packet is not
/// destroyed by a connection reset before the client reads it.
pub const LINGER: Duration = Duration::from_secs(1);

/// Pause after an error of `accept` (no descriptors left): long enough not to spin, short enough not to
/// be noticed.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Header, topic and properties around a largest frame, in bytes.
pub const PACKET_OVERHEAD_BYTES: usize = 4 << 10;

/// Largest packet taken, in bytes: a largest frame and its header. Announced to MQTT 5 clients; a larger
/// one ends the connection before its body is buffered.
pub const MAX_PACKET_BYTES: usize = FRAME_LIMIT_BYTES + PACKET_OVERHEAD_BYTES;

/// Messages of one connection that wait for their commit; the socket is not read while so many do. Also
/// the Receive Maximum announced to MQTT 5 clients. One group commit takes some milliseconds, so this
/// carries several thousand messages a second from one connection.
pub const RECEIVE_MAXIMUM: u16 = 64;

/// Bytes of one connection that wait for their commit: one largest frame, or many usual ones. The socket
/// is not read while more wait.
pub const MAX_IN_FLIGHT_BYTES: usize = FRAME_LIMIT_BYTES;

/// QoS 2 messages of one client that are received and not yet released. MQTT 3.1.1 has no Receive
/// Maximum; a client that never releases is broken, and each kept id costs memory for a whole session.
pub const MAX_UNRELEASED: usize = 1_024;

/// Bytes read from the socket at a time while a packet is under way: one TLS record.
pub const READ_CHUNK_BYTES: usize = 16 << 10;

/// Bytes that a quiet connection keeps ready to read into: most messages fit, and thousands of connections are quiet.
pub const QUIET_CHUNK_BYTES: usize = 2 << 10;

/// A connection's input that has grown larger is given back when it is empty.
pub const KEPT_INPUT_BYTES: usize = 64 << 10;

/// A packet of more bytes than this is large: its connection needs room for it before the rest of it is read.
pub const LARGE_PACKET_BYTES: usize = 64 << 10;

/// Bytes of large packets that all connections together may be reading or waiting to hand over: a hundred largest
/// frames. Without it, thousands of connections could each hold one.
pub const LARGE_ROOM_BYTES: usize = 128 << 20;

/// Longest topic, in bytes; ours have fewer than 80.
pub const MAX_TOPIC_BYTES: usize = 256;

/// Most user properties of one packet; we use none of them.
pub const MAX_USER_PROPERTIES: usize = 32;

/// Topic aliases that an MQTT 5 client may use: one a kind of frame.
pub const TOPIC_ALIAS_MAXIMUM: u16 = 16;

/// Most filters in one SUBSCRIBE or UNSUBSCRIBE; only one filter exists for a device.
pub const MAX_FILTERS: usize = 16;

/// Longest keep-alive that we choose, in seconds: for clients that ask for none (0), and the most that an
/// MQTT 5 client is granted. A lost link must show within minutes, and mobile networks forget a quiet
/// connection after about five. MQTT 3.1.1 clients keep what they ask for, for they cannot be told.
pub const MAX_KEEP_ALIVE_S: u16 = 300;

/// Longest that a session outlives its connection, in seconds (one day): a night without a network.
pub const MAX_SESSION_EXPIRY_S: u32 = 86_400;

/// Sessions kept without a connection. The one without for longest gives way.
pub const MAX_SESSIONS: usize = 10_000;

/// Commands sent to a device and not yet acknowledged by it. They wait in their queue beyond that.
pub const MAX_COMMANDS_IN_FLIGHT: usize = 16;

/// Longest client id, in bytes: a name and a suffix. The specification demands 23 [MQTT-3.1.3-5].
pub const MAX_CLIENT_ID_BYTES: usize = 128;

/// Longest part of a refused topic that is logged, in characters: enough to see the mistake.
pub const MAX_LOGGED_TOPIC_CHARS: usize = 80;

/// How often a quiet connection's certificate is looked at again (a busy one's before each message): a revoked
/// device must be gone within seconds, and thousands of looks a second cost nothing.
pub const RECHECK_ADMISSION: Duration = Duration::from_secs(1);
