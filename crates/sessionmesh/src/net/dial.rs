//! A connection that this node makes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::host::TcpStream;
use sessionmesh_core::membership::{DialFailure, LinkId};
use sessionmesh_core::wire::Hello;

use super::handshake::{Dialed, Failed, greet};
use super::link;
use crate::control::Input;
use crate::events::fault;
use crate::mesh::Mesh;

/// How long a connection may take to be made.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

pub(crate) async fn dial(mesh: Arc<Mesh>, address: SocketAddr, id: LinkId, hello: Hello) {
    // Without a secret nothing leaves this host, whatever a name may have been resolved to.
    if mesh.config.insecure && !address.ip().is_loopback() {
        fault(&mesh, "not dialed", "insecure = true, and the address is not on loopback", &address);
        mesh.tell(Input::DialFailed(address, DialFailure::Stranger));
        return;
    }
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            mesh.tell(Input::DialFailed(address, DialFailure::Refused));
            return;
        }
        Ok(Err(_)) | Err(_) => {
            mesh.tell(Input::DialFailed(address, DialFailure::Silent));
            return;
        }
    };
    let dialed = Dialed { link: id, address, hello };
    match greet(&mesh, stream, Some(dialed), &mut None).await {
        Ok(greeted) => {
            link::run(&mesh, greeted).await;
            mesh.tell(Input::LinkClosed { link: id, dialed: None, refusal: None });
        }
        // Who is called has no reason to ask.
        Err(Failed::Stranger | Failed::Probe) => {
            mesh.tell(Input::LinkClosed { link: id, dialed: None, refusal: None });
            mesh.tell(Input::DialFailed(address, DialFailure::Stranger));
        }
        Err(Failed::Refused(refusal)) => {
            mesh.tell(Input::LinkClosed { link: id, dialed: Some(address), refusal });
        }
    }
}
