/** The name of the profile in ALPN (RFC 7301). A change that old peers cannot speak gets another number. */
export const FAST_PROTOCOL = 'sallyport-grpc/1';
