// Leads connections to `….execute-api.REGION.amazonaws.com:443` to HUBBUB_EXECUTE_API, `host:port`, where that is set.
//
// Node.js takes no notice of HTTPS_PROXY. The name that TLS asks for and checks stays what the code said, so the
// certificate there must be for it, and of an authority in NODE_EXTRA_CA_CERTS.

import net from "node:net";

const ADDRESS = /^(.+):(\d+)$/.exec(process.env.HUBBUB_EXECUTE_API ?? "");
const NAMES = /\.execute-api\.[a-z0-9-]+\.amazonaws\.com(\.cn)?$/i;

if (ADDRESS) {
  const connect = net.Socket.prototype.connect; // what net, tls, http2 and fetch all come down to
  net.Socket.prototype.connect = function (...given) {
    // Either (options, …), or one array of the same, as net.connect and tls.connect pass it on.
    const passed = Array.isArray(given[0]) ? given[0] : given;
    if (typeof passed[0] === "object" && isMeant(passed[0])) {
      passed[0] = { ...passed[0], host: ADDRESS[1], port: Number(ADDRESS[2]), path: undefined, lookup: undefined };
    }
    return connect.apply(this, given);
  };
}

function isMeant(options) {
  return Number(options.port) === 443 && NAMES.test(options.host ?? "");
}
