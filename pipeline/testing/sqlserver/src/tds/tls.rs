//! TLS as TDS 7.4 has it: the handshake travels within packets of the first words, what follows does not.
//!
//! The certificate authority and the certificate are made when the server starts; a client that verifies is given the
//! authority's. TLS 1.2 is what is wrapped, as by SQL Server; TLS 1.3 is for connections that begin with it (TDS 8.0).

use super::packet::{HEADER_BYTES, PACKET_BYTES_DEFAULT, frame, kind};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::io::{Error, ErrorKind, Result};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ServerConfig, SupportedProtocolVersion};

/// What the server shows to its clients.
#[derive(Clone)]
pub struct Identity {
    /// The authority's certificate, for clients that verify.
    pub ca_pem: String,
    wrapped: Arc<ServerConfig>,
    strict: Arc<ServerConfig>,
}

impl Identity {
    /// Makes an authority, and a certificate for `localhost`, the loopback addresses and this address.
    ///
    /// # Errors
    /// The keys cannot be made.
    pub fn make(address: IpAddr) -> Result<Self> {
        let mut authority = CertificateParams::new(Vec::new()).map_err(Error::other)?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        authority.distinguished_name.push(DnType::CommonName, "SmartPulse stand-in, not for production");
        let authority_key = KeyPair::generate().map_err(Error::other)?;
        let ca_pem = authority.self_signed(&authority_key).map_err(Error::other)?.pem();
        let issuer = Issuer::new(authority, authority_key);

        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        if !address.is_unspecified() && !address.is_loopback() {
            names.push(address.to_string());
        }
        let mut leaf = CertificateParams::new(names).map_err(Error::other)?;
        leaf.distinguished_name.push(DnType::CommonName, "localhost");
        leaf.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(Error::other)?;
        let certificate = leaf.signed_by(&key, &issuer).map_err(Error::other)?;

        let config = |version: &'static SupportedProtocolVersion| -> Result<ServerConfig> {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[version])
                .map_err(Error::other)?
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)
                .map_err(Error::other)
        };
        let wrapped = Arc::new(config(&TLS12)?);
        let mut strict = config(&TLS13)?;
        strict.alpn_protocols = vec![b"tds/8.0".to_vec()];
        Ok(Identity { ca_pem, wrapped, strict: Arc::new(strict) })
    }

    /// For handshakes within packets.
    pub fn wrapped(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.wrapped.clone())
    }

    /// For connections that begin with TLS.
    pub fn strict(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.strict.clone())
    }
}

/// A stream whose bytes travel within packets until the handshake is over.
#[derive(Debug)]
pub struct Wrapped<S> {
    io: S,
    wrapping: bool,
    header: Vec<u8>,
    left: usize,
    written: Vec<u8>,
    framed: Vec<u8>,
}

impl<S> Wrapped<S> {
    /// Of this stream.
    pub fn new(io: S) -> Self {
        Wrapped { io, wrapping: true, header: Vec::new(), left: 0, written: Vec::new(), framed: Vec::new() }
    }

    /// The handshake is over.
    pub fn unwrap(&mut self) {
        self.wrapping = false;
    }

    /// The stream itself.
    pub fn into_inner(self) -> S {
        self.io
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wrapped<S> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let written = std::mem::take(&mut self.written);
        let parts: Vec<&[u8]> = written.chunks(PACKET_BYTES_DEFAULT - HEADER_BYTES).collect();
        for (number, part) in parts.iter().enumerate() {
            let last = u8::from(number + 1 == parts.len());
            frame(&mut self.framed, kind::PRELOGIN, last, 0, number as u8 + 1, part);
        }
        while !self.framed.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.framed))?;
            if sent == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.framed.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool>> {
        while self.header.len() < HEADER_BYTES {
            let mut bytes = [0; HEADER_BYTES];
            let mut into = ReadBuf::new(&mut bytes[self.header.len()..]);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut into))?;
            if into.filled().is_empty() {
                return Poll::Ready(Ok(false));
            }
            self.header.extend_from_slice(into.filled());
        }
        let length = usize::from(u16::from_be_bytes([self.header[2], self.header[3]]));
        if self.header[0] != kind::PRELOGIN || length < HEADER_BYTES {
            let text = "a TLS handshake has to travel within packets of kind 18";
            return Poll::Ready(Err(Error::new(ErrorKind::InvalidData, text)));
        }
        self.left = length - HEADER_BYTES;
        self.header.clear();
        Poll::Ready(Ok(true))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wrapped<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if !this.wrapping {
            return Pin::new(&mut this.io).poll_read(cx, into);
        }
        ready!(this.poll_send(cx))?;
        while this.left == 0 {
            if !ready!(this.poll_header(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
        let most = into.remaining().min(this.left);
        let mut part = into.take(most);
        ready!(Pin::new(&mut this.io).poll_read(cx, &mut part))?;
        let bytes = part.filled().len();
        this.left -= bytes;
        let filled = into.filled().len() + bytes;
        into.initialize_unfilled_to(bytes);
        into.set_filled(filled);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wrapped<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        if !this.wrapping {
            return Pin::new(&mut this.io).poll_write(cx, bytes);
        }
        this.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if this.wrapping {
            ready!(this.poll_send(cx))?;
        }
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
