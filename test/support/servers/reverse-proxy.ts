/** A proxy of others in front of a gateway, in plain text, with connections that it keeps and shares between clients. */
export interface ReverseProxy extends AsyncDisposable {
  readonly port: number;
  /** Where it speaks HTTP/2, and passes requests on by HTTP/1.1. */
  readonly http2Port: number;
}

export interface ReverseProxyOptions {
  /** Port of the gateway on this machine. */
  readonly upstreamPort: number;
  /** PEM file that signs the gateway's certificate. */
  readonly ca: string;
  /** The name it is asked for, and must show. */
  readonly host: string;
}
