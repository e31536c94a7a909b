//! Beside the `h2` crate as client and as server: random bodies, many streams, narrow pipes.

use std::rc::Rc;

use bytes::Bytes;
use fastrand::Rng;
use tokio::io::duplex;
use tokio::task::spawn_local;
use weir_h2::{Config, Fields, RequestLine};

use crate::wire::{Does, run, serve};

const CASES: u64 = 30;
const REQUESTS: usize = 40;

fn body(random: &mut Rng) -> Bytes {
    let len = match random.u8(..4) {
        0 => 0,
        1 => random.usize(1..100),
        2 => random.usize(..20_000),
        _ => random.usize(..200_000),
    };
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

fn config(random: &mut Rng) -> Config {
    Config {
        max_streams: random.usize(1..50),
        stream_window_bytes: random.u32(65_535..200_000),
        connection_window_bytes: random.u32(65_535..400_000),
        ..Config::default()
    }
}

async fn echoed_to_h2(send: h2::client::SendRequest<Bytes>, body: Bytes, trailers: bool) {
    let request = http::Request::post("http://a/path?query").header("x-mine", "1").body(()).unwrap();
    let mut send = send.ready().await.unwrap();
    let (response, mut stream) = send.send_request(request, body.is_empty() && !trailers).unwrap();
    if !body.is_empty() {
        stream.send_data(body.clone(), !trailers).unwrap();
    }
    if trailers {
        let mut fields = http::HeaderMap::new();
        fields.insert("checksum", body.len().into());
        stream.send_trailers(fields).unwrap();
    }
    let (head, mut received) = response.await.unwrap().into_parts();
    assert_eq!((head.status.as_u16(), head.headers["x-path"].as_bytes()), (200, &b"/path?query"[..]));
    let mut back = Vec::new();
    while let Some(data) = received.data().await {
        let data = data.unwrap();
        received.flow_control().release_capacity(data.len()).unwrap();
        back.extend_from_slice(&data);
    }
    assert!(back == body, "{} of {} bytes", back.len(), body.len());
    let told = received.trailers().await.unwrap().map(|fields| fields["checksum"].to_str().unwrap().to_owned());
    assert_eq!(told, trailers.then(|| body.len().to_string()));
}

#[test]
fn a_client_of_another_make() {
    for seed in 0..CASES {
        let mut random = Rng::with_seed(seed);
        let (near, far) = duplex(random.usize(100..100_000));
        let config = config(&mut random);
        run(async move {
            let server = spawn_local(serve(weir_h2::accept(far, config), Does::Echo));
            let (window, frame) = (random.u32(1000..100_000), random.u32(16_384..60_000));
            let mut builder = h2::client::Builder::new();
            builder.initial_window_size(window).max_frame_size(frame).initial_connection_window_size(70_000);
            let (send, connection) = builder.handshake::<_, Bytes>(near).await.unwrap();
            let connection = spawn_local(connection);
            let asked: Vec<_> = (0..REQUESTS)
                .map(|_| spawn_local(echoed_to_h2(send.clone(), body(&mut random), random.bool())))
                .collect();
            for asked in asked {
                asked.await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            }
            drop(send);
            connection.await.unwrap().unwrap();
            server.await.unwrap();
        });
    }
}

async fn echo_by_h2(request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let (parts, mut body) = request.into_parts();
    let response = http::Response::builder().header("x-path", parts.uri.path()).body(()).unwrap();
    let mut stream = respond.send_response(response, false).unwrap();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        stream.send_data(data, false).unwrap();
    }
    match body.trailers().await.unwrap() {
        Some(trailers) => stream.send_trailers(trailers).unwrap(),
        None => stream.send_data(Bytes::new(), true).unwrap(),
    }
}

async fn echoed_by_h2(send: Rc<weir_h2::SendRequest>, body: Bytes, trailers: bool) {
    let content_length = (!trailers).then_some(body.len() as u64);
    let line = RequestLine { method: "POST", scheme: "http", authority: "a", path: "/path", content_length };
    let (mut sending, mut receiving) = send.send(&line, &Fields::new(), body.is_empty() && !trailers).unwrap();
    let upload = async {
        if !body.is_empty() {
            sending.data(body.clone(), !trailers).await.unwrap();
        }
        if trailers {
            let mut fields = Fields::new();
            fields.append("checksum", body.len().to_string());
            sending.trailers(&fields).unwrap();
        }
    };
    let download = async {
        let head = receiving.head().await.unwrap();
        assert_eq!((head.status(), head.fields.get("x-path")), (200, Some(&b"/path"[..])));
        let mut back = Vec::new();
        while let Some(data) = receiving.data().await {
            back.extend_from_slice(&data.unwrap());
        }
        assert!(back == body, "{} of {} bytes", back.len(), body.len());
        let told = receiving.trailers().await.unwrap();
        let told = told.map(|fields| fields.get("checksum").unwrap().to_vec());
        assert_eq!(told, trailers.then(|| body.len().to_string().into_bytes()));
        assert!(receiving.is_end_stream());
    };
    tokio::join!(upload, download);
}

