//! Live waveforms over a real WebSocket: only theirs, in order, gaps told, and a slow reader costs the others nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clinical_model::{RecordId as _, Timestamp};
use store::AuditQuery;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::clinic::{Clinic, START_S, bed, eventually, monitor, patient, ward};
use crate::kept::Refusing;

/// A WebSocket client, just enough of RFC 6455 for what the server sends.
struct Socket {
    stream: TcpStream,
}

/// One message of the server.
#[derive(Debug)]
enum Message {
    Text(serde_json::Value),
    Block { flags: u8, channel: u32, start_us: i64, count: usize },
    Closed,
}

impl Socket {
    async fn open(address: std::net::SocketAddr, cookie: &str) -> Socket {
        let (socket, head) = Self::ask(address, cookie, &format!("http://{address}")).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        socket
    }

    async fn ask(address: std::net::SocketAddr, cookie: &str, origin: &str) -> (Socket, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET /api/v1/live/waveforms HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nCookie: {cookie}\r\n\
             Origin: {origin}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        (Socket { stream }, String::from_utf8(head).unwrap())
    }

    /// Clients mask; a mask of zeros leaves the text as it is.
    async fn say(&mut self, text: &str) {
        let mut frame = vec![0x81, 0x80 | 126];
        frame.extend((text.len() as u16).to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        self.stream.write_all(&frame).await.unwrap();
    }

    async fn next(&mut self) -> Message {
        tokio::time::timeout(Duration::from_secs(20), self.read()).await.expect("a message")
    }

    async fn read(&mut self) -> Message {
        let Ok(first) = self.stream.read_u8().await else { return Message::Closed };
        let length = match self.stream.read_u8().await.unwrap() {
            126 => usize::from(self.stream.read_u16().await.unwrap()),
            127 => usize::try_from(self.stream.read_u64().await.unwrap()).unwrap(),
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.unwrap();
        match first & 0x0F {
            1 => Message::Text(serde_json::from_slice(&payload).unwrap()),
            2 => Message::Block {
                flags: payload[1],
                count: usize::from(u16::from_le_bytes(payload[2..4].try_into().unwrap())),
                channel: u32::from_le_bytes(payload[4..8].try_into().unwrap()),
                start_us: i64::from_le_bytes(payload[8..16].try_into().unwrap()),
            },
            _ => Message::Closed,
        }
    }

    async fn block(&mut self) -> (u8, i64) {
        loop {
            match self.next().await {
                Message::Block { flags, start_us, count, channel } => {
                    assert!(count > 0 && channel > 0);
                    return (flags, start_us);
                }
                Message::Text(_) => {}
                Message::Closed => panic!("closed"),
            }
        }
    }
}

struct Served {
    address: std::net::SocketAddr,
    _stop: oneshot::Sender<()>,
}

async fn served(clinic: &Clinic) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let web = clinic.web.clone();
    tokio::spawn(async move {
        let _ = web_api::serve_web(listener, web, None, async {
            let _ = stopped.await;
        })
        .await;
    });
    Served { address, _stop: stop }
}

fn block(start_ms: i64, samples: usize) -> String {
    let at = Timestamp::from_millis(START_S * 1_000 - 100_000 + start_ms);
    let bytes = STANDARD.encode(vec![1u8; samples * 2]);
    format!(
        r#"{{"waveform":"ecg_ii","time":"{at}","rate":1000,"unit":"mV","gain":0.005,"offset":0,"samples_base64":"{bytes}"}}"#
    )
}

fn subscription() -> String {
    format!(
        r#"{{"subscribe":[{{"patient_id":"{}","measure":"ecg_ii"}},{{"patient_id":"{}","measure":"ecg_ii"}},
            {{"patient_id":"{}","measure":"heart_rate"}}]}}"#,
        patient(1),
        patient(2),
        patient(1)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_come_in_order_with_gaps_told_and_only_of_their_patients() {
    let clinic = Clinic::furnished();
    let served = served(&clinic).await;
    let cookie = clinic.sign_in("nurse").await;
    let mut socket = Socket::open(served.address, &cookie).await;
    socket.say(&subscription()).await;
    let Message::Text(channels) = socket.next().await else { panic!("no channels") };
    let channels = channels["channels"].as_array().unwrap();
    assert_eq!(channels.len(), 1, "neither the other ward's patient nor what is no waveform: {channels:?}");
    assert_eq!(channels[0]["patient_id"], patient(1).to_string());
    clinic.ingest(monitor(2), &block(0, 100)).await;
    for start_ms in [0, 100, 500, 200] {
        clinic.ingest(monitor(1), &block(start_ms, 100)).await;
    }
    clinic.ingest(monitor(1), &block(600, 100)).await;
    let first = socket.block().await;
    assert_eq!(first.0, 0);
    let after_ms = |start_us: i64| (start_us - first.1) / 1_000;
    let rest: Vec<(u8, i64)> = [socket.block().await, socket.block().await, socket.block().await]
        .into_iter()
        .map(|(flags, start_us)| (flags, after_ms(start_us)))
        .collect();
    assert_eq!(
        rest,
        [(0, 100), (1, 500), (0, 600)],
        "a jump is a gap; what came late is not swept over again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_loses_blocks_is_told_so_and_costs_the_others_nothing() {
    const BLOCKS: i64 = 700;
    let clinic = Clinic::furnished();
    let served = served(&clinic).await;
    let cookie = clinic.sign_in("nurse").await;
    let mut slow = Socket::open(served.address, &cookie).await;
    let mut quick = Socket::open(served.address, &cookie).await;
    for socket in [&mut slow, &mut quick] {
        socket.say(&subscription()).await;
        assert!(matches!(socket.next().await, Message::Text(_)));
    }
    let seen_by_quick = Arc::new(AtomicI64::new(0));
    let counter = Arc::clone(&seen_by_quick);
    let reader = tokio::spawn(async move {
        while counter.load(Ordering::SeqCst) < BLOCKS {
            assert_eq!(quick.block().await.0, 0, "the quick reader loses nothing");
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    // Far more than the bounded queue and the buffers of the connection hold; never further ahead of the quick reader
    // than the hub keeps for it.
    for number in 0..BLOCKS {
        clinic
            .ingest(monitor(1), &block(number * 200, 20_000).replace("\"rate\":1000", "\"rate\":100000"))
            .await;
        eventually("the quick reader keeps up", || {
            number - seen_by_quick.load(Ordering::SeqCst) < 16 || reader.is_finished()
        })
        .await;
    }
    reader.await.unwrap();
    let mut seen = 0;
    let mut told = false;
    loop {
        let (flags, start_us) = slow.block().await;
        seen += 1;
        told |= flags == 1;
        if start_us == Timestamp::from_millis(START_S * 1_000 - 100_000 + (BLOCKS - 1) * 200).as_micros() {
            break;
        }
    }
    assert!(told && seen < BLOCKS, "{seen} of {BLOCKS}, told: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_closes_and_the_end_of_the_session_closes() {
    let clinic = Clinic::furnished();
    let served = served(&clinic).await;
    let cookie = clinic.sign_in("nurse").await;
    let many = format!(r#"{{"subscribe":[{}]}}"#, [r#"{"patient_id":"x","measure":"ecg_ii"}"#; 3].join(","));
    for nonsense in ["{}", "[", "\u{0}", &many] {
        let mut socket = Socket::open(served.address, &cookie).await;
        socket.say(nonsense).await;
        assert!(matches!(socket.next().await, Message::Closed), "{nonsense}");
    }
    let mut socket = Socket::open(served.address, &cookie).await;
    socket.say(&subscription()).await;
    assert!(matches!(socket.next().await, Message::Text(_)));
    clinic.post("/api/v1/sign-out", &cookie, serde_json::json!({})).await;
    assert!(matches!(socket.next().await, Message::Closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_may_not_listen() {
    let clinic = Clinic::furnished();
    let served = served(&clinic).await;
    let cookie = clinic.sign_in("nurse").await;
    for origin in ["http://evil.example", "http://127.0.0.1:1", "null"] {
        let (_, head) = Socket::ask(served.address, &cookie, origin).await;
        assert!(head.starts_with("HTTP/1.1 403"), "{origin}: {head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_are_never_one_curve_and_a_clock_that_ran_ahead_does_not_freeze_it() {
    let clinic = Clinic::furnished();
    let served = served(&clinic).await;
    let cookie = clinic.sign_in("nurse").await;
    let mut device = clinic_model_device(&clinic);
    device.id = monitor(9);
    device.serial = "S9".into();
    clinic.site.add_device(store::Actor::System, device).unwrap();
    let assignment = clinical_model::Assignment {
        id: crate::clinic::assigned(9),
        device: monitor(9),
        subject: clinical_model::Subject::Patient(patient(1)),
        interval: clinical_model::Interval::since(Timestamp::from_seconds(START_S - 3_600)),
    };
    clinic.site.assign(store::Actor::System, assignment).unwrap();
    let mut socket = Socket::open(served.address, &cookie).await;
    socket.say(&subscription()).await;
    assert!(matches!(socket.next().await, Message::Text(_)));
    clinic.ingest(monitor(1), &block(0, 100)).await;
    clinic.ingest(monitor(9), &block(50, 100)).await;
    clinic.ingest(monitor(1), &block(100, 100)).await;
    let first = socket.block().await;
    assert_eq!(socket.block().await, (0, first.1 + 100_000), "the other device is not drawn between them");
    clinic.ingest(monitor(1), &block(300_000, 100)).await;
    clinic.ingest(monitor(1), &block(200, 100)).await;
    assert_eq!(socket.block().await, (1, first.1 + 300_000_000));
    assert_eq!(socket.block().await, (1, first.1 + 200_000), "set right, and drawn again");
}

fn clinic_model_device(clinic: &Clinic) -> clinical_model::Device {
    clinical_model::Device::clone(&clinic.site.registry().device(monitor(1)).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_a_patient_who_is_moved_to_another_ward_sees_no_more_of_them() {
    let clinic = Clinic::furnished();
    let served = served(&clinic).await;
    let cookie = clinic.sign_in("nurse").await;
    let mut socket = Socket::open(served.address, &cookie).await;
    socket.say(&subscription()).await;
    assert!(matches!(socket.next().await, Message::Text(_)));
    clinic.ingest(monitor(1), &block(0, 100)).await;
    let first = socket.block().await.1;
    let move_to = |bed| {
        let mut moved = (*clinic.site.registry().patient(patient(1)).unwrap()).clone();
        moved.place = Some(bed);
        let document =
            clinic.site.store().document(store::Kind::Patient, moved.id.to_bytes()).unwrap().unwrap();
        let change = pipeline::together::PatientChange {
            resource: health_codecs::fhir::patient::render(&moved),
            patient: moved,
            expected: store::Expected::Version(document.version),
        };
        let all = pipeline::together::Together { patients: vec![change], ..Default::default() };
        clinic.site.decide(all).unwrap();
    };
    let elsewhere = clinical_model::Place {
        id: clinical_model::PlaceId::from_bytes([0x66; 16]),
        name: "Bed 66".into(),
        kind: clinical_model::place::PlaceKind::Bed,
        ward: Some(ward(2)),
    };
    move_to(clinic.site.add_place(store::Actor::System, elsewhere).unwrap().id);
    clinic.ingest(monitor(1), &block(100, 100)).await;
    // Told in the order of the commits: when the ward's own screen has it, it has passed the nurse's too.
    let other = clinic.sign_in("nurse 2").await;
    let mut theirs = Socket::open(served.address, &other).await;
    theirs.say(&subscription()).await;
    assert!(matches!(theirs.next().await, Message::Text(_)));
    clinic.ingest(monitor(1), &block(200, 100)).await;
    assert_eq!((theirs.block().await.1 - first) / 1_000, 200);
    move_to(bed(1));
    clinic.ingest(monitor(1), &block(300, 100)).await;
    assert_eq!((socket.block().await.1 - first) / 1_000, 300, "nothing of the time in between");
}

/// A server that was told to stop waited ten seconds for streams that never end by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn live_streams_end_when_the_server_stops() {
    let clinic = Clinic::furnished();
    let cookie = clinic.sign_in("nurse").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let web = clinic.web.clone();
    let serving = tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        web_api::serve_web(listener, web, None, stopped).await
    });
    let mut curves = Socket::open(address, &cookie).await;
    let mut events = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /api/v1/live HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\n\r\n");
    events.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"event: hello") {
        head.push(events.read_u8().await.unwrap());
    }
    stop.send(()).unwrap();
    let soon = Duration::from_secs(5);
    tokio::time::timeout(soon, serving).await.expect("it stops at once").unwrap().unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(soon, events.read_to_end(&mut rest)).await.expect("the stream ends").unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "it ends in order: {}", String::from_utf8_lossy(&rest));
    assert!(matches!(curves.next().await, Message::Closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn curves_that_are_watched_are_a_row_of_the_patient_or_are_not_shown() {
    let refuse = Arc::new(AtomicBool::new(false));
    let also = Arc::clone(&refuse);
    let clinic = Clinic::furnished_over(|kept| Arc::new(Refusing::new(kept, also)));
    let served = served(&clinic).await;
    let cookie = clinic.sign_in("nurse").await;
    let rows = |number| {
        let query = AuditQuery { patient: Some(patient(number)), limit: 100, ..AuditQuery::default() };
        let rows = clinic.site.store().audit_rows(&query).unwrap();
        rows.iter().filter(|row| row.record.object == "live waveforms").count()
    };
    for _ in 0..3 {
        let mut socket = Socket::open(served.address, &cookie).await;
        socket.say(&subscription()).await;
        assert!(matches!(socket.next().await, Message::Text(_)));
        socket.say(&subscription()).await;
        assert!(matches!(socket.next().await, Message::Text(_)));
        assert_eq!((rows(1), rows(2)), (1, 0), "one look, and nobody looked at the other ward's patient");
    }
    clinic.clock.advance(600);
    assert_eq!(clinic.get("/api/v1/wards", &cookie).await.status.as_u16(), 200, "they are still there");
    clinic.clock.advance(300);
    refuse.store(true, Ordering::SeqCst);
    let mut socket = Socket::open(served.address, &cookie).await;
    socket.say(&subscription()).await;
    clinic.ingest(monitor(1), &block(0, 100)).await;
    assert!(matches!(socket.next().await, Message::Closed), "no row, no look");
}
