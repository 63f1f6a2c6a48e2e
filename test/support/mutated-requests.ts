/** What is put where it does not belong: parts of the framing of HTTP/1.1, and of paths with two spellings. */
const PIECES = [
  ...['\r\n', '\n', '\r', '\0', ' ', '\t', ':', ';', ',', '\x80'],
  ...['%2e', '..', '//', 'CONNECT ', 'http://y/', '0\r\n\r\n'],
  ...['content-length: 0\r\n', 'transfer-encoding: chunked\r\n'],
];

/** One of the requests, with one to four parts left out, put in or replaced. `below` gives whole numbers at random. */
export function mutatedRequest(
  below: (end: number) => number,
  requests: readonly string[],
  ownPieces: readonly string[] = [],
): string {
  const pieces = [...PIECES, ...ownPieces];
  let text = requests[below(requests.length)] ?? '';
  for (let i = below(4); i >= 0; i--) {
    const at = below(text.length);
    const piece = pieces[below(pieces.length)] ?? '';
    text = text.slice(0, at) + (below(3) > 0 ? piece : '') + text.slice(at + below(2) * (1 + below(5)));
  }
  return text;
}