#[test]
fn a_server_of_another_make() {
    for seed in 0..CASES {
        let mut random = Rng::with_seed(seed);
        let (near, far) = duplex(random.usize(100..100_000));
        let config = config(&mut random);
        run(async move {
            let mut builder = h2::server::Builder::new();
            builder.max_concurrent_streams(random.u32(1..30)).initial_window_size(random.u32(1000..100_000));
            spawn_local(async move {
                let mut connection = builder.handshake::<_, Bytes>(far).await.unwrap();
                while let Some(accepted) = connection.accept().await {
                    let (request, respond) = accepted.expect("our client keeps to the rules");
                    spawn_local(echo_by_h2(request, respond));
                }
            });
            let (send, connection) = weir_h2::connect(near, config);
            let connection = spawn_local(connection);
            // From now on we know how many streams it takes at a time.
            send.ping().await.unwrap();
            let send = Rc::new(send);
            let asked: Vec<_> = (0..REQUESTS)
                .map(|_| spawn_local(echoed_by_h2(send.clone(), body(&mut random), random.bool())))
                .collect();
            for asked in asked {
                asked.await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            }
            send.ping().await.unwrap();
            drop(send);
            connection.await.unwrap().unwrap();
        });
    }
}

#[test]
fn a_server_that_goes_finishes_what_it_was_asked() {
    let (near, far) = duplex(10_000);
    run(async move {
        let (send, connection) = h2::client::handshake(near).await.unwrap();
        let connection = spawn_local(connection);
        let mut server = weir_h2::accept(far, Config::default());
        let (response, _) =
            send.ready().await.unwrap().send_request(http::Request::get("http://a/").body(()).unwrap(), true).unwrap();
        let mut request = std::future::poll_fn(|cx| server.poll_accept(cx)).await.unwrap().unwrap();
        server.graceful_shutdown();
        let serving = spawn_local(serve(server, Does::Echo));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert!(!serving.is_finished() && !connection.is_finished());
        request.respond.send_head(200, &Fields::new(), true).unwrap();
        drop(request);
        assert_eq!(response.await.unwrap().status().as_u16(), 200);
        connection.await.unwrap().unwrap();
        serving.await.unwrap();
    });
}

/// Streams that are let go at any time leave nothing behind.
#[test]
fn streams_that_are_let_go_do_not_disturb_the_others() {
    for seed in 0..CASES {
        let mut random = Rng::with_seed(seed);
        let (near, far) = duplex(random.usize(100..50_000));
        let config = config(&mut random);
        run(async move {
            let server = spawn_local(serve(weir_h2::accept(far, config), Does::Echo));
            let (send, connection) = weir_h2::connect(near, self::config(&mut random));
            let connection = spawn_local(connection);
            let send = Rc::new(send);
            let mut asked = Vec::new();
            for _ in 0..REQUESTS {
                let task = spawn_local(echoed(send.clone(), body(&mut random)));
                if random.bool() {
                    for _ in 0..random.u8(..10) {
                        tokio::task::yield_now().await;
                    }
                    task.abort();
                } else {
                    asked.push(task);
                }
            }
            for asked in asked {
                asked.await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            }
            drop(send);
            connection.await.unwrap().unwrap();
            server.await.unwrap();
        });
    }
}

async fn echoed(send: Rc<weir_h2::SendRequest>, body: Bytes) {
    let line = RequestLine { method: "PUT", scheme: "http", authority: "a", path: "/", content_length: None };
    let (mut sending, mut receiving) = send.send(&line, &Fields::new(), false).unwrap();
    let upload = async { sending.data(body.clone(), true).await.unwrap() };
    let download = async {
        assert_eq!(receiving.head().await.unwrap().status(), 200);
        let mut back = Vec::new();
        while let Some(data) = receiving.data().await {
            back.extend_from_slice(&data.unwrap());
        }
        assert!(back == body, "{} of {} bytes", back.len(), body.len());
    };
    tokio::join!(upload, download);
}
