import { describeHandshakes } from '../support/attacks/handshake-suite.js';
import { callers, grpcJs, intruders, plaintextIntruders, protocolChoosers } from '../support/attacks/intruders.js';
import { stronghold } from '../support/attacks/stronghold.js';
import { forEachLane } from '../support/lanes.js';
import { requireOpenssl } from '../support/openssl.js';

forEachLane((lane) => {
  describe('the handshake of a client', () => {
    requireOpenssl();
    describeHandshakes({
      open: () => stronghold(lane),
      intruders,
      withoutTls: plaintextIntruders,
      wrongProtocols: [[], ['http/1.1'], ['h2c', 'grpc-exp']],
      protocolChoosers,
      usual: grpcJs,
      callers,
    });
  });
});
