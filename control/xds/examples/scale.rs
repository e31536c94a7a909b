//! How long an endpoint change takes to reach everybody: instances of one app in a memory store, delta streams of its
//! callers over loopback, each on its own connection, all in one process. Prints the time from the write to the last stream's response.
//!
//! `cargo run --release -p weir-xds --example scale -- [INSTANCES] [STREAMS] [CHANGES]` (default 10000 500 5)

use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::Streaming;
use tonic::transport::{Channel, Server};
use weir_model::instance::InstancePhase;
use weir_model::{Author, Instance, InstanceSpec};
use weir_store::memory::MemoryStore;
use weir_store::observed::Observed;
use weir_store::{SharedStore, typed};
use weir_xds::{Options, Xds, anyone};

const EDS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<usize> = std::env::args().skip(1).map(|a| a.parse()).collect::<Result<_, _>>()?;
    let argument = |at: usize, default| arguments.get(at).copied().unwrap_or(default);
    let (instances, streams, changes) = (argument(0, 10_000), argument(1, 500), argument(2, 5));
    let store = MemoryStore::new().shared();
    for number in 0..instances {
        create(&store, number).await?;
    }
    let (_shutdown, down) = watch::channel(false);
    let address = serve(store.clone(), down).await?;
    let begun = Instant::now();
    let mut callers = Vec::new();
    for number in 0..streams {
        let channel = Channel::from_shared(address.clone())?.connect().await?;
        callers.push(Caller::open(channel, number).await?);
    }
    let bytes = receive_all(&mut callers).await?;
    println!("first answers: {streams} streams of {bytes} bytes each in {:?}", begun.elapsed());
    for change in 0..changes {
        let begun = Instant::now();
        toggle(&store, change).await?;
        let written = begun.elapsed();
        let bytes = receive_all(&mut callers).await?;
        println!(
            "change {change}: written in {written:?}, at all {streams} streams in {:?} ({bytes} bytes each)",
            begun.elapsed()
        );
    }
    Ok(())
}

struct Caller {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Caller {
    async fn open(channel: Channel, number: usize) -> Result<Caller, Failure> {
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(64 << 20);
        let (requests, queue) = mpsc::channel(4);
        let node = Node { id: format!("caller-{number}"), cluster: "front".to_owned(), ..Default::default() };
        let request = DeltaDiscoveryRequest {
            node: Some(node),
            type_url: EDS.to_owned(),
            resource_names_subscribe: vec!["stock".to_owned()],
            ..Default::default()
        };
        requests.send(request).await?;
        let responses = client.delta_aggregated_resources(ReceiverStream::new(queue)).await?.into_inner();
        Ok(Caller { requests, responses })
    }

    /// Takes the next response, acknowledges it, and says how long its resource is.
    async fn receive(&mut self) -> Result<usize, Failure> {
        let response = self.responses.message().await?.ok_or("the stream ended")?;
        let acknowledgement = DeltaDiscoveryRequest {
            type_url: EDS.to_owned(),
            response_nonce: response.nonce.clone(),
            ..Default::default()
        };
        self.requests.send(acknowledgement).await?;
        Ok(response.resources.iter().filter_map(|r| r.resource.as_ref()).map(|any| any.value.len()).sum())
    }
}

/// All at once: a connection whose streams are not all read stands still.
async fn receive_all(callers: &mut [Caller]) -> Result<usize, Failure> {
    let received = futures::future::try_join_all(callers.iter_mut().map(Caller::receive)).await?;
    Ok(received.into_iter().max().unwrap_or(0))
}

async fn serve(store: SharedStore, down: watch::Receiver<bool>) -> Result<String, Failure> {
    let xds = Xds::new(store, Arc::new(Observed::default()), anyone(), Options::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let service = xds.service();
    tokio::spawn(async move { xds.run(down).await });
    let keepalive = Some(Duration::from_secs(30));
    let server = Server::builder().http2_keepalive_interval(keepalive).add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Ok(address)
}

fn name(number: usize) -> String {
    format!("stock-{number}")
}

async fn create(store: &SharedStore, number: usize) -> Result<(), Failure> {
    let address = std::net::Ipv4Addr::from(0x0a00_0000 + u32::try_from(number)?);
    let spec: InstanceSpec = serde_json::from_value(serde_json::json!({
        "app": "stock", "unit": format!("u{}", number % 4), "zone": format!("z{}", number % 3),
        "managedBy": "Weir", "address": address, "port": 8000, "appVersion": "1",
    }))?;
    typed::create(&**store, &Instance::new(name(number), spec), &Author::new("example", "scale")).await?;
    set(store, number, InstancePhase::Serving).await
}

/// Takes an instance out, or puts it back.
async fn toggle(store: &SharedStore, change: usize) -> Result<(), Failure> {
    let phase = if change.is_multiple_of(2) { InstancePhase::Failed } else { InstancePhase::Serving };
    set(store, 0, phase).await
}

async fn set(store: &SharedStore, number: usize, phase: InstancePhase) -> Result<(), Failure> {
    let change = |instance: &mut Instance| {
        instance.status.phase = phase;
        true
    };
    typed::modify_status::<InstanceSpec>(&**store, &name(number), change).await?;
    Ok(())
}
