//! The control stream, server side.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tonic::{Request, Response, Status, Streaming};
use weir_proto::control::proxy_control_server::ProxyControl;
use weir_proto::control::{Command, Report};

use crate::Inner;

/// Implements `weir.control.v1.ProxyControl`.
pub struct ControlService {
    inner: Arc<Inner>,
}

impl ControlService {
    pub(crate) fn new(inner: Arc<Inner>) -> ControlService {
        ControlService { inner }
    }
}

#[async_trait::async_trait]
impl ProxyControl for ControlService {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<Command, Status>> + Send>>;

    async fn open(&self, _request: Request<Streaming<Report>>) -> Result<Response<Self::OpenStream>, Status> {
        Err(Status::unavailable("the registry is starting"))
    }
}
