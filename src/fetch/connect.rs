//! How connections are made: directly or through a proxy, and with one TLS configuration for all of them.
//!
//! ureq makes a TLS configuration anew for every connection of a request that has limits of its own, as all of ours have. That
//! would parse every certificate of the system each time, and forget the sessions that a server is willing to resume.

use ureq::unversioned::transport::{
    ConnectProxyConnector, ConnectionDetails, Connector, RustlsConnector, TcpConnector, Transport,
};

/// Makes connections for one agent, whose TLS settings never change.
pub fn connector() -> impl Connector {
    ().chain(ConnectProxyConnector::default())
        .chain(TcpConnector::default())
        .chain(OneTls(RustlsConnector::default()))
}

#[derive(Debug)]
struct OneTls(RustlsConnector);

impl<In: Transport> Connector<In> for OneTls {
    type Out = <RustlsConnector as Connector<In>>::Out;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let details = ConnectionDetails {
            uri: details.uri,
            addrs: details.addrs.clone(),
            config: details.config,
            // The configuration of the agent, which is kept.
            request_level: false,
            resolver: details.resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        self.0.connect(&details, chained)
    }
}
