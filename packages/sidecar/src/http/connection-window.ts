/**
 * What may be under way on a connection of HTTP/2, bytes. Left alone it is 64 KiB for all of its streams together (RFC 9113 section
 * 6.9.2), which over any distance is next to nothing. What waits in memory is bounded by the window of each stream.
 */
export const CONNECTION_WINDOW_BYTES = 4 * 1024 * 1024;
